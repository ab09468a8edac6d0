"""Fresh addresses while a capture is cleaned: what the flow table knows is not looked up again.

In the first pass the flow table names the ends of most packets; frames that hold addresses
elsewhere too (ARP, ICMP errors, tunnels, fragments …) are looked into one by one. Once it is known
what is kept, the plan ranks the addresses of that alone, so that cleaning and remapping in one
command gives byte for byte what two commands give. In the second pass plain packets get their
flow's stand-ins, all others go the general way.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pcap_tools.batches import part_of
from pcap_tools.capture import Batch
from pcap_tools.edits import (
    APART,
    IP_BASE,
    KIND,
    QUOTE,
    QUOTING,
    SOURCE,
    TARGET,
    Book,
    intern,
)
from pcap_tools.flowrow import FlowRows
from pcap_tools.flows import FlowTable
from pcap_tools.fresh import FreshAddresses, Rewriting
from pcap_tools.kernels import I32, I64, U8, U16, U32, U64, kernel
from pcap_tools.memory import distinct, doubled, reserve
from pcap_tools.packet import PacketRows
from pcap_tools.parts import Room, Stop, Way, fetch, gather, store
from pcap_tools.plain import other_frames, swap_plain
from pcap_tools.plan import AddressPlan, plan_of
from pcap_tools.scan import analyse_batch
from pcap_tools.stand_ins import AddressBook, lookup
from pcap_tools.tables import Tables, tables_of

__all__ = ["FreshAddresses", "Readdress"]

_SPECIAL = 4  # owner codes below 0
_LATE = 1 << 40  # owners from here on are packet numbers
_FLOWS = 1 << 14  # numbered at once
_PENDING = 1 << 20  # pairs that wait to be made distinct


class Readdress(Rewriting):
    """Collects a capture's addresses, settles their plan, and rewrites batches: in this order."""

    def __init__(self, wanted: FreshAddresses) -> None:
        super().__init__(wanted)
        self._pairs: list[I64] = []
        self._waiting = 0
        self._found = np.empty(0, np.int64)
        self._odd: U32 = reserve(1 << 21, np.uint32)  # each flow's frames that are not plain

    def collect(self, batch: Batch, marked: PacketRows, owner: I32) -> None:
        """Take the addresses of a batch's frames that are not plain; `owner` as in FlowTable.

        `marked` are the decoded rows, with plain ones marked (`pcap_tools.plain`).
        """
        others = self._others(batch, marked, owner)
        if not len(others):
            return
        part = part_of(batch, others)
        counts = np.zeros_like(self.counts)
        rows, edits = analyse_batch(part, self.book, counts)
        self._quoting += int(counts[QUOTING])
        # A fragment whose first is still to come is remembered by its number, until it has a flow.
        owners = owner[others].astype(np.int64) + _SPECIAL
        owners = np.where(owners < 0, others + batch.first + _LATE, owners)
        self._remember(rows, owners)
        inner, at = rows[:, QUOTE], owners
        while (more := inner > 0).any():
            rows, at = edits[inner[more] - 1], at[more]
            self._remember(rows, at)
            inner = rows[:, QUOTE]

    def settle(self, table: FlowTable, kept: npt.NDArray[np.bool_]) -> AddressPlan:
        """The plan of everything that is kept; `kept[owner + 4]` tells of an owner."""
        self._kept = kept
        owners, numbers = self._distinct().T
        late = owners >= _LATE
        owners[late] = table.owner[owners[late] - _LATE].astype(np.int64) + _SPECIAL
        used = distinct(numbers[kept[owners]])
        self._pairs, self._odd = [], self._odd[: len(table)].copy()
        del owners, numbers, late
        named_by = kept[_SPECIAL:] & (table.rows["packets"].sum(axis=1) > self._odd)
        ends, numbers = _ends_of(table.rows, named_by)
        everyone = ends.columns()
        version, high, low = self.book.columns()
        broadcast = self.book.book.broadcast[: len(self.book)] != 0
        named = (
            np.concatenate([everyone[0], version[used]]),
            np.concatenate([everyone[1], high[used]]),
            np.concatenate([everyone[2], low[used]]),
        )
        if self.wanted.plan is None:
            stay = np.concatenate([np.zeros(len(ends), np.bool_), broadcast[used]])
            plan = plan_of(self.wanted.key, *named, self.wanted.space, stay)
            plan = replace(plan, prefix=self.wanted.prefix)
        else:
            plan = self.wanted.plan
            plan.require_known(*named)
        self._take(plan)
        self._prepare(everyone, numbers)
        return self.plan

    def apply(self, batch: Batch, owner: I32, direction: U8, numbers: I64 | None = None) -> None:
        """Give the kept frames of a batch their stand-ins, in place; several threads may.

        `numbers` are the packets' in the capture, from 0, when they do not follow each other.
        """
        counts, others = np.zeros(3, np.int64), np.empty(len(batch), np.int64)
        found = swap_plain(
            batch.data,
            batch.offset,
            batch.caplen,
            batch.link,
            owner,
            direction,
            self._kept,
            self._ends4,
            self._ends6,
            counts,
            others,
        )
        self.account(counts)
        if found:
            part = part_of(batch, others[:found])
            where = others[:found] + batch.first if numbers is None else numbers[others[:found]]
            self.edit_others(part, where)

    def carry(self, way: Way, parts: I64, table: FlowTable, room: Room) -> Stop:
        """Bring what is kept to its place with its stand-ins, as far as Python is not needed.

        See `pcap_tools.parts.carry_kept`; several threads may.
        """
        stop = carry_flows(
            way.files,
            parts,
            way.sizes,
            table.owner,
            table.direction,
            self._kept,
            way.link,
            self._ends4,
            self._ends6,
            room.data,
            room.rows,
            room.offset,
            room.caplen,
            room.owner,
            room.direction,
            room.counts,
            room.others,
            room.pace,
        )
        self.account(room.counts)
        return Stop(*stop)

    def _others(self, batch: Batch, marked: PacketRows, owner: I32) -> I64:
        if len(self._found) < len(batch):
            self._found = np.empty(len(batch), np.int64)
        while len(self._odd) <= owner.max():
            self._odd = doubled(self._odd)
        count = other_frames(marked, owner, self._odd, self._found)
        return self._found[:count]

    def _remember(self, rows: I32, owners: I64) -> None:
        """Note which owner's frames hold which numbered address."""
        mapped = rows[:, KIND] != 0
        # What is no IP header has a second address only where its offset says so.
        second = mapped & ((rows[:, KIND] < APART) | (rows[:, IP_BASE] != 0))
        for here, column in ((mapped, SOURCE), (second, TARGET)):
            self._pairs.append(np.column_stack([owners[here], rows[here, column]]))
        self._waiting += 2 * int(mapped.sum())
        if self._waiting > _PENDING:
            self._pairs = [self._distinct()]
            self._waiting = 0

    def _distinct(self) -> I64:
        """The distinct pairs (owner, number) so far, shape (n, 2)."""
        if not self._pairs:
            return np.zeros((0, 2), np.int64)
        owners, numbers = np.concatenate(self._pairs).T
        width = max(len(self.book), 1)
        return np.column_stack(np.divmod(distinct(owners * width + numbers), width))

    def _prepare(self, ends: tuple[U8, U64, U64], numbers: I32) -> None:
        """Stand-ins by flow end for plain frames, by the book's number for the others."""
        tables = self._stand_ins(ends)
        numbers = np.maximum(numbers, 0)  # ends that no plain frame has get any
        self._ends4: U64 = tables.v4[0][numbers]
        self._ends6: U64 = np.zeros((1, 3), np.uint64)
        if (ends[0] == 6).any():
            self._ends6 = tables.v6[0][numbers]
        self.tables = self._stand_ins(self.book.columns())

    def _stand_ins(self, addresses: tuple[U8, U64, U64]) -> Tables:
        high, low = lookup(self.plan, self.wanted.iteration, *addresses)
        return tables_of(addresses[0], high, low)


def _ends_of(rows: FlowRows, wanted: npt.NDArray[np.bool_]) -> tuple[AddressBook, I32]:
    """Every address of the wanted flows' ends, numbered, and the number at 2 × flow + end (−1)."""
    book, numbers = AddressBook(), np.full(2 * len(rows), -1, np.int32)
    for start in range(0, len(rows), _FLOWS):
        part = slice(start, start + _FLOWS)
        book.reserve(2 * len(rows[part]))
        _number_ends(rows[part], wanted[part], book.book, numbers[2 * start :])
    return book, numbers


@kernel
def _number_ends(rows: FlowRows, wanted: npt.NDArray[np.bool_], book: Book, numbers: I32) -> None:
    for i in range(len(rows)):
        if wanted[i]:
            for end in range(2):
                number = intern(book, np.uint64(rows[i].version), rows[i].hi[end], rows[i].lo[end])
                numbers[2 * i + end] = number


@kernel
def carry_flows(
    files: I64,
    parts: I64,
    sizes: U16,
    owner: I32,
    direction: U8,
    kept: npt.NDArray[np.bool_],
    link: int,
    v4: U64,
    v6: U64,
    data: U8,
    rows: I64,
    offset: I64,
    caplen: U32,
    owners: I32,
    directions: U8,
    counts: I64,
    others: I64,
    pace: I64,
) -> tuple[int, int, int, int]:
    """Bring packets of kept owners to their places, plain ones with their flow's stand-ins.

    See `pcap_tools.parts.carry_kept`, and `pcap_tools.plain.swap_plain`.
    """
    base = np.int64(data.ctypes.data)
    for part in range(len(parts)):
        if not fetch(files, parts, part, base):
            return part, -1, 0, 0
        packets, octets = gather(
            parts,
            part,
            sizes,
            owner,
            direction,
            kept,
            base,
            rows,
            offset,
            caplen,
            owners,
            directions,
        )
        odd = swap_plain(
            data,
            offset[:packets],
            caplen[:packets],
            link,
            owners[:packets],
            directions[:packets],
            kept,
            v4,
            v6,
            counts,
            others,
        )
        if odd or not store(files, parts, part, base, octets, pace):
            return part, packets, octets, odd
    return len(parts), 0, 0, 0
