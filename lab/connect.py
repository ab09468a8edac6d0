"""From the inventory to hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lab.errors import LabError
from lab.host import Host
from lab.inventory import HostSpec, Inventory
from lab.local import LocalHost
from lab.netns import NetnsHost

__all__ = ["connect", "connect_lab"]


def connect(name: str, spec: HostSpec) -> Host:
    """The host `name`; an SSH host is connected to at once.

    Raises ConnectError, HostKeyError, AuthError.
    """
    if spec.connection == "local":
        return LocalHost(name, spec)
    if spec.connection == "netns":
        return NetnsHost(name, spec)
    from lab.ssh import SshHost  # paramiko is slow to import and often not needed

    host = SshHost(name, spec)
    host.connect()
    return host


@contextlib.contextmanager
def connect_lab(inventory: Inventory) -> Iterator[dict[str, Host]]:
    """Every host of the inventory by name; all are closed at the end, whatever happens.

    Raises what `connect` raises, after closing those already open.
    """
    hosts: dict[str, Host] = {}
    try:
        for name, spec in inventory.hosts.items():
            hosts[name] = connect(name, spec)
        yield hosts
    finally:
        for host in hosts.values():
            with contextlib.suppress(LabError):
                host.close()
