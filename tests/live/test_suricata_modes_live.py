"""Every way Suricata runs here: capture modes, run modes, alerts by socket, and one not ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from foreign_suricata import Foreign, foreign_suricata
from suricata_bench import Bench, make_bench, run

from harness import ledger
from harness.errors import SensorFailed, SensorRestarted
from harness.model import Counters, InterfaceCounters, Sent
from harness.sensors.base import Sensor
from harness.sensors.registry import make_sensor
from harness.sensors.suricata_foreign import ObservedSuricata

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("suricata") is None, reason="needs suricata"),
]

DUE = Counter({9100001: 3, 9100002: 1, 9100003: 1, 9100004: 1})
PMDS = Path("/usr/lib/x86_64-linux-gnu/dpdk")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with make_bench(tmp_path_factory.mktemp("modes"), "m") as made:
        yield made


def received(bench: Bench) -> int:
    """The kernel's own count of the sensor's interface."""
    text = bench.host.run(["cat", "/sys/class/net/rx0/statistics/rx_packets"]).stdout
    return int(text)


def must_close(bench: Bench, sent: int, before: Counters, after: Counters, sensor: Sensor) -> None:
    """The ledger closes to the packet."""
    nic = InterfaceCounters(sent, 0, 0, 0, 0, 0, 0, 0, 0)
    account = ledger.build(Sent(sent, 0, 0, 1.0, 0, 0, 0), nic, before, after, sensor.capabilities)
    assert account.unexplained == 0
    assert account.analysed is not None and account.kernel is not None
    assert account.analysed + account.kernel == sent


MODES = {
    "pcap-autofp": ({"capture": "pcap", "runmode": "autofp"}, 3, {"RX#01-rx0"}),
    "autofp": ({"runmode": "autofp", "receive-threads": 2}, 3, {"RX#01", "RX#02"}),
    "dgram": ({"alerts-via": "unix_dgram"}, 1, {"W#01-rx0"}),
    "stream": ({"alerts-via": "unix_stream", "flow-events": True}, 2, {"W#01-rx0", "W#02-rx0"}),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_trial_in_each_mode(bench: Bench, mode: str) -> None:
    options, workers, decoders = MODES[mode]
    sensor = bench.sensor(workers=workers, options=options)
    try:
        sensor.check()
        sensor.prepare()
        before, arrived = sensor.snapshot(), received(bench)
        (pid,) = sensor.footprint().pids
        assert Path(f"/proc/{pid}/comm").read_text().startswith("Suricata")
        threads = [p.read_text().strip() for p in Path(f"/proc/{pid}/task").glob("*/comm")]
        bench.send()
        assert sensor.settle(15)
        after = sensor.finish()
        assert received(bench) - arrived == bench.packets
        assert after.exact and after.received == after.decoded == bench.packets
        must_close(bench, bench.packets, before, after, sensor)
        assert set(after.workers) == decoders
        assert sum(after.workers.values()) == bench.packets
        if "runmode" in options:
            analysing = {name for name in threads if name.startswith("W#")}
            assert len(analysing) == workers
            flows = {n: after.raw[f"threads.{n}.flow.total"] for n in analysing}
            assert sum(flows.values()) == after.flows
        assert Counter(alert.signature_id for alert in sensor.alerts()) == DUE
        if "alerts-via" in options:
            assert after.raw["eve.intake.lost"] == after.raw["eve.intake.torn"] == 0
        records = sensor.flow_records()
        if options.get("flow-events"):
            assert records is not None and records.flows == after.flows == 10
            assert records.packets == bench.packets
            assert records.by_reason == {"shutdown": 10} and records.wrong_thread == 0
        else:
            assert records is None
    finally:
        sensor.stop()


def test_drops_of_libpcap_are_counted_in_what_it_received(bench: Bench) -> None:
    """A buffer of a few packets and a burst: received = decoded + dropped, to the packet."""
    sensor = bench.sensor(workers=1, ring_size=24, options={"capture": "pcap"})
    try:
        sensor.prepare()
        before = sensor.snapshot()
        argv = ["tcpreplay", "-q", "-K", "-i", "tx0", "--topspeed", "--loop", "3000"]
        run("ip", "netns", "exec", bench.generator, *argv, str(bench.capture))
        assert sensor.settle(30)
        after = sensor.finish()
        assert after.exact and after.received == 3000 * bench.packets
        assert after.dropped is not None and after.dropped > 0
        must_close(bench, 3000 * bench.packets, before, after, sensor)
        # What the statistics record says is a second old: that is why the log's line is used.
        assert after.raw["capture.kernel_packets"] <= after.received
    finally:
        sensor.stop()


@pytest.mark.skipif(
    not list(PMDS.glob("*/librte_net_af_packet.so*")) or not shutil.which("dpkg"),
    reason="needs DPDK's af_packet driver (librte-net-af-packet, librte-mempool-ring)",
)
def test_dpdk_over_its_af_packet_driver(bench: Bench) -> None:
    sensor = bench.sensor(
        interface="rx0", cpus="1", workers=1, ring_size=1024,
        options={
            "capture": "dpdk", "device": "net_af_packet0", "eal.no-huge": "true", "eal.m": 512,
            "eal.no-pci": "true", "eal.vdev": "net_af_packet0,iface=rx0,qpairs=1",
        },
    )  # fmt: skip
    try:
        sensor.check()
        sensor.prepare()
        before = sensor.snapshot()
        bench.send()
        assert sensor.settle(20)
        after = sensor.finish()
        assert after.exact and after.received == after.decoded == bench.packets
        must_close(bench, bench.packets, before, after, sensor)
        assert "capture.dpdk.imissed" in after.raw
        assert sum(1 for _ in sensor.alerts()) == sum(DUE.values())
    finally:
        sensor.stop()


def test_af_xdp_without_receive_queues_is_said_in_one_line(bench: Bench) -> None:
    """veth reports no RX rings, and Suricata 7 then starts without a single worker."""
    sensor = bench.sensor(workers=1, options={"capture": "af-xdp", "ready-timeout": 4})
    try:
        with pytest.raises(SensorFailed, match="did not begin to capture on rx0") as caught:
            sensor.prepare()
        assert "0 captures are running" in str(caught.value) and "\n" not in str(caught.value)
    finally:
        sensor.stop()


@pytest.fixture
def foreign(bench: Bench) -> Iterator[Foreign]:
    space = bench.host.run(["ip", "netns", "identify"]).stdout.strip()
    with foreign_suricata(space, bench.rules) as made:
        yield made


def observed(bench: Bench, foreign: Foreign) -> ObservedSuricata:
    made = make_sensor(bench.host, bench.spec(options=foreign.options))
    assert isinstance(made, ObservedSuricata)
    return made


def rename_and_compress(eve: Path) -> None:
    """As logrotate does, before it tells Suricata to open anew."""
    eve.rename(eve.with_name("eve.json.1"))
    subprocess.run(["gzip", str(eve.with_name("eve.json.1"))], check=True)


def copy_and_truncate(eve: Path) -> None:
    shutil.copy(eve, eve.with_name("eve.json.1"))
    os.truncate(eve, 0)


def fresh(bench: Bench, foreign: Foreign, iteration: int) -> Path:
    """The capture with addresses of its own: on a process that goes on, old ones raise nothing."""
    out = foreign.directory / f"{iteration}.pcap"
    argv = ["--key", "k", "--iteration", str(iteration), "-o", str(out)]
    run(sys.executable, "-m", "harness", "corpus", "remap", str(bench.capture), *argv)
    return out


def test_one_that_runs_already_is_only_read(bench: Bench, foreign: Foreign) -> None:
    """Two trials on one process: each has its own packets and alerts, through every rotation."""
    sensor = observed(bench, foreign)
    sensor.check()
    assert sensor.flow_timeout == 44  # as its configuration says
    assert sensor.version.startswith("7.") or sensor.version.startswith("8.")
    assert sensor.state == "observed"
    rotations = (None, copy_and_truncate)
    for number, rotate in enumerate(rotations):
        sensor.prepare()
        before = sensor.snapshot()
        bench.send(capture=fresh(bench, foreign, number))
        assert sensor.settle(20)
        if rotate is not None:
            rotate(foreign.eve)
        after = sensor.finish()
        assert not after.exact
        assert (before.received or 0) == number * bench.packets
        must_close(bench, bench.packets, before, after, sensor)
        assert Counter(alert.signature_id for alert in sensor.alerts()) == DUE
        sensor.stop()
        assert foreign.process is not None and foreign.process.poll() is None


def test_a_restart_in_mid_trial_is_no_number(bench: Bench, foreign: Foreign) -> None:
    sensor = observed(bench, foreign)
    sensor.prepare()
    sensor.snapshot()
    bench.send()
    foreign.stop()
    foreign.start()
    with pytest.raises(SensorRestarted, match=r"restarted in mid-trial"):
        sensor.finish()
    sensor.stop()


def test_rotation_by_rename_while_it_writes(bench: Bench, foreign: Foreign) -> None:
    """Suricata reopens its outputs at SIGHUP; what it wrote before and after is one trial's."""
    sensor = observed(bench, foreign)
    sensor.prepare()
    pid = sensor.footprint().pids[0]
    bench.send(capture=fresh(bench, foreign, 0))
    assert sensor.settle(20)
    rename_and_compress(foreign.eve)
    os.kill(pid, 1)
    bench.send(capture=fresh(bench, foreign, 1))
    assert sensor.settle(20)
    sensor.finish()
    kinds = Counter(alert.signature_id for alert in sensor.alerts())
    assert kinds == Counter({k: 2 * v for k, v in DUE.items()})
    written = [json.loads(line)["event_type"] for line in foreign.eve.read_text().splitlines()]
    assert "alert" in written, "the output was not reopened"
    sensor.stop()
