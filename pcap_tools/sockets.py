"""Client ports of a bounded population: where they move in each iteration, and back.

When hosts recur (`population`), a flow would come back with the same five-tuple after as many
iterations as the addresses take to recur. So the client's port moves too. A corpus's client sockets
(client address, protocol, port of 1024 or more) are ranked by port within client and protocol; w is
the largest such rank plus one in a class, c the class's cycle, u the number of ports that are free:
1024 … 65535 without the ports of the corpus's servers. The socket of rank r has, in iteration i,
number (⌊i / c⌋ mod ⌊u / w⌋) × w + r of the free ports under a keyed permutation. So a client's
socket comes back after c × ⌊u / w⌋ iterations, the reuse distance, and no five-tuple earlier. ICMP
echo identifiers count as ports.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pcap_tools.errors import PlanError
from pcap_tools.kernels import I64, U64
from pcap_tools.permute import Permutation

__all__ = ["FIRST_PORT", "Sockets"]

FIRST_PORT = 1024
_LEAST_FREE = 32768  # half the ports stay free even if a scan made a server of each
_GROUPS = 4  # classes, in the order of plan.CLASSES


@dataclass(frozen=True, eq=False)
class Sockets:
    """Client sockets, sorted by (group, protocol, rank, port): n int64 each.

    `group` is the number of the client's class in `plan.CLASSES`, `rank` the client's there.
    `servers` are the ports that no client moves to.
    """

    group: I64
    protocol: I64
    rank: I64
    port: I64
    servers: I64

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sockets) and all(
            np.array_equal(one, two)
            for one, two in zip(self._columns(), other._columns(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.port)

    def _columns(self) -> tuple[I64, I64, I64, I64, I64]:
        return self.group, self.protocol, self.rank, self.port, self.servers

    @classmethod
    def of(cls, group: I64, protocol: I64, rank: I64, port: I64, seen: I64) -> Sockets:
        """Sockets in any order, each once; `seen[p]` counts the flows to server port p."""
        order = np.lexsort((port, rank, protocol, group))
        ports = np.arange(FIRST_PORT, 65536)
        used = ports[seen[FIRST_PORT:] > 0]
        if len(ports) - len(used) < _LEAST_FREE:  # leave out the busiest only
            busiest = np.argsort(-seen[used], kind="stable")[: len(ports) - _LEAST_FREE]
            used = np.sort(used[busiest])
        return cls(group[order], protocol[order], rank[order], port[order], used)

    @cached_property
    def free(self) -> U64:
        """Ports that clients move to, ascending."""
        ports = np.arange(FIRST_PORT, 65536)
        return np.setdiff1d(ports, self.servers).astype(np.uint64)

    @cached_property
    def starts(self) -> I64:
        """Position of the first socket of each socket's client and protocol."""
        fresh = np.ones(len(self), np.bool_)
        for column in (self.group, self.protocol, self.rank):
            fresh[1:] &= column[1:] == column[:-1]
        fresh[1:] = ~fresh[1:]
        first = np.flatnonzero(fresh)
        return first[np.cumsum(fresh) - 1] if len(self) else first

    @property
    def numbers(self) -> I64:
        """Rank of each socket's port within its client and protocol."""
        return np.arange(len(self)) - self.starts

    @cached_property
    def widths(self) -> I64:
        """w of each class (1 for one without sockets)."""
        widths = np.ones(_GROUPS, np.int64)
        np.maximum.at(widths, self.group, self.numbers + 1)
        return widths

    @cached_property
    def turns(self) -> I64:
        """How often a class's ports move before they come back: ⌊u / w⌋."""
        turns = len(self.free) // self.widths
        if not turns.all():
            raise PlanError(
                f"a client of the corpus has {int(self.widths.max()):,} ports of one protocol, "
                f"more than the {len(self.free):,} that are free to move to; do without --hosts"
            )
        return turns

    def permutation(self, key: str, group: int) -> Permutation:
        """The order in which a class goes through the free ports."""
        return Permutation(len(self.free), key, f"ports{group}")

    def find(self, group: I64, protocol: I64, rank: I64, number: I64) -> I64:
        """Positions of the sockets with these numbers within client and protocol; −1 for none."""
        client = self._clients(group, protocol, rank)
        mine = self._clients(self.group, self.protocol, self.rank)
        first = np.searchsorted(mine, client)
        place = np.minimum(first + number, max(len(self) - 1, 0))
        if not len(self):
            return np.full(len(group), -1, np.int64)
        return np.where((mine[place] == client) & (first + number < len(self)), place, -1)

    @staticmethod
    def _clients(group: I64, protocol: I64, rank: I64) -> I64:
        key: I64 = (group << 56) | (protocol << 48) | rank
        return key

    def as_json(self) -> dict[str, Any]:
        """Columns as lists."""
        names = ("class", "protocol", "rank", "port", "server_ports")
        return dict(zip(names, (c.tolist() for c in self._columns()), strict=True))

    @classmethod
    def from_json(cls, value: Any) -> Sockets:
        """From `as_json`. Raises KeyError, TypeError and ValueError."""
        names = ("class", "protocol", "rank", "port", "server_ports")
        columns = [np.array(value[name], np.int64).reshape(-1) for name in names]
        if len({len(column) for column in columns[:4]}) != 1:
            raise ValueError("the columns of sockets differ in length")
        if len(columns[0]) and not 0 <= columns[0].min() <= columns[0].max() < _GROUPS:
            raise ValueError("a socket's class is 0 … 3")
        return cls(*columns)
