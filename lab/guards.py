"""The last look before anything is sent: may this interface carry test traffic?

Refused is what is not declared (`test = true`), what carries the host's default route or an SSH
session, and the loopback. An interface below such a one counts as that one: the parent of a VLAN or
macvlan, a port of a bridge, bond or team. A port that is named by PCI address, for a generator that
takes it from the kernel, counts as every interface that the kernel still has on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lab.errors import GuardError, MissingTool
from lab.facts import SBIN, check_name
from lab.host import Host
from lab.inventory import HostSpec
from lab.pci import PCI_SCRIPT, PciDevices, pci_address, read_pci

__all__ = ["check_transmit", "is_pci"]

# One round trip. Each part says its name first and its exit status last, so that a part which
# failed is never taken for an empty answer.
_SCRIPT = (
    SBIN
    + PCI_SCRIPT
    + """
part() { echo "@@ $1"; shift; "$@"; echo "@@ status $?"; }
part links ip -d -j link show
part addresses ip -j addr show
part inet ip -j -4 route show default table all
if [ -e /proc/sys/net/ipv6 ]; then part inet6 ip -j -6 route show default table all
else part inet6 true; fi
part session echo "$SSH_CONNECTION"
set -- $SSH_CONNECTION
to_client() { [ -z "$1" ] || ip -j route get "${1%%%*}" || true; }  # no route, no interface
part route to_client "$1"
part ssh ss -Htnp state established
part pci pci
"""
)
_SSH_PORT = 22
# Drivers that hand a port to a program (DPDK's guide, "Linux Drivers"), and none at all.
_FREE = ("", "vfio-pci", "igb_uio", "uio_pci_generic")


@dataclass(frozen=True, slots=True)
class _Network:
    """What `ip` says of a host."""

    links: dict[str, dict[str, Any]]
    default: dict[str, str]  # interface to the family of its default route
    session: set[str]  # interfaces of the SSH session we are in
    ssh: dict[str, str]  # interface to an established SSH connection on it
    pci: PciDevices

    def below(self, name: str) -> set[str]:
        """The interface and everything its packets leave through."""
        found: set[str] = set()
        todo = [name]
        while todo:
            one = todo.pop()
            if one in found or one not in self.links:
                continue
            found.add(one)
            link = self.links[one]
            # A veth's "link" is its peer, which is beside it and not below.
            if link.get("linkinfo", {}).get("info_kind") != "veth" and "link" in link:
                todo.append(link["link"] or "")
            todo += [other for other, data in self.links.items() if data.get("master") == one]
        return found


def check_transmit(
    host: Host, spec: HostSpec, interface: str, *, allow_loopback: bool = False
) -> None:
    """Refuse an interface that is not for tests. Raises GuardError, before anything is sent.

    MissingTool, ConnectionLost and CommandTimeout when the host cannot be asked: then nothing is
    sent either.
    """
    where = f"{host.name}: {interface}"
    declared = spec.interfaces.get(interface)
    if declared is None or not declared.test:
        raise GuardError(
            f"{where} is not declared for tests: nothing is sent; if it is cabled to the probe "
            f"only, write test = true under hosts.{host.name}.interfaces.{interface}"
        )
    address = pci_address(interface)
    if address is None:  # an interface of the kernel
        check_name(host.name, interface)
        network = _read(host)
        _check_link(where, network, interface, allow_loopback)
        _check_carried(where, network, interface)
        return
    network = _read(host)
    for name in network.pci.interfaces.get(address, ()):
        _check_carried(f"{where} ({name})", network, name)
    _check_taken(where, network.pci, address)


def is_pci(interface: str) -> bool:
    """Whether an inventory names a port by its PCI address, as DPDK does: "0000:03:00.0"."""
    return pci_address(interface) is not None


def _check_link(where: str, network: _Network, interface: str, allow_loopback: bool) -> None:
    if interface not in network.links:
        raise GuardError(
            f"{where} does not exist there (there are {', '.join(sorted(network.links))}); "
            "correct the inventory"
        )
    if "LOOPBACK" in network.links[interface].get("flags", ()) and not allow_loopback:
        raise GuardError(f"{where} is the loopback: no probe listens there; name a test interface")


def _check_taken(where: str, pci: PciDevices, address: str) -> None:
    """A port whose interface we cannot see may carry anything: it must not be the kernel's."""
    if address not in pci.drivers:
        known = ", ".join(sorted(pci.drivers)) or "none"
        raise GuardError(
            f"{where} is no network device there (there are {known}); correct the inventory"
        )
    driver = pci.drivers[address]
    if address not in pci.interfaces and driver not in _FREE:
        raise GuardError(
            f"{where} is driven by {driver}, but its interface is not in this network namespace, "
            "so nobody can tell what it carries: nothing is sent; bind it to vfio-pci "
            "(dpdk-devbind.py), or bring the interface back"
        )


def _check_carried(where: str, network: _Network, interface: str) -> None:
    for carrier, family in network.default.items():
        if interface in network.below(carrier):
            via = "" if carrier == interface else f" (below {carrier})"
            raise GuardError(
                f"{where} carries the {family} default route{via}: nothing is sent; use an "
                "interface that leads to the probe only"
            )
    for carrier in network.session:
        if interface in network.below(carrier):
            raise GuardError(
                f"{where} carries the SSH session we are in: nothing is sent; use another "
                "interface for tests"
            )
    for carrier, connection in network.ssh.items():
        if interface in network.below(carrier):
            raise GuardError(
                f"{where} carries an SSH connection ({connection}): nothing is sent; use another "
                "interface for tests, or end that session"
            )


def _read(host: Host) -> _Network:
    done = host.run(["sh", "-c", _SCRIPT], check=False)
    # A part that failed must not take the next one's end for its own.
    parts = dict(
        re.findall(r"^@@ (\w+)\n((?:(?!@@ ).*\n)*)@@ status 0$", done.stdout, re.MULTILINE)
    )
    try:
        links, addresses, four, six, route = (
            json.loads(parts[name].strip() or "[]")
            for name in ("links", "addresses", "inet", "inet6", "route")
        )
        session, sockets = parts["session"].split(), parts["ssh"].splitlines()
        if not links:
            raise KeyError("links")
    except (ValueError, KeyError) as error:
        last = done.stderr.strip().splitlines()[-1:] or [f"no answer to {error}"]
        raise MissingTool(
            f"{host.name}: cannot tell what its interfaces carry ({last[0]}), so nothing is sent; "
            "`ip -j` and `ss` of iproute2 5 or later must work there"
        ) from None
    by_address = {
        info["local"]: link["ifname"]
        for link in addresses
        for info in link.get("addr_info", [])
        if "local" in info
    }
    ours = {str(hop["dev"]) for hop in route if "dev" in hop}
    if len(session) == 4:
        ours.add(by_address.get(session[2].partition("%")[0], ""))
    return _Network(
        links={link["ifname"]: link for link in links if "ifname" in link},
        default={d: f for f, routes in (("IPv6", six), ("IPv4", four)) for d in _devices(routes)},
        session=ours - {"", "lo"},
        ssh=_established(sockets, by_address),
        pci=read_pci(parts.get("pci", "")),
    )


def _devices(routes: Iterable[dict[str, Any]]) -> set[str]:
    """Interfaces of routes, those of multipath routes included."""
    found = set()
    for route in routes:
        if route.get("type") in ("unreachable", "blackhole", "prohibit"):
            continue
        for hop in (route, *route.get("nexthops", ())):
            if hop.get("dev"):
                found.add(str(hop["dev"]))
    return found - {"lo"}


def _established(lines: list[str], addresses: dict[str, str]) -> dict[str, str]:
    """Interfaces with an SSH connection, by port 22 or by the name of the owning process."""
    found = {}
    for line in lines:
        fields = line.split()
        if len(fields) < 4:
            continue
        local, peer = fields[2], fields[3]
        ports = {local.rpartition(":")[2], peer.rpartition(":")[2]}
        if str(_SSH_PORT) not in ports and '"sshd' not in line and '"ssh"' not in line:
            continue
        address, _, scope = local.rpartition(":")[0].strip("[]").partition("%")
        interface = scope.strip("]") or addresses.get(address.removeprefix("::ffff:"))
        if interface and interface != "lo":
            found[interface] = f"{local} from {peer}"
    return found
