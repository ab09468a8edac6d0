"""A sweep: calibrate if asked, then one trial per load and repeat, each stored as it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from harness.calibrate import choose_loads
from harness.errors import ConfigError
from harness.generators.base import Generator
from harness.model import Load
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

    def __post_init__(self) -> None:
        self._done = {trial.name: trial for trial in self.session.run.trials()}
        prune_timeline(self.session.run, set(self._done))

    def trial(self, spec: TrialSpec, generator: Generator | None = None) -> Trial:
        """Run one trial, or return its record when the run already has it."""
        source = generator or self.session.rig.generator
        spec = replace(spec, first_iteration=self.next_iteration)
        planned = source.plan(spec.load, spec.first_iteration)
        capacity = self.session.plan.capacity
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
        probe = TrialSpec("c01", "calibration", Load("pps", spec.auto.probe, spec.auto.seconds), 0)
        found = choose_loads(self.trial(probe), spec, session.corpus)
        session.rig.progress.say(found.sentence())
        info = session.run.info()
        if info.loads != found.loads:
            notes = (*info.notes, found.sentence())
            session.run.write_info(replace(info, loads=found.loads, notes=notes))
        return found.loads

    def sweep(self, loads: tuple[float, ...]) -> Ledgered:
        """Every load, `repeats` times over. Returns what was done."""
        trials = [self.trial(spec) for spec in self.specs(loads)]
        return Ledgered(
            ran=self.ran,
            found=self.found,
            marked=sum(not t.valid for t in trials),
            failed=sum(t.failure is not None for t in trials),
        )

    def specs(self, loads: tuple[float, ...]) -> Iterator[TrialSpec]:
        """The sweep's trials in order: all loads, then all loads again for each repeat."""
        spec = self.profile.load
        for repeat in range(spec.repeats):
            for index, value in enumerate(loads):
                number = repeat * len(loads) + index + 1
                load = Load(spec.axis, value, spec.duration)
                yield TrialSpec(f"t{number:02d}", "sweep", load, 0, repeat)


def describe_trial(trial: Trial) -> str:
    """One line: what was offered, what was lost, what was detected, and what marks it."""
    unit = "pps" if trial.load.axis == "pps" else "flows/s"
    head = f"{trial.name:>8} {trial.method:<9} {trial.load.value:>9,.0f} {unit}"
    if trial.failure is not None:
        return f"{head}  FAILED: {trial.failure.message}"
    sent = trial.sent.packets if trial.sent else 0
    drop = "n/o" if trial.drop_rate is None else f"{100 * trial.drop_rate:.2f} %"
    text = f"{head}  sent {sent:,}  not analysed {drop}"
    if (found := trial.detection) is not None:
        text += f"  detected {found.detected:,}/{found.due:,} ({100 * found.rate:.2f} %)"
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
