"""Bare captures on a real link: a ledger that closes to the packet, and one that shows a loss."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dpkt
import pytest
from suricata_traffic import write_capture
from sweeping import good, trials

from harness import ledger
from harness.model import Counters, InterfaceCounters, Ledger, Sent
from harness.sensors.capture import BareCapture
from harness.sensors.registry import make_sensor
from lab import virtual
from lab.connect import connect
from lab.facts import interface_statistics
from lab.host import Host
from lab.inventory import HostSpec, SensorSpec

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump"),
]
programs = pytest.mark.parametrize(
    "program",
    [
        "tcpdump",
        pytest.param(
            "dumpcap",
            marks=pytest.mark.skipif(shutil.which("dumpcap") is None, reason="needs dumpcap"),
        ),
    ],
)


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


@dataclass(frozen=True)
class Bench:
    """A generator namespace, a sensor host and a capture of `packets` packets."""

    generator: str
    host: Host
    work: Path
    packets: int

    def trial(self, loops: int, speed: str, **options: object) -> tuple[Ledger, Counters, int]:
        """Send, and account for it; also what the interface received."""
        spec = SensorSpec(driver="capture", host="p", interface="rx0", options=options)
        sensor = make_sensor(self.host, spec)
        assert isinstance(sensor, BareCapture)
        sensor.check()
        try:
            sensor.prepare()
            before = sensor.snapshot()
            nic0 = self.nic()
            argv = ["tcpreplay", "-q", "-i", "tx0", *speed.split(), "--loop", str(loops)]
            run("ip", "netns", "exec", self.generator, *argv, str(self.work / "t.pcap"))
            assert sensor.settle(20)
            nic = self.nic().since(nic0)
            after = sensor.finish()
        finally:
            sensor.stop()
        number = self.packets * loops
        sent = Sent(number, 0, 0, 1.0, 0, 0, 1)
        return ledger.build(sent, nic, before, after, sensor.capabilities), after, nic.rx_packets

    def nic(self) -> InterfaceCounters:
        read = interface_statistics(self.host, "rx0")
        names = {"rx_missed": "rx_missed_errors"}
        return InterfaceCounters(**{n: read[names.get(n, n)] for n in InterfaceCounters.__slots__})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    tmp = tmp_path_factory.mktemp("capture")
    ends = {"tx0": f"pbc{os.getpid()}g", "rx0": f"pbc{os.getpid()}s"}
    host: Host | None = None
    try:
        for space in ends.values():
            run("ip", "netns", "add", space)
        a, b = ends["tx0"], ends["rx0"]
        run("ip", "-n", a, "link", "add", "tx0", "type", "veth", "peer", "name", "rx0", "netns", b)
        for interface, space in ends.items():
            inside = ("ip", "netns", "exec", space)
            run(*inside, "sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1")
            run("ip", "-n", space, "link", "set", interface, "arp", "off", "up")
        host = connect("p", HostSpec(connection="netns", netns=b, workdir=str(tmp / "work")))
        yield Bench(a, host, tmp, write_capture(tmp / "t.pcap"))
    finally:
        if host is not None:
            host.close()
        for space in ends.values():
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


@programs
def test_nothing_is_lost_and_the_ledger_closes_to_the_packet(bench: Bench, program: str) -> None:
    """The file is counted by a reader that is not ours."""
    out = bench.work / f"{program}.pcap"
    found, after, arrived = bench.trial(50, "--pps 5000", program=program, write=str(out))
    number = 50 * bench.packets
    assert (found.before_nic, found.nic, found.kernel, found.software) == (0, 0, 0, 0)
    assert found.analysed == number == arrived and found.unexplained == 0
    with out.open("rb") as file:
        reader = dpkt.pcap.UniversalReader(file)
        assert sum(1 for _ in reader) == number
    assert after.exact and after.flows is None and after.alerts is None


def test_a_tiny_buffer_loses_and_the_loss_is_the_kernels(bench: Bench) -> None:
    found, after, arrived = bench.trial(
        3000, "--topspeed", buffer=32, snaplen=0, write=str(bench.work / "lossy.pcap")
    )
    assert found.kernel is not None and found.kernel > 0
    assert found.unexplained == 0
    assert after.received == arrived
    assert after.received == (after.dropped or 0) + (after.decoded or 0)
    drop = ledger.drop_rate(found)
    assert drop is not None and drop > 0


def test_a_sweep_over_a_bare_capture_is_reported_without_detection(tmp_path: Path) -> None:
    name = f"applcap{os.getpid()}"
    corpus, profile, run_ = tmp_path / "c.pcap", tmp_path / "p.toml", tmp_path / "run"
    write_capture(corpus)
    profile.write_text('name = "bare"\n[load]\nvalues = [2000, 4000]\nduration = 1\n')
    try:
        lab = virtual.up(name)
        text = lab.read_text()
        bare = '[sensor]\ndriver = "capture"\nhost = "sensor"\ninterface = "rx0"\n'
        (tmp_path / "lab.toml").write_text(text[: text.index("[sensor]")] + bare)
        good("sweep", profile, "--lab", tmp_path / "lab.toml", "--corpus", corpus, "-o", run_)
        good("report", run_)
    finally:
        virtual.down(name)
    for trial in trials(run_):
        assert trial["failure"] is None and trial["detection"] is None
        assert trial["ledger"]["analysed"] == trial["sent"]["packets"]
        assert trial["ledger"]["unexplained"] == 0 and trial["drop_rate"] == 0
        assert not [gate for gate in trial["gates"] if gate["severity"] == "invalid"]
    info = json.loads((run_ / "run.json").read_text())
    assert info["extra"]["reference"]["source"] == "none" and info["sensor"].startswith("tcpdump 4")
    page = (run_ / "report.html").read_text()
    assert "detection" in page.lower() and "not observable" in page
