"""A savefile's records where they lie: mapped into memory, copied by nobody but the writer.

Only for those who know how large each record is: walking along mapped records means waiting for
each one's length to come from memory before the next is even asked for, which takes longer than
reading. Pages are given back as soon as they are done with, so that the process does not hold the
whole file. A mapped file that is cut short under us would kill the process (SIGBUS), so its size is
looked at before each window.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator

import numpy as np

from pcap_tools.kernels import U8, U16
from pcap_tools.savefile import Savefile

__all__ = ["mapped_records"]

_PACKETS = 1 << 12  # at once: some megabytes
_DONE = 1 << 22  # bytes given back at once: each time interrupts the other processors
_POPULATE_READ = 22  # madvise(2), Linux 5.14; Python 3.11 has no name for it


def mapped_records(file: Savefile, sizes: U16) -> Iterator[tuple[int, U8, U16]]:
    """The records of a `plain` file whose packets are `sizes` bytes: parts of some thousand.

    First packet, the bytes of the part's records, and its sizes. Raises GrowingInput when the file
    changes.
    """
    area = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    data: U8 = np.frombuffer(area, np.uint8)
    at, freed, ready = _HEADER, 0, 0
    for first in range(0, len(sizes), _PACKETS):
        file.check_unchanged()
        part = sizes[first : first + _PACKETS]
        end = at + int(part.sum(dtype=np.int64)) + file.record * len(part)
        if end > ready:
            ready = min(max(end, ready + _DONE), len(data))
            with contextlib.suppress(OSError):  # an older kernel: page by page
                begin = at & -mmap.PAGESIZE
                area.madvise(_POPULATE_READ, begin, ready - begin)
        yield first, data[at:end], part
        at = end
        done = at & -mmap.PAGESIZE
        if done - freed >= _DONE:
            area.madvise(mmap.MADV_DONTNEED, freed, done - freed)
            freed = done


_HEADER = 24  # bytes of a pcap file's header
