"""Fresh addresses for a whole capture: no flows are needed, since every packet stays.

Two passes, as in `readdress`, but each packet's addresses are looked up by themselves: a capture
has far fewer addresses than flows, and a table of them stays in the cache.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pcap_tools.ahead import KEEP, ahead
from pcap_tools.batches import part_of
from pcap_tools.capture import Batch, Capture
from pcap_tools.edits import QUOTING
from pcap_tools.fresh import FreshAddresses, Rewriting
from pcap_tools.kernels import I64, U16, U32, U64
from pcap_tools.known import BLOCK, number_plain, refill_seen
from pcap_tools.parts import COUNT, RECORD, SIZE, Room, Stop, Way
from pcap_tools.plan import AddressPlan
from pcap_tools.replaced import carry_known, fill_known, swap_known
from pcap_tools.scan import analyse_batch
from pcap_tools.sizes import Sizes
from pcap_tools.stand_ins import lookup
from pcap_tools.tables import tables_of

__all__ = ["ByAddress"]


class ByAddress(Rewriting):
    """Collects a capture's addresses, settles their plan, and rewrites its packets.

    A `pcap_tools.copying.Choice` of all packets, after `settle`.
    """

    edits = True

    def __init__(self, wanted: FreshAddresses) -> None:
        super().__init__(wanted)
        self._bits = 12
        self._seen: U32 = np.zeros(1 << self._bits, np.uint32)
        self._fill = np.zeros(1, np.int64)
        self._sizes = Sizes()

    @property
    def sizes(self) -> U16 | None:
        """The bytes captured of every packet; None when one has 65,536 or more."""
        return self._sizes.all

    @property
    def seen(self) -> int:
        """IPv4 addresses of plain packets so far, but for 0.0.0.0."""
        return int(self._fill[0])

    def collect(self, capture: Capture) -> None:
        """The first pass: number every address."""
        room = np.empty(BLOCK, np.int64)
        for batch in ahead(capture.batches(KEEP)):
            self._sizes.add(batch)
            others, found, start = np.empty(len(batch), np.int64), 0, 0
            self.book.reserve(2 * len(batch))
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
                    self.book.book,
                    room,
                    others[found:],
                )
                found += more
                if start == len(batch):
                    break
                self._grow()
            if found:
                self.enter(part_of(batch, others[:found]))

    def enter(self, batch: Batch) -> None:
        """Number the addresses of frames of any kind."""
        counts = np.zeros_like(self.counts)
        analyse_batch(batch, self.book, counts)
        self._quoting += int(counts[QUOTING])

    def settle(self) -> AddressPlan:
        """The plan of everything that was collected. Raises PlanError."""
        wanted, book = self.wanted, self.book
        columns = book.columns()
        if wanted.plan is None:
            plan = replace(book.plan(wanted.key, wanted.space), prefix=wanted.prefix)
        else:
            plan = wanted.plan
            plan.require_known(*columns)
        self._take(plan)
        high, low = lookup(self.plan, wanted.iteration, *columns)
        self.tables = tables_of(columns[0], high, low)
        self._known_bits = max(4, (4 * len(book)).bit_length() - 1)
        self._known: U64 = np.zeros(1 << self._known_bits, np.uint64)
        fill_known(book.book, self.tables.v4[0], self._known, self._known_bits)
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
            self.book.book,
            self.tables.v6[0],
            np.empty(BLOCK, np.int64),
            counts,
            others,
        )
        self.account(counts)
        if found:
            self.edit_others(part_of(batch, others[:found]), numbers[others[:found]])

    def place(self, parts: I64, sizes: U16) -> tuple[int, int]:
        """Packets and bytes of frames; every part stays where it is."""
        octets = int(parts[:, SIZE].sum())
        packets = int(parts[:, COUNT].sum())
        return packets, octets - RECORD * packets

    def carry(self, way: Way, parts: I64, room: Room) -> Stop:
        """Bring packets to their places with their stand-ins; several threads may."""
        stop = carry_known(
            way.files,
            parts,
            way.sizes,
            way.link,
            self._known,
            self._known_bits,
            self.book.book,
            self.tables.v6[0],
            room.data,
            room.rows,
            room.offset,
            room.caplen,
            room.block,
            room.counts,
            room.others,
            room.pace,
        )
        self.account(room.counts)
        return Stop(*stop)

    def _grow(self) -> None:
        old = self._seen
        self._bits += 2
        self._seen = np.zeros(1 << self._bits, np.uint32)
        refill_seen(old, self._seen, self._bits)
