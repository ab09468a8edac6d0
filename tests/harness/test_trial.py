"""One trial on fakes: whole, failed at every step, interrupted; never a number that is not one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fakes import DUE, REFERENCE, alert, fakes, make_rig

from harness.errors import GeneratorFailed, HarnessError, SensorFailed, SensorRestarted
from harness.model import Load
from harness.sweep import describe_trial
from harness.trial import TrialSpec, naive_score, run_trial, stop_quietly
from lab.errors import CommandFailed, ConnectionLost, LabError

SPEC = TrialSpec("t01", "sweep", Load("pps", 1000.0, 2.0), first_iteration=40)


def test_a_trial_is_whole(tmp_path: Path) -> None:
    rig = make_rig(tmp_path, capacity=900)
    generator, sensor = fakes(rig)
    sensor.raised = [alert(i, due) for i in range(40, 59) for due in DUE]
    trial = run_trial(rig, SPEC)
    assert trial.failure is None and trial.valid
    assert trial.sent is not None and trial.sent.packets == trial.sent.wire_packets == 2000
    assert trial.ledger is not None
    assert (trial.ledger.kernel, trial.ledger.analysed, trial.ledger.unexplained) == (200, 1800, 0)
    assert trial.drop_rate == pytest.approx(0.1)
    assert trial.detection is not None
    assert (trial.detection.due, trial.detection.detected) == (40, 38)
    assert (generator.stopped, sensor.stopped) == (1, 1)
    rows = (tmp_path / "timeline.csv").read_text().splitlines()
    assert rows[0] == "trial,t_s,sent,received,dropped,alerts"
    assert rows[1].startswith("t01,0.0") and rows[1].endswith(",0,,,")


def test_iterations_of_other_trials_do_not_count(tmp_path: Path) -> None:
    rig = make_rig(tmp_path)
    fakes(rig)[1].raised = [alert(i, DUE[0]) for i in (39, 40, 59, 60)]
    detection = run_trial(rig, SPEC).detection
    assert detection is not None
    assert (detection.detected, detection.unmapped) == (2, 2)


@pytest.mark.parametrize("step", ["start", "progress", "finish"])
def test_a_generator_that_dies(tmp_path: Path, step: str) -> None:
    rig = make_rig(tmp_path)
    generator, sensor = fakes(rig)

    def die(number: int, now: str) -> None:
        if now == step:
            raise GeneratorFailed("gen: tcpreplay was killed by signal 9 (SIGKILL)")

    generator.trouble = die
    nothing_measured(run_trial(rig, SPEC), "generator-failed")
    assert (generator.stopped, sensor.stopped) == (1, 1)


@pytest.mark.parametrize("step", ["prepare", "live", "finish"])
@pytest.mark.parametrize(
    ("error", "what"),
    [
        (SensorFailed("sen: suricata was killed"), "sensor-failed"),
        (SensorRestarted("sen: suricata restarted in mid-trial"), "sensor-restarted"),
        (CommandFailed("sen: `tail` ended with status 1: disk full"), "host-failed"),
    ],
)
def test_a_sensor_that_dies(tmp_path: Path, step: str, error: Exception, what: str) -> None:
    rig = make_rig(tmp_path)
    generator, sensor = fakes(rig)

    def die(number: int, now: str) -> None:
        if now == step:
            raise error

    sensor.trouble = die
    trial = run_trial(rig, SPEC)
    nothing_measured(trial, what)
    assert str(error) in describe_trial(trial)
    assert (generator.stopped, sensor.stopped) == (1, 1)


def nothing_measured(trial: object, what: str) -> None:
    assert getattr(trial, "failure").what == what  # noqa: B009
    for name in ("sent", "after", "nic", "ledger", "detection", "drop_rate"):
        assert getattr(trial, name) is None
    assert not getattr(trial, "valid")  # noqa: B009
    assert getattr(trial, "gates") == ()  # noqa: B009


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ConnectionLost("sen: lost")])
def test_interruption_and_a_lost_link_are_raised(tmp_path: Path, error: BaseException) -> None:
    """Also when stopping fails: it must not hide why the work ended, nor spare the other part."""
    rig = make_rig(tmp_path)
    generator, sensor = fakes(rig)

    def fail(number: int, now: str) -> None:
        if now == "live":
            raise error
        if now == "stop":
            raise ConnectionLost("sen: already closed")

    sensor.trouble = fail
    with pytest.raises(type(error)) as raised:
        run_trial(rig, SPEC)
    assert raised.value is error
    assert (generator.stopped, sensor.stopped) == (1, 1)


@pytest.mark.parametrize("error", [LabError("x"), HarnessError("x")])
def test_every_part_is_stopped(error: Exception) -> None:
    stopped: list[int] = []

    class Part:
        def stop(self) -> None:
            stopped.append(1)
            raise error

    stop_quietly(Part(), Part())  # type: ignore[arg-type]
    assert stopped == [1, 1]


def test_copies_that_cannot_be_told_apart_are_scored_by_totals(tmp_path: Path) -> None:
    rig = make_rig(tmp_path)
    generator, sensor = fakes(rig)
    schedule = generator.plan(SPEC.load, 0)  # 20 iterations: 60 alerts expected, 40 events due
    sensor.raised = [alert(0, DUE[0])] * 15
    found = naive_score(rig, schedule)
    assert (found.due, found.detected, found.raised, found.rate) == (40, 10, 15, 0.25)
    sensor.raised *= 5
    assert naive_score(rig, schedule).rate == 1.0
    nothing_due = replace(rig, reference=replace(REFERENCE, raised=0, due=()))
    assert naive_score(nothing_due, schedule).rate == 0.0
