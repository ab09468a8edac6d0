"""Ports named by PCI address: which are refused, on scripted hosts and on this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_guards import LINKS, answer, spec

from lab.errors import GuardError
from lab.fake import FakeHost
from lab.guards import check_transmit
from lab.local import LocalHost
from lab.pci import pci_address, read_pci

PORT = "0000:03:00.0"
BRIDGES = "/sys/devices/pci0000:00/0000:00:1c.0"
FREE = f"dev {PORT} vfio-pci\ndev 0000:03:00.1 \n"
# A mlx5 port keeps its interface while DPDK has it; ens1 has a VLAN; eth0 is a virtio device.
KEPT = (
    f"net eth1 {BRIDGES}/{PORT}\nnet eth3 {BRIDGES}/0000:03:00.1\n"
    "net eth0 /sys/devices/pci0000:00/0000:00:03.0/virtio2\n"
    f"dev {PORT} mlx5_core\ndev 0000:03:00.1 mlx5_core\ndev 0000:00:03.0 virtio-pci\n"
)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (PORT, PORT),
        ("03:00.0", PORT),
        ("0000:AF:1F.7", "0000:af:1f.7"),
        ("10000:01:00.0", "10000:01:00.0"),
        ("eth0", None),
        ("eth0:1", None),
        ("0000:03:20.0", None),  # a bus has 32 devices
        ("0000:03:00.8", None),
        ("0000:03:00.0/../eth0", None),
    ],
)
def test_what_is_an_address(name: str, address: str | None) -> None:
    assert pci_address(name) == address


def judge(port: str, pci: str | None, **parts: Any) -> str:
    """What the guard says of a declared port; "" when it accepts."""
    host = FakeHost(answer(pci=pci, **parts), name="gen")
    try:
        check_transmit(host, spec(port), port)
    except GuardError as error:
        assert str(error).startswith(f"gen: {port} ") and "\n" not in str(error)
        return str(error)
    return ""


@pytest.mark.parametrize("port", [PORT, "03:00.0", "0000:03:00.1"])
def test_a_port_that_no_interface_has_is_accepted(port: str) -> None:
    assert judge(port, FREE, inet=[{"dst": "default", "dev": "eth0"}]) == ""


def test_a_port_that_keeps_its_interface_counts_as_that_interface() -> None:
    assert judge(PORT, KEPT, inet=[{"dst": "default", "dev": "eth0"}]) == ""
    assert "(eth1) carries the IPv4 default route" in judge(
        PORT, KEPT, inet=[{"dst": "default", "dev": "eth1"}]
    )
    assert "(eth1) carries the SSH session" in judge(
        PORT, KEPT, session="192.0.2.77 50000 10.5.0.1 22"
    )
    assert "(eth1) carries an SSH connection" in judge(PORT, KEPT, ssh="0 0 10.5.0.1:22 10.5.0.9:4")
    # Below the VLAN that carries it, and a virtio device below its PCI function.
    assert "(eth3) carries the IPv6 default route (below eth3.7)" in judge(
        "0000:03:00.1", KEPT, inet6=[{"dst": "default", "dev": "eth3.7"}]
    )
    assert "(eth0) carries the IPv4" in judge(
        "00:03.0", KEPT, inet=[{"dst": "default", "dev": "eth0"}]
    )


def test_an_interface_somewhere_else_is_a_refusal() -> None:
    said = judge(PORT, f"dev {PORT} ixgbe\n")
    assert "is driven by ixgbe, but its interface is not in this network namespace" in said


@pytest.mark.parametrize("pci", [None, "", "dev 0000:00:03.0 vfio-pci\n"])
def test_a_port_that_nobody_knows_is_refused(pci: str | None) -> None:
    assert "is no network device there" in judge(PORT, pci)


def test_an_undeclared_port_is_refused_before_the_host_is_asked() -> None:
    host = FakeHost(answer(pci=FREE))
    with pytest.raises(GuardError, match="test = true"):
        check_transmit(host, spec("eth1"), PORT)
    assert host.calls == []


def test_two_interfaces_of_one_port_both_count() -> None:
    found = read_pci(f"net eth1 {BRIDGES}/{PORT}\nnet eth2 {BRIDGES}/{PORT}\n")
    assert found.interfaces == {PORT: ("eth1", "eth2")}
    both = KEPT + f"net eth3 {BRIDGES}/{PORT}\n"
    assert "(eth3) carries" in judge(PORT, both, inet=[{"dst": "default", "dev": "eth3"}])
    assert {link["ifname"] for link in LINKS} >= {"eth1", "eth3"}


def test_this_machine_s_own_default_route_by_its_address() -> None:
    """By sysfs as it is here, however deep the device lies."""
    done = subprocess.run(["ip", "-j", "route", "show", "default"], capture_output=True, text=True)
    routes = json.loads(done.stdout or "[]")
    if not routes:
        pytest.skip("no default route here")
    device = Path("/sys/class/net", routes[0]["dev"], "device")
    parts = device.resolve().parts if device.exists() else ()
    above = [a for part in parts if (a := pci_address(part))]
    if not above:
        pytest.skip("the default route's interface is no PCI device here")
    with pytest.raises(GuardError, match="default route"):
        check_transmit(LocalHost("here", spec(above[-1])), spec(above[-1]), above[-1])
