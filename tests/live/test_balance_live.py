"""The prediction of `corpus balance` against a live Suricata's workers and a live tcpreplay."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from harness.sensors.registry import make_sensor
from lab.connect import connect
from lab.host import Host
from lab.inventory import HostSpec, SensorSpec
from pcap_tools.balancers import BALANCERS
from pcap_tools.flows import FlowTable, flow_table
from pcap_tools.strategies import Replay, flow_groups, plan_of

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("suricata") is None, reason="needs suricata"),
    pytest.mark.skipif(shutil.which("tcpreplay") is None, reason="needs tcpreplay"),
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="Suricata starts one worker per CPU"),
]

WORKERS = min(os.cpu_count() or 1, 4)  # Suricata starts no more workers than there are CPUs
SIZES = [2**power for power in range(1, 11)]  # packets of the flows; the last is the elephant
LOOPS = 10
KEYS = 400


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def inside(namespace: str, *argv: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", namespace, *argv)


@dataclass(frozen=True)
class Bench:
    """Two namespaces joined by a veth pair, and the short capture."""

    generator: str
    host: Host
    sensor: str
    rules: Path
    capture: Path
    table: FlowTable

    def send(self, capture: Path, *options: str) -> None:
        argv = ("tcpreplay", "-q", "-i", "tx0", "--pps", "20000", *options, str(capture))
        run(*inside(self.generator, *argv))

    def by_worker(self, capture: Path, *options: str) -> list[int]:
        """Packets that each worker decoded of a replay."""
        spec = SensorSpec.model_validate(
            {"host": "s", "interface": "rx0", "rules": (self.rules,), "workers": WORKERS}
        )
        sensor = make_sensor(self.host, spec)
        try:
            sensor.check()
            sensor.prepare()
            self.send(capture, *options)
            assert sensor.settle(15)
            after = sensor.finish()
        finally:
            sensor.stop()
        assert after.dropped == 0
        assert len(after.workers) == WORKERS
        return list(after.workers.values())


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    tmp = tmp_path_factory.mktemp("balance")
    a, b = f"pbb{os.getpid()}g", f"pbb{os.getpid()}s"
    host: Host | None = None
    try:
        for namespace in (a, b):
            run("ip", "netns", "add", namespace)
        run("ip", "-n", a, "link", "add", "tx0", "type", "veth", "peer", "name", "rx0", "netns", b)
        for namespace, interface in ((a, "tx0"), (b, "rx0")):
            quiet = f"net.ipv6.conf.{interface}.disable_ipv6=1"
            run(*inside(namespace, "sysctl", "-qw", quiet))
            run("ip", "-n", namespace, "link", "set", interface, "arp", "off", "up")
        host = connect("s", HostSpec(connection="netns", netns=b, workdir=str(tmp / "work")))
        rules = tmp / "t.rules"
        rules.write_text('alert tcp any any -> any 9 (msg:"never"; sid:1;)\n')
        capture = tmp / "short.pcap"
        wrpcap(str(capture), list(packets()))
        yield Bench(a, host, b, rules, capture, flow_table(capture))
    finally:
        if host is not None:
            host.close()
        for namespace in (a, b):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def packets() -> Iterator[Ether]:
    """Flows of 2, 4 … 1,024 packets, to and fro."""
    number = 0
    for flow, size in enumerate(SIZES):
        ends = (f"10.0.{flow}.1", f"198.51.100.{flow + 1}")
        for turn in range(size):
            src, dst = ends if turn % 2 == 0 else ends[::-1]
            ports = (20000 + flow, 9000) if turn % 2 == 0 else (9000, 20000 + flow)
            frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
            frame /= IP(src=src, dst=dst) / UDP(sport=ports[0], dport=ports[1]) / Raw(b"x" * 20)
            frame.time = 1_700_000_000 + number / 10_000
            number += 1
            yield frame


def predicted(table: FlowTable, replay: Replay) -> list[float]:
    """max/mean of the fanout model for many keys."""
    prepare = BALANCERS["af_packet-hash"].prepare
    assert prepare is not None
    totals = np.zeros((KEYS, WORKERS))
    for group in flow_groups(table):
        weights = group.weights[:, :, 0].sum(axis=1)
        for block in replay.blocks(group):
            choose = prepare(block.tuples, WORKERS)
            row = np.tile(weights, len(block.tuples) // len(group)) * block.repeats
            for key in range(KEYS):
                totals[key] += np.bincount(choose(key), weights=row, minlength=WORKERS)
    return (totals.max(axis=1) / totals.mean(axis=1)).tolist()  # type: ignore[no-any-return]


def test_a_looped_elephant_stays_on_one_worker(bench: Bench) -> None:
    counts = bench.by_worker(bench.capture, "--loop", str(LOOPS))
    assert sum(counts) == LOOPS * sum(SIZES)
    assert all(count % LOOPS == 0 for count in counts)
    # Sizes are powers of two: workers' sums have, together, as many bits as there are flows if
    # and only if every flow, both directions and all loops, went to one worker.
    assert sum((count // LOOPS).bit_count() for count in counts) == len(SIZES)
    peak = max(counts) / sum(counts) * WORKERS
    model = predicted(bench.table, Replay("loop", LOOPS))
    assert min(model) - 1e-9 <= peak <= max(model) + 1e-9
    assert peak >= WORKERS * SIZES[-1] / sum(SIZES) > 1


def test_fresh_addresses_are_spread_as_predicted(bench: Bench, tmp_path: Path) -> None:
    plan = plan_of(flow_groups(bench.table), "k")
    out = tmp_path / "fresh.pcap"
    argv = ("-m", "harness", "corpus", "expand", str(bench.capture), "-o", str(out))
    run(sys.executable, *argv, "--key", "k", "--iterations", "15", "--every", "0.01")
    counts = bench.by_worker(out)
    assert sum(counts) == 15 * sum(SIZES)
    peak = max(counts) / sum(counts) * WORKERS
    model = predicted(bench.table, Replay("fresh", 15, plan))
    assert 0.98 * min(model) <= peak <= 1.02 * max(model)
    assert np.median(model) < 1.5
    # The very addresses that were predicted were sent.
    expanded = flow_table(out)
    sent = set(map(tuple, expanded.rows["lo"].tolist()))
    (group,) = flow_groups(bench.table)
    blocks = Replay("fresh", 15, plan).blocks(group)
    pairs = [np.concatenate([b.tuples.a, b.tuples.b], axis=1) for b in blocks]
    assert sent == set(map(tuple, np.concatenate(pairs).tolist()))


def test_unique_ip_sends_the_addresses_of_the_model(bench: Bench, tmp_path: Path) -> None:
    edges = (
        ("10.0.0.1", "198.51.100.7"),
        ("0.0.0.2", "8.8.8.8"),
        ("255.255.255.253", "9.9.9.9"),
        ("10.0.0.4", "255.255.255.254"),
        ("10.0.0.10", "10.0.0.7"),
    )
    frames = [
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / IP(src=src, dst=dst)
        / UDP(sport=5000 + i, dport=53)
        / Raw(b"y" * 20)
        for i, (src, dst) in enumerate(edges)
    ]
    short, seen = tmp_path / "edges.pcap", tmp_path / "seen.pcap"
    wrpcap(str(short), frames)
    argv = inside(bench.sensor, "tcpdump", "-i", "rx0", "-U", "-w", str(seen), "-Z", "root")
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as listening:
        assert listening.stderr is not None
        while "listening on" not in (listening.stderr.readline() or pytest.fail("no tcpdump")):
            pass
        bench.send(short, "--unique-ip", "--loop", "6")
        deadline = time.monotonic() + 5
        while seen.stat().st_size < 24 + 30 * (16 + 62) and time.monotonic() < deadline:
            time.sleep(0.05)
        listening.terminate()
    rows = [line.split("\t") for line in run(
        "tshark", "-n", "-r", str(seen), "-T", "fields", "-e", "ip.src", "-e", "ip.dst",
        "-e", "udp.srcport",
    ).splitlines()]  # fmt: skip
    (group,) = flow_groups(flow_table(short))
    (block,) = Replay("unique-ip", 6).blocks(group)
    expected = []
    for row in range(len(block.tuples)):
        ends = [
            ".".join(map(str, end[row].astype(">u4").tobytes()))
            for end in (block.tuples.a, block.tuples.b)
        ]
        expected.append([*ends, str(block.tuples.sport[row])])
    assert rows == expected
