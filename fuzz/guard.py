"""Memory that ends where it must not be read on: a page without access follows every slot.

Kernels take addresses and read words: a read past a frame's end finds the next frame's bytes and
goes unseen. Here it finds a page of PROT_NONE, and the process dies. Linux only.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PAGE", "Slots", "guarded_empty"]

PAGE = mmap.PAGESIZE
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_NONE = 0


def _pages(count: int) -> int:
    """Address of that many pages."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = _LIBC.mmap(None, count * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise MemoryError(f"mmap of {count} pages")
    return int(address)


def _forbid(address: int) -> None:
    if _LIBC.mprotect(address, PAGE, _NONE):
        raise OSError(ctypes.get_errno(), "mprotect")


def _view(address: int, size: int) -> npt.NDArray[np.uint8]:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


class Slots:
    """`count` slots of `pages` pages each, with a forbidden page before and after every one.

    `data` is all of it as one array: slot i is data[starts[i] : starts[i] + room].
    """

    def __init__(self, count: int, pages: int = 1) -> None:
        step = pages + 1
        address = _pages(count * step + 1)
        for number in range(count + 1):
            _forbid(address + number * step * PAGE)
        self.room = pages * PAGE
        self.data = _view(address, (count * step + 1) * PAGE)
        self.starts = (np.arange(count, dtype=np.int64) * step + 1) * PAGE


def guarded_empty(plain: Any = np.empty) -> Any:
    """A stand-in for numpy.empty: byte buffers of a page or more end at a forbidden page.

    They are never freed, so a process that uses it must be short-lived.
    """
    kept: dict[int, list[npt.NDArray[np.uint8]]] = {}
    turn: dict[int, int] = {}

    def empty(shape: Any, dtype: Any = float, *rest: Any, **options: Any) -> Any:
        size = shape if isinstance(shape, int) else 0
        if size < PAGE or np.dtype(dtype) != np.uint8:
            return plain(shape, dtype, *rest, **options)
        # Recycled after 16 others of the size: a capture holds two at a time.
        ring = kept.setdefault(size, [])
        turn[size] = (turn.get(size, -1) + 1) % 16
        if turn[size] == len(ring):
            pages = -(-size // PAGE)
            address = _pages(pages + 1)
            _forbid(address + pages * PAGE)
            ring.append(_view(address + pages * PAGE - size, size))
        return ring[turn[size]]

    return empty
