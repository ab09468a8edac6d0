"""Kernels that walk the records of a savefile in a buffer and fill columns, one row a packet.

The variants of pcap that are rare, and ERF, are in `walk_odd`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pcap_tools.kernels import I32, I64, U8, inner, kernel, load16, load32, swap16, swap32

__all__ = [
    "BAD_BLOCK",
    "BAD_INTERFACE",
    "BAD_LENGTH",
    "BAD_TIME",
    "CONTROL",
    "MAX_PACKET",
    "MORE",
    "U32",
    "Word",
    "read16",
    "read32",
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

_MAX_BLOCK = 1 << 24
_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_OLD_PACKET = 2
_SIMPLE = 3
_ENHANCED = 6
_NAMES = 4
_STATISTICS = 5
_SECRETS = 10
_CUSTOM = 0x0BAD
_CUSTOM_NO_COPY = 0x40000BAD


@inner
def read32(address: Word, swapped: bool) -> Word:
    """The 32-bit word at an address, in the machine's byte order or the other."""
    word = load32(address)
    return np.int64(swap32(word)) if swapped else np.int64(word)


@inner
def read16(address: Word, swapped: bool) -> Word:
    """The 16-bit word at an address, likewise."""
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
        seconds = read32(base + at, swapped)
        fraction = read32(base + at + 4, swapped)
        captured = read32(base + at + 8, swapped)
        wire = read32(base + at + 12, swapped)
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


@inner
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
    section: int,
    state: I64,
    offset: I64,
    caplen: U32,
    wirelen: U32,
    time_ns: I64,
    interface: I32,
    noted: I64,
) -> tuple[int, int, int]:
    """Blocks in data[:have]: rows filled, bytes consumed, status (MORE, CONTROL or BAD_*).

    `interfaces` has a row an interface: link type, tsresol, tsoffset, snaplen; those of the current
    section begin at `section`. `interface` takes the row number of each packet's. `noted` takes a
    row for each packet with options: its row, the options' offset in data, their length, and 1 when
    their byte order is not the machine's. `state` is: time of the last packet, rows of `noted`
    filled, then blocks passed over: name resolution, statistics, secrets, custom, others.
    """
    base = np.int64(data.ctypes.data)
    at = 0
    rows = 0
    state[1] = 0
    while rows < len(offset) and at + 12 <= have:
        block = base + at
        kind = read32(block, swapped)
        if kind in (_SECTION, _INTERFACE):
            return rows, at, CONTROL
        length = read32(block + 4, swapped)
        if length < 12 or length & 3 or length > _MAX_BLOCK:
            return rows, at, BAD_BLOCK
        if at + length > have:
            break
        if read32(block + length - 4, swapped) != length:
            return rows, at, BAD_BLOCK
        if kind in (_ENHANCED, _OLD_PACKET, _SIMPLE):
            number = 0
            if kind == _SIMPLE:
                if length < 16:
                    return rows, at, BAD_BLOCK
                body = 12
                wire = read32(block + 8, swapped)
                captured = min(wire, length - 16)
            else:
                if length < 32:
                    return rows, at, BAD_BLOCK
                body = 28
                captured = read32(block + 20, swapped)
                wire = read32(block + 24, swapped)
                if kind == _ENHANCED:
                    number = read32(block + 8, swapped)
                else:
                    number = read16(block + 8, swapped)
            if captured > MAX_PACKET:
                return rows, at, BAD_LENGTH
            if captured > length - body - 4:
                return rows, at, BAD_BLOCK
            number += section
            if number >= len(interfaces):
                return rows, at, BAD_INTERFACE
            if kind == _SIMPLE:
                if interfaces[number, 3]:
                    captured = min(captured, interfaces[number, 3])
            else:
                ticks = (read32(block + 12, swapped) << 32) | read32(block + 16, swapped)
                state[0] = _nanoseconds(ticks, interfaces[number, 1], interfaces[number, 2])
                options = (body + captured + 3) & ~3
                if length - 4 - options >= 8:  # less is at most an end of options
                    if state[1] == len(noted):
                        break
                    noted[state[1], 0] = rows
                    noted[state[1], 1] = at + options
                    noted[state[1], 2] = length - 4 - options
                    noted[state[1], 3] = swapped
                    state[1] += 1
            offset[rows] = at + body
            caplen[rows] = captured
            wirelen[rows] = wire
            # A simple packet block has no time of its own: it takes its predecessor's.
            time_ns[rows] = state[0]
            interface[rows] = number
            rows += 1
        elif kind == _NAMES:
            state[2] += 1
        elif kind == _STATISTICS:
            state[3] += 1
        elif kind == _SECRETS:
            state[4] += 1
        elif kind in (_CUSTOM, _CUSTOM_NO_COPY):
            state[5] += 1
        else:
            state[6] += 1
        at += length
    return rows, at, MORE
