"""Which interfaces are refused: on scripted answers of `ip` and `ss`, and on this machine's own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from lab.errors import GuardError, InventoryError, MissingTool
from lab.fake import Call, FakeHost, Reply
from lab.guards import check_transmit
from lab.inventory import HostSpec, InterfaceSpec
from lab.local import LocalHost

LINKS: list[dict[str, Any]] = [
    {"ifname": "lo", "flags": ["LOOPBACK", "UP"]},
    {"ifname": "eth0", "flags": ["UP"]},
    {"ifname": "eth1", "flags": ["UP"]},
    {"ifname": "eth2", "flags": ["UP"], "master": "br0"},
    {"ifname": "br0", "flags": ["UP"], "linkinfo": {"info_kind": "bridge"}},
    {"ifname": "eth3", "flags": ["UP"]},
    {"ifname": "eth3.7", "flags": ["UP"], "link": "eth3", "linkinfo": {"info_kind": "vlan"}},
    {"ifname": "tx0", "flags": ["UP"], "link": "rx0", "linkinfo": {"info_kind": "veth"}},
    {"ifname": "rx0", "flags": ["UP"], "link": "tx0", "linkinfo": {"info_kind": "veth"}},
]
ADDRESSES = [
    {"ifname": "eth0", "addr_info": [{"local": "192.0.2.2"}, {"local": "fe80::2"}]},
    {"ifname": "eth1", "addr_info": [{"local": "10.5.0.1"}]},
    {"ifname": "rx0", "addr_info": [{"local": "10.6.0.1"}]},
]


def answer(**parts: Any) -> Callable[[Call], Reply]:
    """A host whose commands answer with `parts`; None is one that fails."""
    values: dict[str, Any] = {
        "links": LINKS,
        "addresses": ADDRESSES,
        "inet": [],
        "inet6": [],
        "session": "",
        "route": "",
        "ssh": "",
        "pci": "",
        **parts,
    }
    text = ""
    for name, value in values.items():
        body = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        text += f"@@ {name}\n{body}\n@@ status {1 if value is None else 0}\n"
    return lambda call: Reply(stdout=text)


def spec(*names: str) -> HostSpec:
    return HostSpec(connection="local", interfaces={n: InterfaceSpec(test=True) for n in names})


def refused(interface: str, **parts: Any) -> str:
    host = FakeHost(answer(**parts), name="gen")
    with pytest.raises(GuardError) as error:
        check_transmit(host, spec(interface), interface)
    text = str(error.value)
    assert text.startswith(f"gen: {interface} ") and "\n" not in text
    return text


def accepted(interface: str, **parts: Any) -> bool:
    check_transmit(FakeHost(answer(**parts)), spec(interface), interface)
    return True


def test_a_declared_quiet_interface_is_accepted() -> None:
    default = [{"dst": "default", "dev": "eth0"}]
    assert accepted("eth1", inet=default, inet6=default)


def test_undeclared_interfaces_are_refused_before_the_host_is_asked() -> None:
    host = FakeHost(answer(), name="gen")
    declared = HostSpec(connection="local", interfaces={"eth1": InterfaceSpec()})
    for name in ("eth1", "eth9"):
        with pytest.raises(GuardError, match="test = true"):
            check_transmit(host, declared, name)
    assert host.calls == []


def test_a_missing_interface() -> None:
    assert "does not exist" in refused("eth9")


def test_the_loopback_only_when_allowed() -> None:
    assert "loopback" in refused("lo")
    check_transmit(FakeHost(answer()), spec("lo"), "lo", allow_loopback=True)


@pytest.mark.parametrize("family", ["inet", "inet6"])
def test_the_default_route(family: str) -> None:
    route = {family: [{"dst": "default", "gateway": "x", "dev": "eth0"}]}
    assert f"{'IPv6' if family == 'inet6' else 'IPv4'} default route" in refused("eth0", **route)
    hops = [{"dev": "eth0"}, {"dev": "eth1"}]
    assert "default route" in refused("eth1", **{family: [{"dst": "default", "nexthops": hops}]})
    nowhere = [{"type": "unreachable", "dst": "default", "dev": "eth1"}]
    assert accepted("eth1", **{family: nowhere})


def test_what_lies_below_the_default_route() -> None:
    assert "below br0" in refused("eth2", inet=[{"dst": "default", "dev": "br0"}])
    assert "below eth3.7" in refused("eth3", inet=[{"dst": "default", "dev": "eth3.7"}])
    # A VLAN on the carrier's parent is a network of its own; a veth's peer is beside it.
    assert accepted("eth3.7", inet=[{"dst": "default", "dev": "eth3"}])
    assert accepted("tx0", inet=[{"dst": "default", "dev": "rx0"}])


def test_the_ssh_session_we_are_in() -> None:
    session = {"session": "192.0.2.77 50000 10.5.0.1 22"}
    assert "SSH session" in refused("eth1", **session)
    route = [{"dst": "192.0.2.77", "dev": "eth0"}]
    assert "SSH session" in refused("eth0", **session, route=route)
    assert accepted("tx0", **session, route=route)


@pytest.mark.parametrize(
    "line",
    [
        "0 0 10.5.0.1:22 10.5.0.9:40000",
        "0 0 [::ffff:10.5.0.1]:22 [::ffff:10.5.0.9]:40000",
        '0 0 10.5.0.1:2222 10.5.0.9:40000 users:(("sshd",pid=7,fd=4))',
        "0 0 10.5.0.1:40000 10.5.0.9:22",
        "0 0 [fe80::1%eth1]:22 [fe80::9]:40000",
    ],
)
def test_established_ssh(line: str) -> None:
    assert "SSH connection" in refused("eth1", ssh=line)


def test_other_connections_are_no_matter() -> None:
    assert accepted("eth1", ssh='0 0 10.5.0.1:443 10.5.0.9:40000 users:(("nginx",pid=7,fd=4))\n')


@pytest.mark.parametrize("part", ["links", "addresses", "inet", "inet6", "ssh"])
def test_a_question_without_an_answer_is_a_refusal(part: str) -> None:
    with pytest.raises(MissingTool, match="nothing is sent"):
        accepted("eth1", **{part: None})
    with pytest.raises(MissingTool):
        accepted("eth1", links=[])
    with pytest.raises(MissingTool):
        check_transmit(FakeHost(lambda call: Reply(returncode=127)), spec("eth1"), "eth1")


def test_a_name_that_is_no_interface_goes_nowhere() -> None:
    host = FakeHost(answer())
    with pytest.raises(InventoryError):
        check_transmit(host, spec("../../etc"), "../../etc")
    assert host.calls == []


@pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed")
def test_this_machine_s_own_default_route() -> None:
    routes = json.loads(
        subprocess.run(
            ["ip", "-j", "route", "show", "default"], capture_output=True, text=True
        ).stdout
        or "[]"
    )
    if not routes:
        pytest.skip("no default route here")
    name = routes[0]["dev"]
    with pytest.raises(GuardError, match="default route"):
        check_transmit(LocalHost("here", spec(name)), spec(name), name)
