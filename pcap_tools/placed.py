"""An output whose size is known: mapped into memory, and filled by several threads at once.

write(2) copies what is already in a buffer, and holds a file's lock while it does, and while the
kernel finds pages for it: several writers of one file wait for each other. In a virtual machine a
page may have to come from the host, which takes longer than everything else. Pages of a mapped file
are found by all processors at once, and what is made is made in its place.

Every window is made present before anything is stored there (MADV_POPULATE_WRITE, Linux 5.14),
because a full disk would otherwise end the process (SIGBUS). Where that is not known, there is no
placing.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from pcap_tools.kernels import U8
from pcap_tools.memory import discard, populate

__all__ = ["Placed"]


class Placed:
    """The first `size` bytes of an open file (for reading and writing)."""

    def __init__(self, descriptor: int, size: int) -> None:
        """Raises OSError: ENOSPC for a full disk, others where files cannot be filled like this."""
        os.ftruncate(descriptor, size)
        self._area = mmap.mmap(descriptor, size)
        self._data: U8 = np.frombuffer(self._area, np.uint8)
        self._base = self._data.ctypes.data
        self._populate(0, 1)

    def _populate(self, begin: int, end: int) -> None:
        problem = populate(self._base + begin, self._base + end)
        if problem == errno.EFAULT:  # what would have been SIGBUS
            problem = errno.ENOSPC
        if problem:
            raise OSError(problem, os.strerror(problem))

    @contextmanager
    def window(self, begin: int, end: int) -> Iterator[U8]:
        """The bytes [begin, end) of the file, to be stored to. Raises OSError (a full disk)."""
        self._populate(begin, end)
        yield self._data[begin:end]
        # Whole pages only: those at the ends may be another window's too.
        discard(self._base + begin, self._base + end)
