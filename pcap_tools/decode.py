"""Decode frames into rows of `PACKET`: link layer, IP, transport. No read leaves the frame.

Link layer: Ethernet with IEEE 802.1Q and 802.1ad tags, MPLS (RFC 3032) and PPPoE (RFC 2516); raw
IP; Linux cooked v1 and v2; BSD loopback. IPv4 (RFC 791) with options and fragments; IPv6
(RFC 8200) with hop-by-hop, routing, destination, fragment and authentication headers (RFC 4302).
TCP, UDP (also UDP-Lite), ICMP, ICMPv6 and SCTP. Tunnels (GRE, VXLAN, IP in IP) are read as their
outer flow.
"""

from __future__ import annotations

import numpy as np

from pcap_tools.capture import Batch
from pcap_tools.kernels import (
    I64,
    U8,
    kernel,
    load16,
    load32,
    load64,
    load_u8,
    swap16,
    swap32,
    swap64,
)
from pcap_tools.packet import PacketRows, Row, packet_rows
from pcap_tools.walk import U32, Word

__all__ = ["Decoder", "decode_frame", "decode_rows"]

ICMP = 1
TCP = 6
UDP = 17
ICMPV6 = 58
SCTP = 132
UDPLITE = 136

_NULL = 0
_ETHERNET = 1
_LOOP = 108
_SLL = 113
_SLL2 = 276
# The flag bits of pcap_tools.packet: kernels freeze plain integers of their own module.
_IP = 1
_PORTS = 2
_FRAGMENT = 4
_FOLLOWER = 8
_SNAPPED = 16
_MALFORMED = 32
_VERIFIABLE = 64
_MORE_FRAGMENTS = 128


class Decoder:
    """Decodes batches into rows that are used again for the next batch."""

    def __init__(self) -> None:
        self._rows = packet_rows(0)

    def __call__(self, batch: Batch) -> PacketRows:
        """One `PACKET` row a packet of the batch; valid until the next call."""
        if len(self._rows) < len(batch):
            self._rows = packet_rows(len(batch))
        rows = self._rows[: len(batch)]
        decode_rows(batch.data, batch.offset, batch.caplen, batch.wirelen, batch.link, rows)
        return rows


@kernel
def _be16(address: Word) -> Word:
    return np.int64(swap16(load16(address)))


@kernel
def _be32(address: Word) -> Word:
    return np.int64(swap32(load32(address)))


@kernel
def _byte(address: Word) -> Word:
    return np.int64(load_u8(address))


@kernel
def decode_rows(
    data: U8, offset: I64, caplen: U32, wirelen: U32, link: Word, rows: PacketRows
) -> None:
    """Decode frame i = data[offset[i] : offset[i] + caplen[i]] into rows[i], for all rows."""
    base = np.int64(data.ctypes.data)
    for i in range(len(rows)):
        decode_frame(base + offset[i], np.int64(caplen[i]), np.int64(wirelen[i]), link, rows[i])


@kernel
def decode_frame(frame: Word, caplen: Word, wirelen: Word, link: Word, row: Row) -> None:
    """Decode the frame of `caplen` bytes at address `frame` (`wirelen` on the wire) into `row`."""
    row.src_hi = row.src_lo = row.dst_hi = row.dst_lo = np.uint64(0)
    row.seq = row.ack = row.ip_id = row.vlan = np.uint32(0)
    row.l3 = row.l4 = np.int32(-1)
    row.ip_len = row.payload = np.int32(0)
    row.sport = row.dport = row.tcp_flags = row.ethertype = np.uint16(0)
    row.proto = row.version = np.uint8(0)
    row.flags = np.uint16(_SNAPPED if caplen < wirelen else 0)
    at = _link_layer(frame, caplen, link, row)
    if at < 0:
        return
    if at >= caplen:
        row.flags |= np.uint16(0 if caplen < wirelen else _MALFORMED)
        return
    version = _byte(frame + at) >> 4
    expected = 4 if row.ethertype == 0x0800 else 6 if row.ethertype == 0x86DD else version
    if version != expected or (version != 4 and version != 6):
        row.flags |= np.uint16(_MALFORMED)
        return
    row.l3 = np.int32(at)
    if version == 4:
        _ipv4(frame, at, caplen, wirelen, row)
    else:
        _ipv6(frame, at, caplen, wirelen, row)


@kernel
def _link_layer(frame: Word, caplen: Word, link: Word, row: Row) -> Word:
    """Offset of the IP header, or -1 for other than IP; sets ethertype, vlan, MALFORMED."""
    short = np.uint16(0 if row.flags & np.uint16(_SNAPPED) else _MALFORMED)
    if link in (_ETHERNET, _SLL):
        at = 14 if link == _ETHERNET else 16
        if caplen < at:
            row.flags |= short
            return -1
        kind = _be16(frame + at - 2)
    elif link == _SLL2:
        at = 20
        if caplen < at:
            row.flags |= short
            return -1
        kind = _be16(frame)
    elif link in (_NULL, _LOOP):
        # The address family before the packet has one number or another by system: the IP
        # version tells the same.
        return 4
    else:
        return 0
    vlan = 0
    while kind == 0x8100 or kind == 0x88A8 or kind == 0x9100:
        if caplen < at + 4:
            row.flags |= short
            row.ethertype = np.uint16(kind)
            return -1
        vlan = ((vlan & 0xFFF) << 12) | (_be16(frame + at) & 0xFFF)
        kind = _be16(frame + at + 2)
        at += 4
    row.vlan = np.uint32(vlan)
    row.ethertype = np.uint16(kind)
    if kind == 0x0800 or kind == 0x86DD:
        return at
    if kind == 0x8847 or kind == 0x8848:
        while at + 4 <= caplen:
            last = _byte(frame + at + 2) & 1
            at += 4
            if last:
                # Without a protocol field, the first nibble tells (RFC 4928); 0 is a control word.
                if at < caplen and (_byte(frame + at) >> 4 == 4 or _byte(frame + at) >> 4 == 6):
                    return at
                return -1
        row.flags |= short
        return -1
    if kind == 0x8864:
        if caplen < at + 8:
            row.flags |= short
            return -1
        inner = _be16(frame + at + 6)
        if inner == 0x0021 or inner == 0x0057:
            return at + 8
    return -1


@kernel
def _ipv4(frame: Word, at: Word, caplen: Word, wirelen: Word, row: Row) -> None:
    short = np.uint16(_SNAPPED if caplen < wirelen else _MALFORMED)
    row.version = np.uint8(4)
    if at + 20 > caplen:
        row.flags |= short
        row.l3 = np.int32(-1)
        row.version = np.uint8(0)
        return
    header = (_byte(frame + at) & 15) * 4
    total = _be16(frame + at + 2)
    if total == 0:
        # A segment that the network card would cut up (segmentation offload) has no length yet.
        total = wirelen - at
    row.src_lo = np.uint64(_be32(frame + at + 12))
    row.dst_lo = np.uint64(_be32(frame + at + 16))
    row.proto = np.uint8(_byte(frame + at + 9))
    row.ip_id = np.uint32(_be16(frame + at + 4))
    row.ip_len = np.int32(total)
    row.flags |= np.uint16(_IP)
    if header < 20 or total < header or at + total > wirelen:
        row.flags |= np.uint16(_MALFORMED)
        return
    _mark_snapped(at + total, caplen, row)
    fragment = _be16(frame + at + 6)
    if fragment & 0x2000:
        row.flags |= np.uint16(_FRAGMENT | _MORE_FRAGMENTS)
    if fragment & 0x1FFF:
        row.flags |= np.uint16(_FRAGMENT | _FOLLOWER)
    _transport(frame, at + header, at + total, caplen, row)


@kernel
def _ipv6(frame: Word, at: Word, caplen: Word, wirelen: Word, row: Row) -> None:
    short = np.uint16(_SNAPPED if caplen < wirelen else _MALFORMED)
    if at + 40 > caplen:
        row.flags |= short
        row.l3 = np.int32(-1)
        return
    row.version = np.uint8(6)
    total = 40 + _be16(frame + at + 4)
    kind = _byte(frame + at + 6)
    if total == 40 and kind != 59:
        # Segmentation offload, or a jumbogram (RFC 2675): the frame alone tells the length.
        total = wirelen - at
    row.src_hi = swap64(load64(frame + at + 8))
    row.src_lo = swap64(load64(frame + at + 16))
    row.dst_hi = swap64(load64(frame + at + 24))
    row.dst_lo = swap64(load64(frame + at + 32))
    row.ip_len = np.int32(total)
    row.flags |= np.uint16(_IP)
    row.proto = np.uint8(kind)
    if at + total > wirelen:
        row.flags |= np.uint16(_MALFORMED)
        return
    _mark_snapped(at + total, caplen, row)
    end = at + total
    here = at + 40
    while kind == 0 or kind == 43 or kind == 60 or kind == 44 or kind == 51:
        if here + 8 > end:
            row.flags |= np.uint16(_MALFORMED)
            return
        if here + 8 > caplen:
            return
        following = _byte(frame + here)
        if kind == 44:
            field = _be16(frame + here + 2)
            row.ip_id = np.uint32(_be32(frame + here + 4))
            if field & 1:
                row.flags |= np.uint16(_FRAGMENT | _MORE_FRAGMENTS)
            if field & 0xFFF8:
                row.flags |= np.uint16(_FRAGMENT | _FOLLOWER)
            length = 8
        elif kind == 51:
            length = (_byte(frame + here + 1) + 2) * 4
        else:
            length = (_byte(frame + here + 1) + 1) * 8
        kind = following
        row.proto = np.uint8(kind)
        here += length
        if here > end:
            row.flags |= np.uint16(_MALFORMED)
            return
        if row.flags & np.uint16(_FOLLOWER):
            break
    _transport(frame, here, end, caplen, row)


@kernel
def _mark_snapped(end: Word, caplen: Word, row: Row) -> None:
    """Only missing bytes of the IP packet count: link-layer padding and trailers do not."""
    if end > caplen:
        row.flags |= np.uint16(_SNAPPED)
    else:
        row.flags &= np.uint16(0xFFFF ^ _SNAPPED)


@kernel
def _transport(frame: Word, at: Word, end: Word, caplen: Word, row: Row) -> None:
    """Read the transport header at `at`; the IP packet ends at `end`, which may not be captured."""
    row.l4 = np.int32(at)
    row.payload = np.int32(end - at)
    if row.flags & np.uint16(_FOLLOWER):
        return
    proto = row.proto
    need = 0
    if proto == TCP:
        need = 20
    elif proto in (UDP, UDPLITE):
        need = 8
    elif proto == SCTP:
        need = 12
    elif proto in (ICMP, ICMPV6):
        need = 4
    else:
        return
    # RFC 8200 allows a first fragment without the whole transport header; none does so honestly.
    if at + need > end:
        row.flags |= np.uint16(_MALFORMED)
        return
    if at + need > caplen:
        return
    if proto in (ICMP, ICMPV6):
        _icmp(frame, at, end, caplen, row)
    else:
        row.sport = np.uint16(_be16(frame + at))
        row.dport = np.uint16(_be16(frame + at + 2))
    if proto == TCP:
        need = (_byte(frame + at + 12) >> 4) * 4
        row.seq = np.uint32(_be32(frame + at + 4))
        row.ack = np.uint32(_be32(frame + at + 8))
        row.tcp_flags = np.uint16(_be16(frame + at + 12) & 0x1FF)
        if need < 20 or at + need > end:
            row.flags |= np.uint16(_MALFORMED | _PORTS)
            return
    elif proto == UDP:
        length = _be16(frame + at + 4)
        # A UDP length of 0 stands for "all the rest" in jumbograms and segmentation offload.
        if length != 0 and (
            length < 8 or (at + length > end and not row.flags & np.uint16(_FRAGMENT))
        ):
            row.flags |= np.uint16(_MALFORMED | _PORTS)
            return
    row.payload = np.int32(end - at - need)
    row.flags |= np.uint16(_PORTS)
    if not row.flags & np.uint16(_FRAGMENT | _SNAPPED):
        row.flags |= np.uint16(_VERIFIABLE)


@kernel
def _icmp(frame: Word, at: Word, end: Word, caplen: Word, row: Row) -> None:
    kind = _byte(frame + at)
    row.sport = np.uint16(kind)
    row.dport = np.uint16(_byte(frame + at + 1))
    if row.proto == ICMP:
        echo = kind == 0 or kind == 8 or kind == 13 or kind == 14 or (15 <= kind <= 18)
    else:
        echo = kind == 128 or kind == 129
    if echo and at + 8 <= min(end, caplen):
        row.ack = np.uint32(_be16(frame + at + 4))
        row.seq = np.uint32(_be16(frame + at + 6))
