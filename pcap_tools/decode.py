"""Decode frames into rows of `PACKET`: link layer, IP, transport. No read leaves the frame.

Link layer: Ethernet with any number of IEEE 802.1Q and 802.1ad tags, MPLS (RFC 3032), also with
Ethernet behind the labels (RFC 4448), and PPPoE sessions (RFC 2516); raw IP; Linux cooked v1 and
v2; BSD loopback. IPv4 (RFC 791) with options and fragments; IPv6 (RFC 8200) with hop-by-hop,
routing, destination, fragment and authentication headers (RFC 4302). TCP, UDP (also UDP-Lite),
ICMP, ICMPv6 and SCTP. Tunnels (GRE, VXLAN, IP in IP …) are read as their outer flow, or, on
request, as what they carry: pcap_tools.tunnels.
"""

from __future__ import annotations

import numpy as np

from pcap_tools.capture import Batch
from pcap_tools.kernels import I64, U8, inlined, inner, kernel, load64, swap64
from pcap_tools.linklayer import be16, be32, byte_at, link_layer
from pcap_tools.packet import PacketRows, Row, packet_rows
from pcap_tools.walk import U32, Word

__all__ = ["Decoder", "decode_frame", "decode_rows", "network"]

ICMP = 1
TCP = 6
UDP = 17
ICMPV6 = 58
SCTP = 132
UDPLITE = 136

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
    """Decodes batches into rows that are used again for the next batch.

    With `inner`, the row of a tunnel's packet describes the innermost IP packet that can be read.
    `tunnelled` then counts such packets, and `opaque` those of tunnels that cannot be looked into,
    because the packet that carries the tunnel is a fragment.
    """

    def __init__(self, inner: bool = False) -> None:
        self.inner = inner
        self._rows = packet_rows(0)
        self._counts = np.zeros(2, np.int64)

    @property
    def tunnelled(self) -> int:
        """Packets so far that were read by their inner headers; 0 without `inner`."""
        return int(self._counts[0])

    @property
    def opaque(self) -> int:
        """Fragments so far that carry a piece of a tunnelled packet; 0 without `inner`."""
        return int(self._counts[1])

    def __call__(self, batch: Batch) -> PacketRows:
        """One `PACKET` row a packet of the batch; valid until the next call."""
        if len(self._rows) < len(batch):
            self._rows = packet_rows(len(batch))
        rows = self._rows[: len(batch)]
        decode_rows(batch.data, batch.offset, batch.caplen, batch.wirelen, batch.link, rows)
        if self.inner:
            # Only who looks into tunnels loads, or the first time compiles, what that takes.
            from pcap_tools.tunnels import descend_rows

            descend_rows(batch.data, batch.offset, batch.caplen, rows, self._counts)
        return rows


@kernel
def decode_rows(
    data: U8, offset: I64, caplen: U32, wirelen: U32, link: Word, rows: PacketRows
) -> None:
    """Decode frame i = data[offset[i] : offset[i] + caplen[i]] into rows[i], for all rows."""
    base = np.int64(data.ctypes.data)
    for i in range(len(rows)):
        decode_frame(base + offset[i], np.int64(caplen[i]), np.int64(wirelen[i]), link, rows[i])


@inner
def decode_frame(frame: Word, caplen: Word, wirelen: Word, link: Word, row: Row) -> None:
    """Decode the frame of `caplen` bytes at address `frame` (`wirelen` on the wire) into `row`."""
    row.src_hi = row.src_lo = row.dst_hi = row.dst_lo = np.uint64(0)
    row.seq = row.ack = row.ip_id = row.vlan = np.uint32(0)
    row.l3 = row.l4 = np.int32(-1)
    row.ip_len = row.payload = np.int32(0)
    row.sport = row.dport = row.tcp_flags = row.ethertype = np.uint16(0)
    row.proto = row.version = np.uint8(0)
    row.flags = np.uint16(_SNAPPED if caplen < wirelen else 0)
    at = link_layer(frame, caplen, link, row)
    if at < 0:
        return
    network(frame, at, caplen, wirelen, row)


@inlined
def network(frame: Word, at: Word, caplen: Word, wirelen: Word, row: Row) -> None:
    """Decode the IP packet at offset `at` of a frame whose `row` has its link layer already.

    The packet must end before offset `wirelen`, and nothing from `caplen` on is read.
    """
    if at >= caplen:
        row.flags |= np.uint16(0 if caplen < wirelen else _MALFORMED)
        return
    version = byte_at(frame + at) >> 4
    expected = 4 if row.ethertype == 0x0800 else 6 if row.ethertype == 0x86DD else version
    if version != expected or (version != 4 and version != 6):
        row.flags |= np.uint16(_MALFORMED)
        return
    row.l3 = np.int32(at)
    if version == 4:
        _ipv4(frame, at, caplen, wirelen, row)
    else:
        _ipv6(frame, at, caplen, wirelen, row)


@inner
def _ipv4(frame: Word, at: Word, caplen: Word, wirelen: Word, row: Row) -> None:
    short = np.uint16(_SNAPPED if caplen < wirelen else _MALFORMED)
    row.version = np.uint8(4)
    if at + 20 > caplen:
        row.flags |= short
        row.l3 = np.int32(-1)
        row.version = np.uint8(0)
        return
    header = (byte_at(frame + at) & 15) * 4
    total = be16(frame + at + 2)
    if total == 0:
        # A segment that the network card would cut up (segmentation offload) has no length yet.
        total = wirelen - at
    row.src_lo = np.uint64(be32(frame + at + 12))
    row.dst_lo = np.uint64(be32(frame + at + 16))
    row.proto = np.uint8(byte_at(frame + at + 9))
    row.ip_id = np.uint32(be16(frame + at + 4))
    row.ip_len = np.int32(total)
    row.flags |= np.uint16(_IP)
    if header < 20 or total < header or at + total > wirelen:
        row.flags |= np.uint16(_MALFORMED)
        return
    _mark_snapped(at + total, caplen, row)
    fragment = be16(frame + at + 6)
    if fragment & 0x2000:
        row.flags |= np.uint16(_FRAGMENT | _MORE_FRAGMENTS)
    if fragment & 0x1FFF:
        row.flags |= np.uint16(_FRAGMENT | _FOLLOWER)
    _transport(frame, at + header, at + total, caplen, row)


@inner
def _ipv6(frame: Word, at: Word, caplen: Word, wirelen: Word, row: Row) -> None:
    short = np.uint16(_SNAPPED if caplen < wirelen else _MALFORMED)
    if at + 40 > caplen:
        row.flags |= short
        row.l3 = np.int32(-1)
        return
    row.version = np.uint8(6)
    total = 40 + be16(frame + at + 4)
    kind = byte_at(frame + at + 6)
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
        following = byte_at(frame + here)
        if kind == 44:
            field = be16(frame + here + 2)
            row.ip_id = np.uint32(be32(frame + here + 4))
            if field & 1:
                row.flags |= np.uint16(_FRAGMENT | _MORE_FRAGMENTS)
            if field & 0xFFF8:
                row.flags |= np.uint16(_FRAGMENT | _FOLLOWER)
            length = 8
        elif kind == 51:
            length = (byte_at(frame + here + 1) + 2) * 4
        else:
            length = (byte_at(frame + here + 1) + 1) * 8
        kind = following
        row.proto = np.uint8(kind)
        here += length
        if here > end:
            row.flags |= np.uint16(_MALFORMED)
            return
        if row.flags & np.uint16(_FOLLOWER):
            break
    _transport(frame, here, end, caplen, row)


@inner
def _mark_snapped(end: Word, caplen: Word, row: Row) -> None:
    """Only missing bytes of the IP packet count: link-layer padding and trailers do not."""
    if end > caplen:
        row.flags |= np.uint16(_SNAPPED)
    else:
        row.flags &= np.uint16(0xFFFF ^ _SNAPPED)


@inner
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
        row.sport = np.uint16(be16(frame + at))
        row.dport = np.uint16(be16(frame + at + 2))
    if proto == TCP:
        need = (byte_at(frame + at + 12) >> 4) * 4
        row.seq = np.uint32(be32(frame + at + 4))
        row.ack = np.uint32(be32(frame + at + 8))
        row.tcp_flags = np.uint16(be16(frame + at + 12) & 0x1FF)
        if need < 20 or at + need > end:
            row.flags |= np.uint16(_MALFORMED | _PORTS)
            return
    elif proto == UDP:
        length = be16(frame + at + 4)
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


@inner
def _icmp(frame: Word, at: Word, end: Word, caplen: Word, row: Row) -> None:
    kind = byte_at(frame + at)
    row.sport = np.uint16(kind)
    row.dport = np.uint16(byte_at(frame + at + 1))
    if row.proto == ICMP:
        echo = kind == 0 or kind == 8 or kind == 13 or kind == 14 or (15 <= kind <= 18)
    else:
        echo = kind == 128 or kind == 129
    if echo and at + 8 <= min(end, caplen):
        row.ack = np.uint32(be16(frame + at + 4))
        row.seq = np.uint32(be16(frame + at + 6))
