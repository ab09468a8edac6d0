"""What can be known of a lab before a run: are its hosts there, may its interfaces send, does its
generator run, are the programs of both there? Nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from harness.errors import ConfigError, HarnessError
from harness.generators.trex.install import find_trex
from harness.generators.trex.options import read_options
from harness.generators.trex.platform_file import check_ports
from harness.needs import libraries_missing, programs
from lab.connect import connect_lab
from lab.errors import ConnectionLost, LabError
from lab.facts import missing_tools
from lab.guards import check_transmit
from lab.host import Host
from lab.inventory import Inventory

__all__ = ["Line", "check_lab", "readiness"]

Level = Literal["ok", "info", "problem"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing found: on which host, about what, how bad, in words with the remedy."""

    host: str
    about: str
    level: Level
    text: str


def check_lab(inventory: Inventory) -> list[Line]:
    """Connect to every host and look. Raises ConnectError, HostKeyError, AuthError, ConfigError."""
    with connect_lab(inventory) as hosts:
        return list(readiness(inventory, hosts))


def readiness(inventory: Inventory, hosts: dict[str, Host]) -> Iterator[Line]:
    """The same on hosts that are connected. Raises ConnectionLost, ConfigError."""
    for name, host in hosts.items():
        absent = missing_tools(host, ("ip", "ss", *programs(inventory, name)))
        if absent:
            what = ", ".join(absent)
            yield Line(name, "tools", "problem", f"{what}: not there; install them on that host")
        else:
            yield Line(name, "tools", "ok", "all there")
    for package in libraries_missing(inventory.sensor):
        text = f"sensor.driver = {inventory.sensor.driver!r} needs it: pip install '{package}'"
        yield Line("here", package, "problem", text)
    generator = inventory.generator
    source = hosts[generator.host]
    for interface in generator.interfaces:
        try:
            check_transmit(source, inventory.hosts[generator.host], interface)
        except ConnectionLost:
            raise
        except (LabError, HarnessError) as error:
            yield Line(generator.host, interface, "problem", str(error))
        else:
            yield Line(generator.host, interface, "ok", "is for tests, and carries nothing else")
    if generator.driver.startswith("trex"):
        yield from _trex(source, inventory)


def _trex(host: Host, inventory: Inventory) -> Iterator[Line]:
    options = read_options(inventory.generator.options)
    found = find_trex(host, options)
    where = host.name
    try:
        check_ports(options, inventory.generator.interfaces)
    except ConfigError as error:
        yield Line(where, "trex", "problem", str(error))
    for text in found.missing if options.server == "own" else ():
        yield Line(where, "trex", "problem", text)
    if not found.version:
        return
    client = "its own Python client" if found.client else "no Python client: stf only"
    yield Line(
        where,
        "trex",
        "ok",
        f"{found.version} in {found.path}; modes {', '.join(found.modes)}; {client}",
    )
    pages = f"{found.hugepages_free} of {found.hugepages} hugepages are free"
    need = "" if not options.software else "; software = true needs none"
    yield Line(where, "trex", "info", f"{found.cores} CPUs; {pages}{need}")
    ours = [pid for pid, text in found.processes if f"{host.workdir}/trex.yaml" in text.split()]
    for pid, command in found.processes:
        text = f"a TRex runs already: pid {pid}, {command[:120]}"
        more = "; the next run ends it, since it is one of ours" if pid in ours else ""
        yield Line(where, "trex", "info", f"{text}{more}")
    running = options.server == "running"
    if running and options.rpc_port not in found.taken:
        text = (
            f"nothing listens on port {options.rpc_port}: start `t-rex-64 -i` (ASTF: --astf) there"
        )
        yield Line(where, "trex", "problem", f'{text}, or set server = "own"')
    for port in () if ours or running else found.taken:
        text = f"port {port} is taken there: end what listens on it (ss -ltnp), or give other"
        yield Line(where, "trex", "problem", f"{text} publish_port, rpc_port and prefix")
    if found.leftovers:
        text = f"{found.leftovers} runtime files of a run that ended badly; the next run takes them"
        yield Line(where, "trex", "info", f"{text} over (/var/run/dpdk/{options.prefix})")
