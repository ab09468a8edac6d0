"""Give a frame other addresses, from the row and the edits that `analyse` left for it.

Rows are read in place, `rows[index, column]`: a view of one row would cost two atomic reference
counts a packet, several times what the patch costs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pcap_tools.checksum import fold
from pcap_tools.edits import (
    ADDRESS,
    APART,
    FLAGS,
    IP_BASE,
    IP_SUM,
    KIND,
    L4_BASE,
    L4_SUM,
    MAC,
    NEVER_ZERO,
    QUOTE,
    SOURCE,
    TARGET,
    UNCOVERED,
    WITH_SOURCE,
    WITH_TARGET,
)
from pcap_tools.kernels import I32, I64, U64, as_int, inner, kernel, store16, store32, store64

__all__ = ["Edits", "patch", "patch_all"]

_ONES = np.uint64(0xFFFF)


class Edits(NamedTuple):
    """What frames have besides their row: the edits' rows, and the MAC addresses by slot."""

    quotes: I32
    macs: U64


@inner
def _store6(place: int, v6: U64, line: int, slot: int) -> np.uint64:
    store64(place, v6[line, slot, 0])
    store64(place + 8, v6[line, slot, 1])
    return np.uint64(v6[line, slot, 2])


@inner
def _store_mac(place: int, macs: U64, slot: int) -> np.uint64:
    store32(place, macs[slot])
    store16(place + 4, macs[slot] >> np.uint64(32))
    return np.uint64(macs[slot] >> np.uint64(48))


@inner
def _patch_apart(
    frame: int, rows: I32, index: int, v4: U64, v6: U64, macs: U64, line: int
) -> np.uint64:
    """Write the addresses of an edit that is no IP header; returns their sum."""
    kind = as_int(rows[index, KIND])
    written = np.uint64(0)
    for turn in range(2):
        offset = as_int(rows[index, IP_BASE] if turn else rows[index, ADDRESS])
        slot = as_int(rows[index, TARGET] if turn else rows[index, SOURCE])
        if turn and not offset:
            break
        if kind == MAC:
            written += _store_mac(frame + offset, macs, slot)
        elif kind == APART + 4:
            store32(frame + offset, v4[line, slot])
            written += v4[line, slot] >> np.uint64(32)
        else:
            written += _store6(frame + offset, v6, line, slot)
    return np.uint64(written)


@inner
def _patch_one(
    frame: int,
    rows: I32,
    index: int,
    v4: U64,
    v6: U64,
    line: int,
    extra: np.uint64,
) -> np.uint64:
    """Write one packet's addresses and checksums; returns the sum of all words written, with those
    of the edits inside it (`extra`)."""
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
    written = source + target + extra
    if rows[index, IP_SUM]:
        value = _ONES ^ fold(np.uint64(rows[index, IP_BASE]) + source + target)
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


@inner
def _patch_chain(
    frame: int, rows: I32, index: int, edits: Edits, v4: U64, v6: U64, line: int
) -> None:
    """Write a frame's edits from the innermost on, and then the frame's own packet."""
    quotes, macs = edits.quotes, edits.macs
    extra = np.uint64(0)
    edit = as_int(rows[index, QUOTE])
    while edit:
        kind = as_int(quotes[edit - 1, KIND])
        if kind == 4 or kind == 6:
            extra = _patch_one(frame, quotes, edit - 1, v4, v6, line, extra)
        else:
            written = _patch_apart(frame, quotes, edit - 1, v4, v6, macs, line)
            if not quotes[edit - 1, FLAGS] & UNCOVERED:
                extra += written
        edit = as_int(quotes[edit - 1, QUOTE])
    if rows[index, KIND]:
        _patch_one(frame, rows, index, v4, v6, line, extra)


@inner
def patch(
    frame: int, rows: I32, index: int, edits: Edits | None, v4: U64, v6: U64, line: int
) -> None:
    """Give the frame at a memory address the addresses of one line of the tables.

    `v4[line, slot]` holds the address as loaded from memory, with its word sum in the upper half;
    `v6[line, slot]` both halves as loaded, and the sum; `edits.macs[slot]` the six bytes as loaded,
    with the sum above them. `edits` is None where no frame has any: numba drops that branch, and
    need not compile it.
    """
    if edits is not None:  # noqa: SIM102 -- pruned as it stands
        if rows[index, QUOTE]:
            _patch_chain(frame, rows, index, edits, v4, v6, line)
            return
    if rows[index, KIND]:
        _patch_one(frame, rows, index, v4, v6, line, np.uint64(0))


@kernel
def patch_all(data: int, offsets: I64, rows: I32, edits: Edits | None, v4: U64, v6: U64) -> None:
    """Give every frame of a batch the addresses of line 0 of the tables."""
    for index in range(offsets.size):
        patch(data + offsets[index], rows, index, edits, v4, v6, 0)
