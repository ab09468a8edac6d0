"""Kernels that walk the records of a savefile in a buffer and fill columns, one row a packet."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pcap_tools.kernels import I64, U8, kernel, load16, load32, swap16, swap32

__all__ = [
    "BAD_BLOCK",
    "BAD_INTERFACE",
    "BAD_LENGTH",
    "BAD_TIME",
    "CONTROL",
    "MAX_PACKET",
    "MIXED",
    "MORE",
    "U32",
    "Word",
    "walk_pcap",
    "walk_pcapng",
]

U32 = npt.NDArray[np.uint32]
Word: TypeAlias = Any  # an integer inside a kernel: Python's and numpy's types are one there

MAX_PACKET = 262_144
"""The longest packet a capture may hold (libpcap's MAXIMUM_SNAPLEN); a longer one is corruption."""

MORE = 0  # the buffer ends inside a record (or the columns are full)
CONTROL = 1  # pcapng: a block that Python reads comes next
BAD_LENGTH = 2
BAD_TIME = 3
BAD_BLOCK = 4
BAD_INTERFACE = 5
MIXED = 6

_MAX_BLOCK = 1 << 24
_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_OLD_PACKET = 2
_SIMPLE = 3
_ENHANCED = 6


@kernel
def _read32(address: Word, swapped: bool) -> Word:
    word = load32(address)
    return np.int64(swap32(word)) if swapped else np.int64(word)


@kernel
def _read16(address: Word, swapped: bool) -> Word:
    word = load16(address)
    return np.int64(swap16(word)) if swapped else np.int64(word)


@kernel
def walk_pcap(
    data: U8,
    have: int,
    swapped: bool,
    nanoseconds: bool,
    offset: I64,
    caplen: U32,
    wirelen: U32,
    time_ns: I64,
) -> tuple[int, int, int]:
    """Records in data[:have]: rows filled, bytes consumed, status (MORE or BAD_*)."""
    base = np.int64(data.ctypes.data)
    unit = 1 if nanoseconds else 1000
    at = 0
    rows = 0
    while rows < len(offset) and at + 16 <= have:
        seconds = _read32(base + at, swapped)
        fraction = _read32(base + at + 4, swapped)
        captured = _read32(base + at + 8, swapped)
        wire = _read32(base + at + 12, swapped)
        if captured > MAX_PACKET:
            return rows, at, BAD_LENGTH
        if fraction * unit >= 1_000_000_000:
            return rows, at, BAD_TIME
        if captured == 0 and wire == 0 and seconds == 0:
            return rows, at, BAD_LENGTH
        if at + 16 + captured > have:
            break
        offset[rows] = at + 16
        caplen[rows] = captured
        wirelen[rows] = wire
        time_ns[rows] = seconds * 1_000_000_000 + fraction * unit
        rows += 1
        at += 16 + captured
    return rows, at, MORE


@kernel
def _nanoseconds(ticks: Word, resolution: Word, zone: Word) -> Word:
    """if_tsresol: power of 10 (top bit clear) or of 2 (top bit set) of ticks in a second."""
    power = resolution & 0x7F
    if resolution & 0x80:
        whole = ticks >> power
        part = ticks & ((1 << power) - 1)
        if power > 32:
            # Keeps part * 10^9 inside 62 bits; what is cut is below a nanosecond.
            part >>= power - 32
            power = 32
        return (whole + zone) * 1_000_000_000 + ((part * 1_000_000_000) >> power)
    if power <= 9:
        return ticks * 10 ** (9 - power) + zone * 1_000_000_000
    return ticks // 10 ** (power - 9) + zone * 1_000_000_000


@kernel
def walk_pcapng(
    data: U8,
    have: int,
    swapped: bool,
    interfaces: I64,
    state: I64,
    offset: I64,
    caplen: U32,
    wirelen: U32,
    time_ns: I64,
) -> tuple[int, int, int]:
    """Blocks in data[:have]: rows filled, bytes consumed, status (MORE, CONTROL, BAD_*, MIXED).

    `interfaces` has a row an interface: link type, tsresol, tsoffset, snaplen. `state` is
    (link type so far or -1, time of the last packet).
    """
    base = np.int64(data.ctypes.data)
    at = 0
    rows = 0
    while rows < len(offset) and at + 12 <= have:
        block = base + at
        kind = _read32(block, swapped)
        if kind in (_SECTION, _INTERFACE):
            return rows, at, CONTROL
        length = _read32(block + 4, swapped)
        if length < 12 or length & 3 or length > _MAX_BLOCK:
            return rows, at, BAD_BLOCK
        if at + length > have:
            break
        if _read32(block + length - 4, swapped) != length:
            return rows, at, BAD_BLOCK
        if kind in (_ENHANCED, _OLD_PACKET, _SIMPLE):
            number = 0
            if kind == _SIMPLE:
                if length < 16:
                    return rows, at, BAD_BLOCK
                body = 12
                wire = _read32(block + 8, swapped)
                captured = min(wire, length - 16)
            else:
                if length < 32:
                    return rows, at, BAD_BLOCK
                body = 28
                captured = _read32(block + 20, swapped)
                wire = _read32(block + 24, swapped)
                if kind == _ENHANCED:
                    number = _read32(block + 8, swapped)
                else:
                    number = _read16(block + 8, swapped)
            if captured > MAX_PACKET:
                return rows, at, BAD_LENGTH
            if captured > length - body - 4:
                return rows, at, BAD_BLOCK
            if number >= len(interfaces):
                return rows, at, BAD_INTERFACE
            if kind == _SIMPLE:
                if interfaces[0, 3]:
                    captured = min(captured, interfaces[0, 3])
            else:
                ticks = (_read32(block + 12, swapped) << 32) | _read32(block + 16, swapped)
                state[1] = _nanoseconds(ticks, interfaces[number, 1], interfaces[number, 2])
            if state[0] != interfaces[number, 0]:
                if state[0] >= 0:
                    return rows, at, MIXED
                state[0] = interfaces[number, 0]
            offset[rows] = at + body
            caplen[rows] = captured
            wirelen[rows] = wire
            # A simple packet block has no time of its own: it takes its predecessor's.
            time_ns[rows] = state[1]
            rows += 1
        at += length
    return rows, at, MORE
