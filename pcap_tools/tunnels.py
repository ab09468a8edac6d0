"""Look into tunnels: from the row of a tunnel's packet to that of the IP packet it carries.

IP in IP (RFC 2003, RFC 4213), MPLS in IP (RFC 4023), GRE (RFC 2784, RFC 2890, RFC 1701's routing;
NVGRE, RFC 7637; in UDP, RFC 8086; version 1 with PPP, RFC 2637), ERSPAN I, II and III
(draft-foschiano-erspan), VXLAN (RFC 7348, also on Linux's first port), Geneve (RFC 8926), GTP-U
(3GPP TS 29.281) and Teredo (RFC 4380), each in each other, up to `DEPTH`. What is neither encrypted
nor compressed can be read; PPP payloads other than IP stay their tunnel's.

A packet is believed to be a tunnel's by its protocol number or UDP port, and by an inner IP
header whose lengths agree with what surrounds it. Otherwise, and when it is not IP (ARP in
VXLAN), the row stays as it was: that of the tunnel. Pieces of a fragmented tunnel packet stay
too, and are counted: the inner packet is not reassembled.

Flows by inner headers follow Suricata: the number of tunnels around a packet is part of the flow's
key (its `recursion_level`, flow-hash.c), VLAN tags are, tunnel identifiers (VNI, TEID, GRE key,
session) are not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pcap_tools.decode import network
from pcap_tools.flowrow import FlowRows
from pcap_tools.kernels import I64, U8, inner, kernel
from pcap_tools.linklayer import be16, byte_at, payload_of
from pcap_tools.packet import PacketRows, Row
from pcap_tools.walk import U32, Word

__all__ = ["DEPTH", "UDP_PORTS", "descend_rows", "inner_frame", "tunnel_flows"]

DEPTH = 8
"""Tunnels in tunnels that are followed."""

UDP_PORTS = (4789, 8472, 6081, 2152, 3544, 4754)
"""Ports by which VXLAN (IANA's and Linux's), Geneve, GTP-U, Teredo and GRE are recognised."""

_IPIP = 4
_UDP = 17
_IPV6 = 41
_GRE = 47
_MPLS = 137

_IP = 1
_PORTS = 2
_FRAGMENT = 4
_FOLLOWER = 8
_SNAPPED = 16
_MALFORMED = 32
_TUNNELLED = 256

# What a tunnel carries, as an EtherType (IEEE and IANA registries).
_NOTHING = 0
_V4 = 0x0800
_V6 = 0x86DD
_BRIDGED = 0x6558  # transparent Ethernet bridging
_PPP = 0x880B
_LABELS = 0x8847
_ANY_IP = 1  # IPv4 or IPv6, by the first nibble


def tunnel_flows(rows: FlowRows) -> npt.NDArray[np.bool_]:
    """Which flows (FLOW rows) are tunnels, by protocol number or UDP port alone."""
    udp = (rows["proto"] == _UDP) & np.isin(rows["port"], UDP_PORTS).any(axis=1)
    found: npt.NDArray[np.bool_] = udp | np.isin(rows["proto"], [_IPIP, _IPV6, _GRE, _MPLS])
    return found


@kernel
def descend_rows(data: U8, offset: I64, caplen: U32, rows: PacketRows, counts: I64) -> None:
    """Make rows[i], as decoded, that of the innermost packet of frame i, for all rows.

    Adds to counts[0] the packets that were in a tunnel, to counts[1] the fragments of tunnels.
    """
    base = np.int64(data.ctypes.data)
    scratch = np.zeros(1, rows.dtype)
    for i in range(len(rows)):
        found = inner_frame(base + offset[i], np.int64(caplen[i]), rows[i], scratch[0])
        if found > 0:
            counts[0] += 1
        elif found < 0:
            counts[1] += 1


@kernel
def inner_frame(frame: Word, caplen: Word, row: Row, scratch: Row) -> Word:
    """Make `row` that of the innermost packet in the frame of `caplen` bytes at address `frame`.

    Returns the number of tunnels entered (0: `row` is as it was), or -1 for a fragment of a
    tunnel. `scratch` is another row, to be overwritten.
    """
    depth = 0
    while depth < DEPTH:
        proto = row.proto
        if proto not in (_IPIP, _UDP, _IPV6, _GRE, _MPLS):
            return depth
        flags = np.int64(row.flags)
        if flags & (_IP | _MALFORMED) != _IP or row.l4 < 0:
            return depth
        if flags & _FRAGMENT:
            opaque = proto != _UDP or (flags & _PORTS and row.dport in UDP_PORTS)
            return -1 if opaque and depth == 0 else depth
        end = np.int64(row.l3) + row.ip_len
        limit = min(caplen, end)
        at = np.int64(row.l4)
        if proto == _IPIP:
            kind = _V4
        elif proto == _IPV6:
            kind = _V6
        elif proto == _MPLS:
            kind = _LABELS
        elif proto == _GRE:
            kind, at = _gre(frame, at, limit)
        else:
            if not flags & _PORTS:
                return depth
            kind, at = _in_udp(frame, at + 8, limit, np.int64(row.sport), np.int64(row.dport))
        if kind == _NOTHING or not _enter(frame, at, kind, limit, end, row, scratch):
            return depth
        depth += 1
        _take(row, scratch, depth)
    return depth


@inner
def _enter(
    frame: Word, at: Word, kind: Word, limit: Word, end: Word, row: Row, scratch: Row
) -> bool:
    """Decode what is at `at` into `scratch`; whether it is an IP packet that makes sense."""
    scratch.src_hi = scratch.src_lo = scratch.dst_hi = scratch.dst_lo = np.uint64(0)
    scratch.seq = scratch.ack = scratch.ip_id = np.uint32(0)
    scratch.l3 = scratch.l4 = np.int32(-1)
    scratch.ip_len = scratch.payload = np.int32(0)
    scratch.sport = scratch.dport = scratch.tcp_flags = scratch.ethertype = np.uint16(0)
    scratch.proto = scratch.version = np.uint8(0)
    scratch.flags = np.uint16(_SNAPPED if limit < end else 0)
    scratch.vlan = np.uint32(np.int64(row.vlan) & 0xFFFFFF)
    if kind == _PPP:
        kind, at = _ppp(frame, at, limit)
    elif kind == _BRIDGED:
        if at + 14 > limit:
            return False
        at += 14
        kind = be16(frame + at - 2)
    if kind == _NOTHING:
        return False
    if kind == _ANY_IP:
        scratch.ethertype = np.uint16(0)
    else:
        at = payload_of(frame, at, kind, limit, scratch)
        if at < 0:
            return False
    network(frame, at, limit, end, scratch)
    return bool(np.int64(scratch.flags) & (_IP | _MALFORMED) == _IP)


@inner
def _take(row: Row, inner: Row, depth: Word) -> None:
    row.src_hi = inner.src_hi
    row.src_lo = inner.src_lo
    row.dst_hi = inner.dst_hi
    row.dst_lo = inner.dst_lo
    row.seq = inner.seq
    row.ack = inner.ack
    row.ip_id = inner.ip_id
    row.vlan = np.uint32((np.int64(inner.vlan) & 0xFFFFFF) | (depth << 24))
    row.l3 = inner.l3
    row.l4 = inner.l4
    row.ip_len = inner.ip_len
    row.payload = inner.payload
    row.sport = inner.sport
    row.dport = inner.dport
    row.tcp_flags = inner.tcp_flags
    row.flags = inner.flags | np.uint16(_TUNNELLED)
    row.proto = inner.proto
    row.version = inner.version
    row.ethertype = inner.ethertype


@inner
def _gre(frame: Word, at: Word, limit: Word) -> Word:
    """(kind, offset) of what a GRE packet at `at` carries; nothing from `limit` on is read."""
    if at + 8 > limit:
        return _NOTHING, at
    bits = be16(frame + at)
    kind = be16(frame + at + 2)
    version = bits & 7
    if version == 1:
        # Enhanced GRE (RFC 2637): a key always; a packet without a sequence number has no payload.
        if kind != _PPP or bits & 0x3000 != 0x3000:
            return _NOTHING, at
        return _PPP, at + 12 + (4 if bits & 0x0080 else 0)
    if version != 0:
        return _NOTHING, at
    at += 4
    if bits & 0xC000:  # checksum and offset are there when either is used
        at += 4
    if bits & 0x2000:
        at += 4
    if bits & 0x1000:
        at += 4
    while bits & 0x4000:
        if at + 4 > limit:
            return _NOTHING, at
        length = byte_at(frame + at + 3)
        at += 4 + length
        if length == 0:
            break
    if kind == 0x88BE:
        # ERSPAN: a sequence number tells type II, with 8 bytes of its own, from type I.
        return _BRIDGED, at + (8 if bits & 0x1000 else 0)
    if kind == 0x22EB:
        # ERSPAN III: the last of its 12 bytes tells whether 8 of the platform follow.
        if at + 12 > limit:
            return _NOTHING, at
        return _BRIDGED, at + (20 if byte_at(frame + at + 11) & 1 else 12)
    if kind in (_V4, _V6, _BRIDGED, _PPP, _LABELS, 0x8848, 0x8100, 0x88A8, 0x8864):
        return kind, at
    return _NOTHING, at


@inner
def _ppp(frame: Word, at: Word, limit: Word) -> Word:
    """(kind, offset) behind a PPP header (RFC 1661, RFC 1662), compressed or not."""
    if at + 4 > limit:
        return _NOTHING, at
    if be16(frame + at) == 0xFF03:
        at += 2
    protocol = byte_at(frame + at)
    at += 1
    if not protocol & 1:
        protocol = (protocol << 8) | byte_at(frame + at)
        at += 1
    if protocol == 0x21:
        return _V4, at
    if protocol == 0x57:
        return _V6, at
    if protocol == 0x281 or protocol == 0x283:
        return _LABELS, at
    return _NOTHING, at


@inner
def _in_udp(frame: Word, at: Word, limit: Word, sport: Word, dport: Word) -> Word:
    """(kind, offset) of what a UDP payload at `at` carries, by its ports and its header."""
    if at + 8 > limit:
        return _NOTHING, at
    first = byte_at(frame + at)
    if dport == 4789 or dport == 8472:
        return _BRIDGED if first & 0x08 else _NOTHING, at + 8
    if dport == 6081:
        if first >> 6 != 0:
            return _NOTHING, at
        kind = be16(frame + at + 2)
        if kind not in (_V4, _V6, _BRIDGED, _LABELS):
            return _NOTHING, at
        return kind, at + 8 + (first & 0x3F) * 4
    if dport == 4754:
        return _gre(frame, at, limit)
    if dport == 2152 or sport == 2152:
        return _gtp(frame, at, limit)
    if dport == 3544 or sport == 3544:
        return _teredo(frame, at, limit)
    return _NOTHING, at


@inner
def _gtp(frame: Word, at: Word, limit: Word) -> Word:
    """GTP-U, version 1: a G-PDU's payload behind options and extension headers."""
    first = byte_at(frame + at)
    if first >> 4 != 3 or byte_at(frame + at + 1) != 0xFF:
        return _NOTHING, at
    at += 8
    if first & 7:
        if at + 4 > limit:
            return _NOTHING, at
        following = byte_at(frame + at + 3) if first & 4 else 0
        at += 4
        while following:
            if at >= limit:
                return _NOTHING, at
            length = byte_at(frame + at) * 4
            if length == 0 or at + length > limit:
                return _NOTHING, at
            at += length
            following = byte_at(frame + at - 1)
    return _ANY_IP, at


@inner
def _teredo(frame: Word, at: Word, limit: Word) -> Word:
    """Teredo: IPv6 behind an authentication and an origin indication (RFC 4380, 5.1.1)."""
    if be16(frame + at) == 0x0001:
        at += 13 + byte_at(frame + at + 2) + byte_at(frame + at + 3)
        if at + 8 > limit:
            return _NOTHING, at
    if be16(frame + at) == 0x0000:
        at += 8
    return _V6, at
