"""A plain savefile's records, read by parts of known extent: in any order, by several threads.

Only for those who know how large each record is: nothing is walked again. A part is read into
memory that stays in a processor's cache, what is not wanted is closed up there, and what is left
can be changed and written from there. (Mapping the file instead costs more: the page tables of a
virtual machine may be shadowed, and every part has to be mapped and given back.)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcap_tools.errors import CaptureError
from pcap_tools.kernels import I64, U8, U16, kernel, move_bytes
from pcap_tools.savefile import Savefile
from pcap_tools.walk import Word

__all__ = ["HEADER", "RECORD", "Part", "Parts", "close_up"]

HEADER, RECORD = 24, 16
"""Bytes of a pcap file's header, and of each packet's in it."""

_OCTETS = 1 << 20  # at once: less, and handing over costs more than a smaller memory brings

_MOST = 8 * _OCTETS


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


class Parts:
    """The records of a `plain` file whose packets are `sizes` bytes."""

    def __init__(self, file: Savefile, sizes: U16) -> None:
        self._file, self._sizes = file, sizes
        self._own = threading.local()

    def __iter__(self) -> Iterator[Part]:
        """All of the file, about a megabyte a part, and eight at most."""
        first, at = 0, HEADER
        packets = max(1, _OCTETS * len(self._sizes) // self._file.size)
        while first < len(self._sizes):
            count = min(packets, len(self._sizes) - first)
            # Segments of 64 KB among small packets: a hundred times the mean, for a long stretch.
            while (size := self._extent(first, count)) > _MOST and count > 1:
                count //= 2
            yield Part(first, count, at, at + size)
            first, at = first + count, at + size

    def _extent(self, first: int, count: int) -> int:
        """Bytes of records."""
        return int(self._sizes[first : first + count].sum(dtype=np.int64)) + RECORD * count

    def read(self, part: Part) -> U8:
        """The bytes of a part's records, in memory of this thread's own: until its next `read`.

        Raises CaptureError, GrowingInput when the file changes.
        """
        size = part.end - part.begin
        room: U8 | None = getattr(self._own, "room", None)
        if room is None or len(room) < size:
            room = self._own.room = np.empty(size + size // 4, np.uint8)
        done = 0
        while done < size:
            try:
                more = os.preadv(self._file.fileno(), [room[done:size].data], part.begin + done)
            except OSError as error:
                raise CaptureError(
                    f"{self._file.name}: read error at offset {part.begin + done}: {error.strerror}"
                ) from None
            if not more:
                break
            done += more
        self._file.check_unchanged()
        return room[:size]


@kernel
def close_up(
    data: U8, sizes: U16, keep: npt.NDArray[np.bool_], rows: I64, places: I64
) -> tuple[int, int]:
    """Leave in `data` (whole records, all of `sizes`) only those that are kept, without gaps.

    Returns how many and their bytes; `rows` and `places` get the packets' numbers and where their
    frames are now.
    """
    base = np.int64(data.ctypes.data)
    packets = 0
    at: Word = 0
    end: Word = 0
    run: Word = 0  # bytes before `at` that are still to be moved
    for i in range(len(sizes)):
        size = 16 + np.int64(sizes[i])
        if keep[i]:
            rows[packets] = i
            places[packets] = end + run + 16
            packets += 1
            run += size
        elif run:
            move_bytes(base + end, base + at - run, run)
            end += run
            run = 0
        at += size
    move_bytes(base + end, base + at - run, run)
    return packets, end + run
