"""The live reference: what every slow iteration raised is due; the rest is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from fakes import CORPUS, DUE, REFERENCE, FakeGenerator, FakeSensor, Wire, alert, invert, make_rig

from harness.corpus import CorpusFiles
from harness.errors import ConfigError, SensorFailed
from harness.model import Alert, Capabilities, Counters, Load
from harness.profile import Profile, ReferenceSpec
from harness.progress import Progress
from harness.reference import Due, find_due, sends_reference, source_of
from harness.reference_live import LiveReference, live_reference, no_reference
from harness.templates import Pool, Template
from harness.trial import TrialSpec, run_trial
from lab.fake import FakeHost
from lab.inventory import Inventory
from pcap_tools.plan import AddressPlan

SPEC = ReferenceSpec(pps=1000, iterations=3)
NO_ALERTS = Capabilities(True, True, False, False, False, True)


def measured(
    raised: list[Alert], change: Callable[[FakeSensor], None] = lambda sensor: None
) -> LiveReference:
    generator = FakeGenerator(Wire())
    sensor = FakeSensor(generator, raised=raised)
    change(sensor)
    try:
        return live_reference(
            generator, sensor, CORPUS, invert, SPEC, Progress(quiet=True), settle_timeout=1
        )
    finally:
        assert generator.stopped and sensor.stopped  # whatever happened
        assert generator.started[0].iterations == 3
        assert generator.started[0].first_iteration == 0


def test_what_every_iteration_raises_is_due() -> None:
    raised = [alert(i, due) for i in range(3) for due in (*DUE, DUE[0])]
    found = measured(raised)
    assert set(found.reference.due) == set(DUE)
    assert (found.reference.raised, found.reference.flows, found.iterations) == (3, 3, 3)
    assert found.notes == ()
    assert found.reference.sensor == "fake 1"


def test_what_one_of_them_lacks_is_not_scored() -> None:
    raised = [alert(i, DUE[0]) for i in range(3)] + [alert(i, DUE[1]) for i in (0, 2)]
    found = measured(raised)
    assert found.reference.due == (DUE[0],)
    assert len(found.notes) == 1 and "1 event(s) of signature 2" in found.notes[0]


def test_alerts_of_other_traffic_are_not_due() -> None:
    foreign = Alert("", "TCP", "203.0.113.9", 1, "203.0.113.8", 2, 9, "other")
    found = measured([*(alert(i, DUE[0]) for i in range(3)), foreign, alert(7, DUE[1])])
    assert found.reference.due == (DUE[0],) and found.reference.signatures == {1: "x"}


def test_a_sensor_that_loses_packets_even_so_has_no_reference() -> None:
    def slow(sensor: FakeSensor) -> None:
        sensor.capacity = 500

    with pytest.raises(SensorFailed, match=r"dropped 150 of 300 packets at 1,000 packets/s: lower"):
        measured([alert(i, DUE[0]) for i in range(3)], slow)


def test_a_sensor_that_does_not_come_to_rest() -> None:
    def restless(sensor: FakeSensor) -> None:
        sensor.settle = lambda timeout: False  # type: ignore[method-assign]

    with pytest.raises(SensorFailed, match="did not come to rest"):
        measured([], restless)


def test_nothing_due_says_why() -> None:
    with pytest.raises(ConfigError, match="raised no alert on the corpus, so"):
        measured([])
    with pytest.raises(ConfigError, match="raised 1 alerts, but none on all of 3 iterations"):
        measured([alert(0, DUE[0])])

    def misread(sensor: FakeSensor) -> None:
        whole = sensor.finish
        sensor.finish = lambda: with_raw(whole(), {"intake.messages": 30.0})  # type: ignore[method-assign]

    with pytest.raises(ConfigError, match="30 messages came to the intake and none of them"):
        measured([], misread)


def with_raw(counters: Counters, raw: dict[str, float]) -> Counters:
    return replace(counters, raw=raw)


def test_alerts_lost_on_their_way_to_us_are_no_reference() -> None:
    def deaf(sensor: FakeSensor) -> None:
        whole = sensor.finish
        sensor.finish = lambda: with_raw(whole(), {"intake.dropped": 2.0})  # type: ignore[method-assign]

    with pytest.raises(SensorFailed, match="2 alert messages found no room"):
        measured([alert(i, DUE[0]) for i in range(3)], deaf)


def test_templates() -> None:
    """TRex chooses the addresses: due is what every flow sent of a template raised."""

    def template(name: str, base: int, port: int) -> Template:
        pools = Pool(base, base + 99), Pool(base + 100, base + 199)
        return Template(name, "TCP", "10.0.0.1", port, "192.0.2.1", 80, 5, 500, 0.1, *pools)

    one, two = template("one", 16 << 24, 1000), template("two", 17 << 24, 2000)

    def on(first: int, flow: int, sid: int) -> Alert:
        return Alert("", "TCP", f"{first}.0.0.{flow}", 5, f"{first}.0.0.{100 + flow}", 80, sid, "s")

    class Chooses(FakeGenerator):
        def finish(self):  # type: ignore[no-untyped-def]
            return replace(super().finish(), templates={"one": 10, "two": 10})

    generator = Chooses(Wire(), identity="template", templates=(one, two))
    raised = [on(16, i, 7) for i in range(10)] + [on(17, i, 7) for i in range(4)]
    sensor = FakeSensor(generator, raised=raised)
    found = live_reference(
        generator, sensor, CORPUS, invert, SPEC, Progress(quiet=True), settle_timeout=1
    )
    assert [(due.a, due.a_port, due.signature_id) for due in found.reference.due] == [
        ("10.0.0.1", 1000, 7)
    ]
    assert "signature 7" in found.notes[0]


@pytest.mark.parametrize(
    ("asked", "driver", "alerts", "found"),
    [
        ("auto", "suricata", True, "offline"),
        ("auto", "snmp", True, "live"),
        ("auto", "capture", False, "none"),
        ("live", "suricata", True, "live"),
        ("none", "suricata", True, "none"),
    ],
)
def test_how_it_is_made(asked: str, driver: str, alerts: bool, found: str) -> None:
    profile = Profile.model_validate({"name": "p", "reference": {"source": asked}})
    sensor = FakeSensor(FakeGenerator(Wire()))
    sensor.capabilities = replace(sensor.capabilities, alerts=alerts)
    assert source_of(profile, driver, sensor) == found


@pytest.mark.parametrize(
    ("asked", "driver", "words"),
    [("offline", "capture", "not read offline"), ("live", "capture", "gives no alerts")],
)
def test_ways_that_a_sensor_does_not_have(asked: str, driver: str, words: str) -> None:
    profile = Profile.model_validate({"name": "p", "reference": {"source": asked}})
    sensor = FakeSensor(FakeGenerator(Wire()), capabilities=NO_ALERTS)
    with pytest.raises(ConfigError, match=words):
        source_of(profile, driver, sensor)


def test_a_resumed_run_does_not_send_its_reference_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its addresses are known to a sensor that was not restarted."""
    monkeypatch.setattr("harness.reference.invert_many", lambda plan, addresses: invert(addresses))
    generator = FakeGenerator(Wire())
    sensor = FakeSensor(generator, raised=[alert(i, due) for i in range(3) for due in DUE])
    profile = Profile.model_validate({"name": "p", "reference": {"iterations": 3}})
    host = {"connection": "local", "interfaces": {"tx0": {"test": True}}}
    inventory = Inventory.model_validate(
        {
            "name": "l",
            "hosts": {"here": host},
            "generator": {"host": "here", "interface": "tx0"},
            "sensor": {"host": "here", "driver": "snmp"},
        }
    )

    def find() -> Due:
        files, plan = CorpusFiles(tmp_path / "c.pcap"), cast(AddressPlan, None)
        return find_due(profile, inventory, files, CORPUS, plan, tmp_path / "run", generator,
                        sensor, FakeHost(), Progress(quiet=True))  # fmt: skip

    assert sends_reference(profile, "snmp", sensor, tmp_path / "run")
    first, again = find(), find()
    assert not sends_reference(profile, "snmp", sensor, tmp_path / "run")
    assert len(generator.started) == 1
    assert (first.source, first.iterations) == (again.source, again.iterations) == ("live", 3)
    assert first.reference == again.reference and set(first.reference.due) == set(DUE)


def test_a_trial_without_a_reference_scores_nothing(tmp_path: Path) -> None:
    rig = make_rig(tmp_path)
    sensor = cast(FakeSensor, rig.sensor)
    rig = replace(rig, reference=no_reference(CORPUS, sensor), receive=None)
    sensor.raised = [alert(0, DUE[0])]
    trial = run_trial(rig, TrialSpec("t01", "sweep", Load("pps", 1000, 1.0), 0))
    assert trial.failure is None and trial.detection is None and trial.nic is None
    assert trial.ledger is not None and trial.ledger.nic is None
    assert REFERENCE.due  # what it would have been scored against
