"""`[generator.options]` of a TRex driver."""

from __future__ import annotations

import ipaddress
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from harness.errors import ConfigError
from harness.generators.trex.traffic import StlTraffic
from lab.host import Host
from lab.inventory import GeneratorSpec
from lab.tomlfile import first_problem

__all__ = ["TrexOptions", "options_of", "read_options", "refuse_blanks"]


class TrexOptions(StlTraffic):
    """How TRex is run on its host.

    `path` is the directory with `t-rex-64`. `software` drives kernel interfaces through AF_PACKET
    (interface names in the inventory); without it DPDK takes the ports (PCI addresses). `low_end`
    is for hosts with two CPUs or less to spare. `ips` and `gateways` are the two ports' addresses
    and what they resolve (ARP): back to back, each other's; `dest_macs` instead of gateways where
    nothing answers, as on a tap. `clients` and `servers` are addresses in each template's pool,
    `reply_gap` the least time in seconds from a packet to the reply behind it (STF).
    `client_python` runs TRex's client, where that is not the host's Python. `server` = "running"
    uses an interactive server that the user started, and leaves it running. What STL sends:
    `StlTraffic`.
    """

    path: str
    cores: int = Field(default=1, ge=1)
    software: bool = False
    low_end: bool = False
    low_end_core: int = Field(default=0, ge=0)
    ips: tuple[str, str] = ("1.1.1.1", "2.2.2.2")
    gateways: tuple[str, str] = ("2.2.2.2", "1.1.1.1")
    dest_macs: tuple[str, str] | None = None
    prefix: str = "probebench"
    rpc_port: int = Field(default=4501, ge=1, le=65535)
    publish_port: int = Field(default=4500, ge=1, le=65535)
    clients: int = Field(default=1024, ge=1, le=65536)
    servers: int = Field(default=64, ge=1, le=65536)
    reply_gap: float = Field(default=0.005, ge=0, le=3600)
    server: Literal["own", "running"] = "own"
    client_python: str | None = None
    most_templates: int = Field(default=2000, ge=1, le=65000)
    start_timeout: float = Field(default=60.0, gt=0)
    arguments: tuple[str, ...] = ()  # for t-rex-64, behind ours

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError(f"{path!r} is not an absolute path on the generator's host")
        # Its own scripts do not quote: "./t-rex-64: 12: cd: can't cd to /opt/my".
        if any(character.isspace() for character in path):
            raise ValueError(
                f"{path!r} has a blank in it, which TRex's scripts cannot take: move or "
                "link it to a path without"
            )
        return path.rstrip("/")

    @field_validator("ips", "gateways")
    @classmethod
    def _addresses(cls, pair: tuple[str, str]) -> tuple[str, str]:
        for text in pair:
            try:
                ipaddress.IPv4Address(text)
            except ValueError:
                raise ValueError(f"{text!r} is not an IPv4 address") from None
        return pair


def read_options(options: dict[str, Any]) -> TrexOptions:
    """Check `[generator.options]`. Raises ConfigError naming the key."""
    try:
        return TrexOptions.model_validate(options)
    except ValidationError as error:
        raise ConfigError(f"inventory: generator.options: {first_problem(error)}") from None


def refuse_blanks(host: Host) -> None:
    """TRex's scripts hand paths on unquoted. Raises ConfigError for a workdir with a blank."""
    if any(character.isspace() for character in host.workdir):
        raise ConfigError(
            f"inventory: hosts.{host.name}.workdir: {host.workdir!r} has a blank in it, which "
            "TRex's scripts cannot take: give a path without"
        )


def options_of(spec: GeneratorSpec) -> TrexOptions:
    """The options of a generator that has the two ports TRex needs. Raises ConfigError."""
    options = read_options(spec.options)
    if len(spec.interfaces) != 2:
        raise ConfigError(
            "inventory: generator.server_interface is missing: TRex sends the clients' packets "
            "on generator.interface and the servers' on this one"
        )
    return options
