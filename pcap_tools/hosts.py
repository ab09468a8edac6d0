"""A corpus on a bounded population: its client sockets, and after how long a five-tuple comes back.

Two walks over the packets: `learn` collects the client sockets, `moves` says where each packet's
port stands. Both walk in the capture's order, which the flow table follows.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pcap_tools.errors import PlanError
from pcap_tools.flows import FlowTable
from pcap_tools.kernels import I32, I64
from pcap_tools.plan import AddressPlan
from pcap_tools.ports import GROUP, MOVE_COLUMNS, NUMBER, PLACE, find_moves, learn_ports
from pcap_tools.sockets import Sockets
from pcap_tools.stand_ins import AddressBook

__all__ = ["TIMEOUTS", "PortBook", "Reuse"]

TIMEOUTS = {6: 600.0, 17: 300.0, 1: 300.0, 58: 300.0}
"""Suricata's default timeouts of established flows in seconds, by protocol (suricata.yaml,
flow-timeouts: tcp, udp, icmp); the longest that a complete flow can meet."""

_NAMES = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6", 33: "dccp", 136: "udplite"}
_NEVER = 1 << 62


@dataclass(frozen=True)
class Reuse:
    """After how many iterations a flow's five-tuple comes back, by protocol name.

    `fixed_flows` have no port that moves (server-like ports at both ends, other protocols): their
    five-tuples come back with the addresses, after `fixed_iterations`.
    """

    by_protocol: dict[str, int]
    fixed_flows: int
    fixed_iterations: int

    @property
    def iterations(self) -> int:
        """The reuse distance: the least over protocols (2^62 without client sockets)."""
        return min(self.by_protocol.values(), default=_NEVER)

    def as_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {**asdict(self), "iterations": self.iterations}

    def too_short(
        self, iterations: int, every_s: float, span_s: float, timeout: float | None
    ) -> list[str]:
        """What comes back before the sensor has forgotten it, one text each; [] when nothing does.

        A flow of iteration i comes back R iterations later, R × Δ seconds after it began; that it
        may have lasted `span_s` of them is taken off. `timeout` replaces TIMEOUTS.
        """
        found = []
        for name, distance in self.by_protocol.items():
            number = next(n for n, known in _NAMES.items() if known == name)
            limit = TIMEOUTS.get(number, 600.0) if timeout is None else timeout
            quiet = distance * every_s - span_s
            if iterations > distance and quiet < limit:
                found.append(
                    f"{name} five-tuples come back after {distance:,} iterations, "
                    f"{max(quiet, 0):.3g} s after their flow's end at this rate; the sensor "
                    f"keeps a flow for {limit:g} s"
                )
        return found


class PortBook:
    """The client sockets of a capture, found in two walks; `table` is its flow table."""

    def __init__(self, table: FlowTable) -> None:
        self._owner, self._direction = table.owner, table.direction
        self._flows = np.zeros((max(1, len(table)), 3), np.int32)
        self._protocols = table.rows["proto"].astype(np.int64)
        self._seen = np.zeros(65536, np.int64)
        self._book = AddressBook()
        self._group = np.zeros(0, np.int32)
        self._number = np.zeros(0, np.int32)

    def learn(self, first: int, data: int, offsets: I64, sizes: I64, rows: I32) -> None:
        """First walk: packets `first` … of the capture, rows with the address book's numbers."""
        self._book.reserve(len(offsets))
        here = slice(first, first + len(offsets))
        learn_ports(
            data,
            offsets,
            sizes,
            rows,
            self._owner[here],
            self._direction[here],
            self._flows,
            self._seen,
            self._book.book,
        )

    def settle(self, plan: AddressPlan, addresses: AddressBook) -> AddressPlan:
        """The plan with the sockets, after the first walk."""
        protocol, number, port = (c.astype(np.int64) for c in self._entries())
        groups, ranks = _classes(plan, addresses)
        group, rank = groups[number], ranks[number]
        mapped = np.flatnonzero(group >= 0)
        group, protocol, rank, port = (c[mapped] for c in (group, protocol, rank, port))
        sockets = Sockets.of(group, protocol, rank, port, self._seen)
        order = mapped[np.lexsort((port, rank, protocol, group))]
        self._group = np.full(len(number), -1, np.int32)
        self._number = np.zeros(len(number), np.int32)
        self._group[order] = sockets.group
        self._number[order] = sockets.numbers
        return replace(plan, sockets=sockets)

    def _entries(self) -> tuple[I64, I64, I64]:
        rows = self._book.book.entries[: len(self._book)].astype(np.int64)
        return rows[:, 0], rows[:, 1], rows[:, 2]

    def moves(self, first: int, data: int, offsets: I64, sizes: I64, rows: I32, quotes: I32) -> I32:
        """Second walk: the moves of packets `first` …, one row each."""
        moves = np.zeros((len(offsets), MOVE_COLUMNS), np.int32)
        here = slice(first, first + len(offsets))
        find_moves(
            data,
            offsets,
            sizes,
            rows,
            quotes,
            self._owner[here],
            self._direction[here],
            self._book.book,
            moves,
        )
        found = np.flatnonzero(moves[:, PLACE])
        socket = moves[found, GROUP]
        moves[found, NUMBER] = self._number[socket]
        moves[found, GROUP] = self._group[socket]
        moves[found[self._group[socket] < 0], PLACE] = 0  # the client's address stays
        return moves

    def reuse(self, plan: AddressPlan, addresses: AddressBook) -> Reuse:
        """After how many iterations five-tuples come back."""
        sockets = plan.sockets
        if sockets is None:
            raise PlanError("the plan has no client sockets")
        cycles = np.array([group.cycle for group in plan.classes], object)
        distances = cycles * sockets.turns.astype(object)
        by_protocol: dict[str, int] = {}
        pairs = np.unique(np.column_stack([sockets.protocol, sockets.group]), axis=0)
        for protocol, group in pairs.tolist():
            name = _NAMES.get(protocol, str(protocol))
            by_protocol[name] = min(by_protocol.get(name, _NEVER), int(distances[group]))
        groups, _ = _classes(plan, addresses)
        fixed = self._flows[(self._flows[:, 0] > 0) & (self._flows[:, 2] == 0), :2] - 1
        ends = np.unique(groups[fixed], axis=0) if len(fixed) else np.zeros((0, 2), np.int64)
        return Reuse(
            by_protocol,
            len(fixed),
            min(
                (
                    math.lcm(*(int(cycles[g]) for g in pair if g >= 0))
                    for pair in ends.tolist()
                    if max(pair) >= 0
                ),
                default=_NEVER,
            ),
        )


def _classes(plan: AddressPlan, addresses: AddressBook) -> tuple[I64, I64]:
    """Class (−1: stays) and rank of each numbered address."""
    version = addresses.columns()[0]
    slots = addresses.slots(plan).astype(np.int64)
    groups, ranks = np.full(len(slots), -1, np.int64), slots.copy()
    for first, number in ((0, 4), (2, 6)):
        home, external = plan.classes[first].count, plan.classes[first + 1].count
        here = version == number
        groups[here & (slots < home)] = first
        outside = here & (slots >= home) & (slots < home + external)
        groups[outside] = first + 1
        ranks[outside] -= home
    return groups, ranks
