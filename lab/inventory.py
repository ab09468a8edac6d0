"""The inventory: which hosts there are, how to reach them, which interfaces are for tests.

One TOML file, the same form for the virtual lab (written by `lab up`) and for real hosts
(see `lab/*.toml` in the repository for commented examples).
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lab.errors import InventoryError
from lab.tomlfile import first_problem, read_toml

__all__ = [
    "GeneratorSpec",
    "HostSpec",
    "InterfaceSpec",
    "Inventory",
    "SensorSpec",
    "load_inventory",
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InterfaceSpec(_Strict):
    """An interface of a host. Nothing is ever sent on one that does not say `test = true`."""

    test: bool = False
    mtu: int | None = Field(default=None, ge=576, le=65535)


class HostSpec(_Strict):
    """How a host is reached, and what of it is ours."""

    connection: Literal["local", "netns", "ssh"]
    address: str | None = None  # ssh: host name, address or alias of ~/.ssh/config
    port: int | None = Field(default=None, ge=1, le=65535)
    user: str | None = None
    identity: Path | None = None
    known_hosts: Path | None = None
    ssh_config: Path | None = None  # default ~/.ssh/config
    netns: str | None = None
    python: str = "python3"
    workdir: str = "/var/tmp/probebench"
    sudo: bool = False  # the user is not root and has passwordless sudo
    interfaces: dict[str, InterfaceSpec] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _reachable(self) -> HostSpec:
        if self.connection == "ssh" and not self.address:
            raise ValueError('connection = "ssh" needs address = "host or alias"')
        if self.connection == "netns" and not self.netns:
            raise ValueError('connection = "netns" needs netns = "name"')
        return self


class GeneratorSpec(_Strict):
    """Which generator, on which host, out of which interface."""

    driver: str = "tcpreplay"
    host: str
    interface: str
    server_interface: str | None = (
        None  # TRex: the server side of the tap; `interface` the client's
    )
    cpus: str | None = None  # taskset list, e.g. "0"
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Every interface it sends on."""
        return (self.interface, *((self.server_interface,) if self.server_interface else ()))


class SensorSpec(_Strict):
    """Which sensor, on which host, listening on which interface, and how it is sized."""

    driver: str = "suricata"
    host: str
    interface: str | None = None  # None: a closed appliance, whose interface nobody can read
    home: tuple[str, ...] = ("10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12", "fc00::/7")
    rules: tuple[Path, ...] = ()
    workers: int = Field(default=1, ge=1)
    ring_size: int = Field(default=2048, ge=8)
    cpus: str | None = None
    binary: str = "suricata"
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("home")
    @classmethod
    def _networks(cls, home: tuple[str, ...]) -> tuple[str, ...]:
        for text in home:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(f"{text!r} is not a network ({error}); write 10.0.0.0/8") from None
        return home

    def program(self, own: str) -> str:
        """What to run for a sensor whose program is called `own`, unless `binary` was given."""
        return own if self.binary == "suricata" else self.binary


class Inventory(_Strict):
    """A lab: its hosts, one generator, one sensor."""

    name: str
    hosts: dict[str, HostSpec]
    generator: GeneratorSpec
    sensor: SensorSpec

    @model_validator(mode="after")
    def _consistent(self) -> Inventory:
        sensor = self.sensor
        for role, host in (("generator", self.generator.host), ("sensor", sensor.host)):
            if host not in self.hosts:
                raise ValueError(f"{role}.host = {host!r} is not among [hosts]")
        named = [("generator.interface", self.generator.host, self.generator.interface)]
        if self.generator.server_interface is not None:
            name = self.generator.server_interface
            named.append(("generator.server_interface", self.generator.host, name))
        if sensor.interface is not None:
            named.append(("sensor.interface", sensor.host, sensor.interface))
        for key, host, interface in named:
            if interface not in self.hosts[host].interfaces:
                raise ValueError(f"{key} = {interface!r} is not among [hosts.{host}.interfaces]")
        return self


def load_inventory(path: Path) -> Inventory:
    """Read and check an inventory; relative paths in it are relative to the file.

    Raises InventoryError naming file and key.
    """
    try:
        data = read_toml(path)
    except FileNotFoundError:
        raise InventoryError(
            f"{path}: no such inventory; write one (examples in lab/*.toml) or run "
            "`probebench lab up`"
        ) from None
    except ValueError as error:
        raise InventoryError(f"{path}: {error}") from None
    base = path.resolve().parent
    hosts = data.get("hosts")
    for host in hosts.values() if isinstance(hosts, dict) else ():
        if isinstance(host, dict):
            for key in ("identity", "known_hosts", "ssh_config"):
                if isinstance(host.get(key), str):
                    host[key] = str(base / Path(host[key]).expanduser())
    sensor = data.get("sensor")
    if isinstance(sensor, dict) and isinstance(sensor.get("rules"), list):
        sensor["rules"] = [str(base / Path(str(r)).expanduser()) for r in sensor["rules"]]
    try:
        return Inventory.model_validate(data)
    except ValidationError as error:
        raise InventoryError(f"{path}: {first_problem(error)}") from None
