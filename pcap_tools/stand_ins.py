"""From an address plan to the tables that the kernels patch frames from.

A corpus's addresses are numbered by an address book while frames are read. The plan then orders
them: within an IP version, slots are the home class by rank, the external class by rank, and last
the addresses that stay. A table line holds the stand-ins of one iteration, ready to be stored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pcap_tools.checksum import fold, sum_words_of
from pcap_tools.edits import KIND, SOURCE, TARGET, Book, intern
from pcap_tools.kernels import I32, I64, U8, U64, as_int, inner, kernel, swap32, swap64
from pcap_tools.permute import forward
from pcap_tools.plan import AddressPlan, plan_of
from pcap_tools.pools import Version, pool_address
from pcap_tools.space import Space

__all__ = ["AddressBook", "Scheme", "fill_line", "lookup", "new_tables", "refresh"]


class AddressBook:
    """Every address of a corpus, numbered in order of appearance; grows as asked."""

    def __init__(self) -> None:
        self.book = _empty_book(1 << 12)

    def __len__(self) -> int:
        return int(self.book.size[0])

    def reserve(self, count: int) -> None:
        """Make room for `count` addresses more, so that kernels need not check."""
        need = len(self) + count
        if need <= self.book.entries.shape[0]:
            return
        need = max(need, 2 * self.book.entries.shape[0])
        old = self.book
        self.book = _empty_book(1 << (need - 1).bit_length())
        _reenter(old, self.book)

    def columns(self) -> tuple[U8, U64, U64]:
        """Version, high and low half of all addresses, in numbering order."""
        rows = self.book.entries[: len(self)]
        return rows[:, 0].astype(np.uint8), rows[:, 1].copy(), rows[:, 2].copy()

    def plan(self, key: str, space: Space) -> AddressPlan:
        """The address plan of this corpus; what was sent to the link's broadcast stays."""
        keep = self.book.broadcast[: len(self)] != 0
        return plan_of(key, *self.columns(), space, keep)

    def slots(self, plan: AddressPlan) -> I32:
        """The plan's slot of each numbered address. Raises PlanError for one it does not know."""
        version, high, low = self.columns()
        slots = np.full(len(self), -1, np.int32)  # MAC addresses have none
        for number in (4, 6):
            rows = version == number
            plan.require_known(version[rows], high[rows], low[rows])
            slots[rows] = _slots(plan, number, high[rows], low[rows])
        return slots

    def relabel(self, rows: I32, slots: I32) -> None:
        """Replace address numbers by slots in the rows that `analyse` filled."""
        used = rows[:, KIND] != 0
        for column in (SOURCE, TARGET):
            rows[used, column] = slots[rows[used, column]]


def _slots(plan: AddressPlan, version: int, high: U64, low: U64) -> I64:
    slots = np.full(len(low), -1, np.int64)
    first = 0
    for group in plan.by_version(4 if version == 4 else 6):
        ranks = group.ranks(high, low)
        slots = np.where(ranks >= 0, ranks + first, slots)
        first += len(group)
    return slots


def lookup(plan: AddressPlan, iteration: int, version: U8, high: U64, low: U64) -> tuple[U64, U64]:
    """Stand-ins (high, low) of many addresses in one iteration.

    `version` is 4 or 6 for each, and `high` 0 for IPv4. What the plan does not map stays as it is.
    Raises PoolExhausted and PlanError when the plan does not reach as far as the iteration.
    """
    plan.require(iteration, 1)
    new_high, new_low = high.copy(), low.copy()
    rows = np.zeros(0, np.int64)
    for group in plan.classes:  # home before external: these search what those did not find
        if group.name.startswith("home"):
            rows = np.flatnonzero(version == group.pool.version)
        if not group.count or not len(rows):
            continue
        ranks = group.originals.ranks(high[rows], low[rows])
        found = ranks >= 0
        here = rows[found]
        if len(here) <= group.count:
            new_high[here], new_low[here] = group.stand_ins(iteration, ranks[found])
        else:  # addresses come again and again: each is mapped once
            all_high, all_low = group.stand_ins(iteration, np.arange(group.count))
            new_high[here], new_low[here] = all_high[ranks[found]], all_low[ranks[found]]
        rows = rows[~found]
    return new_high, new_low


def _empty_book(room: int) -> Book:
    return Book(
        entries=np.zeros((room, 3), np.uint64),
        slots=np.full(room * 2, -1, np.int64),
        size=np.zeros(1, np.int64),
        broadcast=np.zeros(room, np.uint8),
    )


@kernel
def _reenter(old: Book, new: Book) -> None:
    from_size = as_int(old.size[0])
    for number in range(from_size):
        new_number = intern(
            new, old.entries[number, 0], old.entries[number, 1], old.entries[number, 2]
        )
        new.broadcast[new_number] = old.broadcast[number]


class Scheme(NamedTuple):
    """A plan as the kernels take it; the classes in the order of `plan.CLASSES`.

    `pools[bounds[c] : bounds[c + 1]]` is the table of class c's pool, `cycles[c]` the iterations
    after which its addresses begin anew. `own4` and `own6` hold, slot
    by slot, the original addresses as table entries.
    """

    permutations: U64
    pools: U64
    bounds: I64
    counts: I64
    cycles: I64
    own4: U64
    own6: U64

    @classmethod
    def of(cls, plan: AddressPlan) -> Scheme:
        """The scheme of a plan."""
        classes = plan.classes
        tables = [group.pool.table for group in classes]
        width = max(table.shape[1] for table in tables)
        sizes = [len(table) for table in tables]
        words4, words6 = _originals(plan, 4), _originals(plan, 6)
        own4 = words4.view(np.uint32).astype(np.uint64).reshape(-1)
        return cls(
            permutations=np.stack([group.permutation.parameters for group in classes]),
            pools=np.concatenate([np.pad(t, ((0, 0), (0, width - t.shape[1]))) for t in tables]),
            bounds=np.array([0, *sizes], np.int64).cumsum(),
            counts=np.array([group.count for group in classes], np.int64),
            cycles=np.array([group.cycle for group in classes], np.int64),
            own4=own4 | (_sums(words4) << np.uint64(32)),
            own6=np.column_stack([words6.view(np.uint64).reshape(-1, 2), _sums(words6)]),
        )


def _originals(plan: AddressPlan, version: Version) -> npt.NDArray[np.uint16]:
    """Original addresses, slot by slot, as 16-bit words in the order of memory."""
    groups = plan.by_version(version)
    low = np.concatenate([group.low for group in groups])
    if version == 4:
        return low.astype(">u4").view(np.uint16).reshape(-1, 2)
    high = np.concatenate([group.high for group in groups])
    halves = np.column_stack([high, low]).astype(">u8")
    return np.ascontiguousarray(halves).view(np.uint16).reshape(-1, 8)


def _sums(words: npt.NDArray[np.uint16]) -> U64:
    """The folded one's complement sum of each row's words, as `checksum.fold` gives it."""
    total: U64 = words.sum(axis=1, dtype=np.uint64)
    for _ in range(2):  # eight words carry at most 7, and that at most once more
        total = (total & np.uint64(0xFFFF)) + (total >> np.uint64(16))
    return total


def new_tables(scheme: Scheme, lines: int) -> tuple[U64, U64]:
    """Tables of `lines` lines for both IP versions (uint64; never empty, for the kernels)."""
    return (
        np.zeros((lines, max(1, scheme.own4.shape[0])), np.uint64),
        np.zeros((lines, max(1, scheme.own6.shape[0]), 3), np.uint64),
    )


@inner
def _store4(low: np.uint64, v4: U64, line: int, slot: int) -> None:
    loaded = swap32(low)
    v4[line, slot] = loaded | (fold(sum_words_of(loaded)) << np.uint64(32))


@inner
def _store6(high: np.uint64, low: np.uint64, v6: U64, line: int, slot: int) -> None:
    first, second = swap64(high), swap64(low)
    v6[line, slot, 0] = first
    v6[line, slot, 1] = second
    v6[line, slot, 2] = fold(sum_words_of(first) + sum_words_of(second))


@inner
def _stand_in(scheme: Scheme, group: int, iteration: int, rank: int) -> tuple[np.uint64, np.uint64]:
    turn = np.uint64(iteration) % np.uint64(scheme.cycles[group])
    number = turn * np.uint64(scheme.counts[group]) + np.uint64(rank)
    version = 4 if group < 2 else 6
    pool = scheme.pools[scheme.bounds[group] : scheme.bounds[group + 1]]
    return pool_address(version, pool, forward(scheme.permutations[group], number))


@inner
def refresh(
    scheme: Scheme, kind: int, slot: int, iteration: int, v4: U64, v6: U64, line: int
) -> None:
    """Compute one slot of one line for an iteration.

    All callers pass int64, no literals and no int32: each other combination is one more second of
    compilation.
    """
    group = 0 if kind == 4 else 2
    home = as_int(scheme.counts[group])
    if slot >= home + as_int(scheme.counts[group + 1]):
        if kind == 4:
            v4[line, slot] = scheme.own4[slot]
        else:
            for part in range(3):
                v6[line, slot, part] = scheme.own6[slot, part]
        return
    rank = slot
    if slot >= home:
        group += 1
        rank -= home
    high, low = _stand_in(scheme, group, iteration, rank)
    if kind == 4:
        _store4(low, v4, line, slot)
    else:
        _store6(high, low, v6, line, slot)


@kernel
def fill_line(scheme: Scheme, iteration: int, v4: U64, v6: U64, line: int) -> None:
    """Compute all slots of one line for an iteration."""
    for kind in range(4, 7, 2):
        slots = scheme.own4.shape[0] if kind == 4 else scheme.own6.shape[0]
        for slot in range(slots):
            refresh(scheme, kind, slot, iteration, v4, v6, line)
