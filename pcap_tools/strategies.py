"""The addresses of a corpus's flows in each iteration of a replay, by replay strategy.

What a load balancer sees of a replay is its flows × iterations. They are produced in blocks of
columns, so memory does not grow with the number of iterations.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pcap_tools.errors import PcapError, PlanError
from pcap_tools.flows import FlowTable
from pcap_tools.hashes import Tuples
from pcap_tools.kernels import I64, U32, U64
from pcap_tools.plan import AddressPlan, make_plan
from pcap_tools.pools import DEFAULT_HOME, Address

__all__ = ["STRATEGIES", "Block", "FlowGroup", "Replay", "Strategy", "flow_groups", "plan_of"]

Strategy = Literal["loop", "unique-ip", "fresh", "remap"]
STRATEGIES: dict[str, str] = {
    "loop": "the capture as it is, again and again",
    "unique-ip": "tcpreplay --unique-ip: iteration n adds n to one address and takes n off the "
    "other",
    "fresh": "fresh addresses per iteration: `corpus expand`",
    "remap": "the addresses of one iteration of a plan, again and again: `corpus remap`",
}
"""Strategy: what it sends."""

_PORTED = (6, 17, 33, 132, 136)  # TCP, UDP, DCCP, SCTP, UDP-Lite
_ROWS = 1 << 16  # of a block, unless one iteration has more


@dataclass(frozen=True)
class FlowGroup:
    """The flows of one IP version; `weights` (int64, flows × 2 × 3) are packets, bytes and flows
    from the client and from the server; a flow counts once, at its client's packets."""

    version: int
    hi: U64
    lo: U64
    tuples: Tuples
    weights: I64

    def __len__(self) -> int:
        return len(self.tuples)


@dataclass(frozen=True)
class Block:
    """Some iterations: row k of `tuples` is flow k modulo the group's flows.

    Each row is sent `repeats` times.
    """

    tuples: Tuples
    repeats: int


@dataclass(frozen=True)
class Replay:
    """A strategy carried out: `iterations` from number `first` on; `plan` for those that have one.

    Raises PlanError where the strategy needs a plan and has none, or the plan has not enough
    addresses (PoolExhausted).
    """

    strategy: Strategy
    iterations: int
    plan: AddressPlan | None = None
    first: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise PcapError(
                f"unknown strategy {self.strategy!r}; the strategies are {', '.join(STRATEGIES)}"
            )
        if self.iterations < 1:
            raise PlanError(f"{self.iterations} iterations: at least one is needed")
        if self.strategy in ("fresh", "remap"):
            if self.plan is None:
                raise PlanError(f"the strategy {self.strategy} needs a plan or a key")
            self.plan.require(self.first, self.iterations if self.strategy == "fresh" else 1)

    def blocks(self, group: FlowGroup) -> Iterator[Block]:
        """All iterations of a group's flows."""
        if self.strategy == "loop":
            yield Block(group.tuples, self.iterations)
            return
        if self.strategy == "unique-ip":
            yield from self._many(group, lambda numbers: _unique_ip(group, numbers))
            return
        assert self.plan is not None
        mapped = _mapped(group, self.plan)
        if self.strategy == "remap":
            yield Block(mapped(np.array([self.first], np.uint64)), self.iterations)
        else:
            yield from self._many(group, mapped)

    def _many(self, group: FlowGroup, tuples: Callable[[U64], Tuples]) -> Iterator[Block]:
        step = max(1, _ROWS // max(len(group), 1))
        stop = self.first + self.iterations
        for first in range(self.first, stop, step):
            yield Block(tuples(np.arange(first, min(first + step, stop), dtype=np.uint64)), 1)


def flow_groups(table: FlowTable) -> list[FlowGroup]:
    """The flows of a table by IP version; versions without flows are left out."""
    groups = []
    for version in (4, 6):
        rows = table.rows[table.rows["version"] == version]
        if not len(rows):
            continue
        hi, lo = rows["hi"], rows["lo"]
        ported = np.isin(rows["proto"], _PORTED)
        ports = np.where(ported[:, None], rows["port"], 0).astype(np.uint32)
        vlan = rows["vlan"]
        doubled = vlan >> 12 > 0
        tuples = Tuples(
            version=version,
            a=_words(version, hi[:, 0], lo[:, 0]),
            b=_words(version, hi[:, 1], lo[:, 1]),
            sport=ports[:, 0].copy(),
            dport=ports[:, 1].copy(),
            proto=rows["proto"].astype(np.uint32),
            outer=np.where(doubled, vlan >> 12, vlan).astype(np.uint32),
            inner=np.where(doubled, vlan & 4095, 0).astype(np.uint32),
        )
        weights = np.zeros((len(rows), 2, 3), np.int64)
        weights[:, :, 0], weights[:, :, 1] = rows["packets"], rows["bytes"]
        weights[:, 0, 2] = 1
        groups.append(FlowGroup(version, hi, lo, tuples, weights))
    return groups


def plan_of(groups: list[FlowGroup], key: str, home: tuple[str, ...] = DEFAULT_HOME) -> AddressPlan:
    """The address plan of the flows' addresses, as `corpus expand` makes it.

    It differs from that of `expand` where the capture has addresses outside flows, or directed
    broadcasts, which expand keeps: then ranks shift. The load's distribution is the same.
    """
    addresses: set[Address] = set()
    for group in groups:
        pairs = np.unique(np.stack([group.hi.ravel(), group.lo.ravel()], axis=1), axis=0)
        addresses.update(_address(group.version, hi, lo) for hi, lo in pairs.tolist())
    return make_plan(key, addresses, home)


def _address(version: int, hi: int, lo: int) -> Address:
    return ipaddress.IPv4Address(lo) if version == 4 else ipaddress.IPv6Address(hi << 64 | lo)


def _words(version: int, hi: U64, lo: U64) -> U32:
    if version == 4:
        return lo.astype(np.uint32)[:, None]
    parts = [hi >> np.uint64(32), hi, lo >> np.uint64(32), lo]
    return np.stack([part.astype(np.uint32) for part in parts], axis=1)


def _tiled(group: FlowGroup, a: U32, b: U32, copies: int) -> Tuples:
    one = group.tuples
    rest = (one.sport, one.dport, one.proto, one.outer, one.inner)
    return Tuples(one.version, a, b, *(np.tile(column, copies) for column in rest))


def _unique_ip(group: FlowGroup, numbers: U64) -> Tuples:
    """tcpreplay 4.4/4.5 src/send_packets.c: fast_edit_packet, without -K (the preloaded cache gives
    the same addresses). The first iteration is sent as it is (increment_iteration). Of IPv6
    addresses the last 32 bits are compared and changed. The sum of the two stays the same modulo
    2^32 − 1, so that checksums need no update: hence the corrections where one of them wraps.
    """
    step = numbers.astype(np.uint32)[:, None]
    source, target = group.tuples.a[None, :, -1], group.tuples.b[None, :, -1]
    down = target > source
    s, d = (
        np.where(down, source - step, source + step),
        np.where(down, target + step, target - step),
    )
    both_up, both_down = (s > source) & (d > target), (s < source) & (d < target)
    one = np.uint32(1)
    new_s = np.where(down & both_up, s - one, np.where(~down & both_down, s + one, s))
    new_d = np.where(down & both_down, d + one, np.where(~down & both_up, d - one, d))
    ends = []
    for old, new in ((group.tuples.a, new_s), (group.tuples.b, new_d)):
        words = np.tile(old, (len(numbers), 1))
        words[:, -1] = new.ravel()
        ends.append(words)
    return _tiled(group, ends[0], ends[1], len(numbers))


def _mapped(group: FlowGroup, plan: AddressPlan) -> Callable[[U64], Tuples]:
    """A function from iteration numbers to the group's flows with the plan's addresses."""
    pairs = np.stack([group.hi.ravel(), group.lo.ravel()], axis=1)
    unique, index = np.unique(pairs, axis=0, return_inverse=True)
    texts = [str(_address(group.version, hi, lo)) for hi, lo in unique.tolist()]
    ends = index.reshape(-1, 2)
    place: dict[str, tuple[int, int]] = dict.fromkeys(plan.kept, (-1, 0))
    for number, kind in enumerate(plan.classes):
        names = plan.originals.get(kind.name, ())
        place.update((text, (number, rank)) for rank, text in enumerate(names))
    try:
        found = np.array([place[text] for text in texts], np.int64).reshape(-1, 2)
    except KeyError as error:
        raise PlanError(
            f"the plan does not know the address {error} of the capture; give the plan made of "
            "this capture"
        ) from None

    def tuples(numbers: U64) -> Tuples:
        hi = np.tile(unique[:, 0], (len(numbers), 1))
        lo = np.tile(unique[:, 1], (len(numbers), 1))
        for number, kind in enumerate(plan.classes):
            columns = np.flatnonzero(found[:, 0] == number)
            if not len(columns):
                continue
            count = np.uint64(len(plan.originals[kind.name]))
            wanted = numbers[:, None] * count + found[columns, 1].astype(np.uint64)[None, :]
            high, low = kind.pool.addresses(kind.permutation.images(wanted.ravel()))
            hi[:, columns] = high.reshape(wanted.shape)
            lo[:, columns] = low.reshape(wanted.shape)
        words = [
            _words(group.version, hi[:, ends[:, end]].ravel(), lo[:, ends[:, end]].ravel())
            for end in (0, 1)
        ]
        return _tiled(group, words[0], words[1], len(numbers))

    return tuples
