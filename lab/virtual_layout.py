"""Names of a virtual lab: everything follows from the lab's own name.

Nothing else has to be remembered to find a lab, whole or half-built, and to take it away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Network
from pathlib import Path

from lab.errors import OptionError
from lab.sshd import Server

__all__ = [
    "BALLAST_RULES",
    "DEMO_RULES",
    "RUN_DIR",
    "TAP_PORTS",
    "Layout",
    "Namespaces",
    "Options",
    "layout",
]

RUN_DIR = Path("/run/probebench")
DEMO_RULES = Path(__file__).resolve().parent.parent / "profiles" / "demo.rules"
TAP_PORTS = ("port0", "port1", "port2")  # towards tx0, tx1 and rx0
BALLAST_RULES = DEMO_RULES.with_name("ballast.rules")


@dataclass(frozen=True, slots=True)
class Options:
    """How a lab is built: MTU of its links (bytes), and the size of the sensor.

    The sensor is small by default, one worker, a small ring and the work of a large rule set, so
    that this machine can overload it. `tap` gives the generator a second port, for the servers'
    side, and puts both behind an optical tap: the sensor sees what either sends.
    """

    mtu: int = 1500
    txqueuelen: int = 1000
    workers: int = 1
    ring_size: int = 1024
    rules: tuple[Path, ...] = (DEMO_RULES, BALLAST_RULES)
    tap: bool = False


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Names of a lab's network namespaces; that of the tap is only there when asked for."""

    generator: str
    sensor: str
    client: str
    server: str
    tap: str

    def all(self) -> tuple[str, ...]:
        """Every name, the tap's included."""
        return (self.generator, self.sensor, self.client, self.server, self.tap)

    def of(self, options: Options) -> tuple[str, ...]:
        """Those that a lab with these options has."""
        return self.all() if options.tap else self.all()[:-1]


@dataclass(frozen=True, slots=True)
class Layout:
    """Every name that follows from a lab's name: nothing else has to be remembered to find it."""

    name: str

    @property
    def namespaces(self) -> Namespaces:
        """The lab's namespaces, `pb-<name>-…`."""
        return Namespaces(
            *(f"pb-{self.name}-{role}" for role in ("gen", "sen", "cli", "srv", "tap"))
        )

    @property
    def link(self) -> Path:
        """Where the state directory is found: it, or a symbolic link to it."""
        return RUN_DIR / self.name

    @property
    def directory(self) -> Path:
        """The state directory."""
        return self.link.resolve()

    @property
    def inventory(self) -> Path:
        """The inventory that `up` writes."""
        return self.directory / "lab.toml"

    @property
    def state(self) -> Path:
        """Options and management subnets, for `up` again; also marks the directory as ours."""
        return self.directory / "state.json"

    @property
    def management(self) -> tuple[str, str]:
        """Root-side interfaces to generator and sensor: at most 15 characters (IFNAMSIZ − 1)."""
        short = self.name
        if len(short) > 11:
            short = f"{short[:4]}-{sha256(short.encode()).hexdigest()[:6]}"
        return (f"pbg-{short}", f"pbs-{short}")

    def workdir(self, role: str) -> Path:
        """Working directory of the host "generator" or "sensor"."""
        return self.directory / role[:3]

    def server(self, role: str, subnet: IPv4Network, authorized: str = "") -> Server:
        """The sshd of the host "generator" or "sensor"."""
        namespace = getattr(self.namespaces, role)
        return Server(
            namespace,
            self.directory / f"sshd-{role[:3]}",
            str(subnet.broadcast_address - 1),
            authorized,
        )


def layout(name: str = "default") -> Layout:
    """The names of a lab. Raises OptionError when the name itself is unfit."""
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,22}[a-z0-9])?", name):
        raise OptionError(
            f"lab name {name!r}: use 1 to 24 of a-z, 0-9 and '-', no '-' at either end"
        )
    return Layout(name)
