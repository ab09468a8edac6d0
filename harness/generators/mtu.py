"""Frames that an interface cannot carry: refused before anything is sent."""

from __future__ import annotations

from harness.errors import GeneratorFailed
from lab.guards import is_pci
from lab.host import Host

__all__ = ["must_carry"]

_HEADERS = 18  # Ethernet header and one VLAN tag are not in the MTU


def must_carry(host: Host, interface: str, frame: int, whose: str, remedy: str) -> None:
    """Refuse frames of `frame` bytes (without FCS) that are more than the interface's MTU.

    A port named by PCI address is left to whoever drives it: the kernel has no MTU of it. Raises
    GeneratorFailed, CommandFailed when there is no such interface.
    """
    if is_pci(interface):
        return
    mtu = int(host.run(["cat", f"/sys/class/net/{interface}/mtu"]).stdout)
    if frame > mtu + _HEADERS:
        raise GeneratorFailed(
            f"{host.name}: {interface} has MTU {mtu}, {whose} frames of {frame} bytes that could "
            f"not be sent; raise the MTU on both ends or {remedy}"
        )
