"""The address plan: which address a corpus address becomes in which iteration, and back.

Addresses belong to four classes: home (inside the home networks) and external (all others), each
for IPv4 and IPv6. A class's `count` addresses are ranked in sorted order. The address of rank r in
iteration i is number i × count + r of the class's pool under the keyed permutation of the pool.
Numbers of different iterations never coincide, so no address returns before the pool is used up,
and the two ends of a flow move independently of each other.

The plan's JSON form is all that is needed to map any address back to (iteration, original).
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pcap_tools.errors import OutputError, PlanError, PoolExhausted
from pcap_tools.kernels import I64, U64
from pcap_tools.permute import NAME, Permutation
from pcap_tools.pools import (
    DEFAULT_HOME,
    Address,
    Pool,
    Version,
    external_pool,
    home_pool,
    is_kept,
    parse_networks,
)

__all__ = ["CLASSES", "AddressClass", "AddressPlan", "invert_many", "make_plan"]

FORMAT = "probebench-address-plan"
FORMAT_VERSION = 1
_UNMAPPED = np.uint64(0xFFFFFFFFFFFFFFFF)

ClassName = Literal["home4", "external4", "home6", "external6"]
CLASSES: tuple[ClassName, ...] = ("home4", "external4", "home6", "external6")


@dataclass(frozen=True)
class AddressClass:
    """One class of the corpus's addresses: who they are, where their stand-ins come from.

    `addresses` are the originals in rank order.
    """

    name: ClassName
    pool: Pool
    addresses: tuple[str, ...]
    key: str

    @property
    def count(self) -> int:
        """Addresses of the class in the corpus."""
        return len(self.addresses)

    @cached_property
    def permutation(self) -> Permutation:
        """The pool's permutation."""
        return Permutation(max(self.pool.size, 1), self.key, self.name)

    @property
    def capacity(self) -> int | None:
        """Iterations before an address returns; None (without limit) for an empty class."""
        return self.pool.size // self.count if self.count else None


@dataclass(frozen=True)
class AddressPlan:
    """Key, networks and the corpus's ranked addresses.

    `originals` gives each class's addresses in rank order; `kept` lists those that no iteration
    changes (multicast, broadcast, link-local, …). `run` holds what was made with the plan
    (iterations, spacing, totals); it has no part in the mapping.
    """

    key: str
    home: tuple[str, ...]
    originals: Mapping[str, tuple[str, ...]]
    kept: tuple[str, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def classes(self) -> tuple[AddressClass, ...]:
        """The four classes, in the order of `CLASSES`."""
        home = parse_networks(self.home)
        classes = []
        for name in CLASSES:
            version: Version = 4 if name.endswith("4") else 6
            pool = home_pool if name.startswith("home") else external_pool
            classes.append(
                AddressClass(name, pool(version, home), self.originals.get(name, ()), self.key)
            )
        return tuple(classes)

    @property
    def capacity(self) -> int:
        """Iterations before the first address returns (2^62 when nothing is mapped)."""
        return min((c.capacity for c in self.classes if c.capacity is not None), default=1 << 62)

    def require(self, first: int, iterations: int) -> None:
        """Raise PoolExhausted unless iterations `first` … `first + iterations − 1` are fresh."""
        if first < 0 or iterations < 1:
            raise PlanError(
                f"--first {first} --iterations {iterations}: the first iteration is 0 or more "
                "and at least one is needed"
            )
        for group in self.classes:
            if group.capacity is not None and first + iterations > group.capacity:
                remedy = "ask fewer iterations"
                if group.name.startswith("home"):
                    remedy += " or give wider --home networks"
                raise PoolExhausted(
                    f"iterations {first} to {first + iterations - 1} need "
                    f"{(first + iterations) * group.count:,} addresses of class {group.name} "
                    f"({group.count} each), its pool has {group.pool.size:,}: enough for "
                    f"{group.capacity:,} iterations; {remedy}"
                )

    def invert(self, address: str) -> tuple[int, str] | None:
        """(iteration, original) of an address; None for one the plan never hands out."""
        return invert_many(self, [address])[0]

    def mapped(self, iteration: int) -> dict[str, str]:
        """Original to stand-in, all addresses of the corpus in one iteration."""
        self.require(iteration, 1)
        mapping = {address: address for address in self.kept}
        for group in self.classes:
            if not group.count:
                continue
            numbers = np.arange(group.count, dtype=np.uint64) + np.uint64(iteration * group.count)
            high, low = group.pool.addresses(group.permutation.images(numbers))
            texts = (_text(group.pool.version, h, lo) for h, lo in zip(high, low, strict=True))
            mapping.update(zip(group.addresses, texts, strict=True))
        return mapping

    def as_json(self) -> dict[str, Any]:
        """The plan's JSON form."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "permutation": NAME,
            "key": self.key,
            "home": list(self.home),
            "originals": {name: list(self.originals.get(name, ())) for name in CLASSES},
            "kept": list(self.kept),
            "pools": {group.name: group.pool.size for group in self.classes},
            "capacity": self.capacity,
            "run": dict(self.run),
        }

    def save(self, path: Path) -> None:
        """Write the plan, whole or not at all. Raises OutputError."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(self.as_json(), indent=1) + "\n")
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(f"{path}: {error.strerror}") from None

    @classmethod
    def load(cls, path: Path) -> AddressPlan:
        """Read a plan. Raises PlanError naming the file and the key that is wrong."""
        try:
            value = json.loads(path.read_text())
        except OSError as error:
            raise PlanError(f"{path}: {error.strerror}") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise PlanError(f"{path}: not JSON: {error}; give an OUT.plan.json") from None
        return cls.from_json(value, str(path))

    @classmethod
    def from_json(cls, value: Any, where: str = "plan") -> AddressPlan:
        """Plan from its JSON form; `where` names the source in errors."""
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise PlanError(f'{where}: not an address plan ("format" is not "{FORMAT}")')
        for name, expected in (("version", FORMAT_VERSION), ("permutation", NAME)):
            if value.get(name) != expected:
                raise PlanError(
                    f'{where}: "{name}" is {value.get(name)!r}, this program reads {expected!r}; '
                    "use the program version that wrote the plan"
                )
        try:
            plan = cls(
                key=str(value["key"]),
                home=tuple(value["home"]),
                originals={k: tuple(v) for k, v in value["originals"].items()},
                kept=tuple(value["kept"]),
                run=dict(value.get("run", {})),
            )
        except KeyError as error:
            raise PlanError(f"{where}: key {error} is missing") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise PlanError(f"{where}: malformed plan: {error}") from None
        parse_networks(plan.home, f'{where}: "home"')
        return plan


def make_plan(
    key: str,
    addresses: Iterable[Address],
    home: Sequence[str] = DEFAULT_HOME,
    keep: Iterable[Address] = (),
) -> AddressPlan:
    """The plan for a corpus with these addresses (any order, repeats allowed).

    `keep` names addresses that stay besides those of `is_kept`: directed broadcasts.
    """
    stay = set(keep)
    networks = parse_networks(home)
    originals: dict[str, list[str]] = {name: [] for name in CLASSES}
    kept: list[str] = []
    for address in sorted(set(addresses), key=lambda a: (a.version, int(a))):
        if address in stay or is_kept(address):
            kept.append(str(address))
            continue
        inside = any(address in n for n in networks if n.version == address.version)
        originals[f"{'home' if inside else 'external'}{address.version}"].append(str(address))
    return AddressPlan(
        key=key,
        home=tuple(str(n) for n in networks),
        originals={name: tuple(texts) for name, texts in originals.items()},
        kept=tuple(kept),
    )


def _text(version: int, high: np.uint64, low: np.uint64) -> str:
    if version == 4:
        return socket.inet_ntoa(int(low).to_bytes(4, "big"))
    return str(ipaddress.IPv6Address(int(high) << 64 | int(low)))


def _parse(text: str) -> tuple[int, int, int] | None:
    """(version, high, low) of an address text; None when it is none."""
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except OSError:
        return None
    if len(packed) == 4:
        return 4, 0, int.from_bytes(packed, "big")
    return 6, int.from_bytes(packed[:8], "big"), int.from_bytes(packed[8:], "big")


def invert_many(plan: AddressPlan, addresses: Sequence[str]) -> list[tuple[int, str] | None]:
    """(iteration, original) of each address, None where the plan hands out no such address.

    Each distinct text is parsed and inverted once: 10^5 alerts take well under a second.
    """
    distinct = list(dict.fromkeys(addresses))
    found: dict[str, tuple[int, str] | None] = dict.fromkeys(distinct)
    kept = set(plan.kept)
    parsed = {text: p for text in distinct if text not in kept and (p := _parse(text))}
    for version in (4, 6):
        texts = [text for text, p in parsed.items() if p[0] == version]
        high = np.array([parsed[text][1] for text in texts], dtype=np.uint64)
        low = np.array([parsed[text][2] for text in texts], dtype=np.uint64)
        for group in plan.classes:
            if group.pool.version != version or not group.count or not texts:
                continue
            rows, iterations, ranks = _invert_class(group, high, low)
            for row, iteration, rank in zip(
                rows.tolist(), iterations.tolist(), ranks.tolist(), strict=True
            ):
                found[texts[row]] = (iteration, group.addresses[rank])
    return [found[text] for text in addresses]


def _invert_class(group: AddressClass, high: U64, low: U64) -> tuple[I64, U64, U64]:
    """Rows that belong to the class's pool, with their iterations and ranks."""
    indices = group.pool.indices(high, low)
    rows = np.flatnonzero(indices != _UNMAPPED)
    numbers = group.permutation.values(indices[rows])
    iterations = numbers // np.uint64(group.count)
    whole = iterations < np.uint64(group.capacity or 0)  # the pool's remainder is never used
    return rows[whole], iterations[whole], numbers[whole] % np.uint64(group.count)
