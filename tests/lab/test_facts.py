"""Facts, tools and counters, compared with what this machine says of itself."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import InventoryError, LabError
from lab.facts import facts, interface_statistics, missing_tools, sudo_needs
from lab.fake import FakeHost, Reply
from lab.inventory import HostSpec, load_inventory
from lab.local import LocalHost

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /sys")
EXAMPLES = Path(__file__).parents[2] / "lab"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalHost]:
    spec = HostSpec(connection="local", workdir=str(tmp_path / "w"), python=sys.executable)
    with LocalHost("here", spec) as found:
        yield found


def test_facts_are_this_machine_s(host: LocalHost) -> None:
    found = facts(host)
    assert found["kernel"] == platform.release()
    assert found["hostname"] == socket.gethostname()
    assert found["cores"] == str(os.sysconf("SC_NPROCESSORS_ONLN"))
    assert found["python"] == platform.python_version()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert abs(int(found["memory_kib"]) * 1024 - memory) < memory * 0.05
    for tool in ("suricata", "tcpreplay", "ethtool"):
        if shutil.which(tool, path="/usr/bin:/usr/sbin:/sbin:/bin"):
            assert found[tool][0].isdigit(), tool


def test_facts_without_any_tool(tmp_path: Path) -> None:
    spec = HostSpec(connection="local", workdir=str(tmp_path), python="no-such-python")
    found = facts(LocalHost("here", spec))
    assert found["python"] == "" and found["kernel"] == platform.release()


def test_facts_of_a_host_that_says_nothing() -> None:
    assert facts(FakeHost(lambda call: Reply(returncode=1))) == {}


def test_missing_tools(host: LocalHost) -> None:
    assert missing_tools(host, ["sh", "no-such-tool", "ls", "-x", "a b"]) == [
        "no-such-tool",
        "-x",
        "a b",
    ]
    assert missing_tools(host, []) == []


def test_interface_statistics_are_those_of_sysfs(host: LocalHost) -> None:
    directory = Path("/sys/class/net/lo/statistics")
    before = {p.name: int(p.read_text()) for p in directory.iterdir()}
    found = interface_statistics(host, "lo")
    after = {p.name: int(p.read_text()) for p in directory.iterdir()}
    assert {n for n in found if not n.startswith("ethtool.")} == set(before)
    assert all(before[n] <= found[n] <= after[n] for n in before)


def test_driver_counters_follow() -> None:
    text = (
        "rx_packets:12\nrx_dropped:0\nNIC statistics:\n     rx_queue_0_drops: 4\n"
        "     [0]: rx_ucast_packets: 7\n     no number: x\n"
    )
    host = FakeHost(lambda call: Reply(stdout=text))
    assert interface_statistics(host, "eth1") == {
        "rx_packets": 12,
        "rx_dropped": 0,
        "ethtool.rx_queue_0_drops": 4,
        "ethtool.[0]: rx_ucast_packets": 7,
    }
    assert len(host.calls) == 1


def test_a_missing_or_impossible_interface(host: LocalHost) -> None:
    with pytest.raises(LabError, match="here: there is no interface nope0"):
        interface_statistics(host, "nope0")
    for name in ("../lo", "a b", "", "x" * 16, ".."):
        with pytest.raises(InventoryError):
            interface_statistics(host, name)


def test_what_needs_sudo_is_listed() -> None:
    needs = sudo_needs(load_inventory(EXAMPLES / "example-two-hosts.toml"))
    assert {(n.host, n.command) for n in needs} >= {
        ("gen", "tcpreplay"),
        ("probe", "suricata"),
        ("gen", "timeout"),
        ("probe", "/usr/bin/python3"),
    }
    assert sudo_needs(load_inventory(EXAMPLES / "example-jump.toml")) == []
