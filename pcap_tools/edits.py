"""What has to change in a frame when its addresses change: one row of offsets and sums a frame.

`analyse` reads each frame once. It names the addresses (by slot of an address book), finds every
checksum that depends on them, repairs wrong ones where the whole packet is there to compute them,
and leaves in the row the sums without addresses, so that `patch` needs not look at the payload.

Read: Ethernet with VLAN tags, Linux cooked and raw IP; IPv4 with options, IPv6 with extension
headers; TCP, UDP, ICMP, ICMPv6, DCCP and UDP-Lite checksums; the packet quoted in an ICMP or ICMPv6
error, with its own checksums, which the outer ICMP checksum covers in turn. First fragments carry
their checksum along; later fragments have none. Addresses in ARP, in neighbour discovery targets,
in redirects' gateway fields and inside tunnels stay as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pcap_tools.checksum import fold, pseudo_sum, sum_words, without
from pcap_tools.kernels import (
    I32,
    I64,
    U8,
    U64,
    as_int,
    kernel,
    load16,
    load32,
    load64,
    load_u8,
    store16,
    swap16,
    swap32,
    swap64,
)

__all__ = ["COLUMNS", "COUNTS", "Book", "analyse", "intern", "upper6"]

# Columns of a row (int32). Offsets count from the frame's first byte; 0 means "none".
KIND = 0  # IP version, 0 when nothing is to be changed
ADDRESS = 1  # offset of the source address; the destination follows it
SOURCE = 2  # slot
TARGET = 3  # slot
IP_SUM = 4  # offset of the IPv4 header checksum
IP_BASE = 5  # its sum without addresses
L4_SUM = 6  # offset of the transport checksum
L4_BASE = 7  # its sum without addresses (and without what the quote changes)
FLAGS = 8
QUOTE = 9  # row of the quoted packet + 1
COLUMNS = 10

WITH_SOURCE = 1  # the transport checksum covers the source address
WITH_TARGET = 2  # … and the destination
NEVER_ZERO = 4  # UDP: a computed 0 is sent as 0xffff (RFC 768)

# Columns of the counts (int64).
PACKETS, MAPPED, NOT_IP, MALFORMED, FIXED_IP, FIXED_L4, FRAGMENTS, PARTIAL, QUOTES = range(9)
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
)

_ONES = np.uint64(0xFFFF)
_TCP, _UDP, _ICMP, _ICMP6, _DCCP, _UDPLITE = 6, 17, 1, 58, 33, 136

ETHERNET, RAW, RAW4, RAW6, COOKED, COOKED2 = 1, 101, 228, 229, 113, 276


class Book(NamedTuple):
    """Every address of a corpus, numbered in order of appearance: an open-addressing hash table.

    `entries` rows are (version, high, low); `slots` holds entry numbers, −1 for free, and its size
    is a power of two; `size` is a one-element array; `broadcast` marks what was addressed to the
    link's broadcast address.
    """

    entries: U64
    slots: I64
    size: I64
    broadcast: U8


@kernel
def intern(book: Book, version: np.uint64, high: np.uint64, low: np.uint64) -> int:
    """Number of an address, entered if new. The caller keeps room in the book."""
    mixed = (high ^ (low * np.uint64(0x9E3779B97F4A7C15))) + version
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    mask = book.slots.size - 1
    place = as_int(mixed >> np.uint64(33)) & mask
    while True:
        slot = as_int(book.slots[place])
        if slot < 0:
            slot = as_int(book.size[0])
            book.size[0] = slot + 1
            book.slots[place] = slot
            book.entries[slot, 0] = version
            book.entries[slot, 1] = high
            book.entries[slot, 2] = low
            return slot
        if (
            book.entries[slot, 2] == low
            and book.entries[slot, 1] == high
            and book.entries[slot, 0] == version
        ):
            return slot
        place = (place + 1) & mask


@kernel
def _big16(address: int) -> int:
    return as_int(swap16(load16(address)))


@kernel
def _network_offset(frame: int, size: int, link: int) -> int:
    """Offset of the IP header, −1 when the frame carries none."""
    if link in (RAW, RAW4, RAW6):
        return 0
    if link == COOKED:
        kind, offset = (_big16(frame + 14), 16) if size >= 16 else (0, 0)
    elif link == COOKED2:
        kind, offset = (_big16(frame), 20) if size >= 20 else (0, 0)
    else:
        kind, offset = (_big16(frame + 12), 14) if size >= 14 else (0, 0)
    while kind == 0x8100 or kind == 0x88A8 or kind == 0x9100:
        if offset + 4 > size:
            return -1
        kind = _big16(frame + offset + 2)
        offset += 4
    return offset if kind == 0x0800 or kind == 0x86DD else -1


@kernel
def upper6(frame: int, offset: int, end: int) -> tuple[int, int, int, int, int]:
    """Walk the extension headers of the IPv6 packet at `offset` (RFC 8200).

    Returns (protocol or −1, its offset, fragment: 0 none, 1 first, 2 later, routed, offset of the
    fragment's identification or 0). `routed`: a routing header has segments left, so that the
    pseudo-header takes the last hop and not the header's destination.
    """
    protocol = as_int(load_u8(frame + offset + 6))
    place = offset + 40
    fragment = 0
    routed = 0
    train = 0
    for _ in range(16):
        if protocol not in (0, 43, 44, 51, 60, 135):
            break
        if place + 8 > end:
            return -1, place, fragment, routed, train
        if protocol == 44:
            train = place + 4
            field = _big16(frame + place + 2)
            if field & 0xFFF8:
                return -1, place, 2, routed, train
            if field & 1:
                fragment = 1
            step = 8
        else:
            length = as_int(load_u8(frame + place + 1))
            if protocol == 43 and load_u8(frame + place + 3) != 0:
                routed = 1
            step = (length + 2) * 4 if protocol == 51 else (length + 1) * 8
        protocol = as_int(load_u8(frame + place))
        place += step
    return protocol, place, fragment, routed, train


@kernel
def _checksum_place(protocol: int) -> int:
    """Offset of the checksum in a transport header, −1 for protocols without one to carry."""
    if protocol == _TCP:
        return 16
    if protocol in (_UDP, _DCCP, _UDPLITE):
        return 6
    if protocol in (_ICMP, _ICMP6):
        return 2
    return -1


@kernel
def _packet(
    frame: int, offset: int, end: int, outer: int, book: Book, row: I32, counts: I64
) -> tuple[int, int, int]:
    """Fill `row` for the IP packet at `offset`, whose captured bytes end at `end`.

    Returns (protocol, transport offset, end of the packet's bytes); protocol −1 when there is no
    transport header to look at, −2 when the IP header is malformed (the row stays empty). Only the
    outer packet is repaired and counted. (`outer` is no literal: one compilation serves both.)
    """
    if offset + 20 > end:
        return -2, 0, 0
    version = as_int(load_u8(frame + offset)) >> 4
    fragment = 0
    routed = 0
    if version == 4:
        header = (as_int(load_u8(frame + offset)) & 15) * 4
        if header < 20 or offset + header > end:
            return -2, 0, 0
        length = _big16(frame + offset + 2)
        if length != 0 and length < header:
            return -2, 0, 0
        whole = length != 0 and offset + length <= end
        if whole:
            end = offset + length
        if _big16(frame + offset + 6) & 0x1FFF:
            fragment = 2
        elif _big16(frame + offset + 6) & 0x2000:
            fragment = 1
        protocol = as_int(load_u8(frame + offset + 9)) if fragment != 2 else -1
        place = offset + header
        row[ADDRESS] = offset + 12
        source = swap32(load32(frame + offset + 12))
        target = swap32(load32(frame + offset + 16))
        row[SOURCE] = intern(book, np.uint64(4), np.uint64(0), source)
        row[TARGET] = intern(book, np.uint64(4), np.uint64(0), target)
        part = sum_words(frame + offset + 12, as_int(8))
        if outer or load16(frame + offset + 10) != 0:
            if outer and sum_words(frame + offset, header) != _ONES:
                store16(frame + offset + 10, np.uint64(0))
                store16(frame + offset + 10, _ONES ^ sum_words(frame + offset, header))
                counts[FIXED_IP] += 1
            row[IP_SUM] = offset + 10
            row[IP_BASE] = as_int(without(_ONES ^ load16(frame + offset + 10), part))
    elif version == 6:
        if offset + 40 > end:
            return -2, 0, 0
        length = _big16(frame + offset + 4) + 40
        whole = length != 40 and offset + length <= end
        if whole:
            end = offset + length
        protocol, place, fragment, routed, _ = upper6(frame, offset, end)
        row[ADDRESS] = offset + 8
        row[SOURCE] = intern(
            book,
            np.uint64(6),
            swap64(load64(frame + offset + 8)),
            swap64(load64(frame + offset + 16)),
        )
        row[TARGET] = intern(
            book,
            np.uint64(6),
            swap64(load64(frame + offset + 24)),
            swap64(load64(frame + offset + 32)),
        )
    else:
        return -2, 0, 0
    row[KIND] = version
    if outer:
        if fragment:
            counts[FRAGMENTS] += 1
        elif not whole:
            counts[PARTIAL] += 1
    checkable = outer != 0 and whole and fragment == 0 and routed == 0
    _transport(frame, protocol, place, end, routed, checkable, row, counts)
    return protocol, place, end


@kernel
def _transport(
    frame: int,
    protocol: int,
    place: int,
    end: int,
    routed: int,
    checkable: bool,
    row: I32,
    counts: I64,
) -> None:
    """Repair the transport checksum if `checkable`, and put it in the row if addresses matter."""
    field = _checksum_place(protocol)
    if field < 0 or place + field + 2 > end or (row[KIND] == 4 and protocol == _ICMP6):
        return
    old = load16(frame + place + field)
    if protocol == _UDP and old == 0:
        return  # sent without a checksum (RFC 768, RFC 6935)
    flags = 0
    width = 8 if row[KIND] == 4 else 32
    addresses = sum_words(frame + row[ADDRESS], width)
    if protocol != _ICMP:
        flags = WITH_SOURCE | (0 if routed else WITH_TARGET)
    if protocol == _UDP:
        flags |= NEVER_ZERO
    size = end - place
    if protocol == _UDP:
        said = _big16(frame + place + 4)
        if said > size or (said != 0 and said < 8):
            checkable = False
        elif said:
            size = said
    if checkable and protocol != _DCCP and protocol != _UDPLITE:
        total = sum_words(frame + place, size)
        if flags:
            total += addresses + pseudo_sum(protocol, size)
        if fold(total) != _ONES:
            right = _ONES ^ fold(without(total, old))
            if right == 0 and flags & NEVER_ZERO:
                right = _ONES
            store16(frame + place + field, right)
            old = right
            counts[FIXED_L4] += 1
    if flags == 0:
        return  # ICMP: no address in it, unless a quote says otherwise
    if routed:
        addresses = sum_words(frame + row[ADDRESS], width // 2)
    row[L4_SUM] = place + field
    row[L4_BASE] = as_int(without(_ONES ^ old, addresses))
    row[FLAGS] = flags


@kernel
def _is_error(protocol: int, kind: int) -> bool:
    """True for the ICMP (RFC 792) and ICMPv6 (RFC 4443) messages that quote a packet."""
    if protocol == _ICMP:
        return kind == 3 or kind == 4 or kind == 5 or kind == 11 or kind == 12
    return protocol == _ICMP6 and kind < 128


@kernel
def _quoted(frame: int, place: int, protocol: int, row: I32, quote: I32) -> None:
    """Take out of the outer ICMP sum every word that the quoted packet's row will rewrite."""
    width = 8 if quote[KIND] == 4 else 32
    part = sum_words(frame + quote[ADDRESS], width)
    if quote[IP_SUM]:
        part += load16(frame + quote[IP_SUM])
    if quote[L4_SUM]:
        part += load16(frame + quote[L4_SUM])
    if protocol == _ICMP:
        row[L4_SUM] = place + 2
        row[L4_BASE] = as_int(_ONES ^ load16(frame + place + 2))
        row[FLAGS] = 0
    row[L4_BASE] = as_int(without(np.uint64(row[L4_BASE]), part))


@kernel
def analyse(
    data: int,
    offsets: I64,
    sizes: I64,
    link: int,
    book: Book,
    rows: I32,
    quotes: I32,
    counts: I64,
) -> int:
    """Fill a row for each frame; returns how many rows of `quotes` were used.

    `data` is the memory address that `offsets` count from. `rows` and `quotes` are zeroed, one row
    a frame each; the book has room for four addresses a frame. Wrong checksums are repaired in
    place.
    """
    used = 0
    for index in range(offsets.size):
        frame = data + offsets[index]
        size = sizes[index]
        row = rows[index]
        counts[PACKETS] += 1
        offset = _network_offset(frame, size, link)
        if offset < 0:
            counts[NOT_IP] += 1
            continue
        protocol, place, end = _packet(frame, offset, size, as_int(1), book, row, counts)
        if protocol == -2:
            counts[MALFORMED] += 1
            row[:] = 0
            continue
        counts[MAPPED] += 1
        if (
            link == ETHERNET
            and row[KIND] == 4
            and load32(frame) == 0xFFFFFFFF
            and load16(frame + 4) == 0xFFFF
        ):
            book.broadcast[row[TARGET]] = 1
        if protocol < 0 or place + 8 > end or not _is_error(protocol, load_u8(frame + place)):
            continue
        quote = quotes[used]
        if _packet(frame, place + 8, end, as_int(0), book, quote, counts)[0] == -2:
            quote[:] = 0
            continue
        _quoted(frame, place, protocol, row, quote)
        used += 1
        row[QUOTE] = used
        counts[QUOTES] += 1
    return used
