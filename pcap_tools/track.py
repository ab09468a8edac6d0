"""The flow table's kernel: find or open the flow of each packet, and account for it.

Open addressing with linear probing over 64-bit slots (upper half: hash, lower half: number + 1),
at most half full. The table points at the latest flow of a pair of endpoints; earlier ones stay in
the rows.
"""

from __future__ import annotations

import numpy as np

from pcap_tools.flowkey import (
    direction_of,
    flow_hash,
    key_ports,
    row_hash,
    same_key,
    sender_is_server,
    slot_of,
)
from pcap_tools.kernels import I32, I64, U8, U64, inner, kernel, prefetch
from pcap_tools.packet import Row
from pcap_tools.tcp import advance, starts_new_flow
from pcap_tools.walk import U32, Word

__all__ = [
    "AHEAD",
    "count_frames",
    "in_order",
    "rehash_flows",
    "rehash_groups",
    "track_rows",
]

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
_SYN_FIN_RST = 7
_HALF = 1 << 31

AHEAD = 32
"""Packets looked at together, so that their cache misses overlap."""


@inner
def _open_flow(flow: Row, row: Row, sport: Word, dport: Word, time: Word) -> Word:
    """Initialise a flow with its first packet; the direction of that packet."""
    end = 1 if sender_is_server(row) else 0
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


@inner
def _count(flow: Row, row: Row, end: Word, wirelen: Word, time: Word) -> None:
    flow.packets[end] += 1
    flow.bytes[end] += wirelen
    if row.flags & _SNAPPED:
        flow.truncated += 1
    flow.last_ns = max(flow.last_ns, time)
    flow.first_ns = min(flow.first_ns, time)


@inner
def _find_group(groups: Row, slots: U64, fill: Row, row: Row, time: Word) -> Word:
    """The number of the fragmented datagram that `row` belongs to; opened when it is new."""
    mask = len(slots) - 1
    value = row_hash(row, np.int64(row.ip_id) & 0xFFFF, np.int64(row.ip_id) >> 16)
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
    slots[at] = slot_of(value, number)
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


@inner
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


@inner
def _apart(
    row: Row, wire: Word, time: Word, flows: Row, groups: Row, group_slots: U64, fill: I64
) -> Word:
    """Account a packet without a flow key of its own: its datagram's flow, or a negative code."""
    flags = np.int64(row.flags)
    if flags & _MALFORMED:
        return _MALFORMED_PACKET
    if not flags & _IP:
        cut = flags & _SNAPPED and (row.ethertype == 0x0800 or row.ethertype == 0x86DD)
        return _UNREADABLE if row.version or cut else _NON_IP
    number = _find_group(groups, group_slots, fill, row, time)
    joined = _join_follower(groups[number], flows, row, wire, time)
    if joined < 0:
        return _PENDING - number
    if row.proto == _TCP:
        # A fragment continues the segment whose first bytes were just seen.
        flow = flows[joined]
        end = np.int64(groups[number].direction)
        flow.next[end] = np.uint32((np.int64(flow.next[end]) + row.payload) & 0xFFFFFFFF)
    return joined


@inner
def _way_of(row: Row, time: Word, groups: Row, group_slots: U64, fill: I64) -> Word:
    """The direction of a fragment whose datagram is known."""
    return np.int64(groups[_find_group(groups, group_slots, fill, row, time)].direction)


@inner
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
def in_order(flow: Row, row: Row, end: Word) -> bool:
    """Take a segment into its flow if that is all it takes: the next bytes of an open connection.

    Nine packets of ten are such. False, and nothing changed, when `advance` has to look.
    """
    peer = 1 - end
    if (
        row.tcp_flags & _SYN_FIN_RST
        or flow.state[end] == 0
        or not flow.known[0]
        or not flow.known[1]
        or row.seq != flow.next[end]
    ):
        return False
    if row.tcp_flags & _ACK:
        ahead = np.uint32(row.ack - flow.next[peer])
        if ahead != 0 and ahead < _HALF:
            return False
        if not flow.sized[peer] and np.uint32(row.ack - flow.start[peer]) > 1:
            return False
    if row.payload > 0:
        if not flow.sized[end]:
            return False
        flow.next[end] = np.uint32(row.seq + np.uint32(row.payload))
    elif end == 0 and row.tcp_flags & _ACK:
        flow.spoiled = 1
    return True


@inner
def _look_ahead(
    rows: Row, start: Word, stop: Word, flows: Row, slots: U64, values: U64, keys: I64
) -> None:
    """Hash the rows start … stop, and begin to fetch what the tracker will need of each."""
    mask = len(slots) - 1
    table = np.int64(slots.ctypes.data)
    base = np.int64(flows.ctypes.data)
    size = flows.itemsize
    for i in range(start, stop):
        row = rows[i]
        sport, dport = key_ports(row)
        value = row_hash(row, sport, dport)
        values[i - start] = value
        keys[i - start] = (sport << 16) | dport
        prefetch(table + 8 * (np.int64(value >> np.uint64(32)) & mask))
    for k in range(stop - start):
        slot = slots[np.int64(values[k] >> np.uint64(32)) & mask]
        if slot != 0:
            flow = base + size * (np.int64(slot & np.uint64(0xFFFFFFFF)) - 1)
            prefetch(flow)
            prefetch(flow + 64)


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
    values: U64,
    keys: I64,
) -> int:
    """Account rows[start:]; owner[i] becomes packet i's flow, or a negative code, and direction[i]
    0 (client to server, and packets without a flow) or 1 (server to client).

    Returns the first packet that was not done because a table is full, or len(rows). `fill` is
    (flows, fragment groups) in use; `values` and `keys` are room for AHEAD entries.
    """
    mask = len(slots) - 1
    room = min(len(flows), len(slots) // 2)
    group_room = min(len(groups), len(group_slots) // 2)
    seen = start
    for i in range(start, len(rows)):
        # A packet opens at most one flow and one group, and two holes in each direction.
        if fill[0] >= room or fill[1] >= group_room or pool[1] + 4 >= len(holes):
            return i
        if i == seen:
            seen = min(i + AHEAD, len(rows))
            ahead = i
            _look_ahead(rows, i, seen, flows, slots, values, keys)
        row = rows[i]
        direction[i] = 0
        flags = np.int64(row.flags)
        time = time_ns[i]
        wire = np.int64(wirelen[i])
        if flags & (_MALFORMED | _FOLLOWER) or not flags & _IP:
            owner[i] = _apart(row, wire, time, flows, groups, group_slots, fill)
            if owner[i] >= 0:
                direction[i] = _way_of(row, time, groups, group_slots, fill)
            continue
        proto = row.proto
        if not flags & _PORTS and proto in (_TCP, _UDP, _ICMP, _ICMPV6, 132, 136):
            owner[i] = _UNREADABLE
            continue
        sport = keys[i - ahead] >> 16
        dport = keys[i - ahead] & 0xFFFF
        value = values[i - ahead]
        at = np.int64(value >> np.uint64(32)) & mask
        number = np.int64(-1)
        end = np.int64(-1)
        while slots[at] != 0:
            if (slots[at] ^ value) >> np.uint64(32) == 0:
                found = np.int64(slots[at] & np.uint64(0xFFFFFFFF)) - 1
                end = direction_of(flows[found], row, sport, dport)
                if end >= 0:
                    number = found
                    break
            at = (at + 1) & mask
        if number >= 0:
            flow = flows[number]
            if proto == _TCP:
                if row.tcp_flags & _SYN and starts_new_flow(flow, row, end):
                    number = np.int64(-1)
            elif time - flow.last_ns > idle_ns:
                number = np.int64(-1)
        if number < 0:
            number = fill[0]
            fill[0] += 1
            slots[at] = slot_of(value, number)
            end = _open_flow(flows[number], row, sport, dport, time)
        flow = flows[number]
        _count(flow, row, end, wire, time)
        if proto == _TCP:
            if not in_order(flow, row, end):
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
def count_frames(owner: I32, wirelen: U32, time_ns: I64, frames: I64, bounds: I64) -> None:
    """Add packets and bytes to rows of `frames`: 0 … 3 for owners −4 … −1, 4 for flows.

    Fragments that wait for their first count as flows' until nobody claims them. `bounds` are the
    first and the last time.
    """
    for i in range(len(owner)):
        place = owner[i] + 4 if _PENDING < owner[i] < 0 else 4
        frames[place, 0] += 1
        frames[place, 1] += np.int64(wirelen[i])
        bounds[0] = min(bounds[0], time_ns[i])
        bounds[1] = max(bounds[1], time_ns[i])


@kernel
def rehash_flows(flows: Row, used: int, slots: U64) -> None:
    """Fill the empty table `slots` with the first `used` flows; the later of one key wins."""
    mask = len(slots) - 1
    for number in range(used):
        flow = flows[number]
        value = flow_hash(flow)
        at = np.int64(value >> np.uint64(32)) & mask
        while slots[at] != 0:
            if (slots[at] ^ value) >> np.uint64(32) == 0:
                other = flows[np.int64(slots[at] & np.uint64(0xFFFFFFFF)) - 1]
                if same_key(flow, other):
                    break
            at = (at + 1) & mask
        slots[at] = slot_of(value, number)


@kernel
def rehash_groups(groups: Row, used: int, slots: U64) -> None:
    """Fill the empty table `slots` with the first `used` fragment groups."""
    mask = len(slots) - 1
    for number in range(used - 1, -1, -1):  # the latest of one key is to be found first
        group = groups[number]
        value = row_hash(group, np.int64(group.ip_id) & 0xFFFF, np.int64(group.ip_id) >> 16)
        at = np.int64(value >> np.uint64(32)) & mask
        while slots[at] != 0:
            at = (at + 1) & mask
        slots[at] = slot_of(value, number)
