"""Each check on a good lab, on one that is spoilt for it, and on one that tells nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.preflight.check import CHECKS, Report, examine
from lab.preflight.examine import CHECKED_IN
from lab.preflight.facts import (
    Channels,
    HostFacts,
    Irq,
    LinkFacts,
    Offset,
    Quiet,
    Rings,
    Rss,
    Setup,
    Volume,
)
from lab.preflight.words import lines

KEY = bytes.fromhex("6d5a") * 20
FEATURES = dict.fromkeys(
    [
        *("generic-receive-offload", "large-receive-offload", "rx-gro-hw", "rx-vlan-offload"),
        *("tcp-segmentation-offload", "generic-segmentation-offload"),
    ],
    False,
)
LINK = LinkFacts(
    "ens1", up=True, mtu=1500, speed=40_000, duplex="full", promiscuous=True, captures=0,
    driver="i40e", driver_version="2.17.4", firmware="7.00", features=FEATURES,
    rings=Rings(4096, 4096, 512, 4096), channels=Channels(4, 64),
    rss=Rss(4, (0, 1, 2, 3), KEY, "toeplitz"), pause=(False, False), numa=0, iommu="identity",
    irqs=tuple(Irq(f"i40e-ens1-TxRx-{n}", frozenset({n})) for n in range(4)),
    qdiscs=("mq",), xdp=False,
)  # fmt: skip
HOST = HostFacts(
    "probe", boot_id="a", cmdline="iommu=pt", cpus=frozenset(range(8)),
    siblings={n: frozenset({n % 4, n % 4 + 4}) for n in range(8)},
    nodes={0: frozenset({0, 1, 4, 5}), 1: frozenset({2, 3, 6, 7})},
    governors=dict.fromkeys(range(8), "performance"), throttled=0,
    vulnerabilities={"meltdown": "Not affected"}, hypervisor=False, clocksource="tsc",
    iommus=("dmar0",), netem=True, conntrack=0, conntrack_loaded=True,
    processes=frozenset({"systemd"}), swap_used=0, swap_total=1 << 30,
    volumes={"/var/log": Volume(1 << 40, 1 << 39)},
    tools={"kernel": "6.1", "distribution": "Debian", "ethtool": "6.1", "iproute2": "6.1",
           "python": "3.11.2"},
    missing=(), links={"ens1": LINK},
)  # fmt: skip
NODE0 = {0: frozenset(range(8)), 1: frozenset({8})}
STILL = Quiet(5.0, {"ens1": 0}, {"ens1": 0}, 0.01)
GOOD = Setup(
    generator=replace(HOST, name="gen", boot_id="b", nodes=NODE0),
    sensor=replace(HOST, nodes=NODE0),
    transmit=("ens1",), receive="ens1",
    generator_cpus=frozenset({0, 1}), sensor_cpus=frozenset({0, 1, 2, 3}), workers=4,
    max_frame=1514, peak_bps=1e10,
    clocks={"gen": Offset(-0.01, 0.01), "probe": Offset(-0.01, 0.01)},
    quiet={"gen": STILL, "probe": STILL},
)  # fmt: skip
BLANK = Setup(
    generator=HostFacts("gen", links={"ens1": LinkFacts("ens1")}),
    sensor=HostFacts("probe", links={"ens1": LinkFacts("ens1")}),
    transmit=("ens1",),
    receive="ens1",
    workers=2,
)

Spoil = Callable[[Setup], Setup]


def ear(**changes: Any) -> Spoil:
    """Change the sensor's interface."""

    def spoil(setup: Setup) -> Setup:
        links = {"ens1": replace(setup.sensor.links["ens1"], **changes)}
        return replace(setup, sensor=replace(setup.sensor, links=links))

    return spoil


def port(**changes: Any) -> Spoil:
    """Change the generator's interface."""

    def spoil(setup: Setup) -> Setup:
        links = {"ens1": replace(setup.generator.links["ens1"], **changes)}
        return replace(setup, generator=replace(setup.generator, links=links))

    return spoil


def sensor(**changes: Any) -> Spoil:
    return lambda setup: replace(setup, sensor=replace(setup.sensor, **changes))


def generator(**changes: Any) -> Spoil:
    return lambda setup: replace(setup, generator=replace(setup.generator, **changes))


def lab(**changes: Any) -> Spoil:
    return lambda setup: replace(setup, **changes)


def moved(received: int, sent: int, busy: float | None = 0.0) -> Spoil:
    quiet = Quiet(5.0, {"ens1": received}, {"ens1": sent}, busy)
    return lambda setup: replace(setup, quiet={**setup.quiet, "probe": quiet})


def on(name: str) -> dict[str, bool]:
    return {**FEATURES, name: True}


# Code, severity, a word of the message, and what is spoilt.
CASES: list[tuple[str, str, str, Spoil]] = [
    ("link-down", "invalid", "is down", ear(up=False)),
    ("link-down", "invalid", "no such interface", port(exists=False)),
    ("link-speed", "invalid", "10,000 Mb/s", ear(speed=1000)),
    ("link-speed", "warning", "ends differ", ear(speed=25_000)),
    ("link-speed", "invalid", "half duplex", ear(duplex="half")),
    ("mtu", "invalid", "1514 bytes", ear(mtu=1400)),
    ("mtu", "warning", "generator's is 9000", port(mtu=9000)),
    ("receive-offloads", "invalid", "on: gro", ear(features=on("generic-receive-offload"))),
    ("receive-offloads", "invalid", "on: lro", ear(features=on("large-receive-offload"))),
    ("receive-offloads", "invalid", "on: rx-gro-hw", ear(features=on("rx-gro-hw"))),
    ("receive-offloads", "info", "ahead of it",
     lambda s: lab(bypass=True)(ear(features=on("generic-receive-offload"))(s))),
    ("other-captures", "info", "2 capture", lambda s: lab(observed=True)(ear(captures=2)(s))),
    ("vlan-offload", "warning", "rx-vlan-offload", ear(features=on("rx-vlan-offload"))),
    ("transmit-offloads", "warning", "tso", port(features=on("tcp-segmentation-offload"))),
    ("pause-frames", "warning", "receive on, transmit off", ear(pause=(True, False))),
    ("shaper", "invalid", "tbf", port(qdiscs=("mq", "tbf"))),
    ("xdp-program", "warning", "attached", ear(xdp=True)),
    ("background-packets", "warning", "40 packets received", moved(40, 0)),
    ("background-packets", "info", "2 packets received", moved(2, 0)),
    ("other-captures", "warning", "2 capture sockets", ear(captures=2)),
    ("promiscuous", "info", "off", ear(promiscuous=False)),
    ("virtual-link", "info", "veth", ear(driver="veth")),
    ("rss-queues", "warning", "1 receive queue", ear(rss=Rss(1, (0,), KEY, "toeplitz"),
                                                     channels=Channels(1, 64))),
    ("rss-queues", "info", "2 receive queue", ear(rss=Rss(2, (0, 1), KEY, "toeplitz"),
                                                  channels=Channels(2, 2))),
    ("rss-queues", "warning", "table uses 2 of 4", ear(rss=Rss(4, (0, 1), KEY, "toeplitz"))),
    ("rss-symmetry", "warning", "84:50:f4:00",
     ear(rss=Rss(4, (0, 1, 2, 3), bytes.fromhex("8450f400a815"), "toeplitz"))),
    ("ring-size", "warning", "256 of 4096", ear(rings=Rings(256, 4096, 256, 4096))),
    ("irq-affinity", "warning", "all 4 vectors go to CPU 0",
     ear(irqs=tuple(Irq(str(n), frozenset({0})) for n in range(4)))),
    ("irq-affinity", "warning", "not on the NIC's NUMA node 0",
     sensor(nodes={0: frozenset({0, 1}), 1: frozenset(range(2, 8))})),
    ("iommu", "warning", "DMA-FQ", ear(iommu="DMA-FQ")),
    ("numa", "warning", "4 of the sensor's 4 CPUs are not (0,1,2,3)", ear(numa=1)),
    ("cpu-list", "invalid", "8,9, which are not online", lab(sensor_cpus=frozenset({0, 8, 9}))),
    ("cpu-list", "warning", "9 workers on 4 CPUs", lab(workers=9)),
    ("cpu-shared", "warning", "0,4", lab(sensor_cpus=frozenset({0, 4}), workers=2)),
    ("cpu-shared", "warning", "share the cores of CPU 0,1",
     lambda s: lab(generator_cpus=frozenset({4, 5}))(generator(boot_id="a")(s))),
    ("governor", "warning", "powersave on 1 of 2",
     sensor(governors={0: "powersave", 1: "performance"})),
    ("throttled", "warning", "7 times", sensor(throttled=7)),
    ("virtual-machine", "info", "hypervisor", sensor(hypervisor=True)),
    ("mitigations", "info", "1 mitigations: meltdown",
     sensor(vulnerabilities={"meltdown": "Mitigation: PTI", "mds": "Vulnerable"})),
    ("clock-source", "warning", "hpet", sensor(clocksource="hpet")),
    ("co-located", "info", "booted as one", generator(boot_id="a")),
    ("clock-offset", "warning", "between +1.990 and +2.030",
     lab(clocks={"gen": Offset(-0.01, 0.01), "probe": Offset(2.0, 2.02)})),
    ("disk-space", "invalid", "100 MiB free", sensor(volumes={"/x": Volume(1 << 40, 100 << 20)})),
    ("disk-space", "warning", "1,024 MiB", sensor(volumes={"/x": Volume(1 << 40, 1 << 30)})),
    ("missing-tools", "invalid", "ip", sensor(missing=("ethtool", "ip"))),
    ("missing-tools", "warning", "ethtool", sensor(missing=("ethtool",))),
    ("missing-tools", "invalid", "3.6.8", sensor(tools={**HOST.tools, "python": "3.6.8"})),
    ("versions", "info", "kernel: 6.1 and 5.10", sensor(tools={**HOST.tools, "kernel": "5.10"})),
    ("busy-host", "warning", "40 %", moved(0, 0, 0.4)),
    ("irqbalance", "warning", "runs", sensor(processes=frozenset({"irqbalance"}))),
    ("conntrack", "warning", "12 connections", sensor(conntrack=12)),
    ("swap", "info", "1 of 1,024", sensor(swap_used=1 << 20)),
    ("swap", "warning", "512 of 1,024", sensor(swap_used=1 << 29)),
    ("netem", "info", "no netem", generator(netem=False)),
]  # fmt: skip


def found(report: Report, code: str) -> list[tuple[str, str]]:
    return [(f.severity, f.message) for f in report.findings if f.code == code]


def test_a_good_lab_is_fine() -> None:
    report = examine(GOOD)
    assert [f for f in report.findings if f.code != "missing"] == []
    assert report.unseen == () and not report.severe
    assert {note.code for note in report.fine} == set(CHECKS)


@pytest.mark.parametrize(
    ("code", "severity", "word", "spoil"), CASES, ids=[f"{c[0]}: {c[2]}" for c in CASES]
)
def test_what_is_spoilt_is_found(code: str, severity: str, word: str, spoil: Spoil) -> None:
    report = examine(spoil(GOOD))
    got = found(report, code)
    assert any(s == severity and word in message for s, message in got), got
    assert report.severe == any(f.severity == "invalid" for f in report.findings)


def test_every_check_is_spoilt_once() -> None:
    assert {case[0] for case in CASES} == set(CHECKS) and len(CHECKED_IN) == 4


def test_what_tells_nothing_is_never_fine() -> None:
    report = examine(BLANK)
    assert report.fine == ()
    assert report.findings == ()
    assert {note.code for note in report.unseen} == set(CHECKS)


@pytest.mark.parametrize(
    ("iommus", "cmdline", "told"),
    [((), "quiet", "no IOMMU is in use"), (("dmar0",), "intel_iommu=on iommu=pt", "iommu=pt")],
)
def test_an_interface_without_a_domain(iommus: tuple[str, ...], cmdline: str, told: str) -> None:
    report = examine(sensor(iommus=iommus, cmdline=cmdline)(ear(iommu=None)(GOOD)))
    assert told in [n.message for n in report.fine if n.code == "iommu"]
    behind = examine(sensor(iommus=("dmar0",), cmdline="quiet")(ear(iommu=None)(GOOD)))
    assert "iommu" in {n.code for n in behind.unseen}


def test_a_closed_appliance_is_not_observable() -> None:
    report = examine(replace(GOOD, receive=None))
    unseen = {note.code for note in report.unseen}
    assert {"receive-offloads", "rss-queues", "ring-size", "numa"} <= unseen
    assert not [n for n in report.fine if n.where == "probe: ens1"]


def test_a_dpdk_port_is_not_an_interface() -> None:
    report = examine(replace(GOOD, transmit=("0000:03:00.0",)))
    assert [n.where for n in report.unseen if n.code == "link-down"] == ["gen: 0000:03:00.0"]


def test_the_most_severe_come_first_and_in_words() -> None:
    report = examine(ear(up=False, promiscuous=False, pause=(True, True))(GOOD))
    assert [f.severity for f in report.findings] == ["invalid", "warning", "info"]
    text = "\n".join(lines(report))
    assert text.startswith("INVALID  link-down  probe: ens1: the link is down")
    assert "would look like: a generator that is too slow" in text
    assert text.endswith(f"1 invalid, 1 warning, 1 info; 0 not observable, {len(report.fine)} fine")
    assert "not observable: " in "\n".join(lines(examine(BLANK)))


def test_every_check_is_documented_with_its_severity() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "preflight.md").read_text()
    sections = dict(re.findall(r"^### ([\w-]+)\n\*\*(\w+)\.\*\*", text, re.MULTILINE))
    assert sections == {code: check.severity for code, check in CHECKS.items()}
    parts = re.split(r"^### ([\w-]+)\n", text, flags=re.MULTILINE)
    for code, body in zip(parts[1::2], parts[2::2], strict=True):
        assert "Looks like" in body and "Remedy" in body, code


def test_the_host_that_asks_a_closed_sensor_is_not_taken_for_it() -> None:
    asking = replace(GOOD.generator, name="here", hypervisor=True)
    report = examine(replace(GOOD, receive=None, sensor=asking))
    assert not [found for found in report.findings if "here" in found.where]
    assert [n.message for n in report.unseen if n.code == "co-located"] == [
        "the sensor is closed: nobody can see what it runs on"
    ]
