"""The flow table's kernel: find or open the flow of each packet, and account for it.

Open addressing with linear probing over 64-bit slots (upper half: hash, lower half: number + 1),
at most half full. The table points at the latest flow of a pair of endpoints; earlier ones stay in
the rows.
"""

from __future__ import annotations

import numpy as np

from pcap_tools.kernels import I32, I64, U8, U64, kernel
from pcap_tools.packet import Row
from pcap_tools.tcp import advance, starts_new_flow
from pcap_tools.walk import U32, Word

__all__ = ["rehash_flows", "rehash_groups", "track_rows"]

_TCP = 6
_UDP = 17
_ICMP = 1
_ICMPV6 = 58

_IP = 1
_PORTS = 2
_FRAGMENT = 4
_FOLLOWER = 8
_SNAPPED = 16
_MALFORMED = 32

_NON_IP = -1
_MALFORMED_PACKET = -2
_UNREADABLE = -3
_PENDING = -16

_REASSEMBLY_NS = 60 * 1_000_000_000  # RFC 8200, 4.5

_SYN = 2
_ACK = 16


@kernel
def _mix(word: Word) -> Word:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    word = np.uint64(word)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@kernel
def _end_hash(hi: Word, lo: Word, port: Word) -> Word:
    return _mix(np.uint64(hi) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(lo) + _mix(port))


@kernel
def _flow_hash(flow: Row) -> Word:
    # Both ends enter alike, so that both directions meet; the sum keeps a-to-a flows apart.
    ends = _end_hash(flow.hi[0], flow.lo[0], flow.port[0]) + _end_hash(
        flow.hi[1], flow.lo[1], flow.port[1]
    )
    return _mix(ends + (np.uint64(flow.vlan) << np.uint64(8)) + np.uint64(flow.proto))


@kernel
def _row_hash(row: Row, sport: Word, dport: Word) -> Word:
    ends = _end_hash(row.src_hi, row.src_lo, sport) + _end_hash(row.dst_hi, row.dst_lo, dport)
    return _mix(ends + (np.uint64(row.vlan) << np.uint64(8)) + np.uint64(row.proto))


@kernel
def _direction(flow: Row, row: Row, sport: Word, dport: Word) -> Word:
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


@kernel
def _slot(value: Word, number: Word) -> Word:
    return (np.uint64(value) & np.uint64(0xFFFFFFFF00000000)) | np.uint64(number + 1)


@kernel
def _key_ports(row: Row) -> Word:
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


@kernel
def _sender_is_server(row: Row) -> Word:
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


@kernel
def _open_flow(flow: Row, row: Row, sport: Word, dport: Word, time: Word) -> Word:
    """Initialise a flow with its first packet; the direction of that packet."""
    end = 1 if _sender_is_server(row) else 0
    flow.hi[end] = row.src_hi
    flow.lo[end] = row.src_lo
    flow.port[end] = sport
    flow.hi[1 - end] = row.dst_hi
    flow.lo[1 - end] = row.dst_lo
    flow.port[1 - end] = dport
    flow.vlan = row.vlan
    flow.proto = row.proto
    flow.version = row.version
    flow.first_ns = time
    flow.last_ns = time
    flow.hole[0] = flow.hole[1] = -1
    if row.proto == _ICMP or row.proto == _ICMPV6:
        # For the table: Zeek's convention, type and code of the first message.
        flow.start[0] = row.sport
        flow.start[1] = row.dport
    return end


@kernel
def _count(flow: Row, row: Row, end: Word, wirelen: Word, time: Word) -> None:
    flow.packets[end] += 1
    flow.bytes[end] += wirelen
    if row.flags & _SNAPPED:
        flow.truncated += 1
    flow.last_ns = max(flow.last_ns, time)
    flow.first_ns = min(flow.first_ns, time)


@kernel
def _find_group(groups: Row, slots: U64, fill: Row, row: Row, time: Word) -> Word:
    """The number of the fragmented datagram that `row` belongs to; opened when it is new."""
    mask = len(slots) - 1
    value = _row_hash(row, np.int64(row.ip_id) & 0xFFFF, np.int64(row.ip_id) >> 16)
    at = np.int64(value >> np.uint64(32)) & mask
    number = fill[1]
    while slots[at] != 0:
        if (slots[at] ^ value) >> np.uint64(32) == 0:
            found = np.int64(slots[at] & np.uint64(0xFFFFFFFF)) - 1
            group = groups[found]
            if (
                group.ip_id == row.ip_id
                and group.src_lo == row.src_lo
                and group.dst_lo == row.dst_lo
                and group.src_hi == row.src_hi
                and group.dst_hi == row.dst_hi
                and group.proto == row.proto
                and group.vlan == row.vlan
            ):
                # A second first fragment is another datagram's: the identification came round.
                if time - group.last_ns < _REASSEMBLY_NS and (
                    row.flags & _FOLLOWER or group.flow < 0
                ):
                    group.last_ns = time
                    return found
                break
        at = (at + 1) & mask
    slots[at] = _slot(value, number)
    fill[1] += 1
    group = groups[number]
    group.src_hi = row.src_hi
    group.src_lo = row.src_lo
    group.dst_hi = row.dst_hi
    group.dst_lo = row.dst_lo
    group.ip_id = row.ip_id
    group.vlan = row.vlan
    group.proto = row.proto
    group.flow = -1
    group.first_ns = time
    group.last_ns = time
    return number


@kernel
def _join_follower(group: Row, flows: Row, row: Row, wirelen: Word, time: Word) -> Word:
    """Account a fragment without ports to its datagram's flow; the flow's number or -1."""
    if group.flow >= 0:
        _count(flows[group.flow], row, group.direction, wirelen, time)
        return group.flow
    group.packets += 1
    group.bytes += wirelen
    if row.flags & _SNAPPED:
        group.truncated += 1
    return -1


@kernel
def _bind_group(group: Row, flow: Row, number: Word, end: Word) -> None:
    """The datagram's first fragment was found: what waited for it joins its flow."""
    group.flow = number
    group.direction = end
    flow.packets[end] += group.packets
    flow.bytes[end] += group.bytes
    flow.truncated += group.truncated
    if group.packets:
        flow.first_ns = min(flow.first_ns, group.first_ns)
    group.packets = group.bytes = group.truncated = 0


@kernel
def track_rows(
    rows: Row,
    wirelen: U32,
    time_ns: I64,
    start: int,
    flows: Row,
    slots: U64,
    holes: Row,
    pool: I32,
    groups: Row,
    group_slots: U64,
    fill: I64,
    idle_ns: int,
    owner: I32,
    direction: U8,
) -> int:
    """Account rows[start:]; owner[i] becomes packet i's flow, or a negative code, and direction[i]
    0 (client to server, and packets without a flow) or 1 (server to client).

    Returns the first packet that was not done because a table is full, or len(rows). `fill` is
    (flows, fragment groups) in use.
    """
    mask = len(slots) - 1
    room = min(len(flows), len(slots) // 2)
    group_room = min(len(groups), len(group_slots) // 2)
    for i in range(start, len(rows)):
        # A packet opens at most one flow and one group, and two holes in each direction.
        if fill[0] >= room or fill[1] >= group_room or pool[1] + 4 >= len(holes):
            return i
        row = rows[i]
        direction[i] = 0
        flags = np.int64(row.flags)
        time = time_ns[i]
        wire = np.int64(wirelen[i])
        if flags & _MALFORMED:
            owner[i] = _MALFORMED_PACKET
            continue
        if not flags & _IP:
            owner[i] = (
                _UNREADABLE
                if row.version
                or (flags & _SNAPPED and (row.ethertype == 0x0800 or row.ethertype == 0x86DD))
                else _NON_IP
            )
            continue
        proto = row.proto
        if flags & _FOLLOWER:
            number = _find_group(groups, group_slots, fill, row, time)
            joined = _join_follower(groups[number], flows, row, wire, time)
            owner[i] = joined if joined >= 0 else _PENDING - number
            if joined >= 0:
                direction[i] = groups[number].direction
            if joined >= 0 and proto == _TCP:
                # A fragment continues the segment whose first bytes were just seen.
                flow = flows[joined]
                end = np.int64(groups[number].direction)
                flow.next[end] = np.uint32((np.int64(flow.next[end]) + row.payload) & 0xFFFFFFFF)
            continue
        if not flags & _PORTS and proto in (_TCP, _UDP, _ICMP, _ICMPV6, 132, 136):
            owner[i] = _UNREADABLE
            continue
        sport, dport = _key_ports(row)
        value = _row_hash(row, sport, dport)
        at = np.int64(value >> np.uint64(32)) & mask
        number = np.int64(-1)
        end = np.int64(-1)
        while slots[at] != 0:
            if (slots[at] ^ value) >> np.uint64(32) == 0:
                found = np.int64(slots[at] & np.uint64(0xFFFFFFFF)) - 1
                end = _direction(flows[found], row, sport, dport)
                if end >= 0:
                    number = found
                    break
            at = (at + 1) & mask
        if number >= 0:
            flow = flows[number]
            if proto == _TCP:
                if starts_new_flow(flow, row, end):
                    number = np.int64(-1)
            elif time - flow.last_ns > idle_ns:
                number = np.int64(-1)
        if number < 0:
            number = fill[0]
            fill[0] += 1
            slots[at] = _slot(value, number)
            end = _open_flow(flows[number], row, sport, dport, time)
        flow = flows[number]
        _count(flow, row, end, wire, time)
        if proto == _TCP:
            advance(flow, row, end, holes, pool)
        else:
            flow.state[end] = 1
        if flags & _FRAGMENT:
            group = _find_group(groups, group_slots, fill, row, time)
            _bind_group(groups[group], flow, number, end)
        owner[i] = number
        direction[i] = end
    return len(rows)


@kernel
def rehash_flows(flows: Row, used: int, slots: U64) -> None:
    """Fill the empty table `slots` with the first `used` flows; the later of one key wins."""
    mask = len(slots) - 1
    for number in range(used):
        flow = flows[number]
        value = _flow_hash(flow)
        at = np.int64(value >> np.uint64(32)) & mask
        while slots[at] != 0:
            if (slots[at] ^ value) >> np.uint64(32) == 0:
                other = flows[np.int64(slots[at] & np.uint64(0xFFFFFFFF)) - 1]
                if _same_key(flow, other):
                    break
            at = (at + 1) & mask
        slots[at] = _slot(value, number)


@kernel
def _same_key(flow: Row, other: Row) -> bool:
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


@kernel
def rehash_groups(groups: Row, used: int, slots: U64) -> None:
    """Fill the empty table `slots` with the first `used` fragment groups."""
    mask = len(slots) - 1
    for number in range(used - 1, -1, -1):  # the latest of one key is to be found first
        group = groups[number]
        value = _row_hash(group, np.int64(group.ip_id) & 0xFFFF, np.int64(group.ip_id) >> 16)
        at = np.int64(value >> np.uint64(32)) & mask
        while slots[at] != 0:
            at = (at + 1) & mask
        slots[at] = _slot(value, number)
