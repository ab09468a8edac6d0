"""TCP as an observer sees it: endpoint states, and bytes that were never captured.

The endpoint states follow Zeek's TCP analyser (src/packet_analysis/protocol/tcp/
TCPSessionAdapter.cc), so that `conn_state` in pcap_tools.connstate means what it means there.

Missing bytes: the sequence space between what was seen is kept as a list of holes per direction.
A segment beyond the highest number seen opens a hole, and so does an acknowledgment of bytes not
seen; a later segment fills what it covers. So reordering and retransmission leave nothing, and
what is left was sent, but not captured.
"""

from __future__ import annotations

import numpy as np

from pcap_tools.kernels import inner, kernel
from pcap_tools.packet import Row
from pcap_tools.walk import Word

__all__ = ["advance", "missing_bytes", "starts_new_flow"]

_INACTIVE = 0
_SYN_SENT = 1
_SYN_ACK_SENT = 2
_PARTIAL = 3
_ESTABLISHED = 4
_CLOSED = 5
_RESET = 6

_FIN = 1
_SYN = 2
_RST = 4
_ACK = 16

_FAR = 1 << 30  # a jump in sequence numbers beyond any window (RFC 7323): not believed
_MAX_HOLES = 256


@inner
def _delta(a: Word, b: Word) -> Word:
    """a − b in sequence space, −2^31 … 2^31 − 1."""
    return ((np.int64(a) - np.int64(b) + 0x80000000) & 0xFFFFFFFF) - 0x80000000


@inner
def starts_new_flow(flow: Row, row: Row, end: Word) -> bool:
    """Whether a TCP packet of `end` with a known pair of endpoints opens another connection.

    Only a SYN does. One with the initial sequence number of before is a retransmission, unless the
    connection was established and is over; one with another number is a new connection.
    """
    flags = row.tcp_flags
    if not flags & _SYN or flags & _RST:
        return False
    fins = flow.fin[0] and flow.fin[1]
    reset = flow.rst[0] or flow.rst[1]
    same = flow.known[end] and row.seq == flow.start[end]
    if flags & _ACK:
        if end == 0:
            return False
        # A SYN-ACK opens a flow of its own when the one before is over or never had a client.
        return not same and (fins or reset or flow.state[0] == _INACTIVE)
    if same:
        return bool(fins or (reset and flow.synack))
    # The other end's SYN in answer to a SYN is a simultaneous open (RFC 9293, 3.5).
    return not (end == 1 and flow.state[0] == _SYN_SENT and flow.state[1] == _INACTIVE)


@kernel
def advance(flow: Row, row: Row, end: Word, holes: Row, pool: Row) -> None:
    """Take the packet `row`, sent by `end`, into the flow's state and sequence spaces.

    `holes` is the HOLE pool; pool[0] heads its free list (-1: empty), pool[1] is its fill.
    """
    peer = 1 - end
    flags = np.int64(row.tcp_flags)
    payload = np.int64(row.payload)
    _history(flow, flags, payload, end)
    _sequence(flow, row, end, peer, holes, pool)
    if flags & _SYN:
        if end == 0 and not flags & _ACK:
            flow.syn = 1
        elif flags & _ACK:
            flow.synack = 1
    state = flow.state[end]
    if state == _INACTIVE:
        _from_inactive(flow, flags, payload, end, peer)
    elif state in (_SYN_SENT, _SYN_ACK_SENT):
        if flags & _FIN:
            _set(flow, end, _CLOSED)
        if flags & _RST:
            _set(flow, end, _RESET)
    elif state in (_ESTABLISHED, _PARTIAL):
        _from_established(flow, flags, end, peer)
    elif state == _CLOSED and flags & _RST and flow.state[peer] != _CLOSED:
        _set(flow, end, _RESET)
    if flags & _FIN:
        flow.fin[end] = 1
    if flags & _RST:
        flow.rst[end] = 1


@inner
def _set(flow: Row, end: Word, state: Word) -> None:
    if flow.state[end] != state:
        flow.previous[end] = flow.state[end]
        flow.state[end] = state


@inner
def _history(flow: Row, flags: Word, payload: Word, end: Word) -> None:
    """What conn_state needs of Zeek's history: does it match ^S[^HAFGIQ]*R, by the client?"""
    controls = (flags & _SYN) // _SYN + (flags & _FIN) + (flags & _RST) // _RST
    letter = controls > 0 or payload > 0 or flags & _ACK
    if letter and flow.first_letter == 0:
        plain = controls == 1 and flags & _SYN and not flags & _ACK and end == 0
        flow.first_letter = 1 if plain else 2
    if end == 1:
        return
    handshake = controls == 1 and flags & _SYN and flags & _ACK
    empty_ack = controls == 0 and payload == 0 and flags & _ACK
    if controls > 1 or flags & _FIN or handshake or empty_ack:
        flow.spoiled = 1
    elif controls == 1 and flags & _RST and flow.first_letter == 1 and not flow.spoiled:
        flow.rstos0 = 1


@inner
def _from_inactive(flow: Row, flags: Word, payload: Word, end: Word, peer: Word) -> None:
    if flags & _SYN:
        if end == 0:
            if flags & _ACK:
                _set(flow, end, _SYN_ACK_SENT)
            elif flow.synack and flow.state[peer] == _ESTABLISHED:
                # The SYN was captured after its answer, for example on another interface. It has
                # the acknowledged number, or it would have opened a flow (Zeek: FlipRoles).
                _set(flow, end, _ESTABLISHED)
            else:
                _set(flow, end, _SYN_SENT)
        else:
            if flow.state[peer] == _SYN_SENT:
                _set(flow, peer, _ESTABLISHED)
            _set(flow, end, _ESTABLISHED)
    if flags & _FIN:
        _set(flow, end, _CLOSED)
    if flags & _RST:
        _set(flow, end, _RESET)
    if flow.state[end] == _INACTIVE:
        if end == 1 and payload == 0 and flow.state[0] == _SYN_SENT:
            return  # some hosts acknowledge a SYN before they answer it
        if flags & _ACK and flow.state[peer] == _ESTABLISHED:
            _set(flow, end, _ESTABLISHED)
        else:
            _set(flow, end, _PARTIAL)


@inner
def _from_established(flow: Row, flags: Word, end: Word, peer: Word) -> None:
    if (
        flags & _SYN
        and not flags & _ACK
        and flow.state[end] == _PARTIAL
        and flow.state[peer] == _INACTIVE
    ):
        _set(flow, end, _SYN_SENT)
    if flags & _FIN and not flags & _RST:
        _set(flow, end, _CLOSED)
        if flow.state[peer] == _RESET and flow.previous[peer] == _CLOSED:
            _set(flow, peer, _CLOSED)  # FIN, RST, then the other's FIN: a normal end
    if flags & _RST:
        _set(flow, end, _RESET)


@inner
def _sequence(flow: Row, row: Row, end: Word, peer: Word, holes: Row, pool: Row) -> None:
    flags = np.int64(row.tcp_flags)
    if flags & _RST:
        return  # neither number of a reset is to be believed
    begin = np.int64(row.seq)
    length = np.int64(row.payload)
    if flags & _SYN:
        length += 1
    if flags & _FIN:
        length += 1
    if not flow.known[end] or (flags & _SYN and flow.start[end] != row.seq):
        flow.known[end] = 1
        flow.start[end] = row.seq if flags & _SYN else np.uint32((begin - 1) & 0xFFFFFFFF)
        flow.next[end] = row.seq
        _forget(flow, end, holes, pool)
    ended = 1 if flow.fin[end] or flags & _FIN else 0
    # Data between the SYN and what was sent or acknowledged, less a FIN (Zeek's Size() > 0).
    if flow.state[end] != _RESET and (
        1 + ended < _delta((begin + length) & 0xFFFFFFFF, flow.start[end]) < _FAR
    ):
        flow.sized[end] = 1
    _cover(flow, begin, length, end, holes, pool)
    if flags & _ACK:
        acked = np.int64(row.ack)
        active = flow.known[peer] and flow.state[peer] != _INACTIVE
        if active and 1 + flow.fin[peer] < _delta(acked, flow.start[peer]) < _FAR:
            flow.sized[peer] = 1
        if not flow.known[peer]:
            # Nothing of the peer was seen yet: what was acknowledged before is before the capture.
            flow.known[peer] = 1
            flow.start[peer] = np.uint32((acked - 1) & 0xFFFFFFFF)
            flow.next[peer] = row.ack
        ahead = _delta(acked, flow.next[peer])
        if 0 < ahead < _FAR:
            _open(flow, np.uint32(flow.next[peer]), row.ack, peer, holes, pool)
            flow.next[peer] = row.ack


@inner
def _cover(flow: Row, begin: Word, length: Word, end: Word, holes: Row, pool: Row) -> None:
    """The bytes [begin, begin + length) of `end` were captured."""
    ahead = _delta(begin, flow.next[end])
    if length == 0:
        # An empty segment shows where its sender is, unless it is a keep-alive or an old one.
        if 0 < ahead < _FAR:
            _open(flow, np.uint32(flow.next[end]), np.uint32(begin), end, holes, pool)
            flow.next[end] = np.uint32(begin)
        return
    stop = np.uint32((begin + length) & 0xFFFFFFFF)
    if 0 < ahead < _FAR:
        _open(flow, np.uint32(flow.next[end]), np.uint32(begin), end, holes, pool)
        flow.next[end] = stop
        return
    if ahead <= -_FAR or ahead >= _FAR:
        return
    if ahead < 0 and flow.hole[end] >= 0:
        _fill(flow, begin, begin + length, end, holes, pool)
    if _delta(stop, flow.next[end]) > 0:
        flow.next[end] = stop


@inner
def _open(flow: Row, begin: Word, stop: Word, end: Word, holes: Row, pool: Row) -> None:
    if flow.holes[end] >= _MAX_HOLES:
        # The newest are at the head; the tail is old and will not be filled any more.
        node = flow.hole[end]
        while holes[holes[node].next].next >= 0:
            node = holes[node].next
        last = holes[node].next
        flow.missing += _delta(holes[last].end, holes[last].begin)
        holes[node].next = -1
        flow.holes[end] -= 1
        holes[last].next = pool[0]
        pool[0] = last
    if pool[0] >= 0:
        new = pool[0]
        pool[0] = holes[new].next
    else:
        new = pool[1]
        pool[1] += 1
    holes[new].begin = begin
    holes[new].end = stop
    holes[new].next = flow.hole[end]
    flow.hole[end] = new
    flow.holes[end] += 1


@inner
def _fill(flow: Row, begin: Word, stop: Word, end: Word, holes: Row, pool: Row) -> None:
    """Take [begin, stop) out of the holes of `end`."""
    before = np.int64(-1)
    node = np.int64(flow.hole[end])
    while node >= 0:
        following = np.int64(holes[node].next)
        left = _delta(holes[node].begin, begin)  # > 0: the hole begins after the segment does
        right = _delta(stop & 0xFFFFFFFF, holes[node].end)  # >= 0: the segment covers its end
        size = _delta(holes[node].end, holes[node].begin)
        length = stop - begin
        if left < length and left + size > 0:
            if left >= 0 and right >= 0:
                if before >= 0:
                    holes[before].next = following
                else:
                    flow.hole[end] = following
                flow.holes[end] -= 1
                holes[node].next = pool[0]
                pool[0] = node
                node = following
                continue
            if left >= 0:
                holes[node].begin = np.uint32(stop & 0xFFFFFFFF)
            elif right >= 0:
                holes[node].end = np.uint32(begin & 0xFFFFFFFF)
            else:
                # The segment lies inside: the upper part becomes a hole of its own, at the head.
                upper = holes[node].end
                holes[node].end = np.uint32(begin & 0xFFFFFFFF)
                _open(flow, np.uint32(stop & 0xFFFFFFFF), upper, end, holes, pool)
                return
        before = node
        node = following


@inner
def _forget(flow: Row, end: Word, holes: Row, pool: Row) -> None:
    node = np.int64(flow.hole[end])
    while node >= 0:
        following = np.int64(holes[node].next)
        holes[node].next = pool[0]
        pool[0] = node
        node = following
    flow.hole[end] = -1
    flow.holes[end] = 0


@kernel
def missing_bytes(flows: Row, holes: Row, missing: Row) -> None:
    """Fill `missing` (int64, one a flow) with the bytes that were sent and never captured."""
    for i in range(len(flows)):
        total = flows[i].missing
        for end in range(2):
            node = np.int64(flows[i].hole[end])
            while node >= 0:
                total += _delta(holes[node].end, holes[node].begin)
                node = np.int64(holes[node].next)
        missing[i] = total
