"""Kernels that write packets as records of a savefile into a buffer: pcap, and pcapng's blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pcap_tools.kernels import (
    I32,
    I64,
    U8,
    copy_bytes,
    inner,
    kernel,
    load16,
    load32,
    load64,
    load_u8,
    store16,
    store32,
    store64,
    swap16,
    swap32,
    swap64,
)
from pcap_tools.walk import U32, Word

__all__ = ["put_blocks", "put_records"]


@kernel
def put_records(
    data: U8,
    offset: I64,
    caplen: U32,
    wirelen: U32,
    time_ns: I64,
    keep: npt.NDArray[np.bool_],
    start: int,
    unit: int,
    out: U8,
    fill: Word,
) -> tuple[int, int, int, int]:
    """Append pcap records of `unit` ns a tick to out[fill:] until it is full.

    `keep` has a row a packet, or none to keep all. Returns: next packet, fill, packets, bytes.
    """
    source = np.int64(data.ctypes.data)
    target = np.int64(out.ctypes.data)
    every = len(keep) == 0
    packets = 0
    octets: Word = 0
    for i in range(start, len(offset)):
        if not every and not keep[i]:
            continue
        size = np.int64(caplen[i])
        if fill + 16 + size > len(out):
            return i, fill, packets, octets
        seconds = time_ns[i] // 1_000_000_000
        record = target + fill
        store32(record, np.uint64(seconds))
        store32(record + 4, np.uint64((time_ns[i] - seconds * 1_000_000_000) // unit))
        store32(record + 8, np.uint64(size))
        store32(record + 12, np.uint64(wirelen[i]))
        copy_bytes(record + 16, source + offset[i], size)
        fill += 16 + size
        packets += 1
        octets += size
    return len(offset), fill, packets, octets


@kernel
def put_blocks(
    data: U8,
    offset: I64,
    caplen: U32,
    wirelen: U32,
    time_ns: I64,
    keep: npt.NDArray[np.bool_],
    interface: I32,
    units: I64,
    noted: I64,
    octets: U8,
    start: int,
    out: U8,
    fill: Word,
) -> tuple[int, int, int, int, int]:
    """Append enhanced packet blocks to out[fill:] until it is full.

    `interface` has the number to write for each packet (one row: that of all), `units` the ns a
    tick of each interface, `noted` and `octets` the options as in Meta. Returns: next packet, fill,
    packets, bytes of frames, packets with options.
    """
    source = np.int64(data.ctypes.data)
    target = np.int64(out.ctypes.data)
    notes = np.int64(octets.ctypes.data)
    every = len(keep) == 0
    same = len(interface) == 1
    packets = 0
    total: Word = 0
    with_options = 0
    note: Word = 0
    for i in range(start, len(offset)):
        if not every and not keep[i]:
            continue
        while note < len(noted) and noted[note, 0] < i:
            note += 1
        has = note < len(noted) and noted[note, 0] == i
        size = np.int64(caplen[i])
        padded = (size + 3) & ~3
        # Options come out no longer than they were, but for their end.
        room = noted[note, 2] + 4 if has else 0
        if fill + 32 + padded + room > len(out):
            return i, fill, packets, total, with_options
        number = np.int64(interface[0 if same else i])
        ticks = time_ns[i] // units[number]
        block = target + fill
        store32(block, np.uint64(6))
        store32(block + 8, np.uint64(number))
        store32(block + 12, np.uint64(ticks >> 32))
        store32(block + 16, np.uint64(ticks & 0xFFFFFFFF))
        store32(block + 20, np.uint64(size))
        store32(block + 24 + padded, np.uint64(0))  # padding
        store32(block + 24, np.uint64(wirelen[i]))
        copy_bytes(block + 28, source + offset[i], size)
        length: Word = 28 + padded
        if has:
            added = _put_options(
                notes + noted[note, 1], noted[note, 2], noted[note, 3] != 0, block + length
            )
            length += added
            with_options += added > 0
        length += 4
        store32(block + 4, np.uint64(length))
        store32(block + length - 4, np.uint64(length))
        fill += length
        packets += 1
        total += size
    return len(offset), fill, packets, total, with_options


@inner
def _put_options(source: Word, size: Word, swapped: bool, target: Word) -> Word:
    """Copy a packet's options into the machine's byte order: bytes written, with their end."""
    at: Word = 0
    put: Word = 0
    while at + 4 <= size:
        code = np.int64(swap16(load16(source + at)) if swapped else load16(source + at))
        length = np.int64(swap16(load16(source + at + 2)) if swapped else load16(source + at + 2))
        padded = (length + 3) & ~3
        if code == 0 or at + 4 + padded > size:
            break
        value = source + at + 4
        store16(target + put, np.uint64(code))
        store16(target + put + 2, np.uint64(length))
        copy_bytes(target + put + 4, value, padded)
        if swapped:
            if (code == 2 and length == 4) or (
                code in (2988, 2989, 19372, 19373) and length >= 4
            ):  # epb_flags; the enterprise number of a custom option
                store32(target + put + 4, swap32(load32(value)))
            elif code in (4, 5) and length == 8:  # epb_dropcount, epb_packetid
                store64(target + put + 4, swap64(load64(value)))
            elif code == 6 and length == 4:  # epb_queue
                store32(target + put + 4, swap32(load32(value)))
            elif code == 7 and length == 9 and load_u8(value) in (1, 2):  # epb_verdict
                store64(target + put + 5, swap64(load64(value + 1)))
        put += 4 + padded
        at += 4 + padded
    if put:
        store32(target + put, np.uint64(0))
        put += 4
    return put
