"""A real Suricata on a veth pair in namespaces of its own."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from suricata_bench import Bench, make_bench, run

from harness import ledger
from harness.errors import ConfigError, SensorFailed
from harness.label import label
from harness.model import InterfaceCounters, Sent
from harness.sensors.suricata_counters import reconciles

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("suricata") is None, reason="needs suricata"),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with make_bench(tmp_path_factory.mktemp("suricata"), "s") as made:
        yield made


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_counters_reconcile_and_alerts_equal_the_reference(bench: Bench, tmp_path: Path) -> None:
    reference = label(bench.host, bench.spec(), bench.capture)
    assert reference.raised == len(reference.due) == 6
    assert sorted(d.signature_id for d in reference.due) == [
        9100001, 9100001, 9100001, 9100002, 9100003, 9100004,
    ]  # fmt: skip
    sensor = bench.sensor()
    try:
        sensor.check()
        sensor.prepare()
        before = sensor.snapshot()
        assert (before.received, before.decoded, before.alerts) == (0, 0, 0)
        bench.send()
        assert sensor.settle(15)
        after = sensor.finish()
        assert after.exact and reconciles(after)
        assert after.received == after.decoded == bench.packets
        assert after.dropped == after.invalid == 0
        assert after.decoded_bytes == sum(
            int(x) for x in run("tshark", "-r", str(bench.capture), "-T", "fields", "-e",
                                "frame.len").split()
        )  # fmt: skip
        # tshark counts conversations; the three packets without one are a flow each to Suricata.
        assert after.flows == 7 + 3
        assert sum(after.workers.values()) == bench.packets and len(after.workers) == 2
        assert sorted(a.signature_id for a in sensor.alerts()) == [
            d.signature_id for d in sorted(reference.due, key=lambda d: d.signature_id)
        ]
        assert sensor.cpu_seconds is not None and sensor.cpu_seconds >= 0
        sensor.collect(tmp_path)
        assert "Engine started" in (tmp_path / "suricata.log").read_text()
        zero = InterfaceCounters(bench.packets, 0, 0, 0, 0, 0, 0, 0, 0)
        sent = Sent(bench.packets, 0, 10, 1.0, 0, 0, 0)
        account = ledger.build(sent, zero, before, after, sensor.capabilities)
        assert account.unexplained == 0 and account.analysed == bench.packets
    finally:
        sensor.stop()


def test_every_trial_starts_from_zero(bench: Bench) -> None:
    sensor = bench.sensor(workers=1)
    try:
        for _ in range(2):
            sensor.prepare()
            bench.send()
            assert sensor.settle(15)
            after = sensor.finish()
            assert (after.received, after.flows) == (bench.packets, 10)
            assert len(list(sensor.alerts())) == 6
    finally:
        sensor.stop()


def test_a_killed_suricata_is_a_failure_and_never_a_number(bench: Bench) -> None:
    sensor = bench.sensor()
    try:
        sensor.prepare()
        process = sensor._process
        assert process is not None
        bench.send()
        os.kill(process.pid, signal.SIGKILL)
        process.wait(5)
        with pytest.raises(SensorFailed, match=r"sensor: suricata was killed by SIGKILL"):
            sensor.finish()
        assert not alive(process.pid)
    finally:
        sensor.stop()


def test_what_an_earlier_session_left_is_ended(bench: Bench) -> None:
    sensor, other = bench.sensor(), bench.sensor()
    try:
        sensor.prepare()
        process = sensor._process
        assert process is not None
        other.prepare()
        assert not alive(process.pid)
        with pytest.raises(SensorFailed, match="suricata"):
            sensor.live()
        assert other.snapshot().received == 0
    finally:
        sensor.stop()
        other.stop()


def test_a_small_ring_is_small(bench: Bench) -> None:
    """Suricata enlarges rings below max-pending-packets; what counts is what the kernel mapped."""
    sensor = bench.sensor(workers=1, ring_size=64)
    try:
        sensor.prepare()
        assert sensor._process is not None
        maps = Path(f"/proc/{sensor._process.pid}/maps").read_text().splitlines()
        spans = [line.split()[0].split("-") for line in maps if "socket:" in line]
        assert [int(b, 16) - int(a, 16) for a, b in spans] == [131072]
    finally:
        sensor.stop()


def test_an_own_configuration_keeps_its_outputs(bench: Bench, tmp_path: Path) -> None:
    own = Path("/etc/suricata/suricata.yaml")
    if not own.exists():
        pytest.skip("no suricata.yaml in /etc/suricata")
    sensor = bench.sensor(options={"config": str(own), "set.af-packet.1.threads": 1})
    try:
        sensor.check()
        sensor.prepare()
        bench.send()
        assert sensor.settle(15)
        assert sensor.finish().decoded == bench.packets
        assert len(list(sensor.alerts())) == 6
    finally:
        sensor.stop()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interface": "none0"}, "no interface none0"),
        ({"binary": "suricata-that-is-not"}, "not installed"),
        ({"binary": "true"}, "version unknown"),
    ],
)
def test_check_says_what_is_wrong(bench: Bench, change: dict[str, object], message: str) -> None:
    with pytest.raises(SensorFailed, match=message):
        bench.sensor(**change).check()


def test_check_finds_a_bad_rule(bench: Bench, tmp_path: Path) -> None:
    bad = tmp_path / "bad.rules"
    bad.write_text('alert http any any -> any any (msg:"x"; nonsense:1; sid:1;)\n')
    with pytest.raises(SensorFailed, match=r"refuses .*nonsense"):
        bench.sensor(rules=(bad,)).check()
    with pytest.raises(ConfigError, match=r"missing\.rules: cannot read"):
        bench.sensor(rules=(tmp_path / "missing.rules",)).check()
