"""A sweep on fakes: fresh iterations, resuming at any point, going on until the curve bends."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fakes import CORPUS, FakeSensor, fakes, make_rig

from harness.errors import ConfigError, GeneratorFailed, SensorFailed
from harness.profile import AutoLoads, LoadSpec, Profile
from harness.results import RunDir, RunInfo, Trial
from harness.session import Session
from harness.sweep import Sweeper

AUTO = AutoLoads(points=3, lowest=0.5, highest=2.0, probe=100_000, seconds=1, refine=0)
INFO = RunInfo({}, {}, {}, {}, {}, {}, {"permutation_key": "k"}, "now", "fake 1")


def session_in(
    path: Path, *, capacity: float = 1e9, top: float = 1e9, room: int = 10**9
) -> Session:
    run = RunDir(path)
    if not (path / "run.json").exists():
        run.write_info(INFO)
    parts: dict[str, Any] = {
        "rig": make_rig(path, capacity=capacity, top=top),
        "run": run,
        "corpus": CORPUS,
        "plan": SimpleNamespace(capacity=room),
        "first_iteration": 0,
    }
    return cast(Session, SimpleNamespace(**parts))


def profile(**load: Any) -> Profile:
    return Profile(name="p", load=LoadSpec(**{"duration": 1.0, "auto": AUTO, **load}))


def kept_up_at_first(session: Session, capacity: float) -> FakeSensor:
    """Let the calibration underestimate the sensor: later it has another capacity."""
    sensor = fakes(session.rig)[1]

    def change(number: int, step: str) -> None:
        if number > 1 or (session.run.path / "trials.jsonl").exists():
            sensor.capacity = capacity

    sensor.trouble = change
    return sensor


def stored(session: Session) -> list[Trial]:
    return list(session.run.trials())


def disjoint(trials: list[Trial]) -> None:
    """Every trial follows the one before: no iteration twice, none left out."""
    ends = [(t.schedule.first_iteration, t.schedule.iterations) for t in trials]
    assert ends[0][0] == 0
    for (first, count), (following, _) in itertools.pairwise(ends):
        assert following == first + count


def test_all_loads_then_all_again(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    sweeper = Sweeper(session, profile(values=(1000, 2000), repeats=2))
    done = sweeper.sweep(sweeper.calibrate())
    assert (done.ran, done.found, done.marked, done.failed) == (4, 0, 0, 0)
    names = [(t.name, t.repeat, t.load.value) for t in stored(session)]
    assert names == [("t01", 0, 1000), ("t02", 0, 2000), ("t03", 1, 1000), ("t04", 1, 2000)]
    disjoint(stored(session))


@pytest.mark.parametrize("whole", [0, 1, 3, 4])
def test_a_resumed_run_gives_every_trial_its_own_addresses(tmp_path: Path, whole: int) -> None:
    straight = session_in(tmp_path / "straight")
    plan = profile(values=(1000, 2000), repeats=2)
    Sweeper(straight, plan).sweep((1000, 2000))
    resumed = session_in(tmp_path / "resumed")
    lines = (straight.run.trials_path).read_bytes().splitlines(keepends=True)
    torn = b'{"name": "t0'
    resumed.run.trials_path.write_bytes(b"".join(lines[:whole]) + torn)
    done = Sweeper(resumed, plan).sweep((1000, 2000))
    assert (done.found, done.ran) == (whole, 4 - whole)
    assert [t.schedule for t in stored(resumed)] == [t.schedule for t in stored(straight)]


def test_samples_of_a_torn_trial_are_dropped(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    plan = profile(values=(1000, 2000))
    Sweeper(session, plan).trial(next(Sweeper(session, plan).specs((1000,))))
    with session.run.timeline_path.open("a") as file:
        file.write("t02,0.1,5,,,\nt02,1.1,9")
    Sweeper(session, plan).sweep((1000, 2000))
    rows = session.run.timeline_path.read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["trial", "t01", "t02"]


def test_no_address_is_used_twice(tmp_path: Path) -> None:
    session = session_in(tmp_path, room=25)  # t01 takes 10 iterations, t02 would take 20
    with pytest.raises(ConfigError, match="trial t02 needs iterations up to 30"):
        Sweeper(session, profile()).sweep((1000, 2000))
    assert [t.name for t in stored(session)] == ["t01"]


def test_the_sweep_goes_on_until_the_curve_bends(tmp_path: Path) -> None:
    session = session_in(tmp_path, capacity=10_000)
    kept_up_at_first(session, 30_000)
    sweeper = Sweeper(session, profile(repeats=2))
    loads = sweeper.calibrate()
    assert loads == (5_000, 12_500, 20_000)
    sweeper.sweep(loads)
    whole = (5_000, 12_500, 20_000, 28_000, 39_200)
    assert session.run.info().loads == whole
    asked = [(t.name, t.load.value, t.repeat) for t in stored(session)]
    assert asked == [
        ("c01", 100_000, 0),
        *((f"t{n:02d}", whole[(n - 1) % 5], (n - 1) // 5) for n in range(1, 11)),
    ]
    disjoint(stored(session))


def test_it_looks_closer_where_the_drop_rate_jumps_and_a_resumed_run_does_the_same(
    tmp_path: Path,
) -> None:
    plan = profile(auto=AUTO.model_copy(update={"refine": 2}))
    session = session_in(tmp_path, capacity=10_000)
    sweeper = Sweeper(session, plan)
    sweeper.sweep(sweeper.calibrate())
    # Lossless at 5,000, 20 % lost at 12,500, 50 % at 20,000: the largest step is the second, and
    # after 16,200 (38 %) the first.
    whole = (5_000, 12_500, 20_000, 16_200, 8_750)
    assert session.run.info().loads == whole
    straight = stored(session)
    assert [t.load.value for t in straight if t.phase == "sweep"] == list(whole)
    disjoint(straight)
    lines = session.run.trials_path.read_bytes().splitlines(keepends=True)
    session.run.trials_path.write_bytes(b"".join(lines[:-1]))
    again = Sweeper(session, plan)
    done = again.sweep(again.calibrate())
    assert (done.ran, done.found) == (1, 5)
    assert [t.schedule for t in stored(session)] == [t.schedule for t in straight]


def test_no_more_than_three_further_loads(tmp_path: Path) -> None:
    session = session_in(tmp_path, capacity=10_000)
    kept_up_at_first(session, 1e9)
    sweeper = Sweeper(session, profile())
    sweeper.sweep(sweeper.calibrate())
    assert len(stored(session)) == 1 + 3 + 3


def test_further_loads_end_at_the_generators_limit(tmp_path: Path) -> None:
    session = session_in(tmp_path, capacity=10_000, top=25_000)
    kept_up_at_first(session, 1e9)
    sweeper = Sweeper(session, profile())
    sweeper.sweep(sweeper.calibrate())
    assert session.run.info().loads == (5_000, 12_500, 20_000, 22_500)
    assert all(t.valid for t in stored(session) if t.phase == "sweep")


def test_loads_of_the_profile_are_never_added_to(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    sweeper = Sweeper(session, profile(values=(1000,)))
    sweeper.sweep(sweeper.calibrate())
    assert [t.name for t in stored(session)] == ["t01"]


@pytest.mark.parametrize("whole", range(1, 7))
def test_a_resumed_sweep_goes_on_alike(tmp_path: Path, whole: int) -> None:
    """Whatever was stored when it was killed, the same loads with the same addresses follow."""
    straight = session_in(tmp_path / "straight", capacity=10_000)
    kept_up_at_first(straight, 30_000)
    sweeper = Sweeper(straight, profile())
    sweeper.sweep(sweeper.calibrate())
    resumed = session_in(tmp_path / "resumed", capacity=10_000)
    resumed.run.write_info(straight.run.info())
    lines = straight.run.trials_path.read_bytes().splitlines(keepends=True)
    resumed.run.trials_path.write_bytes(b"".join(lines[:whole]))
    kept_up_at_first(resumed, 30_000)
    again = Sweeper(resumed, profile())
    again.sweep(again.calibrate())
    assert resumed.run.info() == straight.run.info()
    assert [t.schedule for t in stored(resumed)] == [t.schedule for t in stored(straight)]


def test_a_failed_trial_is_kept_and_the_next_one_run(tmp_path: Path) -> None:
    session = session_in(tmp_path)

    def die(number: int, step: str) -> None:
        if (number, step) == (1, "progress"):
            raise GeneratorFailed("killed")

    fakes(session.rig)[0].trouble = die
    done = Sweeper(session, profile()).sweep((1000, 2000))
    assert (done.failed, done.marked) == (1, 1)
    first, second = stored(session)
    assert first.failure is not None and first.sent is None
    assert second.valid
    disjoint([first, second])


def test_a_failed_calibration_is_tried_again_when_resumed(tmp_path: Path) -> None:
    session = session_in(tmp_path, capacity=10_000)
    sensor = fakes(session.rig)[1]

    def die(number: int, step: str) -> None:
        if step == "live":
            raise SensorFailed("killed")

    sensor.trouble = die
    with pytest.raises(SensorFailed):
        Sweeper(session, profile()).calibrate()
    assert [t.name for t in stored(session)] == ["c01"]
    sensor.trouble = lambda number, step: None
    again = Sweeper(session, profile())
    assert again.calibrate() == (5_000, 12_500, 20_000)
    assert [t.name for t in stored(session)] == ["c01", "c02"]
    disjoint(stored(session))


def test_marked_trials_are_counted(tmp_path: Path) -> None:
    session = session_in(tmp_path, top=1500)
    done = Sweeper(session, profile()).sweep((1000, 2000))
    assert (done.marked, done.failed) == (1, 0)
    assert [g.code for g in stored(session)[1].gates if g.severity == "invalid"] == [
        "generator-limited"
    ]
    assert replace(stored(session)[1], gates=()).valid
