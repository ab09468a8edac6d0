"""TRex's platform configuration (`--cfg`): ports, cores, and how frames are addressed.

Source: TRex manual, "Platform YAML"; what a current server takes was tried on v3.08.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from harness.errors import ConfigError
from harness.generators.trex.options import TrexOptions
from lab.pci import pci_address

__all__ = ["check_ports", "platform_yaml"]


def platform_yaml(options: TrexOptions, interfaces: Sequence[str]) -> str:
    """The file for two ports: `interfaces` are (client side, server side).

    Raises ConfigError for a port that the mode cannot drive.
    """
    check_ports(options, interfaces)
    lines = [
        "- version: 2",
        f"  port_limit: {len(interfaces)}",
        f"  c: {options.cores}",
        f"  prefix: {json.dumps(options.prefix)}",
        f"  zmq_pub_port: {options.publish_port}",
        f"  zmq_rpc_port: {options.rpc_port}",
    ]
    if options.low_end:
        lines += ["  low_end: true", f"  low_end_core: {options.low_end_core}"]
    lines.append(f"  interfaces: {json.dumps(list(interfaces))}")
    lines.append("  port_info:")
    for number in range(len(interfaces)):
        if options.dest_macs is not None:
            lines.append(f"    - dest_mac: {json.dumps(options.dest_macs[number])}")
        else:
            ip, gateway = options.ips[number], options.gateways[number]
            lines.append(f"    - {{ip: {ip}, default_gw: {gateway}}}")
    return "\n".join(lines) + "\n"


def check_ports(options: TrexOptions, interfaces: Sequence[str]) -> None:
    """TRex drives what has a colon by PCI address, and anything else through AF_PACKET.

    Raises ConfigError for a port that the mode cannot drive.
    """
    for name in interfaces:
        taken = pci_address(name) is not None
        if options.software and taken:
            raise ConfigError(
                f"inventory: generator.interface {name!r} is a PCI address, which software = true "
                "cannot drive: name kernel interfaces, or set generator.options.software = false"
            )
        if not options.software and not taken:
            raise ConfigError(
                f"inventory: generator.interface {name!r} is a kernel interface: name the port by "
                'PCI address ("0000:03:00.0"), or set generator.options.software = true'
            )
