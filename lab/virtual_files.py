"""Files of a virtual lab: state.json (to verify and repair it) and lab.toml (to drive it)."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network
from pathlib import Path

from lab.inventory import load_inventory
from lab.virtual_layout import Layout, Options

__all__ = ["State", "read_state", "write_file", "write_inventory", "write_state"]

_STATE_VERSION = 2


@dataclass(frozen=True, slots=True)
class State:
    """Options of a lab, and the management subnets of generator and sensor."""

    options: Options
    subnets: tuple[IPv4Network, IPv4Network]


def write_state(lab: Layout, state: State) -> None:
    """Write state.json."""
    data = {
        "version": _STATE_VERSION,
        "name": lab.name,
        "options": {**asdict(state.options), "rules": [str(r) for r in state.options.rules]},
        "subnets": [str(subnet) for subnet in state.subnets],
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_file(lab.state, json.dumps(data, indent=2) + "\n")


def read_state(lab: Layout) -> State | None:
    """The state of a lab, or None when there is none that this version can use."""
    try:
        data = json.loads(lab.state.read_text())
        rules = tuple(Path(text) for text in data["options"]["rules"])
        options = Options(**{**data["options"], "rules": rules})
        first, second = (IPv4Network(text) for text in data["subnets"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, torn, or of another version: build anew
    return State(options, (first, second)) if data["version"] == _STATE_VERSION else None


def write_inventory(lab: Layout, state: State) -> None:
    """Write lab.toml in the form of lab/inventory.py."""
    servers = {
        role: lab.server(role, subnet).address
        for role, subnet in zip(("generator", "sensor"), state.subnets, strict=True)
    }
    write_file(lab.inventory, _inventory_text(lab, servers, state.options))
    load_inventory(lab.inventory)  # what we write must be what we read


def write_file(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


def _inventory_text(lab: Layout, addresses: dict[str, str], options: Options) -> str:
    generator_cpus, sensor_cpus = _cpus(options.workers)
    hosts = "".join(
        f"""
[hosts.{role}]
connection = "ssh"
address = {_text(addresses[role])}
user = "root"
identity = {_text(lab.directory / "client_ed25519")}
known_hosts = {_text(lab.directory / "known_hosts")}
python = {_text(sys.executable)}
workdir = {_text(lab.workdir(role))}

[hosts.{role}.interfaces.{interface}]
test = true
mtu = {options.mtu}
"""
        for role, interface in (("generator", "tx0"), ("sensor", "rx0"))
    )
    second, tapped = "", ""
    if options.tap:
        second = 'server_interface = "tx1"\n'
        tapped = f"""
[hosts.generator.interfaces.tx1]
test = true
mtu = {options.mtu}
"""
    rules = ", ".join(_text(path.resolve()) for path in options.rules if path.exists())
    return f"""\
# Inventory of the virtual lab {lab.name!r}, written by `probebench lab up`.
# `probebench lab down --name {lab.name}` removes it with the lab; copy it to keep changes.
name = {_text(lab.name)}
{hosts}{tapped}
[generator]
driver = "tcpreplay"
host = "generator"
interface = "tx0"
{second}{generator_cpus}

[sensor]
driver = "suricata"
host = "sensor"
interface = "rx0"
home = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]
rules = [{rules}]
workers = {options.workers}
ring_size = {options.ring_size}
{sensor_cpus}
"""


def _cpus(workers: int) -> tuple[str, str]:
    """The lines that keep generator and sensor on cores of their own, as far as there are any."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return ("# cpus: one core only, nothing to keep apart",) * 2
    sensor = ",".join(str(core) for core in cores[1 : 1 + workers])
    return f'cpus = "{cores[0]}"', f'cpus = "{sensor}"'


def _text(value: object) -> str:
    """A TOML basic string: JSON's escapes are among TOML's."""
    return json.dumps(str(value), ensure_ascii=False)
