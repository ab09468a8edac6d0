"""The address plan as a JSON file: one line a key, so that a million addresses are written fast."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pcap_tools.addresses import Addresses
from pcap_tools.errors import OutputError, PlanError
from pcap_tools.macs import mac_text, parse_mac
from pcap_tools.permute import NAME
from pcap_tools.plan import CLASSES, AddressPlan
from pcap_tools.population import Population
from pcap_tools.sockets import Sockets
from pcap_tools.space import Space

__all__ = ["FORMAT", "FORMAT_VERSIONS", "as_json", "from_json", "load", "save"]

FORMAT = "probebench-address-plan"
_PREFIX = "crypto-pan"
FORMAT_VERSIONS = (1, 2)
"""2 is written when the plan has what programs that know 1 would ignore."""


def _columns(plan: AddressPlan) -> dict[str, Any]:
    """The JSON form with `Addresses` where lists of texts belong."""
    space = plan.space
    more: dict[str, Any] = {
        name: list(networks)
        for name in ("home_pool", "external_pool")
        if (networks := getattr(space, name))
    }
    if plan.prefix:
        more["mapping"] = _PREFIX
    if plan.hosts:
        more["hosts"] = asdict(plan.hosts)
    if plan.sockets is not None:
        more["sockets"] = plan.sockets.as_json()
    if plan.macs is not None:
        more["macs"] = [mac_text(number) for number in plan.macs]
    return {
        "format": FORMAT,
        "version": 2 if more else 1,
        "permutation": NAME,
        "key": plan.key,
        "home": list(space.home),
        **more,
        "originals": {name: plan.ranked[name] for name in CLASSES},
        "kept": plan.stay,
        "pools": {group.name: group.pool.size for group in plan.classes},
        "capacity": plan.capacity,
        "run": dict(plan.run),
    }


def as_json(plan: AddressPlan) -> dict[str, Any]:
    """The plan's JSON form."""
    return {
        **_columns(plan),
        "originals": {name: list(texts) for name, texts in plan.originals.items()},
        "kept": list(plan.kept),
    }


def _encoded(value: Any) -> bytes:
    if isinstance(value, Addresses):
        return value.json()
    if isinstance(value, tuple):  # addresses of both versions in one list
        lists = [part for part in map(_encoded, value) if part != b"[]"]
        return b"[" + b",".join(part[1:-1] for part in lists) + b"]"
    if isinstance(value, Mapping) and any(isinstance(v, Addresses) for v in value.values()):
        parts = [b"  %b: %b" % (json.dumps(k).encode(), _encoded(v)) for k, v in value.items()]
        return b"{\n" + b",\n".join(parts) + b"\n }"
    return json.dumps(value).encode()


def save(plan: AddressPlan, path: Path) -> None:
    """Write the plan, whole or not at all. Raises OutputError."""
    lines = [
        b" %b: %b" % (json.dumps(key).encode(), _encoded(value))
        for key, value in _columns(plan).items()
    ]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(b"{\n" + b",\n".join(lines) + b"\n}\n")
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load(path: Path) -> AddressPlan:
    """Read a plan. Raises PlanError naming the file and the key that is wrong."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PlanError(f"{path}: not JSON: {error}; give an OUT.plan.json") from None
    return from_json(value, str(path))


def from_json(value: Any, where: str = "plan") -> AddressPlan:
    """Plan from its JSON form; `where` names the source in errors."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise PlanError(f'{where}: not an address plan ("format" is not "{FORMAT}")')
    for name, known in (("version", FORMAT_VERSIONS), ("permutation", (NAME,))):
        if value.get(name) not in known:
            raise PlanError(
                f'{where}: "{name}" is {value.get(name)!r}, this program reads '
                f"{' and '.join(map(repr, known))}; use the program version that wrote the plan"
            )
    if value.get("mapping") not in (None, _PREFIX):
        raise PlanError(f'{where}: "mapping" is {value["mapping"]!r}, not "{_PREFIX}"')
    try:
        originals, kept = value["originals"], value["kept"]
        return AddressPlan(
            key=str(value["key"]),
            space=Space(
                home=tuple(value["home"]),
                home_pool=tuple(value.get("home_pool", ())),
                external_pool=tuple(value.get("external_pool", ())),
            ),
            ranked={
                name: Addresses.of_texts(4 if name.endswith("4") else 6, originals.get(name, ()))
                for name in CLASSES
            },
            stay=(
                Addresses.of_texts(4, [text for text in kept if ":" not in text]),
                Addresses.of_texts(6, [text for text in kept if ":" in text]),
            ),
            prefix=value.get("mapping") == _PREFIX,
            macs=tuple(map(parse_mac, value["macs"])) if "macs" in value else None,
            hosts=Population(**value["hosts"]) if "hosts" in value else None,
            sockets=Sockets.from_json(value["sockets"]) if "sockets" in value else None,
            run=dict(value.get("run", {})),
        )
    except PlanError as error:
        raise PlanError(f"{where}: {error}") from None
    except KeyError as error:
        raise PlanError(f"{where}: key {error} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise PlanError(f"{where}: malformed plan: {error}") from None
