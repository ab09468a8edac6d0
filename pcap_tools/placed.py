"""An output whose size is known: its parts are written by several threads, in any order.

One part at a time is written: the kernel would let a second writer spin on the file's lock. In
memory (tmpfs) most of a write's time is often for finding pages, which in a virtual machine come
from the host, 0.1 to 2 ms a MB; that needs no such lock when pages are found by way of a mapping.
So who waits for its turn finds pages for its own part meanwhile.
"""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

import numpy as np

from pcap_tools.memory import discard, populate

__all__ = ["Placed"]

_STEP = 1 << 17  # bytes made present before the turn is asked for again


class Placed:
    """An open file that has its size (more than 0 bytes), for reading and writing."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._turn = threading.Lock()
        self._base = 0
        if _in_memory(descriptor):
            self._pages = np.frombuffer(mmap.mmap(descriptor, size), np.uint8)
            self._base = self._pages.ctypes.data

    def put(self, at: int, octets: memoryview) -> None:
        """Write bytes to their place. Raises OSError."""
        found = at if self._turn.acquire(blocking=False) else self._wait(at, at + len(octets))
        try:
            done = 0
            while done < len(octets):
                done += os.pwrite(self._descriptor, octets[done:], at + done)
        finally:
            self._turn.release()
        if found > at:
            discard(self._base + at, self._base + found)

    def _wait(self, begin: int, end: int) -> int:
        """Take the turn; where pages were found up to meanwhile."""
        at = begin
        while self._base and at < end:
            # A full disk is met by the writing, an older kernel does not matter.
            if populate(self._base + at, self._base + min(at + _STEP, end)):
                break
            at += _STEP
            if self._turn.acquire(blocking=False):
                return min(at, end)
        self._turn.acquire()
        return min(at, end)


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
