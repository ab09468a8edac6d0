"""Kernels that walk rare records: patched libpcaps' and Endace's ERF. Compiled when one is met.

Patched libpcaps (wiretap/libpcap.c, libpcap sf-pcap.c): the record header is followed by 4 to 12
more bytes, and files before version 2.3 have the two lengths the other way round. ERF (Endace
"ERF types" reference; wiretap/erf.c): little-endian 32.32 timestamps, all else big-endian.
"""

from __future__ import annotations

import sys

import numpy as np

from pcap_tools.kernels import I32, I64, U8, kernel, load64, load_u8
from pcap_tools.walk import BAD_LENGTH, BAD_TIME, MAX_PACKET, MORE, U32, read16, read32

__all__ = ["BAD_TYPE", "walk_erf", "walk_patched"]

BAD_TYPE = 7  # ERF: a record type without a reading here

_SWAPPED = sys.byteorder == "little"
_ETHERNET = 1
_IPV4 = 228
_IPV6 = 229


@kernel
def walk_patched(
    data: U8,
    have: int,
    swapped: bool,
    nanoseconds: bool,
    header: int,
    lengths: int,
    offset: I64,
    caplen: U32,
    wirelen: U32,
    time_ns: I64,
) -> tuple[int, int, int]:
    """As `walk_pcap`, with record headers of `header` bytes.

    `lengths` is 1 where the length on the wire comes first, and 2 where it does when it is the
    larger one (version 2.3).
    """
    base = np.int64(data.ctypes.data)
    unit = 1 if nanoseconds else 1000
    at = 0
    rows = 0
    while rows < len(offset) and at + header <= have:
        seconds = read32(base + at, swapped)
        fraction = read32(base + at + 4, swapped)
        captured = read32(base + at + 8, swapped)
        wire = read32(base + at + 12, swapped)
        if lengths == 1 or (lengths == 2 and captured > wire):
            captured, wire = wire, captured
        if captured > MAX_PACKET:
            return rows, at, BAD_LENGTH
        if fraction * unit >= 1_000_000_000:
            return rows, at, BAD_TIME
        if captured == 0 and wire == 0 and seconds == 0:
            return rows, at, BAD_LENGTH
        if at + header + captured > have:
            break
        offset[rows] = at + header
        caplen[rows] = captured
        wirelen[rows] = wire
        time_ns[rows] = seconds * 1_000_000_000 + fraction * unit
        rows += 1
        at += header + captured
    return rows, at, MORE


@kernel
def walk_erf(
    data: U8,
    have: int,
    offset: I64,
    caplen: U32,
    wirelen: U32,
    time_ns: I64,
    link: I32,
) -> tuple[int, int, int]:
    """ERF records in data[:have]: rows filled, bytes consumed, status (MORE, BAD_*).

    `link` takes each packet's link type. Ethernet records (plain, coloured, hashed) have two bytes
    of padding before the frame and its frame check sequence behind, which is left out. Padding and
    provenance records are passed over.
    """
    base = np.int64(data.ctypes.data)
    at = 0
    rows = 0
    while rows < len(offset) and at + 16 <= have:
        record = base + at
        size = read16(record + 10, _SWAPPED)
        kind = np.int64(load_u8(record + 8)) & 0x7F
        if size < 16:
            return rows, at, BAD_LENGTH
        if at + size > have:
            break
        if kind in (48, 27):
            at += size
            continue
        body = 16
        more = np.int64(load_u8(record + 8)) & 0x80
        while more and body + 8 <= size:
            more = np.int64(load_u8(record + body)) & 0x80
            body += 8
        wire = read16(record + 14, _SWAPPED)
        if kind in (2, 11, 16, 20):
            body += 2
            wire -= 4
            link[rows] = _ETHERNET
        elif kind == 22:
            link[rows] = _IPV4
        elif kind == 23:
            link[rows] = _IPV6
        else:
            return rows, at, BAD_TYPE
        if more or body > size or wire < 0:
            return rows, at, BAD_LENGTH
        ticks = load64(record)
        fraction = np.int64(ticks & np.uint64(0xFFFFFFFF))
        offset[rows] = at + body
        caplen[rows] = min(size - body, wire)
        wirelen[rows] = wire
        time_ns[rows] = np.int64(ticks >> np.uint64(32)) * 1_000_000_000 + (
            (fraction * 1_000_000_000 + (1 << 31)) >> 32
        )
        rows += 1
        at += size
    return rows, at, MORE
