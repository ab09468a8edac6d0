"""`probebench sweep`: detection rate against load."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.corpus import CorpusFiles
    from harness.profile import Profile
    from harness.sweep import Ledgered
    from lab.inventory import Inventory

__all__ = ["register"]

DEFAULT_LAB = Path("/run/probebench/default/lab.toml")


def sweep(
    profile: Annotated[Path, typer.Argument(help="Load profile (TOML); see profiles/.")],
    lab: Annotated[Path, typer.Option(help="Inventory of the lab.")] = DEFAULT_LAB,
    corpus: Annotated[
        Path | None, typer.Option(help="Cleaned capture, or a directory with corpus.pcap.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory [default: under results/].")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this directory.")] = None,
    strict: Annotated[bool, typer.Option(help="Exit 1 when a gate marks a trial.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Print the plan; touch nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Sweep a load over the sensor and record every trial.

    Example: `probebench sweep profiles/demo.toml --corpus corpus.pcap -o results/first`
    """
    from harness.corpus import find_corpus
    from harness.errors import GateFailed, HarnessError
    from harness.profile import load_profile
    from harness.session import run_name
    from lab.inventory import load_inventory

    wanted, inventory = load_profile(profile), load_inventory(lab)
    if dry_run:
        _plan(wanted, inventory, corpus)
        return
    path = _run_path(run_name(wanted, inventory), out, resume)
    files = find_corpus(corpus or wanted.corpus.path)
    command = ["probebench", "sweep", str(profile), "--lab", str(lab)]
    command += ["--corpus", str(files.capture), *(["--strict"] if strict else [])]
    outcome = _sweep(wanted, inventory, files, path, command)
    if as_json:
        print(
            json.dumps(
                {
                    "run": str(path),
                    "trials": outcome.ran + outcome.found,
                    "marked": outcome.marked,
                    "failed": outcome.failed,
                }
            )
        )
    else:
        print(f"run: {path}\nnext: probebench report {path}")
    if outcome.failed:
        raise HarnessError(
            f"{path}: {outcome.failed} trial(s) failed and have no result (see above)"
        )
    if outcome.marked and (strict or wanted.strict):
        raise GateFailed(f"{path}: gates mark {outcome.marked} trial(s) as invalid (see above)")


def _sweep(
    profile: Profile, inventory: Inventory, files: CorpusFiles, path: Path, command: list[str]
) -> Ledgered:
    from harness.errors import HarnessError, Interrupted
    from harness.progress import Progress
    from harness.results import RunDir
    from harness.session import open_session
    from harness.signals import interruptible
    from harness.sweep import Sweeper
    from lab.errors import ConnectionLost

    run = RunDir(path)
    again = (*command, "-o", str(path))

    def hint() -> str:
        if not (path / "run.json").exists():
            return "nothing was measured yet"
        return f"continue with: {shlex.join([*command, '--resume', str(path)])}"

    try:
        with (
            interruptible(),
            open_session(profile, inventory, files, run, Progress(), again) as session,
        ):
            sweeper = Sweeper(session, profile)
            return sweeper.sweep(sweeper.calibrate())
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; everything was stopped; {hint()}") from None
    except ConnectionLost as error:
        raise ConnectionLost(f"{error}; whole trials are kept; {hint()}") from None
    except OSError as error:  # a full disk, most likely
        what = error.strerror or str(error)
        raise HarnessError(f"{error.filename or path}: {what}; {hint()}") from None


def _run_path(name: str, out: Path | None, resume: Path | None) -> Path:
    """Where the run is to be, if that can be: asked now, not after the first trial.

    Raises ConfigError. Creates nothing, so that a run refused later leaves no empty directory.
    """
    from harness.errors import ConfigError

    if resume is not None and out is not None:
        raise ConfigError("--resume continues a run where it is: leave --out away")
    if resume is not None and not (resume / "run.json").exists():
        raise ConfigError(f"{resume}: no run.json there, so there is nothing to resume")
    if out is not None and (out / "run.json").exists():
        raise ConfigError(f"{out}: already holds a run; continue it with --resume {out}")
    path = resume or out or Path("results") / name
    there = path.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{path}: {there} is not a directory that can be written to")
    return path


def _plan(profile: Profile, inventory: Inventory, corpus: Path | None) -> None:
    load = profile.load
    values = (
        f"{load.auto.points} loads from {load.auto.lowest:g} to {load.auto.highest:g} × capacity, "
        "after one calibration trial"
        if load.values == "auto"
        else ", ".join(f"{v:g}" for v in load.values)
    )
    generator, sensor = inventory.generator, inventory.sensor
    print(f"profile    {profile.name}: {profile.description}")
    print(f"corpus     {corpus or profile.corpus.path or 'none given: --corpus is needed'}")
    print(
        f"generator  {profile.generator or generator.driver} on {generator.host}, "
        f"out of {generator.interface}"
    )
    listens = sensor.interface or "an interface that nobody here can read"
    print(f"sensor     {sensor.driver} on {sensor.host}, listening on {listens}")
    if sensor.driver == "suricata":
        print(f"           {sensor.workers} worker(s), restarted before each trial")
    print(f"loads      {load.axis}: {values}")
    print(f"trials     {load.repeats} × each load, {load.duration:g} s of sending each")
    print("dry run: nothing was touched")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("sweep")(sweep)
