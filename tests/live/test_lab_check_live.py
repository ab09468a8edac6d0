"""`probebench lab check` and a run's preflight on a virtual lab that is spoilt on purpose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from suricata_traffic import RULES, write_capture
from sweeping import probebench, trials

from harness.host_samples import read_samples
from harness.preflight import read_preflight
from lab import netns_tools as net
from lab import virtual
from lab.virtual_layout import layout

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]

TALK = """
import socket, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("tx0", 0))
while True:
    s.send(bytes.fromhex("0180c200000e020000000001 88cc".replace(" ", "")) + bytes(46))
    time.sleep(0.05)
"""


class Lab:
    """A virtual lab, and the last report on it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = virtual.up(name)
        self.generator = layout(name).namespaces.generator
        self.sensor = layout(name).namespaces.sensor

    def inside(self, space: str, *argv: str) -> None:
        net.run(["ip", "netns", "exec", space, *argv])

    def check(self, *argv: str) -> tuple[int, dict[str, Any]]:
        done = probebench("lab", "check", "--lab", self.path, "--seconds", "0", "--json", *argv)
        assert "Traceback" not in done.stderr, done.stderr
        return done.status, json.loads(done.stdout)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    name = f"chk{os.getpid()}"
    try:
        yield Lab(name)
    finally:
        virtual.down(name)


def found(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{f['code']} {f['where']}": f for f in report["findings"]}


def test_a_good_lab_has_nothing_severe(lab: Lab) -> None:
    status, report = lab.check()
    assert status == 0
    assert not [f for f in report["findings"] if f["severity"] == "invalid"]
    assert "co-located generator, sensor" in found(report)
    assert "virtual-link sensor: rx0" in found(report)
    fine = {f"{note['code']} {note['where']}" for note in report["fine"]}
    assert {
        "receive-offloads sensor: rx0",
        "transmit-offloads generator: tx0",
        "background-packets sensor: rx0",
        "mtu sensor: rx0",
        "shaper generator: tx0",
        "other-captures sensor: rx0",
        "clock-offset generator, sensor",
    } <= fine
    # A veth has neither ring, key nor pause frames: that is said, and not taken for good.
    unseen = {note["code"] for note in report["unseen"]}
    assert {"ring-size", "rss-symmetry", "pause-frames", "irq-affinity"} <= unseen
    facts = report["facts"]["sensor"]
    assert facts["cpus"] == sorted(os.sched_getaffinity(0))
    assert facts["tools"]["kernel"] == os.uname().release
    assert facts["links"]["rx0"]["driver"] == "veth"


def spoil_gro(lab: Lab) -> Callable[[], None]:
    lab.inside(lab.sensor, "ethtool", "-K", "rx0", "gro", "on")
    return lambda: lab.inside(lab.sensor, "ethtool", "-K", "rx0", "gro", "off")


def spoil_tso(lab: Lab) -> Callable[[], None]:
    def switch(to: str) -> None:  # segmentation needs scatter-gather and checksums
        words = [word for name in ("tx", "sg", "tso", "gso") for word in (name, to)]
        lab.inside(lab.generator, "ethtool", "-K", "tx0", *words)

    switch("on")
    return lambda: switch("off")


def spoil_qdisc(lab: Lab) -> Callable[[], None]:
    shape = ["root", "tbf", "rate", "10mbit", "burst", "32kb", "latency", "50ms"]
    lab.inside(lab.generator, "tc", "qdisc", "add", "dev", "tx0", *shape)
    return lambda: lab.inside(lab.generator, "tc", "qdisc", "del", "dev", "tx0", "root")


def spoil_mtu(lab: Lab) -> Callable[[], None]:
    lab.inside(lab.sensor, "ip", "link", "set", "rx0", "mtu", "1400")
    return lambda: lab.inside(lab.sensor, "ip", "link", "set", "rx0", "mtu", "1500")


def spoil_link(lab: Lab) -> Callable[[], None]:
    lab.inside(lab.generator, "ip", "link", "set", "tx0", "down")
    return lambda: lab.inside(lab.generator, "ip", "link", "set", "tx0", "up")


@pytest.mark.parametrize(
    ("spoil", "code", "status"),
    [
        (spoil_gro, "receive-offloads sensor: rx0", 1),
        (spoil_tso, "transmit-offloads generator: tx0", 0),
        (spoil_qdisc, "shaper generator: tx0", 1),
        (spoil_mtu, "mtu sensor: rx0", 0),
        (spoil_link, "link-down sensor: rx0", 1),
    ],
)
def test_what_is_spoilt_is_found(
    lab: Lab, spoil: Callable[[Lab], Callable[[], None]], code: str, status: int
) -> None:
    mend = spoil(lab)
    try:
        got, report = lab.check()
    finally:
        mend()
    assert code in found(report)
    assert got == status
    if "receive" in code:
        assert found(report)[code]["remedy"] == "ethtool -K rx0 gro off"


def test_packets_and_captures_that_are_not_ours_are_found(lab: Lab) -> None:
    into = ("ip", "netns", "exec")
    talker = subprocess.Popen([*into, lab.generator, sys.executable, "-c", TALK])
    dump = subprocess.Popen(
        [*into, lab.sensor, "tcpdump", "-i", "rx0", "-Z", "root", "-w", "/dev/null"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert dump.stderr is not None and "listening" in dump.stderr.readline()
        time.sleep(0.2)
        _, report = lab.check("--seconds", "2")
    finally:
        for process in (talker, dump):
            process.kill()
            process.wait()
        assert dump.stderr is not None
        dump.stderr.close()
    strays = found(report)["background-packets sensor: rx0"]
    assert strays["severity"] == "warning" and strays["numbers"]["received"] >= 10
    assert strays["numbers"]["seconds"] >= 2
    assert found(report)["other-captures sensor: rx0"]["numbers"] == {"sockets": 1}


def test_loads_and_frames_are_held_against_the_link(lab: Lab, tmp_path: Path) -> None:
    write_capture(tmp_path / "c.pcap")
    (tmp_path / "p.toml").write_text('name = "p"\n[load]\naxis = "bps"\nvalues = [4e10]\n')
    status, report = lab.check("--for", tmp_path / "p.toml", "--corpus", tmp_path / "c.pcap")
    assert status == 1
    speed = found(report)["link-speed sensor: rx0"]
    # 40 Gb/s of frames take more of the link than that.
    assert speed["severity"] == "invalid" and speed["numbers"]["load_mbps"] > 40_000


@pytest.mark.skipif(shutil.which("suricata") is None, reason="needs suricata")
@pytest.mark.skipif(shutil.which("tcpreplay") is None, reason="needs tcpreplay")
def test_a_run_keeps_its_preflight_and_its_samples(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "t.rules").write_text(RULES)
    write_capture(tmp_path / "c.pcap")
    text = lab.path.read_text().splitlines()
    own = [f'rules = ["{tmp_path}/t.rules"]' if x.startswith("rules = ") else x for x in text]
    (tmp_path / "lab.toml").write_text("\n".join(own) + "\n")
    (tmp_path / "p.toml").write_text(
        'name = "p"\n[load]\nvalues = [2000]\nduration = 4\n[corpus]\nmax_gap = 0.1\n'
    )
    mend = spoil_gro(lab)
    run = tmp_path / "run"
    try:
        done = probebench(
            "sweep", tmp_path / "p.toml", "--lab", tmp_path / "lab.toml",
            "--corpus", tmp_path / "c.pcap", "-o", run,
        )  # fmt: skip
    finally:
        mend()
    assert done.status == 0, done.stderr
    assert "invalid: preflight receive-offloads: sensor: rx0: on: gro" in done.stderr
    (entry,) = read_preflight(run)
    assert "receive-offloads sensor: rx0" in found(entry) and entry["seconds"] >= 1
    (trial,) = (t for t in trials(run) if t["phase"] == "sweep")
    gates = {gate["code"]: gate for gate in trial["gates"]}
    assert gates["offloads"]["numbers"] == {"receive-offloads": 1}
    assert gates["offloads"]["message"] == "sensor: rx0: receive-offloads on: gro"
    assert "clock" not in gates  # one machine, one clock
    host = trial["host"]
    assert host["failure"] is None and host["samples"] >= 4
    workers = [name for name in host["after"]["threads"] if name.startswith("W#")]
    assert len(workers) == 1 and f"thread.{workers[0]}" in host["peaks"]
    moved = host["after"]["interface"]["rx_packets"] - host["before"]["interface"]["rx_packets"]
    assert moved == trial["sent"]["packets"] == trial["nic"]["rx_packets"]
    assert host["after"]["sockets"]["running"] == 1 and host["after"]["sockets"]["ring_bytes"] > 0
    assert host["after"]["memory"]["rss"] > 10 << 20
    assert 0 < host["sampler_cpu_s"] < 0.01 * (host["after"]["t"] - host["before"]["t"]) + 0.02
    samples = [reading for name, reading in read_samples(run) if name == trial["name"]]
    assert len(samples) == host["samples"]
    assert samples[-1].interface == host["after"]["interface"]
