"""From one calibration trial to loads, and on from there until the curve bends."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import CORPUS, make_rig

from harness.calibrate import choose_loads, further_load, load_between
from harness.errors import GeneratorFailed, SensorFailed
from harness.model import Failure, GateResult, Load
from harness.profile import AutoLoads, LoadSpec
from harness.results import Trial
from harness.trial import TrialSpec, run_trial

AUTO = AutoLoads(points=4, lowest=0.5, highest=2.0, probe=100_000, seconds=1)
SPEC = LoadSpec(auto=AUTO)


def probed(tmp_path: Path, *, capacity: float = 1e9, top: float = 1e9) -> Trial:
    rig = make_rig(tmp_path, capacity=capacity, top=top)
    return run_trial(rig, TrialSpec("c01", "calibration", Load("pps", AUTO.probe, 1.0), 0))


def test_loads_are_multiples_of_the_capacity(tmp_path: Path) -> None:
    found = choose_loads(probed(tmp_path, capacity=20_000), SPEC, CORPUS)
    assert found.overloaded and found.capacity_pps == pytest.approx(20_000)
    assert found.loads == (10_000, 20_000, 30_000, 40_000)
    assert found.ceiling == math.inf
    assert "not overloaded" not in found.sentence()


def test_no_load_is_above_what_the_generator_can_send(tmp_path: Path) -> None:
    found = choose_loads(probed(tmp_path, capacity=20_000, top=30_000), SPEC, CORPUS)
    assert found.loads == (10_000, 15_700, 21_300, 27_000)
    assert found.ceiling == pytest.approx(27_000)


def test_a_sensor_that_was_not_overloaded(tmp_path: Path) -> None:
    found = choose_loads(probed(tmp_path, top=40_000), SPEC, CORPUS)
    assert not found.overloaded
    assert found.loads == (9_000, 18_000, 27_000, 36_000)
    assert "not overloaded" in found.sentence()


def test_the_axis_of_flows(tmp_path: Path) -> None:
    spec = LoadSpec(axis="flows", auto=AUTO)
    found = choose_loads(probed(tmp_path, capacity=20_000, top=30_000), spec, CORPUS)
    assert found.loads == (1_000, 1_570, 2_130, 2_700)
    assert found.ceiling == pytest.approx(2_700)


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("sensor-failed", SensorFailed),
        ("generator-failed", GeneratorFailed),
    ],
)
def test_a_failed_calibration_is_no_capacity(tmp_path: Path, what: str, kind: type) -> None:
    failed = replace(probed(tmp_path), sent=None, ledger=None, failure=Failure(what, "it died"))
    with pytest.raises(kind, match="calibration: it died"):
        choose_loads(failed, SPEC, CORPUS)


def test_a_sensor_that_does_not_count(tmp_path: Path) -> None:
    trial = probed(tmp_path)
    assert trial.ledger is not None
    blind = replace(trial, ledger=replace(trial.ledger, analysed=None), drop_rate=None)
    with pytest.raises(SensorFailed, match=r"load\.values"):
        choose_loads(blind, SPEC, CORPUS)


def test_further_loads(tmp_path: Path) -> None:
    whole = replace(probed(tmp_path), load=Load("pps", 10_000, 1.0), gates=())
    limited = GateResult("generator-limited", "invalid", "t", "m", "a")
    assert further_load(replace(whole, drop_rate=0.099), math.inf) == 14_000
    assert further_load(replace(whole, drop_rate=0.1), math.inf) is None
    assert further_load(replace(whole, drop_rate=None), math.inf) is None
    assert further_load(replace(whole, gates=(limited,)), math.inf) is None
    assert further_load(replace(whole, failure=Failure("x", "y")), math.inf) is None
    assert further_load(whole, 12_000) == 12_000
    assert further_load(whole, 10_400) is None


def test_a_load_between(tmp_path: Path) -> None:
    def at(load: float, drop: float | None) -> Trial:
        return replace(
            probed(tmp_path), load=Load("pps", load, 1.0), gates=(), drop_rate=drop, phase="sweep"
        )

    assert load_between([at(10_000, 0), at(30_000, 0.5), at(20_000, 0.1)]) == 25_000
    assert load_between([at(10_000, 0), at(20_000, 0.1)]) is None
    assert load_between([at(10_000, 0), at(10_400, 0.9)]) is None
    assert load_between([at(10_000, 0), at(20_000, None)]) is None
    assert load_between([]) is None
