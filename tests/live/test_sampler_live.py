"""The sampler in a namespace of its own, against what ethtool, ip and /proc say independently."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.host_sampler import SampledHost
from harness.host_samples import read_samples
from harness.sensors.base import Footprint
from lab.connect import connect
from lab.host import Host
from lab.inventory import HostSpec

pytestmark = pytest.mark.live

SEND = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("tx0", 0))
for _ in range(int(sys.argv[1])):
    s.send(bytes.fromhex("0200000000010200000000020800") + bytes(86))
"""


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.fixture(scope="module")
def spaces() -> Iterator[tuple[str, str]]:
    """Two namespaces, tx0 ═ rx0 between them."""
    a, b = f"pbsa{os.getpid()}", f"pbsb{os.getpid()}"
    try:
        for space in (a, b):
            run("ip", "netns", "add", space)
        run("ip", "-n", a, "link", "add", "tx0", "type", "veth", "peer", "name", "rx0", "netns", b)
        for space, name in ((a, "tx0"), (b, "rx0")):
            run("ip", "netns", "exec", space, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            run("ip", "-n", space, "link", "set", name, "arp", "off", "up")
        yield a, b
    finally:
        for space in (a, b):
            subprocess.run(["ip", "netns", "del", space], check=False)


@pytest.fixture
def host(spaces: tuple[str, str], tmp_path: Path) -> Iterator[Host]:
    work = str(tmp_path / "work")
    found = connect("sensor", HostSpec(connection="netns", netns=spaces[1], workdir=work))
    yield found
    found.close()


def test_it_agrees_with_ethtool_and_proc(
    spaces: tuple[str, str], host: Host, tmp_path: Path
) -> None:
    inside = ("ip", "netns", "exec", spaces[1])
    dump = subprocess.Popen(
        [*inside, "tcpdump", "-i", "rx0", "-B", "2048", "-w", str(tmp_path / "x.pcap"), "-U"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert dump.stderr is not None
    assert "listening on rx0" in dump.stderr.readline()
    watch = SampledHost(host, "rx0", tmp_path, 0.5)
    try:
        watch.begin(Footprint((dump.pid,), str(tmp_path)), "t01")
        run("ip", "netns", "exec", spaces[0], sys.executable, "-c", SEND, "3000")
        limit = time.monotonic() + 30
        while run(*inside, "cat", "/sys/class/net/rx0/statistics/rx_packets") != "3000\n":
            assert time.monotonic() < limit
        maps = Path(f"/proc/{dump.pid}/maps").read_text().splitlines()
        spans = [line.split()[0].split("-") for line in maps if "socket:" in line]
        found = watch.end()
    finally:
        dump.kill()
        dump.wait()
        dump.stderr.close()
    assert found.failure is None and found.before is not None and found.after is not None
    moved = found.after.interface["rx_packets"] - found.before.interface["rx_packets"]
    assert moved == 3000 and found.after.interface["rx_bytes"] == 300_000
    driver = re.findall(r"^ +(\S+): (\d+)$", run(*inside, "ethtool", "-S", "rx0"), re.MULTILINE)
    assert len(driver) > 5
    for name, value in driver:
        assert found.after.interface[f"ethtool.{name}"] == int(value), name
    ring = sum(int(b, 16) - int(a, 16) for a, b in spans)
    assert found.after.sockets["ring_bytes"] == ring >= 2_000_000
    assert found.after.sockets["number"] == found.after.sockets["running"] == 1
    assert list(found.after.threads) == ["tcpdump"]
    processed = sum(row["processed"] for row in found.after.softnet.values()) - sum(
        row["processed"] for row in found.before.softnet.values()
    )
    assert processed >= 3000
    assert found.after.disk["free_bytes"] > 0
    assert [trial for trial, _ in read_samples(tmp_path)] == ["t01"] * found.samples


def test_it_costs_less_than_a_hundredth_of_a_core(host: Host, tmp_path: Path) -> None:
    """With the leash, over six samples, one second apart; CPU time does not depend on the load."""
    watch = SampledHost(host, "rx0", tmp_path)
    watch.begin(Footprint((os.getpid(),), str(tmp_path)), "t01")
    time.sleep(6)
    found = watch.end()
    assert found.samples >= 6 and found.sampler_share is not None
    assert 0 < found.sampler_share < 0.01, found.sampler_share


def test_it_dies_with_its_orchestrator(spaces: tuple[str, str], tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from lab.connect import connect\nfrom lab.inventory import HostSpec\n"
        "from lab.sampler import Sampler, Subject\n"
        f"spec = HostSpec(connection='netns', netns={spaces[1]!r}, workdir={str(tmp_path)!r})\n"
        "one = Sampler(connect('sensor', spec), Subject('rx0'))\none.first()\n"
        "print(one._process.pid, flush=True)\ntime.sleep(60)\n"
    )
    ours = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert ours.stdout is not None
    pid = int(ours.stdout.readline())
    assert b"sampler-" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ours.send_signal(signal.SIGKILL)
    ours.wait()
    ours.stdout.close()
    limit = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_nothing_of_it_is_left(host: Any, tmp_path: Path) -> None:
    watch = SampledHost(host, "rx0", tmp_path)
    watch.begin(Footprint(), "t01")
    pids = [p.pid for p in host._processes]
    watch.close()
    watch.close()
    assert len(pids) == 1 and not Path(f"/proc/{pids[0]}").exists()
