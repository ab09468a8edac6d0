"""Extents of open files, read and written inside kernels: whole, or it is left to Python.

A kernel that copies from file to file needs no Python between two pieces, so that threads wait
neither for the interpreter nor for each other. What fails here Python does again: it has the words.
"""

from __future__ import annotations

import mmap
import time
from typing import Any

import numpy as np
from numba import types

from pcap_tools.kernels import I64, inner
from pcap_tools.memory import POPULATE_WRITE
from pcap_tools.walk import Word

__all__ = ["drop_pages", "find_pages", "nanoseconds", "pread", "read_whole", "write_whole"]

# The symbols are found in the process, so that the compiled kernel can be cached.
_MOVES = types.int64(types.int32, types.int64, types.int64, types.int64)

pread: Any = types.ExternalFunction("pread", _MOVES)
"""pread(2): descriptor, address, size, offset."""

_pwrite: Any = types.ExternalFunction("pwrite", _MOVES)
_madvise: Any = types.ExternalFunction(
    "madvise", types.int32(types.int64, types.int64, types.int32)
)
_clock: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.int64))
_MONOTONIC = time.CLOCK_MONOTONIC
_PAGE = mmap.PAGESIZE
_DONTNEED = mmap.MADV_DONTNEED


@inner
def read_whole(descriptor: Word, address: Word, size: Word, at: Word) -> bool:
    """Read `size` bytes at offset `at` of a file to an address; False when so many do not come."""
    done: Word = 0
    while done < size:
        more = pread(descriptor, address + done, size - done, at + done)
        if more <= 0:
            return False
        done += more
    return True


@inner
def write_whole(descriptor: Word, address: Word, size: Word, at: Word) -> bool:
    """Write `size` bytes from an address to offset `at` of a file; False when that fails."""
    done: Word = 0
    while done < size:
        more = _pwrite(descriptor, address + done, size - done, at + done)
        if more <= 0:
            return False
        done += more
    return True


@inner
def nanoseconds(room: I64) -> Word:
    """The monotonic clock; `room` is for two numbers."""
    _clock(_MONOTONIC, np.int64(room.ctypes.data))
    return room[0] * 1_000_000_000 + room[1]


@inner
def find_pages(begin: Word, end: Word) -> None:
    """Have the pages of the addresses [begin, end) of a mapped file found.

    What fails (a full disk, an older kernel) is met again by who writes there.
    """
    first = begin & -_PAGE
    _madvise(first, end - first, POPULATE_WRITE)


@inner
def drop_pages(begin: Word, end: Word) -> None:
    """Take the whole pages in [begin, end) out of this process; the file keeps what is in them."""
    first, last = (begin + _PAGE - 1) & -_PAGE, end & -_PAGE
    if first < last:
        _madvise(first, last - first, _DONTNEED)
