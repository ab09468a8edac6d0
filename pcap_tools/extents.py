"""Extents of open files, read and written inside kernels: whole, or it is left to Python.

A kernel that copies from file to file needs no Python between two pieces, so that threads wait
neither for the interpreter nor for each other. What fails here Python does again: it has the words.
"""

from __future__ import annotations

from typing import Any

from numba import types

from pcap_tools.kernels import inner
from pcap_tools.walk import Word

__all__ = ["pread", "read_whole", "write_whole"]

# The symbols are found in the process, so that the compiled kernel can be cached.
_MOVES = types.int64(types.int32, types.int64, types.int64, types.int64)

pread: Any = types.ExternalFunction("pread", _MOVES)
"""pread(2): descriptor, address, size, offset."""

_pwrite: Any = types.ExternalFunction("pwrite", _MOVES)


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
