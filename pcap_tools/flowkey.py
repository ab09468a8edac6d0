"""What makes packets one flow: the key, its hash, and who of the two ends opened it."""

from __future__ import annotations

import numpy as np

from pcap_tools.kernels import inner
from pcap_tools.packet import Row
from pcap_tools.walk import Word

__all__ = [
    "direction_of",
    "flow_hash",
    "key_ports",
    "row_hash",
    "same_key",
    "sender_is_server",
    "slot_of",
]

_TCP = 6
_ICMP = 1
_ICMPV6 = 58
_SYN = 2
_ACK = 16


@inner
def _mix(word: Word) -> Word:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    word = np.uint64(word)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@inner
def _end_hash(hi: Word, lo: Word, port: Word) -> Word:
    return _mix(np.uint64(hi) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(lo) + _mix(port))


@inner
def flow_hash(flow: Row) -> Word:
    # Both ends enter alike, so that both directions meet; the sum keeps a-to-a flows apart.
    ends = _end_hash(flow.hi[0], flow.lo[0], flow.port[0]) + _end_hash(
        flow.hi[1], flow.lo[1], flow.port[1]
    )
    return _mix(ends + (np.uint64(flow.vlan) << np.uint64(8)) + np.uint64(flow.proto))


@inner
def row_hash(row: Row, sport: Word, dport: Word) -> Word:
    ends = _end_hash(row.src_hi, row.src_lo, sport) + _end_hash(row.dst_hi, row.dst_lo, dport)
    return _mix(ends + (np.uint64(row.vlan) << np.uint64(8)) + np.uint64(row.proto))


@inner
def direction_of(flow: Row, row: Row, sport: Word, dport: Word) -> Word:
    """0 client to server, 1 server to client, -1 another pair of endpoints."""
    if flow.proto != row.proto or flow.version != row.version or flow.vlan != row.vlan:
        return -1
    if (
        flow.lo[0] == row.src_lo
        and flow.lo[1] == row.dst_lo
        and flow.port[0] == sport
        and flow.port[1] == dport
        and flow.hi[0] == row.src_hi
        and flow.hi[1] == row.dst_hi
    ):
        return 0
    if (
        flow.lo[1] == row.src_lo
        and flow.lo[0] == row.dst_lo
        and flow.port[1] == sport
        and flow.port[0] == dport
        and flow.hi[1] == row.src_hi
        and flow.hi[0] == row.dst_hi
    ):
        return 1
    return -1


@inner
def slot_of(value: Word, number: Word) -> Word:
    return (np.uint64(value) & np.uint64(0xFFFFFFFF00000000)) | np.uint64(number + 1)


@inner
def key_ports(row: Row) -> Word:
    """The two "ports" of the flow key.

    ICMP queries and their answers share a flow by identifier; the class keeps other messages of
    the same hosts apart: key ports are (identifier, 0) and (0, type) packed alike for both ways.
    """
    proto = row.proto
    if proto in (_ICMP, _ICMPV6):
        kind = np.int64(row.sport)
        if proto == _ICMPV6 and (kind == 128 or kind == 129):
            return np.int64(row.ack), np.int64(row.ack)
        if proto == _ICMP and (kind == 0 or kind == 8):
            return np.int64(row.ack), np.int64(row.ack)
        if proto == _ICMP and (13 <= kind <= 18):
            return np.int64(row.ack), np.int64(row.ack)
        return kind, kind
    return np.int64(row.sport), np.int64(row.dport)


@inner
def sender_is_server(row: Row) -> Word:
    """Who opened a flow whose first captured packet is `row`: the other end?

    TCP: a SYN is the client's, a SYN-ACK the server's; without a handshake the lower port is the
    server's. UDP, SCTP: a first packet from a system port (RFC 6335) to another is an answer.
    ICMP: an answer is the server's.
    """
    sport = row.sport
    dport = row.dport
    if row.proto == _TCP:
        if row.tcp_flags & _SYN:
            return bool(row.tcp_flags & _ACK)
        return sport < dport
    if row.proto == _ICMP:
        return sport == 0 or sport == 14 or sport == 16 or sport == 18
    if row.proto == _ICMPV6:
        return sport == 129
    return sport < 1024 and dport >= 1024


@inner
def same_key(flow: Row, other: Row) -> bool:
    if flow.proto != other.proto or flow.version != other.version or flow.vlan != other.vlan:
        return False
    for end in range(2):
        if (
            flow.lo[0] == other.lo[end]
            and flow.lo[1] == other.lo[1 - end]
            and flow.port[0] == other.port[end]
            and flow.port[1] == other.port[1 - end]
            and flow.hi[0] == other.hi[end]
            and flow.hi[1] == other.hi[1 - end]
        ):
            return True
    return False
