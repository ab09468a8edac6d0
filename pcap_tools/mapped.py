"""A savefile's records where they lie: mapped into memory, never copied.

Whoever looks at headers alone touches a few lines of each packet; reading copies all of it, which
takes longer than accounting for it. Pages are given back as soon as they are done with, so that the
process does not hold the whole file. A mapped file that is cut short under us would kill the
process (SIGBUS), so its size is looked at before each window.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Generator
from itertools import cycle

import numpy as np

from pcap_tools.kernels import U8
from pcap_tools.savefile import Columns, Reader, Table
from pcap_tools.walk import MORE

__all__ = ["mapped_columns"]

_WINDOW = 1 << 20  # bytes walked at once
_DONE = 1 << 24  # bytes given back at once: each time interrupts the other processors


def mapped_columns(file: Reader, keep: int = 1) -> Generator[Columns, None, None]:
    """The packets of a `plain` file, as its `columns`, over memory that cannot be written to.

    The last `keep` columns stay valid. Raises CaptureError, and GrowingInput when the file changes.
    """
    size = file.size
    area = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
    data: U8 = np.frombuffer(area, np.uint8)
    tables = cycle([Table(_WINDOW) for _ in range(keep + 1)])
    window, at, freed = _WINDOW, file.start, 0
    ends = deque([0] * keep)
    file.ignored_bytes = 0
    while at < size:
        file.check_unchanged()
        have = min(window, size - at)
        table = next(tables)
        table.data = data[at : at + have]
        rows, used, status = file.walk(table, have, at)
        if rows:
            yield from file.parts(table, rows, at)
        if status > MORE:
            file.ignored_bytes = file.fail(status, table.data, used, have, at + used)
            return
        if not used and at + have == size:
            file.ignored_bytes = have
            return
        if not used:
            window *= 2
        at += used
        ends.append(at)
        done = ends.popleft() & -mmap.PAGESIZE
        if done - freed >= _DONE:
            area.madvise(mmap.MADV_DONTNEED, freed, done - freed)
            freed = done
