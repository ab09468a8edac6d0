"""Large arrays that cost what is used of them: address space now, memory when it is written."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["doubled", "reserve"]

_HUGE = 1 << 21  # bytes: one transparent huge page (x86-64, arm64 with 4 KiB pages)


def reserve(count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of `count` zeros whose pages come into being when they are touched.

    Private and anonymous, because only such mappings get huge pages (Python's own default is a
    shared one): random access to a table of 100 MB costs a quarter less with them. MAP_NORESERVE,
    because the size is a guess upwards. Where address space is limited (RLIMIT_AS), an ordinary
    array of zeros.
    """
    kind = np.dtype(dtype)
    size = max(count * kind.itemsize, 1)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    try:
        area = mmap.mmap(-1, size + _HUGE, flags=flags)
    except OSError:
        return np.zeros(count, kind)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them: slower only
            area.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(area, kind, count)


def doubled(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy with room for twice as many."""
    larger = reserve(2 * len(array), array.dtype)
    larger[: len(array)] = array
    return larger
