"""A savefile's records where they lie: mapped into memory, copied by nobody but the writer.

Only for those who know how large each record is: walking along mapped records means waiting for
each one's length to come from memory before the next is even asked for, which takes longer than
reading. Pages are given back as soon as they are done with, so that the process does not hold the
whole file. A mapped file that is cut short under us would kill the process (SIGBUS), so its size is
looked at before each part.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pcap_tools.kernels import U8, U16
from pcap_tools.memory import discard, populate
from pcap_tools.savefile import Savefile

__all__ = ["MappedRecords", "Part"]

_OCTETS = 1 << 20  # at once
_HEADER = 24  # bytes of a pcap file's header


@dataclass(frozen=True, slots=True)
class Part:
    """Packets that follow each other: number of the first, and where their records lie."""

    first: int
    count: int
    begin: int
    end: int

    def of(self, column: U16) -> U16:
        """The packets' rows of a column that has one a packet."""
        return column[self.first : self.first + self.count]


class MappedRecords:
    """The records of a `plain` file whose packets are `sizes` bytes; parts in any order, in several
    threads."""

    def __init__(self, file: Savefile, sizes: U16) -> None:
        self._file, self._sizes = file, sizes
        self._area = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self._data: U8 = np.frombuffer(self._area, np.uint8)
        self._base = self._data.ctypes.data

    def parts(self) -> Iterator[Part]:
        """All of the file, about a megabyte a part."""
        at = _HEADER
        packets = max(1, _OCTETS * len(self._sizes) // len(self._data))
        for first in range(0, len(self._sizes), packets):
            sizes = self._sizes[first : first + packets]
            end = at + int(sizes.sum(dtype=np.int64)) + self._file.record * len(sizes)
            yield Part(first, len(sizes), at, end)
            at = end

    def take(self, part: Part) -> U8:
        """The bytes of a part's records. Raises GrowingInput when the file changes."""
        self._file.check_unchanged()
        populate(self._base + part.begin, self._base + part.end, write=False)
        return self._data[part.begin : part.end]

    def read(self, part: Part, room: U8) -> None:
        """Read a part's records instead, to where they are wanted. Raises GrowingInput."""
        done = 0
        while done < len(room):
            more = os.preadv(self._file.fileno(), [room[done:].data], part.begin + done)
            if not more:
                break
            done += more
        self._file.check_unchanged()

    def done(self, part: Part) -> None:
        """A part's bytes are not needed any more."""
        discard(self._base + part.begin, self._base + part.end)
