"""The address plan: which address a corpus address becomes in which iteration, and back.

Addresses belong to four classes: home (inside the home networks) and external (all others), each
for IPv4 and IPv6. A class's `count` addresses are ranked in sorted order. The address of rank r in
iteration i is number i × count + r of the class's pool under the keyed permutation of the pool.
Numbers of different iterations never coincide, so no address returns before the pool is used up,
and the two ends of a flow move independently of each other.

The plan's JSON form (`planfile`) is all that is needed to map any address back to (iteration,
original).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pcap_tools.addresses import Addresses, none_of, parse_address, sorted_addresses, text_of
from pcap_tools.cryptopan import CryptoPan, key_of
from pcap_tools.errors import PlanError, PoolExhausted
from pcap_tools.kernels import I64, U8, U64
from pcap_tools.permute import Permutation
from pcap_tools.pools import DEFAULT_HOME, Address, Pool, Version, kept_networks
from pcap_tools.population import Population
from pcap_tools.sockets import Sockets
from pcap_tools.space import Space, within

__all__ = ["CLASSES", "AddressClass", "AddressPlan", "invert_many", "make_plan", "plan_of"]

_UNMAPPED = np.uint64(0xFFFFFFFFFFFFFFFF)
_NEVER = 1 << 62

ClassName = Literal["home4", "external4", "home6", "external6"]
CLASSES: tuple[ClassName, ...] = ("home4", "external4", "home6", "external6")


@dataclass(frozen=True)
class AddressClass:
    """One class of the corpus's addresses: who they are, where their stand-ins come from.

    `originals` are in rank order. With `hosts`, at most that many addresses of the pool are used,
    over and over. With `pan`, addresses are mapped prefix by prefix, and there is one iteration.
    """

    name: ClassName
    pool: Pool
    originals: Addresses
    key: str
    hosts: int | None = None
    pan: CryptoPan | None = None

    @property
    def count(self) -> int:
        """Addresses of the class in the corpus."""
        return len(self.originals)

    @cached_property
    def permutation(self) -> Permutation:
        """The pool's permutation."""
        return Permutation(max(self.pool.size, 1), self.key, self.name)

    @property
    def cycle(self) -> int:
        """Iterations after which the addresses begin anew (2^62 for an empty class: never)."""
        if not self.count or self.pan:
            return _NEVER
        size = self.pool.size if self.hosts is None else min(self.pool.size, self.hosts)
        return size // self.count

    @property
    def capacity(self) -> int | None:
        """Iterations there are; None (without limit) for an empty class and for `hosts`."""
        return self.cycle if self.count and self.hosts is None and not self.pan else None

    def stand_ins(self, iteration: int, ranks: I64) -> tuple[U64, U64]:
        """Addresses (high, low) of many ranks in one iteration, which has to be in `capacity`."""
        if self.pan:
            high, low = self.originals.high[ranks], self.originals.low[ranks]
            return self.pan.images(self.pool.version, high, low)
        numbers = ranks.astype(np.uint64) + np.uint64((iteration % self.cycle) * self.count)
        return self.pool.addresses(self.permutation.images(numbers))

    def origins(self, high: U64, low: U64) -> tuple[I64, I64, I64]:
        """Those of many addresses that the class hands out: rows, their iterations and ranks.

        Iterations are below `cycle`: with `hosts`, the true one is that much or some cycles more.
        """
        if not self.count:
            nothing = np.zeros(0, np.int64)
            return nothing, nothing, nothing
        if self.pan:
            ranks = self.originals.ranks(*self.pan.originals(self.pool.version, high, low))
            rows = np.flatnonzero(ranks >= 0)
            return rows, np.zeros_like(rows), ranks[rows]
        indices = self.pool.indices(high, low)
        rows = np.flatnonzero(indices != _UNMAPPED)
        numbers = self.permutation.values(indices[rows])
        iterations = numbers // np.uint64(self.count)
        whole = iterations < np.uint64(self.cycle)  # the pool's remainder is never used
        ranks = (numbers[whole] % np.uint64(self.count)).astype(np.int64)
        return rows[whole], iterations[whole].astype(np.int64), ranks


@dataclass(frozen=True)
class AddressPlan:
    """Key, networks and the corpus's ranked addresses.

    `ranked` holds the addresses of each class of CLASSES, `stay` those of IPv4 and of IPv6 that no
    iteration changes (multicast, broadcast, link-local, …). `prefix` selects the prefix-preserving
    mapping (`cryptopan`). `macs` holds the MAC addresses that are mapped, by rank; None leaves all.
    `hosts` bounds the population, and `sockets` are the client ports that move along. `run` holds
    what was made with the plan (iterations, spacing, totals); it has no part in the mapping.
    """

    key: str
    space: Space
    ranked: Mapping[ClassName, Addresses]
    stay: tuple[Addresses, Addresses]
    prefix: bool = False
    macs: tuple[int, ...] | None = None
    hosts: Population | None = None
    sockets: Sockets | None = None
    run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def home(self) -> tuple[str, ...]:
        """The home networks."""
        return self.space.home

    @property
    def originals(self) -> dict[ClassName, tuple[str, ...]]:
        """The addresses of each class by rank, as texts."""
        return {name: self.ranked[name].texts for name in CLASSES}

    @property
    def kept(self) -> tuple[str, ...]:
        """The addresses that stay, as texts."""
        return self.stay[0].texts + self.stay[1].texts

    @cached_property
    def classes(self) -> tuple[AddressClass, ...]:
        """The four classes, in the order of `CLASSES`."""
        fixed = (*kept_networks(), *self.space.networks)
        pan = CryptoPan(key_of(self.key), fixed) if self.prefix else None
        return tuple(
            AddressClass(
                name,
                self.space.pool(name[:-1], 4 if name.endswith("4") else 6),
                self.ranked[name],
                self.key,
                self.hosts.limit(name) if self.hosts else None,
                pan,
            )
            for name in CLASSES
        )

    def by_version(self, version: Version) -> tuple[Addresses, Addresses, Addresses]:
        """Home, external and staying addresses of one IP version: the order of its slots."""
        if version == 4:
            return self.ranked["home4"], self.ranked["external4"], self.stay[0]
        return self.ranked["home6"], self.ranked["external6"], self.stay[1]

    @property
    def capacity(self) -> int:
        """Iterations that the pools are enough for (2^62 when nothing limits them)."""
        return min((c.capacity for c in self.classes if c.capacity is not None), default=_NEVER)

    def require(self, first: int, iterations: int) -> None:
        """Raise PoolExhausted unless iterations `first` … `first + iterations − 1` are fresh."""
        if first < 0 or iterations < 1:
            raise PlanError(
                f"--first {first} --iterations {iterations}: the first iteration is 0 or more "
                "and at least one is needed"
            )
        for group in self.classes:
            if group.count and not group.cycle:
                limit = "--hosts" if group.hosts is not None else "the pool"
                raise PoolExhausted(
                    f"class {group.name} has {group.count:,} addresses in the corpus, {limit} "
                    f"leaves {min(group.hosts or _NEVER, group.pool.size):,}; give more"
                )
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
        self._refuse_clash(first, iterations)

    def _refuse_clash(self, first: int, iterations: int) -> None:
        """Raise PlanError when an address that stays would also be handed out: pools know of the
        networks that stay, not of the directed broadcasts that the corpus turns out to have."""
        for own in self.stay:
            odd = ~within(kept_networks(), own.version, own.high, own.low)
            for group in self.classes:
                if group.pool.version != own.version or not odd.any():
                    continue
                rows, numbers, _ = group.origins(own.high[odd], own.low[odd])
                reached = (numbers - first) % group.cycle < iterations
                if reached.any():
                    text = own.texts[int(np.flatnonzero(odd)[rows[reached][0]])]
                    raise PlanError(
                        f"{text}, a broadcast address that stays, would also stand in for a host "
                        "under this --key; choose another"
                    )

    def maps(self, version: U8, high: U64, low: U64) -> npt.NDArray[np.bool_]:
        """Which of many addresses (version 4 or 6 each; others never) the plan maps to others."""
        found = np.zeros(len(version), np.bool_)
        for group in self.classes:
            rows = np.flatnonzero(version == group.pool.version)
            found[rows] |= group.originals.ranks(high[rows], low[rows]) >= 0
        return found

    def require_known(self, version: U8, high: U64, low: U64) -> None:
        """Raise PlanError naming the first of many addresses that the plan does not know."""
        known = self.maps(version, high, low)
        for stay in self.stay:
            rows = np.flatnonzero(version == stay.version)
            known[rows] |= stay.ranks(high[rows], low[rows]) >= 0
        unknown = np.flatnonzero(~known)
        if len(unknown):
            first = unknown[0]
            text = text_of(int(version[first]), int(high[first]), int(low[first]))
            raise PlanError(
                f"{len(unknown):,} addresses of the capture are not in the plan, {text} first; "
                "make a plan of all captures together (remap takes several)"
            )

    def invert(self, address: str) -> tuple[int, str] | None:
        """(iteration, original) of an address; None for one the plan never hands out."""
        return invert_many(self, [address])[0]

    def mapped(self, iteration: int) -> dict[str, str]:
        """Original to stand-in, all addresses of the corpus in one iteration."""
        self.require(iteration, 1)
        mapping = {address: address for address in self.kept}
        for group in self.classes:
            high, low = group.stand_ins(iteration, np.arange(group.count))
            version = group.pool.version
            texts = (text_of(version, h, lo) for h, lo in zip(high, low, strict=True))
            mapping.update(zip(group.originals.texts, texts, strict=True))
        return mapping

    def save(self, path: Path) -> None:
        """Write the plan, whole or not at all. Raises OutputError."""
        from pcap_tools.planfile import save

        save(self, path)

    @classmethod
    def load(cls, path: Path) -> AddressPlan:
        """Read a plan. Raises PlanError naming the file and the key that is wrong."""
        from pcap_tools.planfile import load

        return load(path)

    def as_json(self) -> dict[str, Any]:
        """The plan's JSON form."""
        from pcap_tools.planfile import as_json

        return as_json(self)


def plan_of(
    key: str,
    version: U8,
    high: U64,
    low: U64,
    space: Space,
    keep: npt.NDArray[np.bool_] | None = None,
) -> AddressPlan:
    """The plan for a corpus with these addresses (columns, any order, repeats allowed).

    `version` is 4 or 6 for each, and `high` 0 for IPv4. `keep` marks addresses that stay besides
    multicast, link-local and so on: directed broadcasts. An address marked once stays everywhere.
    """
    ranked: dict[ClassName, Addresses] = {}
    stay = []
    for number, (home, external) in ((4, CLASSES[:2]), (6, CLASSES[2:])):
        of: Version = 4 if number == 4 else 6
        rows = version == number
        everyone = sorted_addresses(of, high[rows], low[rows])
        stays = within(kept_networks(), of, everyone.high, everyone.low)
        if keep is not None and (marked := rows & keep.astype(np.bool_)).any():
            ranks = everyone.ranks(high[marked], low[marked])
            stays[ranks] = True
        inside = space.is_home(of, everyone.high, everyone.low)
        ranked[home] = _those(everyone, inside & ~stays)
        ranked[external] = _those(everyone, ~inside & ~stays)
        stay.append(_those(everyone, stays))
    return AddressPlan(key=key, space=space, ranked=ranked, stay=(stay[0], stay[1]))


def _those(addresses: Addresses, wanted: npt.NDArray[np.bool_]) -> Addresses:
    if not wanted.any():
        return none_of(addresses.version)
    return Addresses(addresses.version, addresses.high[wanted], addresses.low[wanted])


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
    everyone = list(set(addresses))
    numbers = [int(address) for address in everyone]
    return plan_of(
        key,
        np.array([address.version for address in everyone], np.uint8),
        np.array([number >> 64 for number in numbers], np.uint64),
        np.array([number & (1 << 64) - 1 for number in numbers], np.uint64),
        Space(home=tuple(home)),
        np.array([address in stay for address in everyone], np.bool_),
    )


def invert_many(plan: AddressPlan, addresses: Sequence[str]) -> list[tuple[int, str] | None]:
    """(iteration, original) of each address, None where the plan hands out no such address.

    Each distinct text is parsed and inverted once: 10^5 alerts take well under a second. Raises
    PlanError where hosts recur, so that an address does not tell the iteration.
    """
    if plan.hosts:
        raise PlanError(
            "the plan bounds the hosts: an address recurs and does not tell the iteration; "
            "give the client's address and port, or the five-tuple"
        )
    distinct = list(dict.fromkeys(addresses))
    found: dict[str, tuple[int, str] | None] = dict.fromkeys(distinct)
    parsed = {text: p for text in distinct if (p := parse_address(text))}
    for version in (4, 6):
        texts = [text for text, p in parsed.items() if p[0] == version]
        high = np.array([parsed[text][1] for text in texts], dtype=np.uint64)
        low = np.array([parsed[text][2] for text in texts], dtype=np.uint64)
        staying = plan.stay[0 if version == 4 else 1].ranks(high, low) >= 0
        for group in plan.classes:
            if group.pool.version != version or not texts:
                continue
            rows, iterations, ranks = group.origins(high, low)
            for row, iteration, rank in zip(
                rows.tolist(), iterations.tolist(), ranks.tolist(), strict=True
            ):
                if not staying[row]:
                    found[texts[row]] = (iteration, group.originals.texts[rank])
    return [found[text] for text in addresses]
