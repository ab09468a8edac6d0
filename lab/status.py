"""What a virtual lab looks like now: hosts, interfaces with their counters, processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lab import netns_tools as net
from lab.virtual_checks import problems
from lab.virtual_files import read_state
from lab.virtual_layout import Layout, layout

__all__ = ["HostStatus", "InterfaceStatus", "LabStatus", "RunningProcess", "status"]


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """An interface and its cumulative counters (packets; `*_bytes` bytes of frames)."""

    name: str
    up: bool
    mtu: int
    addresses: tuple[str, ...]
    rx_packets: int
    rx_bytes: int
    rx_dropped: int
    tx_packets: int
    tx_bytes: int
    tx_dropped: int


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A process in a host's namespace."""

    pid: int
    command: str


@dataclass(frozen=True, slots=True)
class HostStatus:
    """One namespace. `address` and `sshd` (a pid) are None where the host is not managed by SSH."""

    role: str
    namespace: str
    address: str | None
    sshd: int | None
    interfaces: tuple[InterfaceStatus, ...]
    processes: tuple[RunningProcess, ...]


@dataclass(frozen=True, slots=True)
class LabStatus:
    """`state` is "up" (whole), "broken" (something is left of it) or "absent"."""

    name: str
    state: Literal["up", "broken", "absent"]
    directory: str
    inventory: str | None
    problems: tuple[str, ...]
    hosts: tuple[HostStatus, ...]


def status(name: str = "default") -> LabStatus:
    """The lab now; never changes anything. Needs root, as namespaces do."""
    net.require_root("looking into the virtual lab")
    lab = layout(name)
    hosts = tuple(_host(lab, role) for role in _ROLES if _ROLES[role](lab) in net.namespaces())
    wrong = tuple(problems(name))
    state: Literal["up", "broken", "absent"] = "up"
    if wrong:
        state = "broken" if hosts or lab.link.exists() else "absent"
    return LabStatus(
        name=name,
        state=state,
        directory=str(lab.directory),
        inventory=str(lab.inventory) if lab.inventory.exists() else None,
        problems=wrong,
        hosts=hosts,
    )


_ROLES = {
    "generator": lambda lab: lab.namespaces.generator,
    "sensor": lambda lab: lab.namespaces.sensor,
    "client": lambda lab: lab.namespaces.client,
    "server": lambda lab: lab.namespaces.server,
}


def _host(lab: Layout, role: str) -> HostStatus:
    namespace = _ROLES[role](lab)
    state = read_state(lab)
    address, sshd = None, None
    if state is not None and role in ("generator", "sensor"):
        server = lab.server(role, state.subnets[role == "sensor"])
        address, sshd = server.address, server.pid
    pids = sorted(net.processes_in(namespace))
    return HostStatus(
        role=role,
        namespace=namespace,
        address=address,
        sshd=sshd,
        interfaces=tuple(_interfaces(namespace)),
        processes=tuple(RunningProcess(pid, net.process_command(pid)) for pid in pids),
    )


def _interfaces(namespace: str) -> list[InterfaceStatus]:
    rows = net.ip_json("-s", "addr", "show", namespace=namespace)
    return [_interface(row) for row in rows if row["ifname"] != "lo"]


def _interface(row: dict[str, Any]) -> InterfaceStatus:
    rx, tx = row["stats64"]["rx"], row["stats64"]["tx"]
    return InterfaceStatus(
        name=row["ifname"],
        up="LOWER_UP" in row["flags"],
        mtu=row["mtu"],
        addresses=tuple(f"{a['local']}/{a['prefixlen']}" for a in row.get("addr_info", ())),
        rx_packets=rx["packets"],
        rx_bytes=rx["bytes"],
        rx_dropped=rx["dropped"],
        tx_packets=tx["packets"],
        tx_bytes=tx["bytes"],
        tx_dropped=tx["dropped"],
    )
