"""The whole main job on a virtual lab: what `probebench demo` does, step by step.

Each step is also a command of its own, and is printed as such.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import bias
from harness.corpus import CorpusFiles, prepare_corpus
from harness.errors import ConfigError, GateFailed
from harness.profile import Profile, load_profile
from harness.progress import Progress
from harness.results import RunDir, Trial
from harness.session import Session, open_session, run_name
from harness.sweep import Ledgered, Sweeper
from lab import virtual
from lab.inventory import Inventory, load_inventory

__all__ = ["DemoOptions", "DemoOutcome", "bias_demo", "demo"]

# A load far below any capacity, for the comparison of replay methods.
MODEST_PPS = 15_000.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What can be chosen: the profile, where results go, how long to record and to compare."""

    profile: Path
    lab: str = "demo"
    out: Path | None = None
    record_seconds: float = 12.0
    bias_seconds: float = 4.0
    keep_lab: bool = False


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """Where the run is, and what the sweep did (None: not asked)."""

    run: Path
    sweep: Ledgered | None
    seconds: float


def demo(options: DemoOptions, progress: Progress) -> DemoOutcome:
    """Lab up, record, clean, label, compare replay methods, sweep, lab down.

    The report is left to the caller. Raises what its steps raise; the lab is removed all the same.
    """
    begun = time.monotonic()
    with _corpus_on_a_lab(options, progress, "7") as (run, profile, inventory, files):
        progress.step(
            "5/7", "Calibrate, then compare four ways to replay (demo bias)", "probebench demo bias"
        )
        again = _command(options, run)
        with open_session(profile, inventory, files, run, progress, again) as session:
            sweeper = Sweeper(session, profile)
            loads = sweeper.calibrate()
            bias.run_bias(sweeper, files.raw, _modest(session, loads), options.bias_seconds)
            progress.step(
                "6/7",
                "Sweep the load, over SSH",
                f"probebench sweep {options.profile} --lab {_lab_file(options)} "
                f"--corpus {files.capture.parent} -o {run.path}",
            )
            outcome = sweeper.sweep(loads)
    return DemoOutcome(run.path, outcome, time.monotonic() - begun)


def bias_demo(options: DemoOptions, progress: Progress) -> DemoOutcome:
    """Only the comparison of replay methods, at a modest load."""
    begun = time.monotonic()
    with _corpus_on_a_lab(options, progress, "5") as (run, profile, inventory, files):
        progress.step("5/5", "Compare four ways to replay the same corpus")
        again = _command(options, run, "bias")
        with open_session(profile, inventory, files, run, progress, again) as session:
            bias.run_bias(Sweeper(session, profile), files.raw, MODEST_PPS, options.bias_seconds)
    return DemoOutcome(run.path, None, time.monotonic() - begun)


def _modest(session: Session, loads: tuple[float, ...]) -> float:
    """A packet rate with room below the lowest load of the sweep."""
    lowest = min(loads)
    if session.info.profile["load"]["axis"] == "flows":
        lowest *= session.corpus.packets / session.corpus.flows
    return min(MODEST_PPS, 0.8 * lowest)


def _command(options: DemoOptions, run: RunDir, *group: str) -> tuple[str, ...]:
    words = ("probebench", "demo", *group, "--profile", str(options.profile))
    return (*words, "--name", options.lab, "-o", str(run.path))


def _lab_file(options: DemoOptions) -> Path:
    return virtual.layout(options.lab).directory / "lab.toml"


@contextmanager
def _corpus_on_a_lab(
    options: DemoOptions, progress: Progress, steps: str
) -> Iterator[tuple[RunDir, Profile, Inventory, CorpusFiles]]:
    """Steps 1 to 4: a lab that is up, and a labelled corpus recorded on it."""
    from lab.record import RecordOptions, record

    profile = load_profile(options.profile)
    if options.out is not None and (options.out / "run.json").exists():
        raise ConfigError(f"{options.out}: already holds a run; give another directory")
    try:
        progress.step(
            f"1/{steps}", "Build the virtual lab", f"probebench lab up --name {options.lab}"
        )
        inventory = load_inventory(virtual.up(options.lab))
        run = RunDir(options.out or Path("results") / run_name(profile, inventory))
        where = run.path / "corpus"
        where.mkdir(parents=True, exist_ok=True)
        raw = where / "raw.pcap"
        progress.step(
            f"2/{steps}",
            "Record real applications, from late to early",
            f"probebench lab record --name {options.lab} -o {raw}",
        )
        record(options.lab, raw, RecordOptions(options.record_seconds))
        progress.step(
            f"3/{steps}",
            "Strip half-flows, with a reason for each",
            f"probebench corpus clean {raw} -o {where / 'corpus.pcap'}",
        )
        files = prepare_corpus(raw, where / "corpus.pcap", progress)
        progress.step(
            f"4/{steps}",
            "Label: what Suricata detects at zero load",
            f"probebench corpus label {files.capture} -o {where / 'reference.json'}",
        )
        yield run, profile, inventory, files
    finally:
        if not options.keep_lab:
            virtual.down(options.lab)


def verdict(trials: list[Trial]) -> None:
    """Raise GateFailed when a demo proves nothing: no load without loss, or none with loss."""
    rates = [t.drop_rate for t in trials if t.valid and t.drop_rate is not None]
    if not rates or min(rates) > 0.01:
        raise GateFailed("no load of the sweep was analysed whole: the curve has no beginning")
    if max(rates) < 0.01:
        raise GateFailed(
            "no load of the sweep drove the sensor into loss: this generator is too slow for it; "
            "give the sensor fewer workers or a smaller ring"
        )
