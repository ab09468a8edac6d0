"""A link of two namespaces with a real generator and a real sensor, and ways to make it suffer."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from harness.balancing import predictor
from harness.corpus import read_corpus
from harness.generators.tcpreplay import TcpreplayGenerator
from harness.label import label
from harness.model import Load, Reference, Schedule
from harness.progress import Progress
from harness.results import Trial
from harness.sensors.registry import make_sensor
from harness.trial import Port, Rig, TrialSpec, run_trial
from lab.connect import connect
from lab.host import Host
from lab.inventory import GeneratorSpec, HostSpec, SensorSpec
from pcap_tools.plan import invert_many

QUIET = 'alert udp any any -> any 9 (msg:"B mark"; content:"mark"; sid:9200001; rev:1;)\n'
"""Raised once by each flow of the corpora below."""
COSTLY = "".join(
    f'alert udp any any -> any 9 (msg:"B slow {n}"; '
    f'pcre:"/(x+x+)+[a-w]{{{n % 9 + 1}}}/"; sid:{9300000 + n}; rev:1;)\n'
    for n in range(60)
)
"""Rules that match nothing and try for long: each gives up at Suricata's limit of backtracking."""
CHATTY = 'alert udp any any -> any 9 (msg:"B every packet"; sid:9200009; rev:1;)\n'
HOME = ("10.0.0.0/8",)
FRAME = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def datagrams(flows: int, packets: int, size: int) -> Iterator[Packet]:
    """Flows of UDP to port 9; the first packet of each carries the mark."""
    filler = b"x" * (size - 42)
    for turn in range(packets):
        for flow in range(flows):
            ends = {"src": f"10.0.{flow // 250}.{flow % 250 + 1}", "dst": "198.51.100.7"}
            data = b"mark" + filler[4:] if turn == 0 else filler
            yield FRAME / IP(**ends) / UDP(sport=20000 + flow, dport=9) / Raw(data)


def connections(flows: int, segments: int) -> Iterator[Packet]:
    """Whole TCP connections that run side by side, with data that no parser knows."""
    chunk = random.Random(1).randbytes(1000)
    for flow in range(flows):
        yield from _connection(flow, segments, chunk)


def _connection(flow: int, segments: int, chunk: bytes) -> Iterator[Packet]:
    a = {"sport": 30000 + flow, "dport": 4000}
    b = {"sport": 4000, "dport": 30000 + flow}
    client, server = f"10.0.0.{flow % 250 + 1}", "198.51.100.8"
    out, back = IP(src=client, dst=server), IP(src=server, dst=client)
    yield FRAME / out / TCP(flags="S", seq=100, **a)
    yield FRAME / back / TCP(flags="SA", seq=500, ack=101, **b)
    yield FRAME / out / TCP(flags="A", seq=101, ack=501, **a)
    seq = 101
    for number in range(segments):
        # A hole in front keeps the data in memory until it is filled, as on a lossy path.
        at = seq + len(chunk) * ((number + 1) % segments)
        yield FRAME / out / TCP(flags="PA", seq=at, ack=501, **a) / Raw(chunk)
    seq += len(chunk) * segments
    yield FRAME / back / TCP(flags="A", seq=501, ack=seq, **b)
    yield FRAME / out / TCP(flags="FA", seq=seq, ack=501, **a)
    yield FRAME / back / TCP(flags="FA", seq=501, ack=seq + 1, **b)
    yield FRAME / out / TCP(flags="A", seq=seq + 1, ack=502, **a)


def write(path: Path, packets: Iterator[Packet]) -> Path:
    """Write packets 100 µs apart."""
    frames = list(packets)
    for number, frame in enumerate(frames):
        frame.time = 1_700_000_000 + number / 10_000
    wrpcap(str(path), frames)
    return path


class Bursts(TcpreplayGenerator):
    """Sends `burst` packets at once, at the same mean rate."""

    burst = 1

    def _replay(self, schedule: Schedule, *more: str) -> list[str]:
        return super()._replay(schedule, f"--pps-multi={self.burst}", *more)


@dataclass(frozen=True)
class Bench:
    """Two namespaces joined by a veth pair."""

    tmp: Path
    source: Host
    target: Host
    spaces: tuple[str, str]
    known: dict[tuple[str, str], Reference] = field(default_factory=dict)

    def trial(
        self,
        capture: Path,
        load: Load,
        *,
        rules: str = QUIET,
        generator: type[TcpreplayGenerator] = TcpreplayGenerator,
        name: str = "t01",
        **sensor: Any,
    ) -> Trial:
        """One trial as a sweep runs it."""
        path = self.tmp / f"{name}.rules"
        path.write_text(rules)
        values = {"host": "sen", "interface": "rx0", "rules": (path,), "workers": 1, **sensor}
        spec = SensorSpec.model_validate(values)
        corpus, plan = read_corpus(capture, HOME, "key", None)
        source = generator(
            self.source,
            GeneratorSpec.model_validate(
                {"host": "gen", "driver": "tcpreplay", "interface": "tx0"}
            ),
        )
        source.prepare(corpus)
        rig = Rig(
            generator=source,
            sensor=make_sensor(self.target, spec),
            transmit=(Port(self.source, "tx0"),),
            receive=Port(self.target, "rx0"),
            reference=self._reference(spec, capture, rules),
            invert=lambda addresses: invert_many(plan, addresses),
            directory=self.tmp / name,
            progress=Progress(stream=StringIO()),
            settle_timeout=20.0,
            co_located=True,
            predict=predictor(capture, plan),
            max_frame=corpus.max_frame,
        )
        return run_trial(rig, TrialSpec(name, "sweep", load, 0))

    def _reference(self, spec: SensorSpec, capture: Path, rules: str) -> Reference:
        """What is due; the costly rules never are, and offline they would cost as much."""
        key = (capture.name, rules)
        if key not in self.known:
            path = self.tmp / "reference.rules"
            path.write_text(rules.replace(COSTLY, ""))
            plain = spec.model_copy(update={"options": {}, "rules": (path,)})
            self.known[key] = label(self.target, plain, capture)
        return self.known[key]

    def counters(self) -> dict[str, int]:
        """tx0's and rx0's counters as `ip` tells them: read without the project."""
        found = {}
        for space, interface in zip(self.spaces, ("tx0", "rx0"), strict=True):
            text = run("ip", "-n", space, "-s", "-s", "-j", "link", "show", "dev", interface)
            stats = json.loads(text)[0]["stats64"]
            found |= {f"{interface}.{d}": stats[d]["packets"] for d in ("rx", "tx")}
            found[f"{interface}.tx_dropped"] = stats["tx"]["dropped"]
            found[f"{interface}.rx_bytes"] = stats["rx"]["bytes"]
        return found


@contextmanager
def bench(tmp: Path, tag: str) -> Iterator[Bench]:
    """A bench that is there for a while; `tag` is in the names of its namespaces."""
    a, b = spaces = (f"{tag}{os.getpid()}g", f"{tag}{os.getpid()}s")
    hosts: list[Host] = []
    try:
        for space in spaces:
            run("ip", "netns", "add", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "-n", a, "link", "add", "tx0", "type", "veth", "peer", "name", "rx0", "netns", b)
        for space, interface in ((a, "tx0"), (b, "rx0")):
            inside = ("ip", "netns", "exec", space)
            run(*inside, "sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1")
            run(*inside, "ethtool", "-K", interface, "tx", "off", "rx", "off")
            run("ip", "-n", space, "link", "set", interface, "arp", "off", "up")
        for name, space in zip(("gen", "sen"), spaces, strict=True):
            spec = HostSpec(
                connection="netns", netns=space, workdir=str(tmp / name), python=sys.executable
            )
            hosts.append(connect(name, spec))
        yield Bench(tmp, hosts[0], hosts[1], spaces)
    finally:
        for host in hosts:
            host.close()
        for space in spaces:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
