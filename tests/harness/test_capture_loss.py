"""Loss of a sensor that does not tell what it analysed: capture loss, good for a curve."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import CORPUS, FakeSensor, fakes, make_rig
from synthetic_run import Options, make_run

from harness.bottleneck import judge
from harness.calibrate import choose_loads
from harness.errors import ConfigError
from harness.ledger import build, capture_loss, drop_rate
from harness.model import Capabilities, Counters, InterfaceCounters, Load, LossOf, Sent
from harness.profile import AutoLoads, LoadSpec, Profile
from harness.report.build import build_report
from harness.results import RunDir, Trial
from harness.sensors.registry import make_sensor
from harness.session import _must_tell_loss
from harness.sweep import describe_trial
from harness.trial import TrialSpec, run_trial
from lab.fake import FakeHost
from lab.inventory import SensorSpec

NOTHING = Counters(None, None, None, None, None, None, None)
CLOSED = Capabilities(True, False, False, False, False, False, adjacent=False, loss="capture")


@dataclass
class Path_:
    """Oracle: packets sent one by one, each lost somewhere or taken by the capture."""

    sent: int
    lost: Counter[str]

    @classmethod
    def walk(cls, seed: int) -> Path_:
        draw = random.Random(seed)
        places = ("wire", "nic", "ring", "taken")
        weights = [draw.random() for _ in places[:3]] + [3.0]
        lost = Counter(draw.choices(places, weights, k=2000))
        return cls(2000, lost)

    @property
    def share(self) -> float:
        return 1 - self.lost["taken"] / self.sent

    @property
    def received(self) -> int:  # drops included
        return self.lost["ring"] + self.lost["taken"]


def account(path: Path_, after: Counters, seen: bool) -> float | None:
    sent = Sent(path.sent, path.sent * 100, 1, 1.0, 0, 0, 1)
    nic = None
    if seen:
        nic = InterfaceCounters(path.received, 0, 0, path.lost["nic"], 0, 0, 0, 0, 0)
    ledger = build(sent, nic, replace(NOTHING, received=0, dropped=0), after, CLOSED)
    assert ledger.analysed is None and drop_rate(ledger) is None
    assert ledger.unexplained == 0
    return capture_loss(ledger, replace(NOTHING, received=0, dropped=0), after)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_did_not_leave_the_capture(seed: int) -> None:
    path = Path_.walk(seed)
    both = replace(NOTHING, received=path.received, dropped=path.lost["ring"])
    assert account(path, both, seen=False) == pytest.approx(path.share)
    assert account(path, both, seen=True) == pytest.approx(path.share)
    drops = replace(NOTHING, dropped=path.lost["ring"])
    assert account(path, drops, seen=True) == pytest.approx(path.share)
    # Alone, drops know of nothing that was lost before; a count of packets taken is enough alone.
    assert account(path, drops, seen=False) == pytest.approx(path.lost["ring"] / path.sent)
    taken = replace(NOTHING, received=path.lost["taken"])
    assert account(path, taken, seen=False) == pytest.approx(path.share)
    assert account(path, NOTHING, seen=True) is None


def test_what_a_closed_sensor_did_not_count_was_lost_before_it() -> None:
    sent = Sent(1000, 100_000, 1, 1.0, 0, 0, 1)
    zero = replace(NOTHING, received=0, dropped=0)
    port = InterfaceCounters(0, 0, 0, 0, 0, 990, 0, 10, 0)
    found = build(sent, None, zero, replace(NOTHING, received=950, dropped=50), CLOSED, port=port)
    stages = {stage.key: stage.packets for stage in found.stages}
    assert (stages["transmit"], stages["wire"], stages["nic"], stages["ring"]) == (10, 40, None, 50)
    assert (found.before_nic, found.kernel, found.unexplained) == (50, 50, 0)
    more = build(sent, None, zero, replace(NOTHING, received=1003, dropped=0), CLOSED)
    assert (more.before_nic, more.unexplained) == (0, -3) and not more.adds_up


def test_where_it_was_lost_is_said_as_far_as_it_is_known(tmp_path: Path) -> None:
    trial = trial_of(tmp_path, Closed, 1e9)
    assert trial.sent is not None
    zero = replace(NOTHING, received=0, dropped=0)
    after = replace(NOTHING, received=trial.sent.packets - 500, dropped=0)
    ledger = build(trial.sent, None, zero, after, CLOSED)
    verdict = judge(replace(trial, after=after, ledger=ledger, bottleneck=None, detection=None))
    assert verdict is not None and verdict.kinds == ("wire",)
    assert verdict.primary.detail == "before the sensor's own count: the wire, or its NIC"
    assert verdict.primary.packets == 500


class Closed(FakeSensor):
    """The same sensor, of which only the capture's counters can be read."""

    def finish(self) -> Counters:
        whole = super().finish()
        return replace(NOTHING, received=whole.received, dropped=whole.dropped)

    def snapshot(self) -> Counters:
        return replace(NOTHING, received=0, dropped=0)


def trial_of(tmp_path: Path, kind: type[FakeSensor], capacity: float) -> Trial:
    rig = make_rig(tmp_path, capacity=capacity)
    generator, _ = fakes(rig)
    sensor = kind(generator, capacity)
    if kind is Closed:
        sensor.capabilities = CLOSED
    spec = TrialSpec("c01", "calibration", Load("pps", 100_000, 1.0), 0)
    return run_trial(replace(rig, sensor=sensor, receive=None), spec)


def test_loads_are_chosen_from_it_as_from_any_loss(tmp_path: Path) -> None:
    spec = LoadSpec(auto=AutoLoads(points=4, lowest=0.5, highest=2.0, probe=100_000, seconds=1))
    whole, closed = (trial_of(tmp_path, kind, 20_000) for kind in (FakeSensor, Closed))
    assert (whole.loss_of, closed.loss_of) == ("analysed", "capture")
    assert whole.drop_rate == pytest.approx(0.8) and closed.drop_rate == pytest.approx(0.8)
    first, second = (choose_loads(trial, spec, CORPUS) for trial in (whole, closed))
    assert second.loads == first.loads == (10_000, 20_000, 30_000, 40_000)
    assert "the sensor's capture took 20,000 packets/s" in second.sentence()
    assert "  capture loss 80.00 %" in describe_trial(closed)
    assert "  not analysed 80.00 %" in describe_trial(whole)
    assert Trial.from_json(closed.to_json()) == closed
    old = whole.to_json()
    del old["loss_of"]
    assert Trial.from_json(old).loss_of == "analysed"


def test_no_loss_is_no_bottleneck(tmp_path: Path) -> None:
    trial = trial_of(tmp_path, Closed, 1e9)
    assert trial.drop_rate == 0
    verdict = judge(replace(trial, bottleneck=None, detection=None))
    assert verdict is not None and verdict.kinds == ("none",)
    assert [fact.value for fact in verdict.primary.evidence] == [0.0]


@pytest.mark.parametrize(
    ("counters", "loss"),
    [
        (("received", "dropped", "decoded"), "analysed"),
        (("decoded",), "analysed"),
        (("received", "dropped"), "capture"),
        (("dropped",), "capture"),
        (("received",), "capture"),
        (("alerts",), None),
    ],
)
def test_loads_are_looked_for_where_a_loss_can_be_told(
    counters: tuple[str, ...], loss: LossOf | None
) -> None:
    options = {
        "command": ["counters"],
        "counters": {name: {"path": name} for name in counters},
        "received_includes_drops": True,
    }
    spec = SensorSpec.model_validate({"driver": "command", "host": "p", "options": options})
    sensor = make_sensor(FakeHost(), spec)
    assert sensor.capabilities.loss == loss
    auto = Profile(name="p")
    if loss is None:
        with pytest.raises(ConfigError, match=r'load.values = "auto" needs a loss rate') as told:
            _must_tell_loss(auto, sensor)
        assert "\n" not in str(told.value)
    else:
        _must_tell_loss(auto, sensor)
    given = Profile(name="p", load=LoadSpec(values=(1.0,)))
    _must_tell_loss(given, SimpleNamespace(capabilities=sensor.capabilities))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["capture", "analysed"])
def test_the_report_calls_it_by_its_name(tmp_path: Path, name: LossOf) -> None:
    """The same run, once of a sensor that does not tell what it analysed."""
    made = make_run(tmp_path / "whole", Options(bias=False, specials=False, timeline=False))
    run = RunDir(tmp_path / "run")
    run.write_info(made.info())
    for trial in made.trials():
        ledger = trial.ledger
        if name == "capture" and ledger is not None:
            ledger = replace(ledger, analysed=None, software=None)
        run.append(replace(trial, ledger=ledger, loss_of=name))
    page = build_report(run.path).html.read_text()
    other = {"capture": "Drop rate (packets offered", "analysed": "Capture loss (packets lost"}
    mine = {"capture": "Capture loss (packets lost", "analysed": "Drop rate (packets offered"}
    assert mine[name] in page and other[name] not in page
    assert (">capture loss<" in page) is (name == "capture")
    assert (">drop rate<" in page) is (name == "analysed")
    said = "no packet lost before or in the capture"
    assert (said in page) is (name == "capture")


def test_loss_between_interface_and_its_count_is_unexplained_and_not_nothing() -> None:
    """Packets taken and no drop counter, behind an interface that can be read."""
    sent = Sent(1000, 100_000, 1, 1.0, 0, 0, 1)
    nic = InterfaceCounters(1000, 0, 0, 0, 0, 0, 0, 0, 0)
    before, after = replace(NOTHING, received=0), replace(NOTHING, received=700)
    closed = replace(CLOSED, kernel_drops=False)
    ledger = build(sent, nic, before, after, closed)
    assert capture_loss(ledger, before, after) == pytest.approx(0.3)
    assert ledger.unexplained == 300
    assert not ledger.adds_up
    # As long as they agree, nothing is open; drops that are counted account for themselves.
    assert build(sent, nic, before, replace(NOTHING, received=1000), closed).unexplained == 0
    with_drops = replace(NOTHING, received=1000, dropped=300)
    assert build(sent, nic, replace(before, dropped=0), with_drops, CLOSED).unexplained == 0
