"""A plain savefile's records by parts, each brought to its place in another file.

Only for those who know how large each record is: nothing is walked again. A part is read into
memory that stays in a processor's cache, closed up there to what is kept, changed and written from
there; a kernel does many parts in one call. (Mapping the files instead costs more: the page tables
of a virtual machine may be shadowed, and every part has to be mapped and given back.)
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pcap_tools.errors import CaptureError
from pcap_tools.extents import drop_pages, find_pages, nanoseconds, read_whole, write_whole
from pcap_tools.kernels import I32, I64, U8, U16, U32, inner, kernel, move_bytes
from pcap_tools.savefile import Savefile
from pcap_tools.walk import Word

__all__ = [
    "BEGIN",
    "COUNT",
    "FIRST",
    "HEADER",
    "PLACE",
    "RECORD",
    "SIZE",
    "Room",
    "Stop",
    "Way",
    "carry_kept",
    "divide",
    "explain",
    "fetch",
    "gather",
    "place_kept",
    "store",
]

HEADER, RECORD = 24, 16
"""Bytes of a pcap file's header, and of each packet's in it."""

FIRST, COUNT, BEGIN, SIZE, PLACE = range(5)
"""Columns of a table of parts: number of the first packet, packets, offset and bytes of their
records in the input, offset of what is kept in the output."""

_OCTETS = 1 << 20  # a part ends with the packet that makes it so large
_PLACES = 1 << 12  # rows of a table at once


class Way(NamedTuple):
    """Where parts come from and go to.

    `files` are descriptors, of the input and of the output (−1: stop before every writing), and the
    address where the output is mapped, 0 where that is of no use; `sizes` are the bytes captured of
    every packet, `link` is the link type.
    """

    files: I64
    sizes: U16
    link: int


class Stop(NamedTuple):
    """How far a call came: so many `parts` are done, and Python goes on with the next one.

    Of that, `packets` records of `octets` bytes lie in the room (packets −1: it could not be read),
    and `odd` frames, those numbered in the room's `others`, still have to be changed.
    """

    parts: int
    packets: int
    octets: int
    odd: int


class Room:
    """Memory that one thread works in: a part's bytes, and a row a packet in each column.

    `rows` are the packets' numbers in the capture, `counts` what a kernel counted (columns of
    pcap_tools.plain), `block` is scratch, `pace` is how writing goes (see `store`).
    """

    def __init__(self, parts: I64) -> None:
        # A quarter more than is needed, for parts that are larger.
        packets = int(parts[:, COUNT].max()) * 5 // 4
        self.data: U8 = np.empty(int(parts[:, SIZE].max()) * 5 // 4, np.uint8)
        self.rows: I64 = np.empty(packets, np.int64)
        self.offset: I64 = np.empty(packets, np.int64)
        self.caplen: U32 = np.empty(packets, np.uint32)
        self.owner: I32 = np.empty(packets, np.int32)
        self.direction: U8 = np.empty(packets, np.uint8)
        self.others: I64 = np.empty(packets, np.int64)
        self.block: I64 = np.empty(32, np.int64)
        self.counts: I64 = np.zeros(3, np.int64)
        self.pace: I64 = np.zeros(3, np.int64)

    def holds(self, parts: I64) -> bool:
        """Whether each of the parts has room."""
        most = parts.max(axis=0)
        return bool(most[COUNT] <= len(self.rows) and most[SIZE] <= len(self.data))


def divide(sizes: U16) -> I64:
    """All records of a file whose packets are `sizes` bytes, as a table of parts.

    About a megabyte each; the place of each is that in the input.
    """
    tables = []
    first, begin = 0, HEADER
    while first < len(sizes):
        table = np.empty((_PLACES, 5), np.int64)
        used = _divide(sizes, first, begin, _OCTETS, table)
        tables.append(table[:used])
        first = int(table[used - 1, FIRST] + table[used - 1, COUNT])
        begin = int(table[used - 1, BEGIN] + table[used - 1, SIZE])
    return np.concatenate(tables)


def explain(file: Savefile, part: I64) -> CaptureError:
    """Why a part could not be read. Raises GrowingInput when it is that the file changed."""
    file.check_unchanged()
    begin, reason = int(part[BEGIN]), "too few bytes"
    try:
        os.pread(file.fileno(), int(part[SIZE]), begin)
    except OSError as error:
        reason = str(error.strerror)
    return CaptureError(f"{file.name}: read error at offset {begin}: {reason}")


@kernel
def _divide(sizes: U16, first: int, begin: int, octets: int, table: I64) -> int:
    """Fill a table with the packets from number `first` on; returns the rows used."""
    used = 0
    number = first
    at = begin
    while number < len(sizes) and used < len(table):
        start = number
        size: Word = 0
        while number < len(sizes) and size < octets:
            size += 16 + np.int64(sizes[number])
            number += 1
        table[used, 0] = start
        table[used, 1] = number - start
        table[used, 2] = at
        table[used, 3] = size
        table[used, 4] = at
        at += size
        used += 1
    return used


@kernel
def place_kept(parts: I64, sizes: U16, owner: I32, kept: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Give each part its place where only packets of kept owners go (`kept[owner + 4]`).

    Returns how many packets that are, and their bytes.
    """
    packets = 0
    octets: Word = 0
    for part in range(len(parts)):
        parts[part, 4] = 24 + 16 * packets + octets
        for number in range(parts[part, 0], parts[part, 0] + parts[part, 1]):
            if kept[owner[number] + 4]:
                packets += 1
                octets += np.int64(sizes[number])
    return packets, octets


@inner
def fetch(files: I64, parts: I64, part: Word, base: Word) -> bool:
    """Read a part to an address; False when it cannot be read."""
    return bool(read_whole(files[0], base, parts[part, 3], parts[part, 2]))


@inner
def store(files: I64, parts: I64, part: Word, base: Word, octets: Word, pace: I64) -> bool:
    """Write what is kept of a part; False when that fails, or is left to Python.

    One thread at a time can write to a file. Where that goes slowly because its pages come from a
    virtual machine's host (0.1 to 2 ms a MB), the next ones are found by way of a mapping, which
    threads can do at the same time; where they are at hand, that would only take longer.
    """
    if files[1] < 0:
        return False
    at = parts[part, 4]
    ahead = files[2] != 0 and pace[0] != 0
    began = nanoseconds(pace[1:])
    if ahead:
        find_pages(files[2] + at, files[2] + at + octets)
        pace[0] = nanoseconds(pace[1:]) - began > 0.6 * octets
    good = bool(write_whole(files[1], base, octets, at))
    if ahead:
        drop_pages(files[2] + at, files[2] + at + octets)
    else:
        pace[0] = nanoseconds(pace[1:]) - began > 1.2 * octets
    return good


@inner
def gather(
    parts: I64,
    part: Word,
    sizes: U16,
    owner: I32,
    direction: U8,
    kept: npt.NDArray[np.bool_],
    base: Word,
    rows: I64,
    offset: I64,
    caplen: U32,
    owners: I32,
    directions: U8,
) -> tuple[int, int]:
    """Leave of a part, which is at an address, only packets of kept owners, without gaps.

    Returns how many and their bytes; the columns get a row of each.
    """
    packets = 0
    at: Word = 0
    end: Word = 0
    run: Word = 0  # bytes before `at` that are still to be moved
    for number in range(parts[part, 0], parts[part, 0] + parts[part, 1]):
        size = 16 + np.int64(sizes[number])
        if kept[owner[number] + 4]:
            rows[packets] = number
            offset[packets] = end + run + 16
            caplen[packets] = sizes[number]
            owners[packets] = owner[number]
            directions[packets] = direction[number]
            packets += 1
            run += size
        elif run:
            _close(base, end, at, run)
            end += run
            run = 0
        at += size
    _close(base, end, at, run)
    return packets, end + run


@inner
def _close(base: Word, end: Word, at: Word, run: Word) -> None:
    if end < at - run:
        move_bytes(base + end, base + at - run, run)


@kernel
def carry_kept(
    files: I64,
    parts: I64,
    sizes: U16,
    owner: I32,
    direction: U8,
    kept: npt.NDArray[np.bool_],
    data: U8,
    rows: I64,
    offset: I64,
    caplen: U32,
    owners: I32,
    directions: U8,
    pace: I64,
) -> tuple[int, int, int, int]:
    """Bring packets of kept owners (`kept[owner + 4]`) to their places, as they are.

    `files` and `sizes` are a `Way`'s, and `data` and what follows a `Room`'s. Returns the fields of
    a `Stop`.
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
        if not store(files, parts, part, base, octets, pace):
            return part, packets, octets, 0
    return len(parts), 0, 0, 0
