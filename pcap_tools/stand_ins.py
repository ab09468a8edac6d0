"""From an address plan to the tables that the kernels patch frames from.

A corpus's addresses are numbered by an address book while frames are read. The plan then orders
them: within an IP version, slots are the home class by rank, the external class by rank, and last
the addresses that stay. A table line holds the stand-ins of one iteration, ready to be stored.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pcap_tools.checksum import fold, sum_words_of
from pcap_tools.edits import KIND, SOURCE, TARGET, Book, intern
from pcap_tools.kernels import I32, I64, U64, as_int, kernel, swap32, swap64
from pcap_tools.permute import forward
from pcap_tools.plan import AddressPlan, make_plan
from pcap_tools.pools import Address, pool_address

__all__ = ["AddressBook", "Scheme", "fill_line", "new_tables", "refresh"]


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
        old = self.book
        self.book = _empty_book(1 << (need - 1).bit_length())
        _reenter(old, self.book)

    def addresses(self) -> list[Address]:
        """All addresses, in numbering order."""
        rows = self.book.entries[: len(self)].tolist()
        return [
            ipaddress.IPv4Address(low) if version == 4 else ipaddress.IPv6Address(high << 64 | low)
            for version, high, low in rows
        ]

    def plan(self, key: str, home: Sequence[str]) -> AddressPlan:
        """The address plan of this corpus; what was sent to the link's broadcast stays."""
        addresses = self.addresses()
        keep = [addresses[number] for number in np.flatnonzero(self.book.broadcast[: len(self)])]
        return make_plan(key, addresses, home, keep)

    def slots(self, plan: AddressPlan) -> I32:
        """The plan's slot of each numbered address."""
        order: dict[str, int] = {}
        for version in (4, 6):
            texts = [
                *plan.originals.get(f"home{version}", ()),
                *plan.originals.get(f"external{version}", ()),
                *(t for t in plan.kept if (":" in t) == (version == 6)),
            ]
            order.update((text, slot) for slot, text in enumerate(texts))
        return np.array([order[str(a)] for a in self.addresses()], dtype=np.int32)

    def relabel(self, rows: I32, slots: I32) -> None:
        """Replace address numbers by slots in the rows that `analyse` filled."""
        used = rows[:, KIND] != 0
        for column in (SOURCE, TARGET):
            rows[used, column] = slots[rows[used, column]]


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

    `pools[bounds[c] : bounds[c + 1]]` is the table of class c's pool. `own4` and `own6` hold, slot
    by slot, the original addresses as table entries.
    """

    permutations: U64
    pools: U64
    bounds: I64
    counts: I64
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
            own4=own4 | (_sums(words4) << np.uint64(32)),
            own6=np.column_stack([words6.view(np.uint64).reshape(-1, 2), _sums(words6)]),
        )


def _originals(plan: AddressPlan, version: int) -> npt.NDArray[np.uint16]:
    """Original addresses, slot by slot, as 16-bit words in the order of memory."""
    texts = [
        *plan.originals.get(f"home{version}", ()),
        *plan.originals.get(f"external{version}", ()),
        *(t for t in plan.kept if (":" in t) == (version == 6)),
    ]
    packed = b"".join(ipaddress.ip_address(text).packed for text in texts)
    return np.frombuffer(packed, np.uint16).reshape(-1, 2 if version == 4 else 8)


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


@kernel
def _store4(low: np.uint64, v4: U64, line: int, slot: int) -> None:
    loaded = swap32(low)
    v4[line, slot] = loaded | (fold(sum_words_of(loaded)) << np.uint64(32))


@kernel
def _store6(high: np.uint64, low: np.uint64, v6: U64, line: int, slot: int) -> None:
    first, second = swap64(high), swap64(low)
    v6[line, slot, 0] = first
    v6[line, slot, 1] = second
    v6[line, slot, 2] = fold(sum_words_of(first) + sum_words_of(second))


@kernel
def _stand_in(scheme: Scheme, group: int, iteration: int, rank: int) -> tuple[np.uint64, np.uint64]:
    number = np.uint64(iteration) * np.uint64(scheme.counts[group]) + np.uint64(rank)
    version = 4 if group < 2 else 6
    pool = scheme.pools[scheme.bounds[group] : scheme.bounds[group + 1]]
    return pool_address(version, pool, forward(scheme.permutations[group], number))


@kernel
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
