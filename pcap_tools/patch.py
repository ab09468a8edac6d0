"""Give a frame other addresses, from the row that `edits.analyse` left for it.

Rows are read in place, `rows[index, column]`: a view of one row would cost two atomic reference
counts a packet, several times what the patch costs.
"""

from __future__ import annotations

import numpy as np

from pcap_tools.checksum import fold
from pcap_tools.edits import (
    ADDRESS,
    FLAGS,
    IP_BASE,
    IP_SUM,
    KIND,
    L4_BASE,
    L4_SUM,
    NEVER_ZERO,
    QUOTE,
    SOURCE,
    TARGET,
    WITH_SOURCE,
    WITH_TARGET,
)
from pcap_tools.kernels import I32, I64, U64, kernel, store16, store32, store64

__all__ = ["patch", "patch_all"]

_ONES = np.uint64(0xFFFF)


@kernel
def _patch_one(
    frame: int, rows: I32, index: int, v4: U64, v6: U64, line: int, extra: np.uint64
) -> np.uint64:
    """Write one packet's addresses and checksums; returns the sum of all words written."""
    place = frame + rows[index, ADDRESS]
    if rows[index, KIND] == 4:
        source = v4[line, rows[index, SOURCE]]
        target = v4[line, rows[index, TARGET]]
        store32(place, source)
        store32(place + 4, target)
        source >>= np.uint64(32)
        target >>= np.uint64(32)
    else:
        high, low = v6[line, rows[index, SOURCE], 0], v6[line, rows[index, SOURCE], 1]
        store64(place, high)
        store64(place + 8, low)
        source = v6[line, rows[index, SOURCE], 2]
        high, low = v6[line, rows[index, TARGET], 0], v6[line, rows[index, TARGET], 1]
        store64(place + 16, high)
        store64(place + 24, low)
        target = v6[line, rows[index, TARGET], 2]
    written = source + target
    both = written
    if rows[index, IP_SUM]:
        value = _ONES ^ fold(np.uint64(rows[index, IP_BASE]) + both)
        store16(frame + rows[index, IP_SUM], value)
        written += value
    if rows[index, L4_SUM]:
        flags = rows[index, FLAGS]
        total = np.uint64(rows[index, L4_BASE]) + extra
        if flags & WITH_SOURCE:
            total += source
        if flags & WITH_TARGET:
            total += target
        value = _ONES ^ fold(total)
        if value == 0 and flags & NEVER_ZERO:
            value = _ONES
        store16(frame + rows[index, L4_SUM], value)
        written += value
    return np.uint64(written)


@kernel
def patch(frame: int, rows: I32, index: int, quotes: I32, v4: U64, v6: U64, line: int) -> None:
    """Give the frame at a memory address the addresses of one line of the tables.

    `v4[line, slot]` holds the address as loaded from memory, with its word sum in the upper half;
    `v6[line, slot]` both halves as loaded, and the sum.
    """
    if rows[index, KIND] == 0:
        return
    extra = np.uint64(0)
    if rows[index, QUOTE]:
        extra = _patch_one(frame, quotes, rows[index, QUOTE] - 1, v4, v6, line, extra)
    _patch_one(frame, rows, index, v4, v6, line, extra)


@kernel
def patch_all(data: int, offsets: I64, rows: I32, quotes: I32, v4: U64, v6: U64) -> None:
    """Give every frame of a batch the addresses of line 0 of the tables."""
    for index in range(offsets.size):
        patch(data + offsets[index], rows, index, quotes, v4, v6, 0)
