"""A sweep: calibrate if asked, then one trial per load and repeat, each stored as it ends."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from harness.calibrate import (
    MOST_FURTHER,
    choose_loads,
    further_load,
    load_between,
    per_packet,
)
from harness.errors import ConfigError
from harness.generators.base import Generator, method_of
from harness.model import UNITS, Axis, Load
from harness.profile import Profile
from harness.results import RunDir, Trial
from harness.session import Session
from harness.trial import TrialSpec, run_trial

__all__ = ["Ledgered", "Sweeper", "describe_trial"]


@dataclass(frozen=True, slots=True)
class Ledgered:
    """What a sweep did: trials run now, trials found done, and how many are marked or failed."""

    ran: int
    found: int
    marked: int
    failed: int


@dataclass(slots=True)
class Sweeper:
    """Runs trials of one session in order, giving each its own iterations.

    Iterations are handed out in the order of the plan, whether or not a trial was already run, so
    a resumed run gives every trial the addresses it would have had.
    """

    session: Session
    profile: Profile
    next_iteration: int = 0
    ran: int = 0
    found: int = 0
    _done: dict[str, Trial] = field(init=False)
    _ceiling: float | None = None  # of loads chosen here; None: the profile's own, never added to

    def __post_init__(self) -> None:
        self._done = {trial.name: trial for trial in self.session.run.trials()}
        self.next_iteration = max(self.next_iteration, self.session.first_iteration)
        prune_timeline(self.session.run, set(self._done))

    def trial(self, spec: TrialSpec, generator: Generator | None = None) -> Trial:
        """Run one trial, or return its record when the run already has it."""
        source = generator or self.session.rig.generator
        spec = replace(spec, first_iteration=self.next_iteration)
        if spec.method == "fresh":
            spec = replace(spec, method=method_of(source))
        planned = source.plan(spec.load, spec.first_iteration)
        capacity = self.session.plan.capacity
        # Others choose their addresses themselves, or send the corpus's own.
        if source.identity == "flow" and method_of(source) == "fresh":
            self.next_iteration += planned.iterations
        if self.next_iteration > capacity:
            raise ConfigError(
                f"trial {spec.name} needs iterations up to {self.next_iteration:,}, the address "
                f"pools have fresh addresses for {capacity:,}: shorten the trials, use a corpus "
                "with fewer addresses, or a larger HOME_NET"
            )
        if spec.name in self._done:
            self.found += 1
            return self._done[spec.name]
        trial = run_trial(self.session.rig, spec, generator, tuple(self._done.values()))
        self.session.run.append(trial)
        self._done[spec.name] = trial
        self.ran += 1
        self.session.rig.progress.say(describe_trial(trial))
        return trial

    def calibrate(self) -> tuple[float, ...]:
        """Loads of the profile: its own, those chosen before, or from a calibration trial."""
        session, spec = self.session, self.profile.load
        if spec.values != "auto":
            return spec.values
        found = choose_loads(self._probe(), spec, session.corpus)
        session.rig.progress.say(found.sentence())
        self._record(found.loads, found.sentence())
        self._ceiling = found.ceiling
        return found.loads

    def _probe(self) -> Trial:
        """The calibration trial: one that was found failed (in a resumed run) is tried again."""
        auto = self.profile.load.auto
        # Packets/s where they can be asked for; else as many as the corpus's mix makes of them.
        able = self.session.rig.generator.axes
        axis: Axis = "pps" if "pps" in able else self.profile.load.axis
        for number in itertools.count(1):
            name = f"c{number:02d}"
            tried = name in self._done
            load = Load(axis, auto.probe * per_packet(self.session.corpus, axis), auto.seconds)
            trial = self.trial(TrialSpec(name, "calibration", load, 0))
            if trial.failure is None or not tried:
                break
        return trial

    def _record(self, loads: tuple[float, ...], note: str) -> None:
        """Write chosen loads to `run.json`, unless it has them (and perhaps more) already."""
        info = self.session.run.info()
        if info.loads[: len(loads)] != loads:
            self.session.run.write_info(replace(info, loads=loads, notes=(*info.notes, note)))

    def sweep(self, loads: tuple[float, ...]) -> Ledgered:
        """Every load, `repeats` times over. Returns what was done.

        Loads that were chosen here are followed by further ones, so that the curve bends and shows
        where. That is decided by stored trials alone: a resumed run decides the same.
        """
        trials = [self.trial(spec) for spec in self.specs(loads)]
        if self._ceiling is not None:
            loads = self._follow_the_curve(trials, loads, self._ceiling)
        for repeat in range(1, self.profile.load.repeats):
            trials += [self.trial(spec) for spec in self.specs(loads, repeat)]
        return Ledgered(
            ran=self.ran,
            found=self.found,
            marked=sum(not t.valid for t in trials),
            failed=sum(t.failure is not None for t in trials),
        )

    def _follow_the_curve(
        self, trials: list[Trial], loads: tuple[float, ...], ceiling: float
    ) -> tuple[float, ...]:
        """Go on until the sensor loses packets, then look closer where it begins to."""
        for _ in range(MOST_FURTHER):
            if (more := further_load(trials[-1], ceiling)) is None:
                break
            why = f"the sensor still kept up at {loads[-1]:,g}: the sweep goes on to {more:,g}"
            loads = self._add(trials, (*loads, more), why)
        for _ in range(self.profile.load.auto.refine):
            if (more := load_between(trials)) is None or more in loads:
                break
            why = f"the drop rate jumps around {more:,g}: a load there"
            loads = self._add(trials, (*loads, more), why)
        return loads

    def _add(self, trials: list[Trial], loads: tuple[float, ...], why: str) -> tuple[float, ...]:
        """Run the trial of the last of `loads`, with a note of why it was added."""
        self.session.rig.progress.say(why)
        self._record(loads, why)
        trials.append(self.trial(list(self.specs(loads))[-1]))
        return loads

    def specs(self, loads: tuple[float, ...], repeat: int = 0) -> Iterator[TrialSpec]:
        """One pass of the sweep, in order; the passes are numbered through."""
        spec = self.profile.load
        for number, value in enumerate(loads, repeat * len(loads) + 1):
            load = Load(spec.axis, value, spec.duration)
            yield TrialSpec(f"t{number:02d}", "sweep", load, 0, repeat)


def describe_trial(trial: Trial) -> str:
    """One line: what was offered, what was lost, what was detected, and what marks it."""
    unit = UNITS[trial.load.axis]
    head = f"{trial.name:>8} {trial.method:<9} {trial.load.value:>9,.0f} {unit}"
    if trial.failure is not None:
        return f"{head}  FAILED: {trial.failure.message}"
    sent = trial.sent.packets if trial.sent else 0
    drop = "n/o" if trial.drop_rate is None else f"{100 * trial.drop_rate:.2f} %"
    what = "not analysed" if trial.loss_of == "analysed" else "capture loss"
    text = f"{head}  sent {sent:,}  {what} {drop}"
    if (found := trial.detection) is not None:
        text += f"  detected {found.detected:,}/{found.due:,} ({100 * found.rate:.2f} %)"
    if trial.bottleneck is not None:
        text += f"  bottleneck: {trial.bottleneck.sentence}"
    marks = [g.code for g in trial.gates if g.severity != "info"]
    return text + (f"  [{', '.join(marks)}]" if marks else "")


def prune_timeline(run: RunDir, whole: set[str]) -> None:
    """Drop samples of trials that never became whole, so that a repeated trial is not mixed in."""
    path = run.timeline_path
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = lines[:1] + [x for x in lines[1:] if x.split(",", 1)[0] in whole and x.endswith("\n")]
    if kept != lines:
        partial = path.with_suffix(".csv.partial")
        partial.write_text("".join(kept))
        partial.replace(path)
