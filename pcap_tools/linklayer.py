"""From the beginning of a frame to its IP header: link layers, VLAN tags, MPLS, PPPoE."""

from __future__ import annotations

import numpy as np

from pcap_tools.kernels import inner, load16, load32, load_u8, swap16, swap32
from pcap_tools.packet import Row
from pcap_tools.walk import Word

__all__ = ["be16", "be32", "byte_at", "link_layer", "payload_of"]

_NULL = 0
_ETHERNET = 1
_LOOP = 108
_SLL = 113
_SLL2 = 276
# Flag bits of pcap_tools.packet.
_SNAPPED = 16
_MALFORMED = 32


@inner
def be16(address: Word) -> Word:
    return np.int64(swap16(load16(address)))


@inner
def be32(address: Word) -> Word:
    return np.int64(swap32(load32(address)))


@inner
def byte_at(address: Word) -> Word:
    return np.int64(load_u8(address))


@inner
def link_layer(frame: Word, caplen: Word, link: Word, row: Row) -> Word:
    """Offset of the IP header, or -1 for other than IP; sets ethertype, vlan, MALFORMED."""
    short = np.uint16(0 if row.flags & np.uint16(_SNAPPED) else _MALFORMED)
    if link in (_ETHERNET, _SLL):
        at = 14 if link == _ETHERNET else 16
        if caplen < at:
            row.flags |= short
            return -1
        kind = be16(frame + at - 2)
    elif link == _SLL2:
        at = 20
        if caplen < at:
            row.flags |= short
            return -1
        kind = be16(frame)
    elif link in (_NULL, _LOOP):
        # The address family before the packet has one number or another by system: the IP
        # version tells the same.
        return 4
    else:
        return 0
    if kind == 0x0800 or kind == 0x86DD:
        row.ethertype = np.uint16(kind)
        return at
    return payload_of(frame, at, kind, caplen, row)


@inner
def payload_of(frame: Word, at: Word, kind: Word, caplen: Word, row: Row) -> Word:
    """Offset of the IP header behind EtherType `kind`, whose payload is at `at`; -1 without one.

    Walks VLAN tags, MPLS labels, PPPoE and Ethernet in MPLS, in any order; each step goes on in
    the frame. Appends to the row's vlan (the two innermost tags stay), sets ethertype, MALFORMED.
    """
    short = np.uint16(0 if row.flags & np.uint16(_SNAPPED) else _MALFORMED)
    while True:
        row.ethertype = np.uint16(kind)
        if kind == 0x0800 or kind == 0x86DD:
            return at
        if kind == 0x8100 or kind == 0x88A8 or kind == 0x9100:
            if caplen < at + 4:
                row.flags |= short
                return -1
            tag = be16(frame + at) & 0xFFF
            row.vlan = np.uint32(((np.int64(row.vlan) & 0xFFF) << 12) | tag)
            kind = be16(frame + at + 2)
            at += 4
        elif kind == 0x8926:  # VN-tag (IEEE 802.1BR's forerunner): 4 bytes, then the EtherType
            if caplen < at + 6:
                row.flags |= short
                return -1
            kind = be16(frame + at + 4)
            at += 6
        elif kind == 0x8847 or kind == 0x8848:
            at, kind = _behind_labels(frame, at, caplen)
            if at < 0:
                row.flags |= short
                return -1
            if kind <= 1:
                return at if kind == 0 else -1
        elif kind == 0x8864:
            if caplen < at + 8:
                row.flags |= short
                return -1
            inner = be16(frame + at + 6)
            at += 8
            if inner == 0x0021 or inner == 0x0057:
                return at
            if inner != 0x0281 and inner != 0x0283:
                return -1
            kind = 0x8847
        else:
            return -1


@inner
def _behind_labels(frame: Word, at: Word, caplen: Word) -> Word:
    """(offset, EtherType) of what MPLS labels carry: EtherType 0 is IP, 1 something unknown.

    The offset is -1 when the frame ends first. Without a protocol field, the first nibble tells IP
    (RFC 4928). Ethernet (RFC 4448) may follow a control word, which begins with a zero nibble, but
    so do many MAC addresses: what stands in the place of the EtherType decides.
    """
    while True:
        if at + 4 > caplen:
            return -1, 0
        at += 4
        if byte_at(frame + at - 2) & 1:
            break
    nibble = byte_at(frame + at) >> 4 if at < caplen else 15
    if nibble == 4 or nibble == 6:
        return at, 0
    for header in (18, 14):
        if at + header <= caplen and (header == 14 or nibble == 0):
            kind = be16(frame + at + header - 2)
            if kind in (0x0800, 0x86DD, 0x8100, 0x88A8, 0x9100, 0x8847, 0x8864, 0x0806):
                return at + header, kind
    return at, 1
