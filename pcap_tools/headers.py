"""One IP packet into its row: addresses by number, checksums without them, wrong ones repaired."""

from __future__ import annotations

import numpy as np

from pcap_tools.checksum import fold, pseudo_sum, sum_words, without
from pcap_tools.edits import (
    ADDRESS,
    FIXED_IP,
    FIXED_L4,
    FLAGS,
    FRAGMENTS,
    IP_BASE,
    IP_SUM,
    KIND,
    L4_BASE,
    L4_SUM,
    NEVER_ZERO,
    PARTIAL,
    SOURCE,
    TARGET,
    WITH_SOURCE,
    WITH_TARGET,
    Book,
    intern,
)
from pcap_tools.kernels import (
    I32,
    I64,
    as_int,
    inner,
    load16,
    load32,
    load64,
    load_u8,
    store16,
    swap16,
    swap32,
    swap64,
)
from pcap_tools.layers import big16, upper6

__all__ = ["mac_number", "number4", "number6", "read_packet"]

_ONES = np.uint64(0xFFFF)
_TCP, _UDP, _ICMP, _ICMP6, _DCCP, _UDPLITE = 6, 17, 1, 58, 33, 136


@inner
def number4(book: Book, address: int) -> int:
    """Number of the IPv4 address at a memory address."""
    return intern(book, np.uint64(4), np.uint64(0), swap32(load32(address)))


@inner
def number6(book: Book, address: int) -> int:
    """Number of the IPv6 address at a memory address."""
    return intern(book, np.uint64(6), swap64(load64(address)), swap64(load64(address + 8)))


@inner
def mac_number(address: int) -> np.uint64:
    """The MAC address at a memory address as a 48-bit number."""
    return np.uint64((swap16(load16(address)) << np.uint64(32)) | swap32(load32(address + 2)))


@inner
def _checksum_place(protocol: int) -> int:
    """Offset of the checksum in a transport header, −1 for protocols without one to carry."""
    if protocol == _TCP:
        return 16
    if protocol in (_UDP, _DCCP, _UDPLITE):
        return 6
    if protocol in (_ICMP, _ICMP6):
        return 2
    return -1


@inner
def read_packet(
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
        length = big16(frame + offset + 2)
        if length != 0 and length < header:
            return -2, 0, 0
        whole = length != 0 and offset + length <= end
        if whole:
            end = offset + length
        if big16(frame + offset + 6) & 0x1FFF:
            fragment = 2
        elif big16(frame + offset + 6) & 0x2000:
            fragment = 1
        protocol = as_int(load_u8(frame + offset + 9)) if fragment != 2 else -1
        place = offset + header
        row[ADDRESS] = offset + 12
        row[SOURCE] = number4(book, frame + offset + 12)
        row[TARGET] = number4(book, frame + offset + 16)
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
        length = big16(frame + offset + 4) + 40
        whole = length != 40 and offset + length <= end
        if whole:
            end = offset + length
        protocol, place, fragment, routed, _ = upper6(frame, offset, end)
        row[ADDRESS] = offset + 8
        row[SOURCE] = number6(book, frame + offset + 8)
        row[TARGET] = number6(book, frame + offset + 24)
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


@inner
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
        said = big16(frame + place + 4)
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
