"""From flows on the wire back to the corpus, also where hosts recur and client ports move.

An address tells the iteration modulo its class's cycle, a client's port how many cycles had passed,
modulo the turns that ports take (`sockets`), the other end's address the iteration modulo its own
cycle. Put together by the Chinese remainder theorem they give the iteration modulo a number that is
at least the reuse distance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pcap_tools.addresses import parse_address, text_of
from pcap_tools.kernels import I64, U64
from pcap_tools.plan import AddressPlan

__all__ = ["FlowOrigin", "WireFlow", "invert_flows"]

_EXACT = 1 << 31  # a residue modulo this much is the iteration itself


class WireFlow(NamedTuple):
    """A five-tuple as seen: protocol number, and both ends in either order.

    `target` may be "" when only one end is known.
    """

    protocol: int
    source: str
    source_port: int
    target: str = ""
    target_port: int = 0


@dataclass(frozen=True)
class FlowOrigin:
    """Where a five-tuple comes from: the iteration, and the corpus's five-tuple.

    The iteration is the least one from the plan's first on; `modulo` more are told apart.
    """

    iteration: int
    modulo: int
    flow: WireFlow


@dataclass
class _End:
    """One end of many flows: class (−1: stays or unknown), residue and modulus, rank, port."""

    group: I64
    residue: I64
    rank: I64
    port: I64
    client: npt.NDArray[np.bool_]
    modulo: npt.NDArray[np.object_]
    original: I64


def invert_flows(plan: AddressPlan, flows: Sequence[WireFlow]) -> list[FlowOrigin | None]:
    """Iteration and corpus flow of many five-tuples; None where the plan hands out no such flow.

    For a plan without `hosts`, ports are as they were and the iteration is exact.
    """
    if not flows:
        return []
    protocol = np.array([flow.protocol for flow in flows], np.int64)
    ends = (
        _end(plan, protocol, [f.source for f in flows], [f.source_port for f in flows]),
        _end(plan, protocol, [f.target for f in flows], [f.target_port for f in flows]),
    )
    first = int(plan.run.get("first", 0))
    found: list[FlowOrigin | None] = []
    for row, flow in enumerate(flows):
        found.append(_origin(plan, flow, row, ends, first))
    return found


def _end(plan: AddressPlan, protocol: I64, texts: Sequence[str], ports: Sequence[int]) -> _End:
    count = len(texts)
    parsed = [parse_address(text) for text in texts]
    version = np.array([p[0] if p else 0 for p in parsed], np.int64)
    high = np.array([p[1] if p else 0 for p in parsed], np.uint64)
    low = np.array([p[2] if p else 0 for p in parsed], np.uint64)
    group = np.full(count, -1, np.int64)
    residue, rank = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for stay in plan.stay:  # a broadcast address that stays stands in for nobody
        here = np.flatnonzero(version == stay.version)
        version[here[stay.ranks(high[here], low[here]) >= 0]] = 0
    for number, known in enumerate(plan.classes):
        here = np.flatnonzero(version == known.pool.version)
        rows, residues, ranks = known.origins(high[here], low[here])
        group[here[rows]] = number
        residue[here[rows]], rank[here[rows]] = residues, ranks
    port = np.array(ports, np.int64)
    end = _End(
        group=group,
        residue=residue,
        rank=rank,
        port=port,
        client=np.zeros(count, np.bool_),
        modulo=np.array([plan.classes[g].cycle if g >= 0 else 1 for g in group], object),
        original=port.copy(),
    )
    if plan.sockets is not None and len(plan.sockets):
        _find_sockets(plan, protocol, end)
    return end


def _find_sockets(plan: AddressPlan, protocol: I64, end: _End) -> None:
    """Recognise the client ports among an end's, and what they say of the iteration."""
    sockets = plan.sockets
    assert sockets is not None
    free = sockets.free.astype(np.int64)
    place = np.minimum(np.searchsorted(free, end.port), len(free) - 1)
    for number, known in enumerate(plan.classes):
        rows = np.flatnonzero((end.group == number) & (free[place] == end.port))
        if not len(rows):
            continue
        images: U64 = place[rows].astype(np.uint64)
        values = sockets.permutation(plan.key, number).values(images).astype(np.int64)
        width, turns = int(sockets.widths[number]), int(sockets.turns[number])
        turn, position = values // width, values % width
        at = sockets.find(np.full(len(rows), number), protocol[rows], end.rank[rows], position)
        good = (at >= 0) & (turn < turns)
        rows, turn, at = rows[good], turn[good], at[good]
        end.client[rows] = True
        end.residue[rows] += turn * known.cycle
        end.modulo[rows] = known.cycle * turns
        end.original[rows] = sockets.port[at]


def _origin(
    plan: AddressPlan, flow: WireFlow, row: int, ends: tuple[_End, _End], first: int
) -> FlowOrigin | None:
    """Put the two ends of one flow together: whichever can be the client, and agrees."""
    clients = [n for n in (0, 1) if ends[n].client[row]]
    for client in (*clients, -1):
        residue, modulo = 0, 1
        for number, end in enumerate(ends):
            if end.group[row] < 0:
                continue
            cycle = int(plan.classes[int(end.group[row])].cycle)
            own = int(end.modulo[row]) if number == client else cycle
            joined = _join(residue, modulo, int(end.residue[row]) % own, own)
            if joined is None:
                break
            residue, modulo = joined
        else:
            if modulo == 1:
                return None
            iteration = residue + max(0, -((residue - first) // modulo)) * modulo
            return FlowOrigin(iteration, modulo, _original(plan, flow, row, ends, client))
    return None


def _join(one: int, modulo: int, two: int, other: int) -> tuple[int, int] | None:
    """The residue that is `one` mod `modulo` and `two` mod `other`; None when there is none."""
    if modulo >= _EXACT or other >= _EXACT:
        small, large = (
            ((one, modulo), (two, other))
            if modulo < other
            else (
                (two, other),
                (one, modulo),
            )
        )
        return large if large[0] % small[1] == small[0] else None
    common = math.gcd(modulo, other)
    if (two - one) % common:
        return None
    step = (two - one) // common * pow(modulo // common, -1, other // common)
    joined = math.lcm(modulo, other)
    return (one + modulo * (step % (other // common))) % joined, joined


def _original(
    plan: AddressPlan, flow: WireFlow, row: int, ends: tuple[_End, _End], client: int
) -> WireFlow:
    texts = []
    for end, seen in zip(ends, (flow.source, flow.target), strict=True):
        group, rank = int(end.group[row]), int(end.rank[row])
        if group < 0:
            texts.append(seen)
            continue
        addresses = plan.classes[group].originals
        number = int(addresses.high[rank]), int(addresses.low[rank])
        texts.append(text_of(addresses.version, *number))
    ports = [int(e.original[row] if n == client else e.port[row]) for n, e in enumerate(ends)]
    return WireFlow(flow.protocol, texts[0], ports[0], texts[1], ports[1])
