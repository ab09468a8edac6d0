"""Fresh addresses for a whole capture: no flows are needed, since every packet stays.

Two passes, as in `readdress`, but each packet's addresses are looked up by themselves: a capture
has far fewer addresses than flows, and a table of them stays in the cache.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pcap_tools.ahead import KEEP, ahead
from pcap_tools.batches import part_of
from pcap_tools.capture import Batch, Capture
from pcap_tools.edits import COUNTS, QUOTING
from pcap_tools.kernels import I64, U16, U64
from pcap_tools.known import BLOCK, fill_known, number_plain, refill_seen, swap_known
from pcap_tools.patch import Edits, patch_all
from pcap_tools.plain import FIXED_IP, FIXED_L4, PLAIN
from pcap_tools.plan import AddressPlan
from pcap_tools.readdress import FreshAddresses
from pcap_tools.scan import analyse_batch
from pcap_tools.sizes import Sizes
from pcap_tools.stand_ins import AddressBook, lookup
from pcap_tools.tables import tables_of

if TYPE_CHECKING:
    from pcap_tools.mentions import Mentions

__all__ = ["ByAddress"]


class ByAddress:
    """Collects a capture's addresses, settles their plan, and rewrites its packets.

    A `pcap_tools.copying.Choice` of all packets, after `settle`.
    """

    edits = True

    def __init__(self, wanted: FreshAddresses) -> None:
        self.wanted = wanted
        self.counts: I64 = np.zeros(len(COUNTS), np.int64)
        self.mentions: Mentions | None = None
        self._quoting = 0
        self._book = AddressBook()
        self._bits = 12
        self._seen: U64 = np.zeros(1 << self._bits, np.uint64)
        self._fill = np.zeros(1, np.int64)
        self._sizes = Sizes()
        self._lock = threading.Lock()

    @property
    def sizes(self) -> U16 | None:
        """The bytes captured of every packet; None when one has 65,536 or more."""
        return self._sizes.all

    @property
    def addresses(self) -> int:
        """How many addresses the plan has, those included that stay."""
        plan = self.plan
        return sum(map(len, plan.ranked.values())) + sum(map(len, plan.stay))

    def collect(self, capture: Capture) -> None:
        """The first pass: number every address."""
        room = np.empty(BLOCK, np.int64)
        for batch in ahead(capture.batches(KEEP)):
            self._sizes.add(batch)
            others, found, start = np.empty(len(batch), np.int64), 0, 0
            self._book.reserve(2 * len(batch))
            while True:
                start, more = number_plain(
                    batch.data,
                    batch.offset,
                    batch.caplen,
                    batch.link,
                    start,
                    self._seen,
                    self._bits,
                    self._fill,
                    self._book.book,
                    room,
                    others[found:],
                )
                found += more
                if start == len(batch):
                    break
                self._grow()
            if found:
                counts = np.zeros_like(self.counts)
                analyse_batch(part_of(batch, others[:found]), self._book, counts)
                self._quoting += int(counts[QUOTING])

    def settle(self) -> AddressPlan:
        """The plan of everything that was collected. Raises PlanError."""
        wanted, book = self.wanted, self._book
        columns = book.columns()
        if wanted.plan is None:
            plan = replace(book.plan(wanted.key, wanted.space), prefix=wanted.prefix)
        else:
            plan = wanted.plan
            plan.require_known(*columns)
        plan.require(wanted.iteration, 1)
        self.plan = replace(plan, run={"first": wanted.iteration, "iterations": 1})
        if self._quoting:
            from pcap_tools.mentions import Mentions  # kernels that only who needs them must load

            self.mentions = Mentions(self.plan)
        high, low = lookup(self.plan, wanted.iteration, *columns)
        self._tables = tables_of(columns[0], high, low)
        self._known_bits = max(4, (4 * len(book)).bit_length() - 1)
        self._known: U64 = np.zeros((1 << self._known_bits, 2), np.uint64)
        fill_known(book.book, self._tables.v4[0], self._known, self._known_bits)
        return self.plan

    def keep(self, first: int, count: int) -> npt.NDArray[np.bool_]:
        """All packets are copied."""
        return np.ones(count, np.bool_)

    def edit(self, batch: Batch, numbers: I64) -> None:
        """Give packets their stand-ins, in place; several threads may."""
        counts, others = np.zeros(3, np.int64), np.empty(len(batch), np.int64)
        found = swap_known(
            batch.data,
            batch.offset,
            batch.caplen,
            batch.link,
            self._known,
            self._known_bits,
            self._book.book,
            self._tables.v6[0],
            np.empty(BLOCK, np.int64),
            counts,
            others,
        )
        with self._lock:
            for name, value in (
                ("packets", counts[PLAIN]),
                ("mapped", counts[PLAIN]),
                ("fixed_ip_checksums", counts[FIXED_IP]),
                ("fixed_l4_checksums", counts[FIXED_L4]),
            ):
                self.counts[COUNTS.index(name)] += value
            if found:
                self._edit_others(part_of(batch, others[:found]), numbers[others[:found]])

    def _edit_others(self, part: Batch, numbers: I64) -> None:
        before = int(self.counts[QUOTING])
        rows, edits = analyse_batch(part, self._book, self.counts)
        if self.mentions is not None and self.counts[QUOTING] > before:
            self.mentions.look(part, rows, numbers)
        tables = self._tables
        chained = Edits(edits, tables.macs) if len(edits) else None
        patch_all(part.data.ctypes.data, part.offset, rows, chained, tables.v4, tables.v6)

    def _grow(self) -> None:
        old = self._seen
        self._bits += 2
        self._seen = np.zeros(1 << self._bits, np.uint64)
        refill_seen(old, self._seen, self._bits)
