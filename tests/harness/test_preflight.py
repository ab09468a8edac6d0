"""A run's preflight: what it asks of the link, what it keeps, and that it ends no run."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from fakes import CORPUS

from harness.preflight import (
    FILE,
    RunPreflight,
    asked_of,
    peak_bps,
    read_preflight,
    record,
    stored_findings,
)
from harness.profile import LoadSpec, Profile
from harness.progress import Progress
from lab.errors import ConnectionLost
from lab.fake import Call, FakeHost, Reply
from lab.inventory import Inventory
from lab.preflight.check import examine
from lab.preflight.facts import HostFacts, LinkFacts, Rss, Setup

INVENTORY = Inventory.model_validate(
    {
        "name": "l",
        "hosts": {
            "gen": {"connection": "local", "interfaces": {"tx0": {"test": True}}},
            "probe": {"connection": "local", "interfaces": {"rx0": {}}},
        },
        "generator": {"host": "gen", "interface": "tx0"},
        "sensor": {"host": "probe", "interface": "rx0"},
    }
)


def profile(axis: str, *values: float) -> Profile:
    return Profile(name="p", load=LoadSpec.model_validate({"axis": axis, "values": values}))


class TestPeak:
    """100 packets, 50,000 bytes and 10 flows an iteration; 24 more bytes a packet on the link."""

    def test_packets_a_second(self) -> None:
        assert peak_bps(profile("pps", 10, 1000), CORPUS) == 1000 * 524 * 8

    def test_flows_a_second(self) -> None:
        assert peak_bps(profile("flows", 10), CORPUS) == 10 * 5240 * 8

    def test_bits_a_second(self) -> None:
        assert peak_bps(profile("bps", 1e9), CORPUS) == pytest.approx(1e9 * 524 / 500)
        assert peak_bps(profile("bps", 1e9), None) == 1e9

    def test_what_is_not_known_yet(self) -> None:
        assert peak_bps(profile("pps", 10), None) is None
        assert peak_bps(Profile(name="p"), CORPUS) is None
        assert peak_bps(profile("concurrent", 10), CORPUS) is None


def test_a_record_is_plain_data() -> None:
    link = LinkFacts("rx0", up=False, rss=Rss(2, (0, 1), b"\x6d\x5a" * 2, "toeplitz"))
    setup = Setup(
        HostFacts("gen"),
        HostFacts("probe", cpus=frozenset({1, 0}), links={"rx0": link}),
        (),
        "rx0",
    )
    found = record(setup, examine(setup), 5.0)
    assert json.loads(json.dumps(found)) == found
    assert found["facts"]["sensor"]["cpus"] == [0, 1]
    assert found["facts"]["sensor"]["links"]["rx0"]["rss"]["key"] == "6d:5a:6d:5a"
    assert found["findings"][0]["code"] == "link-down"
    assert found["findings"][0]["fakes"] and found["findings"][0]["remedy"]


EMPTY = {"files": {}, "lists": {}, "commands": {}, "volumes": {}, "interrupts": {}, "config": {}}


def host(name: str, broken: bool = False) -> FakeHost:
    times = iter(range(1000))

    def answer(call: Call) -> Reply:
        if broken:
            return Reply("", "Illegal instruction\n", 132)
        listed = {"/sys/class/net/rx0": ["mtu"], "/sys/class/net/tx0": ["mtu"]}
        files = {"/sys/class/net/rx0/carrier": "0\n"}
        data = {**EMPTY, "monotonic": next(times), "processes": [], "lists": listed, "files": files}
        return Reply(json.dumps(data) if "-" in call.argv else "")

    return FakeHost(answer, name=name)


def run(directory: Path, broken: bool = False) -> str:
    said = StringIO()
    hosts = {"gen": host("gen"), "probe": host("probe", broken)}
    progress = Progress(stream=said)
    preflight = RunPreflight(INVENTORY, dict(hosts), profile("pps", 10), CORPUS, progress)
    preflight.finish(directory)
    return said.getvalue()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.preflight._SHORTEST_S", 0.0)


def test_what_is_found_is_said_and_kept(tmp_path: Path) -> None:
    said = run(tmp_path)
    assert "invalid: preflight link-down: probe: rx0: the link is down" in said
    assert "preflight co-located" not in said
    (entry,) = read_preflight(tmp_path)
    assert [f["code"] for f in entry["findings"]] == ["link-down"]
    assert entry["seconds"] >= 1 and entry["unseen"] and entry["facts"]["receive"] == "rx0"
    # A run that is resumed keeps both.
    run(tmp_path)
    assert len(read_preflight(tmp_path)) == 2
    assert not (tmp_path / f"{FILE}.partial").exists()


def test_the_last_findings_are_what_gates_are_told(tmp_path: Path) -> None:
    assert stored_findings(tmp_path) == ()
    run(tmp_path)
    run(tmp_path)
    (one,) = stored_findings(tmp_path)
    assert (one.code, one.severity, one.numbers) == ("link-down", "invalid", {"up": 0})
    file = tmp_path / FILE
    file.write_text(file.read_text().replace('"code"', '"kode"'))
    assert stored_findings(tmp_path) == ()  # of a version that wrote something else


def test_one_that_cannot_be_made_ends_nothing(tmp_path: Path) -> None:
    assert "warning: no preflight: probe: python3 cannot run the preflight" in run(tmp_path, True)
    (entry,) = read_preflight(tmp_path)
    assert "Illegal instruction" in entry["failure"] and "findings" not in entry


def test_a_lost_connection_is_raised() -> None:
    def lost(call: Call) -> Reply:
        raise ConnectionLost("gen: gone")

    hosts = {"gen": FakeHost(lost, name="gen"), "probe": host("probe")}
    with pytest.raises(ConnectionLost):
        RunPreflight(INVENTORY, dict(hosts), profile("pps", 1), CORPUS, Progress(stream=StringIO()))


def test_a_run_without_one(tmp_path: Path) -> None:
    assert read_preflight(tmp_path) == []
    (tmp_path / FILE).write_text("{torn")
    assert read_preflight(tmp_path) == []


def test_the_corpus_may_have_no_known_frames() -> None:
    spec = INVENTORY.sensor
    assert asked_of(spec, None, None).max_frame is None
    assert asked_of(spec, profile("pps", 1), replace(CORPUS, max_frame=0)).max_frame is None
    assert asked_of(spec, profile("pps", 1), CORPUS).max_frame == 1514


def test_how_the_sensor_captures_and_who_started_it_matter() -> None:
    options = {"capture": "dpdk", "control": "observed", "eve": "/var/log/suricata/eve.json"}
    asked = asked_of(INVENTORY.sensor.model_copy(update={"options": options}), None, None)
    assert asked.bypass and asked.observed and asked.logs == "/var/log/suricata/eve.json"
    plain = asked_of(INVENTORY.sensor, None, None)
    assert not plain.bypass and not plain.observed and plain.logs is None
