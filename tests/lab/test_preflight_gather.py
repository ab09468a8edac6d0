"""From hosts to facts: this machine for real, others from memory; and clocks by round trips."""

from __future__ import annotations

import ast
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import InventoryError, LabError
from lab.fake import Call, FakeHost, Reply
from lab.inventory import HostSpec
from lab.local import LocalHost
from lab.preflight.check import CHECKS
from lab.preflight.clock import clock_offset
from lab.preflight.examine import CHECKED_IN
from lab.preflight.gather import Wish, ask, host_facts, quiet

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /sys")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalHost]:
    with LocalHost("here", HostSpec(connection="local", workdir=str(tmp_path / "work"))) as found:
        yield found


@LINUX
def test_this_machine(host: LocalHost, tmp_path: Path) -> None:
    wish = Wish(("lo", "none0"), (str(tmp_path / "not" / "yet"),), ("sh", "no-such-program"))
    facts = host_facts(host, wish, ask(host, wish))
    assert facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts.cpus is not None and len(facts.cpus) == os.cpu_count()
    assert facts.missing == ("no-such-program",)
    assert facts.tools["kernel"] == platform.release()
    assert facts.processes is not None and "python" in " ".join(facts.processes)
    volume = os.statvfs(tmp_path)
    (only,) = facts.volumes.values()
    assert only.total == volume.f_blocks * volume.f_frsize and 0 < only.free <= only.total
    assert facts.links["lo"].exists and facts.links["lo"].mtu == 65536
    assert not facts.links["none0"].exists and facts.links["none0"].mtu is None


@LINUX
def test_two_readings_are_what_happened_between(host: LocalHost) -> None:
    wish = Wish(("lo",))
    before, after = (ask(host, wish, counters_only=True) for _ in range(2))
    seen = quiet(before, after, ["lo", "none0"], rest=False)
    assert seen.seconds > 0 and seen.received["lo"] >= 0 and "none0" not in seen.received
    assert seen.busy is None


def test_a_host_whose_python_cannot() -> None:
    host = FakeHost(lambda call: Reply("", "sh: python3: not found\n", 127), name="probe")
    with pytest.raises(LabError, match=r"probe: python3 cannot run the preflight .*not found"):
        ask(host, Wish())


def test_a_name_that_is_no_interface() -> None:
    with pytest.raises(InventoryError):
        ask(FakeHost(), Wish(("eth0; reboot",)))


def answers(**changes: Any) -> str:
    empty: dict[str, Any] = {
        "monotonic": 1.0, "files": {}, "lists": {}, "commands": {}, "volumes": {},
        "interrupts": {}, "config": {}, "processes": [],
    }  # fmt: skip
    return json.dumps({**empty, **changes})


def remembered(**changes: Any) -> FakeHost:
    def answer(call: Call) -> Reply:
        return Reply(answers(**changes) if "-" in call.argv else "")

    return FakeHost(answer, name="probe")


def facts_of(**changes: Any) -> Any:
    host = remembered(**changes)
    wish = Wish(("eth1",))
    return host_facts(host, wish, ask(host, wish))


def test_a_machine_that_tells_nothing() -> None:
    facts = facts_of()
    for name in (
        *("boot_id", "cpus", "governors", "throttled", "netem", "conntrack", "iommus"),
        *("hypervisor", "clocksource", "swap_used", "processes", "vulnerabilities"),
    ):
        assert getattr(facts, name) is None, name


@pytest.mark.parametrize(
    ("changes", "netem"),
    [
        ({"lists": {"/sys/module/sch_netem": []}}, True),
        ({"config": {"CONFIG_NET_SCH_NETEM": "n"}}, False),
        ({"config": {"CONFIG_NET_SCH_NETEM": "y"}}, True),
        # Configured as a module whose package is not installed.
        ({"config": {"CONFIG_NET_SCH_NETEM": "m"},
          "commands": {"modprobe -n -q sch_netem": {"status": 1, "out": "", "err": ""}}}, False),
        ({"commands": {"modprobe -n -q sch_netem": {"status": 0, "out": "", "err": ""}}}, True),
        ({}, None),
    ],
)  # fmt: skip
def test_netem(changes: dict[str, Any], netem: bool | None) -> None:
    assert facts_of(**changes).netem is netem


def test_a_two_socket_machine() -> None:
    cpu = "/sys/devices/system/cpu"
    net = "/sys/class/net/eth1"
    facts = facts_of(
        files={
            f"{cpu}/online": "0-3\n",
            f"{cpu}/cpu0/topology/thread_siblings_list": "0,2\n",
            f"{cpu}/cpu3/topology/thread_siblings_list": "1,3\n",
            f"{cpu}/cpu0/cpufreq/scaling_governor": "powersave\n",
            f"{cpu}/cpu0/thermal_throttle/core_throttle_count": "3\n",
            f"{cpu}/cpu1/thermal_throttle/core_throttle_count": "4\n",
            "/sys/devices/system/node/node0/cpulist": "0,2\n",
            "/sys/devices/system/node/node1/cpulist": "1,3\n",
            "/proc/cpuinfo": "processor : 0\nflags : fpu hypervisor lahf_lm\n",
            f"{net}/ifindex": "5\n", f"{net}/mtu": "9000\n", f"{net}/speed": "-1\n",
            f"{net}/operstate": "down\n", f"{net}/device/numa_node": "1\n",
            f"{net}/device/iommu_group/type": "DMA-FQ\n",
        },
        lists={net: ["mtu"], "/sys/class/iommu": ["dmar0"]},
        interrupts={"eth1": {"70": {"name": "eth1-0", "allowed": "0-3", "effective": "2"}}},
    )  # fmt: skip
    assert facts.siblings == {0: {0, 2}, 3: {1, 3}} and facts.nodes == {0: {0, 2}, 1: {1, 3}}
    assert (facts.governors, facts.throttled, facts.hypervisor) == ({0: "powersave"}, 7, True)
    link = facts.links["eth1"]
    assert (link.mtu, link.speed, link.up, link.numa) == (9000, None, False, 1)
    assert link.iommu == "DMA-FQ" and facts.iommus == ("dmar0",)
    assert [(irq.name, set(irq.cpus)) for irq in link.irqs] == [("eth1-0", {2})]


class Clocks:
    """Ours and a host's, `offset` apart; each way takes a time of its own."""

    def __init__(self, offset: float, ways: list[tuple[float, float]]) -> None:
        self.now = 1_700_000_000.0
        self.offset = offset
        self.ways = ways
        self.host = FakeHost(self.answer, name="probe")

    def answer(self, call: Call) -> Reply:
        there, back = self.ways[(len(self.host.calls) - 1) % len(self.ways)]
        self.now += there
        reply = Reply(f"{self.now + self.offset:.9f}\n")
        self.now += back
        return reply


WAY = st.floats(0.0001, 2.0)


@given(st.floats(-100, 100), st.lists(st.tuples(WAY, WAY), min_size=1, max_size=5))
def test_the_true_offset_is_within_the_bounds(
    offset: float, ways: list[tuple[float, float]]
) -> None:
    clocks = Clocks(offset, ways)
    found = clock_offset(clocks.host, lambda: clocks.now)
    assert found is not None and found.low - 1e-5 <= offset <= found.high + 1e-5
    widest = min(there + back for there, back in ways)
    assert found.high - found.low <= widest + 1e-5


def test_a_clock_that_is_set_meanwhile_is_not_believed() -> None:
    clocks = Clocks(0.0, [(0.01, 0.01)])
    first = clocks.host.handler

    def jumping(call: Call) -> Any:
        clocks.offset += 5.0
        return first(call)

    clocks.host.handler = jumping
    assert clock_offset(clocks.host, lambda: clocks.now) is None


def test_a_date_without_fractions_is_not_observable() -> None:
    host = FakeHost(lambda call: Reply("1700000000.%N\n"), name="busybox")
    assert clock_offset(host) is None


def test_what_is_sent_is_python_3_7_and_nothing_of_ours() -> None:
    path = Path(__file__).parents[2] / "lab" / "preflight" / "_collect.py"
    tree = ast.parse(path.read_text(), feature_version=(3, 7))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(a.name in sys.stdlib_module_names for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module in sys.stdlib_module_names or node.module == "__future__"


def test_every_module_of_checks_has_some() -> None:
    modules = {check.judge.__module__ for check in CHECKS.values()}
    assert modules == {module.__name__ for module in CHECKED_IN}
