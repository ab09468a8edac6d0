"""What the linter must know of a sensor: timeouts, HOME_NET, workers, MTU, balancer, flow memory.

It comes from a known name, a suricata.yaml, a lab inventory, or a TOML file of its own:

    name = "appliance"
    home = ["10.0.0.0/8"]
    workers = 16
    balancer = "rss-6d5a-512"     # see docs/balance.md
    mtu = 1500
    flow_limit = 1000000          # flows it can hold; leave out what is not known
    rules = ["site.rules"]
    [timeouts]
    tcp_closed = 60
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from harness.errors import ConfigError
from harness.lint.suricata_yaml import bytes_of, flatten, read_suricata_yaml
from lab.tomlfile import first_problem, read_toml
from pcap_tools.balancers import BALANCERS

__all__ = ["FLOW_BYTES", "SensorFacts", "Timeouts", "load_sensor"]

FLOW_BYTES = 296
"""Suricata 7.0.10: "flow size 296, memcap allows for 453438 flows" (of 128 MiB), by `-vvvv`."""

_SURICATA_HOME = ("192.168.0.0/16", "10.0.0.0/8", "172.16.0.0/12")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Timeouts(_Strict):
    """Seconds after which a silent flow leaves the sensor's memory; the defaults are Suricata's
    (suricata.yaml: flow-timeouts)."""

    tcp_new: float = Field(default=60, ge=0)
    tcp_established: float = Field(default=600, ge=0)
    tcp_closed: float = Field(default=60, ge=0)
    udp_new: float = Field(default=30, ge=0)
    udp_established: float = Field(default=300, ge=0)
    icmp_new: float = Field(default=30, ge=0)
    icmp_established: float = Field(default=300, ge=0)

    @property
    def longest(self) -> float:
        """The longest of them."""
        return float(max(self.model_dump().values()))


class SensorFacts(_Strict):
    """A sensor. None: not known, and what needs it is not checked."""

    name: str
    home: tuple[str, ...] = _SURICATA_HOME
    workers: int = Field(default=1, ge=1, le=1024)
    balancer: str = "af_packet-hash"
    mtu: int = Field(default=1500, ge=576, le=65535)
    flow_limit: int | None = Field(default=None, ge=1)
    hash_size: int | None = Field(default=None, ge=1)
    rules: tuple[Path, ...] = ()
    timeouts: Timeouts = Timeouts()

    @field_validator("home")
    @classmethod
    def _networks(cls, home: tuple[str, ...]) -> tuple[str, ...]:
        if not home:
            raise ValueError("give at least one network, such as 10.0.0.0/8")
        for text in home:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(f"{text!r} is not a network ({error}); write 10.0.0.0/8") from None
        return home

    @field_validator("balancer")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BALANCERS:
            raise ValueError(f"unknown balancer {name!r}; known: {', '.join(BALANCERS)}")
        return name


SURICATA = SensorFacts(
    name="suricata (upstream defaults)",
    flow_limit=(128 << 20) // FLOW_BYTES,
    hash_size=65536,
)


def load_sensor(text: str) -> SensorFacts:
    """The sensor that a name or a path stands for. Raises ConfigError (InventoryError)."""
    if text == "suricata":
        return SURICATA
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        return _from_yaml(read_suricata_yaml(path), str(path))
    try:
        data = read_toml(path)
    except FileNotFoundError:
        raise ConfigError(
            f"--sensor {text}: neither the name suricata nor a file; give a suricata.yaml, a lab "
            "inventory or a sensor's TOML"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    if "hosts" in data and "sensor" in data:
        return _from_inventory(path)
    if isinstance(data.get("rules"), list):
        data["rules"] = [str(path.resolve().parent / str(rule)) for rule in data["rules"]]
    try:
        return SensorFacts.model_validate({"name": path.stem, **data})
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error)}") from None


def _from_inventory(path: Path) -> SensorFacts:
    """A Suricata as the harness runs it: its own template's timeouts and memory."""
    from importlib.resources import files

    from lab.inventory import load_inventory

    inventory = load_inventory(path)
    sensor = inventory.sensor
    template = flatten(files("harness.sensors").joinpath("suricata.yaml").read_text())
    settings = {k.removeprefix("set."): str(v) for k, v in sensor.options.items() if "set." in k}
    facts = _from_yaml({**template, **settings}, str(path))
    interfaces = inventory.hosts[sensor.host].interfaces
    listens = interfaces[sensor.interface] if sensor.interface is not None else None
    return facts.model_copy(
        update={
            "name": f"{sensor.driver} on {sensor.host} ({inventory.name})",
            "home": sensor.home,
            "workers": sensor.workers,
            "mtu": (listens.mtu if listens is not None else None) or 1500,
            "rules": sensor.rules,
        }
    )


def _from_yaml(values: dict[str, str], where: str) -> SensorFacts:
    facts: dict[str, Any] = {"name": f"suricata ({where})"}
    limits = {}
    for proto in ("tcp", "udp", "icmp"):
        for state in ("new", "established", "closed"):
            name = f"flow-timeouts.{proto}.{state}"
            if name in values and f"{proto}_{state}" in Timeouts.model_fields:
                limits[f"{proto}_{state}"] = values[name]
    facts["timeouts"] = limits
    home = values.get("vars.address-groups.HOME_NET", "")
    networks = tuple(part.strip() for part in home.strip("[]").split(",") if part.strip())
    if networks and "any" not in networks and not any(n[0] in "!$@" for n in networks):
        facts["home"] = networks
    facts["flow_limit"] = bytes_of(values.get("flow.memcap", "128mb"), "flow.memcap") // FLOW_BYTES
    facts["hash_size"] = values.get("flow.hash-size", "65536")
    threads = values.get("af-packet.0.threads", "auto")
    if threads.isdigit():
        facts["workers"] = int(threads)
    if values.get("runmode") == "autofp":
        pair = values.get("autofp-scheduler") == "ippair"
        facts["balancer"] = "autofp-ippair" if pair else "autofp-hash"
    elif values.get("af-packet.0.cluster-type") in ("cluster_qm", "cluster_cpu"):
        facts["balancer"] = "rss-6d5a-128"
    elif values.get("af-packet.0.cluster-type") == "cluster_ebpf":
        facts["balancer"] = "ebpf-lb"
    try:
        return SensorFacts.model_validate(facts)
    except ValidationError as error:
        raise ConfigError(f"{where}: {first_problem(error)}") from None
