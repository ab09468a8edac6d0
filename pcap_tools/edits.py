"""What has to change in a frame when its addresses change: rows of offsets, slots and sums.

A frame has one row, for its IP header (or ARP message). Whatever else in it holds addresses has an
edit of its own: the packet that an ICMP error quotes, the packet inside a tunnel, neighbour
discovery's targets, MAC addresses. A frame's edits are a chain from the innermost to the outermost,
each naming the next, and the row is the end of it. So each checksum is written after what it
covers, and takes over the sum of the words that were written so far. Every checksum's base was
freed of all those words by `analyse`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pcap_tools.kernels import I64, U8, U64, as_int, inner

__all__ = ["COLUMNS", "COUNTS", "MAX_EDITS", "Book", "intern", "seek"]

# Columns of a row (int32). Offsets count from the frame's first byte; 0 means "none".
KIND = 0  # see below; 0 when nothing is to be changed
ADDRESS = 1  # offset of the source address
SOURCE = 2  # slot
TARGET = 3  # slot
IP_SUM = 4  # offset of the IPv4 header checksum
IP_BASE = 5  # its sum without addresses; for kinds APART and MAC: offset of the second address
L4_SUM = 6  # offset of the transport checksum
L4_BASE = 7  # its sum without addresses (and without what the edits inside change)
FLAGS = 8
QUOTE = 9  # row: innermost edit + 1; edit: the next outer one + 1, 0 when that is the row
COLUMNS = 10

# Kinds: 4 and 6 are an IP header, with the target behind the source. APART added: one address, or
# two that are not adjacent; MAC likewise, of 48 bits.
APART = 16
MAC = 48

WITH_SOURCE = 1  # the transport checksum covers the source address
WITH_TARGET = 2  # … and the destination
NEVER_ZERO = 4  # UDP: a computed 0 is sent as 0xffff (RFC 768)
UNCOVERED = 8  # no checksum covers this edit: the frame's own MAC addresses

MAX_EDITS = 24  # of one frame; what is deeper stays

# Columns of the counts (int64).
PACKETS, MAPPED, NOT_IP, MALFORMED, FIXED_IP, FIXED_L4, FRAGMENTS, PARTIAL, QUOTES = range(9)
ARPS, INNER, NEIGHBOURS, REDIRECTS, QUOTING = range(9, 14)
COUNTS = (
    "packets",
    "mapped",
    "not_ip",
    "malformed",
    "fixed_ip_checksums",
    "fixed_l4_checksums",
    "fragments",
    "partial",
    "quotes",
    "arp",
    "inner",
    "neighbours",
    "redirects",
    "quoting",
)


class Book(NamedTuple):
    """Every address of a corpus, numbered in order of appearance: an open-addressing hash table.

    `entries` rows are (version, high, low), version 48 for MAC addresses; `slots` holds entry
    numbers, −1 for free, and its size is a power of two; `size` is a one-element array; `broadcast`
    marks what was addressed to the link's broadcast address.
    """

    entries: U64
    slots: I64
    size: I64
    broadcast: U8


@inner
def _place(book: Book, version: np.uint64, high: np.uint64, low: np.uint64) -> int:
    """Where in `slots` an address is, or would be."""
    mixed = (high ^ (low * np.uint64(0x9E3779B97F4A7C15))) + version
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    mask = book.slots.size - 1
    place = as_int(mixed >> np.uint64(33)) & mask
    while True:
        slot = as_int(book.slots[place])
        if slot < 0 or (
            book.entries[slot, 2] == low
            and book.entries[slot, 1] == high
            and book.entries[slot, 0] == version
        ):
            return place
        place = (place + 1) & mask


@inner
def intern(book: Book, version: np.uint64, high: np.uint64, low: np.uint64) -> int:
    """Number of an address, entered if new. The caller keeps room in the book."""
    place = _place(book, version, high, low)
    slot = as_int(book.slots[place])
    if slot < 0:
        slot = as_int(book.size[0])
        book.size[0] = slot + 1
        book.slots[place] = slot
        book.entries[slot, 0] = version
        book.entries[slot, 1] = high
        book.entries[slot, 2] = low
    return slot


@inner
def seek(book: Book, version: np.uint64, high: np.uint64, low: np.uint64) -> int:
    """Number of an address, −1 for one that is not in the book."""
    return as_int(book.slots[_place(book, version, high, low)])
