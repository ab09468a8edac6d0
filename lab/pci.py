"""Ports named by PCI address, because a userspace driver (DPDK) takes them from the kernel.

Such a port has no interface and no kernel counters, and what it carried before it was taken is for
sysfs to tell: the kernel's interfaces name the device they belong to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["PCI_SCRIPT", "PciDevices", "pci_address", "read_pci"]

_ADDRESS = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[01][0-9a-f]\.[0-7])", re.IGNORECASE)

# "net NAME PATH" for each interface with a device, "dev ADDRESS DRIVER" for each network device.
# The interfaces are those of the network namespace that we are in.
PCI_SCRIPT = r"""
pci() {
  for d in /sys/class/net/*; do
    [ -e "$d/device" ] && echo "net ${d##*/} $(readlink -f "$d/device")"
  done
  for d in /sys/bus/pci/devices/*; do
    case "$(cat "$d/class" 2>/dev/null)" in 0x02*) ;; *) continue ;; esac
    driver=$(readlink "$d/driver"); echo "dev ${d##*/} ${driver##*/}"
  done
  true
}
"""


@dataclass(frozen=True, slots=True)
class PciDevices:
    """Network devices of a host: `interfaces` of each address that the kernel has any for,
    `drivers` of every address ("" where none is bound)."""

    interfaces: dict[str, tuple[str, ...]]
    drivers: dict[str, str]


def pci_address(name: str) -> str | None:
    """A PCI address as the kernel spells it ("03:00.0" is in domain 0000); None for other names."""
    match = _ADDRESS.fullmatch(name)
    if match is None:
        return None
    return f"{match[1] or '0000'}:{match[2]}".lower()


def read_pci(text: str) -> PciDevices:
    """What `PCI_SCRIPT`'s function printed."""
    interfaces: dict[str, tuple[str, ...]] = {}
    drivers: dict[str, str] = {}
    for line in filter(str.strip, text.splitlines()):
        kind, name, *rest = line.split()
        if kind == "dev":
            drivers[name.lower()] = rest[0] if rest else ""
            continue
        # The path leads over bridges; a virtio device lies below its PCI function.
        above = [a for part in "".join(rest).split("/") if (a := pci_address(part)) is not None]
        if above:
            interfaces[above[-1]] = (*interfaces.get(above[-1], ()), name)
    return PciDevices(interfaces, drivers)
