"""Two namespaces, a veth pair, rules and a capture: what the live tests of Suricata run on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from suricata_traffic import RULES, write_capture

from harness.sensors.registry import make_sensor
from harness.sensors.suricata import SuricataSensor
from lab.connect import connect
from lab.host import Host
from lab.inventory import HostSpec, SensorSpec


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


@dataclass(frozen=True)
class Bench:
    """A generator namespace, a sensor host, rules and a capture."""

    generator: str
    host: Host
    rules: Path
    capture: Path
    packets: int

    def spec(self, **changes: object) -> SensorSpec:
        values = {"host": "sensor", "interface": "rx0", "rules": (self.rules,), "workers": 2}
        return SensorSpec.model_validate({**values, **changes})

    def sensor(self, **changes: object) -> SuricataSensor:
        sensor = make_sensor(self.host, self.spec(**changes))
        assert isinstance(sensor, SuricataSensor)
        return sensor

    def send(self, loops: int = 1, capture: Path | None = None) -> None:
        argv = ["tcpreplay", "-q", "-i", "tx0", "--pps", "2000", "--loop", str(loops)]
        run("ip", "netns", "exec", self.generator, *argv, str(capture or self.capture))


@contextmanager
def make_bench(tmp: Path, letter: str) -> Iterator[Bench]:
    """Two namespaces with a veth pair between them, gone at the end."""
    tag = f"pb{letter}{os.getpid()}"
    ends = {"tx0": f"{tag}g", "rx0": f"{tag}s"}
    host: Host | None = None
    try:
        for namespace in ends.values():
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        a, b = ends["tx0"], ends["rx0"]
        run("ip", "-n", a, "link", "add", "tx0", "type", "veth", "peer", "name", "rx0", "netns", b)
        for interface, namespace in ends.items():
            inside = ("ip", "netns", "exec", namespace)
            run(*inside, "sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1")
            run(*inside, "ethtool", "-K", interface, "tx", "off", "rx", "off")
            run("ip", "-n", namespace, "link", "set", interface, "arp", "off", "up")
        work = str(tmp / "work")
        host = connect("sensor", HostSpec(connection="netns", netns=b, workdir=work))
        rules = tmp / "t.rules"
        rules.write_text(RULES)
        capture = tmp / "t.pcap"
        yield Bench(a, host, rules, capture, write_capture(capture))
    finally:
        if host is not None:
            host.close()
        for namespace in ends.values():
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
