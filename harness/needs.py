"""Which programs a lab's hosts need for generator and sensor, and which libraries are needed here.

Said by `probebench lab check` before a run would find out one by one. A driver that is not known
has no needs: the run refuses it by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from lab.inventory import GeneratorSpec, Inventory, SensorSpec

__all__ = ["libraries_missing", "programs"]

_GENERATORS = {  # beside t-rex-64, which is looked for in its own directory
    "tcpreplay": ("tcpreplay", "stdbuf"),
    "trex-stf": ("stdbuf", "tar"),
    "trex-stl": (),
    "trex-astf": ("tar",),
}
_OWN = {"suricata": "suricata", "zeek": "zeek", "snort": "snort"}  # drivers of `sensor.binary`
_LIBRARIES = {  # driver: (module, what to install here)
    "snmp": ("pysnmp", "probebench[snmp]"),
    "prometheus": ("prometheus_client", "probebench[prometheus]"),
    "rest": ("jsonpath_ng", "probebench[rest]"),
}


def programs(inventory: Inventory, name: str) -> tuple[str, ...]:
    """Programs that a host must have for its parts, each once; paths where the inventory has them.

    A host that has neither part needs none.
    """
    found: list[str] = []
    roles = {inventory.generator.host, inventory.sensor.host}
    if name in roles:
        found.append(inventory.hosts[name].python)
    if inventory.generator.host == name:
        found += _of_generator(inventory.generator)
    if inventory.sensor.host == name:
        found += _of_sensor(inventory.sensor)
    return tuple(dict.fromkeys(found))


def _of_generator(spec: GeneratorSpec) -> Iterator[str]:
    yield from _GENERATORS.get(spec.driver, ())
    if spec.cpus:
        yield "taskset"


def _of_sensor(spec: SensorSpec) -> Iterator[str]:
    options = spec.options
    own = spec.driver in _OWN and options.get("control", "own") == "own"
    if own:
        yield spec.program(_OWN[spec.driver])
        yield "gzip"
    if spec.driver == "suricata" and options.get("control") == "systemd":
        yield "systemctl"
    if spec.driver == "capture":
        yield str(options.get("program", "tcpdump"))
    if spec.driver == "zeek-cluster":
        yield str(options.get("zeekctl", "/opt/zeek/bin/zeekctl"))
    if spec.cpus and (own or spec.driver == "capture"):
        yield "taskset"
    for key in ("command", "version_command", "restart"):
        yield from _first(options.get(key))


def _first(argv: Any) -> Iterator[str]:
    """The program of a command, where there is one that can be looked for."""
    if isinstance(argv, list | tuple) and argv and isinstance(argv[0], str):
        yield argv[0]


def libraries_missing(spec: SensorSpec) -> tuple[str, ...]:
    """What has to be installed here, beside the orchestrator, for this sensor to be read."""
    wanted = [_LIBRARIES[spec.driver]] if spec.driver in _LIBRARIES else []
    if spec.driver == "command" and _has_paths(spec.options):
        wanted.append(_LIBRARIES["rest"])
    return tuple(package for module, package in wanted if find_spec(module) is None)


def _has_paths(options: dict[str, Any]) -> bool:
    """Whether a counter is found by a JSON path."""
    places: list[Any] = [options.get("workers"), options.get("uptime")]
    for table in ("counters", "raw"):
        given = options.get(table)
        places += given.values() if isinstance(given, dict) else ()
    return any(isinstance(place, dict) and "path" in place for place in places)
