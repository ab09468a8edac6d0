"""Large arrays that cost what is used of them, and memory made present before it is needed."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["POPULATE_WRITE", "Presence", "distinct", "doubled", "pages_of", "populate", "reserve"]

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


def distinct(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The distinct values, sorted. np.unique imports numpy.ma (14 ms), and hashes (slower)."""
    values = np.sort(values, axis=None)
    fresh = np.ones(len(values), np.bool_)
    fresh[1:] = values[1:] != values[:-1]
    kept: npt.NDArray[Any] = values[fresh]
    return kept


POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE of linux/mman.h, since Linux 5.14."""

_STEP = 1 << 21
_MARGIN = 1 << 22
_Area = tuple[npt.NDArray[Any], int, int]


def populate(begin: int, end: int) -> int:
    """Make the pages of the addresses [begin, end) present; 0, or an errno.

    EINVAL: the kernel is older. EFAULT: a full disk under a mapped file. Nothing is changed, and
    other Python threads go on, as they would not under mmap.madvise.
    """
    page = mmap.PAGESIZE
    begin, end = begin & -page, -(-end // page) * page
    madvise = _libc().madvise
    return ctypes.get_errno() if madvise(begin, end - begin, POPULATE_WRITE) else 0


def pages_of(descriptor: int) -> npt.NDArray[np.uint8] | None:
    """A file in memory (tmpfs), mapped whole for reading and writing; None for one elsewhere."""
    size = os.fstat(descriptor).st_size
    if not size or not _in_memory(descriptor):
        return None
    try:
        return np.frombuffer(mmap.mmap(descriptor, size), np.uint8)
    except OSError:  # a limit of address space
        return None


def _in_memory(descriptor: int) -> bool:
    """Whether an open file is on tmpfs (proc_pid_mountinfo(5)); False where nobody can tell."""
    device = os.fstat(descriptor).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    mounts = (line.split() for line in lines)
    return any(m[2] == wanted and m[m.index("-") + 1] == "tmpfs" for m in mounts)


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc


class Presence:
    """Makes the memory of growing arrays present before the work that fills them gets there.

    The first touch of a page waits for the kernel to find and clear it, and in a virtual machine
    perhaps for the host to do the same: from 0.1 to 2 ms a MB, most of what a tracker of a million
    flows would take. A thread of its own takes these faults; nothing is written, so it may be late.
    Never more than twice what is used, nor 4 MB more, is made present.
    """

    def __init__(self) -> None:
        self._done: dict[int, int] = {}  # by address: bytes asked for
        self._asked: queue.SimpleQueue[_Area | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def follow(self, array: npt.NDArray[Any], used: int) -> None:
        """`used` items of an array from `reserve` are in use, and more will be."""
        octets = used * array.itemsize
        wanted = min(octets + min(octets, _MARGIN), array.nbytes)
        address = array.ctypes.data
        done = self._done.get(address, 0)
        if wanted - max(done, octets) < _STEP:
            return
        start = -(-max(done, octets) // _STEP) * _STEP
        self._done[address] = wanted
        self._ask(array, start, wanted)

    def whole(self, array: npt.NDArray[Any]) -> None:
        """All of an array will be used, at random."""
        self._ask(array, 0, array.nbytes)

    def _ask(self, array: npt.NDArray[Any], start: int, end: int) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="presence", daemon=True)
            self._thread.start()
        self._asked.put((array, start, end))

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            array, start, end = asked  # held until it is done
            base = array.ctypes.data
            for address in range(base + start, base + end, _STEP):
                if populate(address, min(address + _STEP, base + end)):
                    return  # an older kernel: the faults come as ever

    def close(self) -> None:
        """End the thread; the arrays may go."""
        if self._thread is not None:
            self._asked.put(None)
            self._thread.join()
            self._thread = None
