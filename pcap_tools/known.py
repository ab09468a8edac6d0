"""Addresses of plain packets, numbered packet by packet.

IPv4 addresses have small tables of their own beside the address book, which are fetched for many
packets at once and mostly stay in the second-level cache. Open addressing with linear probing, at
most half full; sizes are powers of two. 0 is a free place, so that 0.0.0.0 has none.
"""

from __future__ import annotations

import numpy as np

from pcap_tools.edits import Book, intern
from pcap_tools.kernels import (
    I64,
    U8,
    inner,
    kernel,
    load32,
    load64,
    load_u8,
    prefetch,
    store32,
    swap32,
    swap64,
)
from pcap_tools.plain import plain_at
from pcap_tools.walk import U32, Word

__all__ = ["BLOCK", "find_block", "home", "number_plain", "refill_seen"]

BLOCK = 32
"""Packets whose lookups overlap."""


@inner
def home(address: Word, bits: Word) -> Word:
    """Where an IPv4 address (as loaded) belongs in a table of 2^bits places.

    Two multiplications: after one (Knuth, 6.4) the addresses of a few networks, whose high bits
    vary as loaded, lie in heaps, and a lookup met 3.5 places instead of 1.2.
    """
    mixed = address * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return np.int64(mixed >> np.uint64(64 - bits))


@inner
def _look(address: Word, table: Word, bits: Word) -> Word:
    """Memory address of an IPv4 address's place, or of the free one where it belongs.

    The table is given by its memory address: every array handed to a call costs atomic reference
    counts, more than all else here.
    """
    mask = (1 << bits) - 1
    place = home(address, bits)
    while True:
        at = table + 4 * place
        there = load32(at)
        if there == address or there == 0:
            return at
        place = (place + 1) & mask


@inner
def find_block(
    base: Word,
    offset: I64,
    caplen: U32,
    link: Word,
    first: Word,
    last: Word,
    table: Word,
    row: Word,
    bits: Word,
    at: I64,
) -> None:
    """Where the IP headers of frames [first, last) begin (−1: not plain), into `at`; the rows of
    their IPv4 addresses begin to be fetched from a table of `row` bytes each."""
    for i in range(first, last):
        frame = base + offset[i]
        place = plain_at(frame, np.int64(caplen[i]), link)
        if place >= 0 and load_u8(frame + place) >> np.uint64(4) == 4:
            prefetch(table + row * home(load32(frame + place + 12), bits))
            prefetch(table + row * home(load32(frame + place + 16), bits))
        at[i - first] = place


@kernel
def number_plain(
    data: U8,
    offset: I64,
    caplen: U32,
    link: int,
    start: int,
    seen: U32,
    bits: int,
    fill: I64,
    book: Book,
    at: I64,
    others: I64,
) -> tuple[int, int]:
    """Enter the addresses of plain frames [start, …) into the book, which has room for them.

    `seen` are the IPv4 addresses met, `fill[0]` their number; `at` is room for BLOCK entries. The
    numbers of frames that are not plain go into `others`. Returns the first frame that was not
    looked at because `seen` is full, or their number, and how many others there are.
    """
    base = np.int64(data.ctypes.data)
    table = np.int64(seen.ctypes.data)
    count = 0
    for first in range(start, len(offset), BLOCK):
        last = min(first + BLOCK, len(offset))
        if fill[0] + 2 * BLOCK > len(seen) // 2:
            return first, count
        find_block(base, offset, caplen, link, first, last, table, 4, bits, at)
        for i in range(first, last):
            if at[i - first] < 0:
                others[count] = i
                count += 1
                continue
            header = base + offset[i] + at[i - first]
            if load_u8(header) >> np.uint64(4) == 4:
                for end in range(12, 20, 4):
                    address = load32(header + end)
                    here = _look(address, table, bits)
                    if load32(here) == 0:
                        if address:
                            store32(here, address)
                            fill[0] += 1
                        intern(book, np.uint64(4), np.uint64(0), swap32(address))
            else:
                for end in range(8, 40, 16):
                    high, low = swap64(load64(header + end)), swap64(load64(header + end + 8))
                    intern(book, np.uint64(6), high, low)
    return len(offset), count


@kernel
def refill_seen(old: U32, seen: U32, bits: int) -> None:
    """Enter everything of a full table into a larger one."""
    mask = len(seen) - 1
    for i in range(len(old)):
        if old[i]:
            place = home(np.uint64(old[i]), bits)
            while seen[place]:
                place = (place + 1) & mask
            seen[place] = old[i]
