"""What TRex can load: every flow judged by the rules of its two loaders, with the reason.

STF plays the packets (src/bp_sim.cpp: load_cap_file, update_info, ProcessIpPacket); ASTF takes the
payload and plays it over a TCP stack of its own (trex/astf/cap_handling.py: analyze). Both read in
trex-core v3.08. Verdicts follow what the loaders read, not what `decode` can: link layers, tunnels
and extension headers that are fine elsewhere do not fit here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pcap_tools.capture import Batch
from pcap_tools.flows import FlowTable
from pcap_tools.kernels import I32, I64, U8, inner, kernel, load16, load32, load_u8, swap16, swap32
from pcap_tools.packet import Row
from pcap_tools.walk import U32, Word

__all__ = [
    "ADAPTABLE",
    "ASTF_REASONS",
    "NO_REPLY",
    "REASONS",
    "REPLY_GAP",
    "STF_REASONS",
    "Fit",
    "FitSurvey",
]

_REASONS = {
    "link": "not Ethernet with IP behind at most one 802.1Q tag (ASTF: any number of tags)",
    "protocol": "neither TCP nor UDP directly behind the IP header",
    "fragment": "a fragmented datagram",
    "truncated": "lengths that the captured bytes do not hold",
    "ttl-zero": "a time to live of 0",
    "frame-too-large": "a frame above 9,238 bytes, where TRex's reader stops",
    "too-many-packets": "65,000 packets or more, both directions together",
    "same-address": "both ends have one address (TRex compares 32 bits of IPv6 addresses)",
    "server-first": "the first packet is the server's: TRex would take it for the client",
    "midstream": "TCP that does not begin with a SYN",
    "handshake": "SYN and SYN-ACK out of order, data between them, or a second SYN-ACK",
    "retransmission": "TCP sequence numbers that go back (retransmission, keep-alive, reordering)",
    "gap": "TCP sequence numbers that skip bytes",
    "sequence-wrap": "TCP sequence numbers that pass 2**32, which TRex's parser takes for a gap",
    "fin-with-data": "packets behind a FIN with data, which TRex's parser takes for a gap",
    "same-port": "TCP between equal ports, which TRex's parser takes for one direction",
    "no-payload": "nothing for TRex's TCP stack to send",
    "time-backwards": "time that goes backwards",
    "ttl-rewritten": "a time to live above 128, which TRex sets to 128",
    "tos-rewritten": "the lowest bit of the TOS byte (ECN: ECT(1), CE), which TRex clears",
}

_NAMES = tuple(_REASONS)
_SHARED = _NAMES[:4]
_ASTF_ONLY = _NAMES[_NAMES.index("midstream") : _NAMES.index("time-backwards")]
_STF_ONLY = tuple(name for name in _NAMES[4:] if name not in _ASTF_ONLY)

STF_REASONS = {name: _REASONS[name] for name in (*_SHARED, *_STF_ONLY)}
"""Reason code: why a flow does not fit STF as it is. The first that applies names the flow."""

ASTF_REASONS = {
    name: _REASONS[name] for name in (*_SHARED, "same-address", "server-first", *_ASTF_ONLY)
}
"""Reason code: why a flow does not fit ASTF. The first that applies names the flow."""

REPLY_GAP = "reply-gap"
"""Reason code of flows whose replies come sooner than was asked for."""

REASONS = {**_REASONS, REPLY_GAP: "replies sooner after their request than asked for"}
"""Every reason code, and what it means."""

ADAPTABLE = ("time-backwards", "ttl-rewritten", "tos-rewritten")
"""STF's reasons that splitting for STF puts right; the last two, TRex itself would."""

NO_REPLY = -1
"""`reply_gap_ns` of a flow in which only one end sends."""

_MOST_PACKETS = 65_000  # bp_sim.h: SetMaxPktsPerFlow asserts fewer, of both directions together

# Bits of FACTS.stf and FACTS.astf, in the order of _NAMES.
(
    _LINK,
    _PROTOCOL,
    _FRAGMENT,
    _TRUNCATED,
    _TTL_ZERO,
    _LARGE,
    _MANY,
    _SAME_ADDRESS,
    _SERVER_FIRST,
    _MIDSTREAM,
    _HANDSHAKE,
    _AGAIN,
    _GAP,
    _WRAP,
    _FIN_DATA,
    _SAME_PORT,
    _NO_PAYLOAD,
    _BACKWARDS,
    _TTL,
    _TOS,
) = (1 << number for number in range(len(_NAMES)))
_ORDER_BITS = _AGAIN | _GAP | _WRAP | _FIN_DATA
_ADAPTABLE_BITS = _BACKWARDS | _TTL | _TOS

_LARGEST_FRAME = 9 * 1024 + 22  # captureFile.h: MAX_PKT_SIZE, READER_MAX_PACKET_SIZE
_HIGHEST_TTL = 128
_ETHERNET = 1
_TCP = 6
_UDP = 17
_LONG = np.iinfo(np.int64).max

_FACTS = np.dtype(
    [
        ("stf", np.uint32),
        ("astf", np.uint32),
        ("seen", np.uint8),
        ("last", np.uint8),  # direction of the packet before
        ("shake", np.uint8),  # cap_handling.py's state: 0 init, 1 SYN, 2 SYN-ACK
        ("fin_data", np.uint8, (2,)),
        ("expected", np.int64, (2,)),  # next sequence number by side; not reduced modulo 2**32
        ("payload", np.int64),
        ("last_ns", np.int64),
        ("reply_gap_ns", np.int64),
    ],
    align=True,
)


@dataclass(frozen=True)
class Fit:
    """The verdicts, one a flow.

    `stf` and `astf` are the number of the first reason that applies, from 1, in STF_REASONS and
    ASTF_REASONS; 0: the flow fits. `stf_adapted` is the same when what is ADAPTABLE is put right.
    `reply_gap_ns` is the shortest time between a packet and one from the other end that follows
    it, or NO_REPLY; when it is shorter than the path's delay, TRex's replies overtake requests.
    """

    stf: U8
    stf_adapted: U8
    astf: U8
    reply_gap_ns: I64


class FitSurvey:
    """Collects what the verdicts need, batch by batch; about 80 bytes a flow."""

    def __init__(self, table: FlowTable) -> None:
        self._table = table
        self._facts = np.zeros(len(table), _FACTS)
        self._facts["reply_gap_ns"] = _LONG

    def update(self, batch: Batch) -> None:
        """Account a batch of the table's capture, with its times and bytes as captured."""
        part = slice(batch.first, batch.first + len(batch))
        _survey(
            batch.data,
            batch.offset,
            batch.caplen,
            batch.time_ns,
            batch.link,
            self._table.owner[part],
            self._table.direction[part],
            self._facts,
        )

    def finish(self) -> Fit:
        """The verdicts on everything accounted."""
        rows, facts = self._table.rows, self._facts
        same_low = (rows["lo"][:, 0] ^ rows["lo"][:, 1]) & np.uint64(0xFFFFFFFF) == 0
        same = (rows["lo"][:, 0] == rows["lo"][:, 1]) & (rows["hi"][:, 0] == rows["hi"][:, 1])
        tcp = rows["proto"] == _TCP
        stf = facts["stf"].copy()
        astf = facts["astf"] | (stf & (_FRAGMENT | _TRUNCATED | _SERVER_FIRST | _PROTOCOL))
        stf[rows["packets"].sum(axis=1) >= _MOST_PACKETS] |= _MANY
        stf[same_low] |= _SAME_ADDRESS
        astf[same] |= _SAME_ADDRESS
        astf[tcp & (rows["port"][:, 0] == rows["port"][:, 1])] |= _SAME_PORT
        astf[facts["payload"] == 0] |= _NO_PAYLOAD
        adapted = stf & ~np.uint32(_ADAPTABLE_BITS)
        gap = facts["reply_gap_ns"]
        return Fit(
            stf=_first(stf, STF_REASONS),
            stf_adapted=_first(adapted, STF_REASONS),
            astf=_first(astf, ASTF_REASONS),
            reply_gap_ns=np.where(gap == _LONG, NO_REPLY, gap),
        )


def _first(bits: U32, reasons: dict[str, str]) -> U8:
    """The number, from 1, of the first of the reasons whose bit is set; 0 without one."""
    found = np.zeros(len(bits), np.uint8)
    for number, name in reversed(list(enumerate(reasons, start=1))):
        found[bits & np.uint32(1 << _NAMES.index(name)) != 0] = number
    return found


@inner
def _be16(address: Word) -> Word:
    return np.int64(swap16(load16(address)))


@inner
def _byte(address: Word) -> Word:
    return np.int64(load_u8(address))


@kernel
def _survey(
    data: U8,
    offset: I64,
    caplen: U32,
    time_ns: I64,
    link: Word,
    owner: I32,
    direction: U8,
    facts: Row,
) -> None:
    base = np.int64(data.ctypes.data)
    for i in range(len(offset)):
        if owner[i] < 0:
            continue
        flow = facts[owner[i]]
        side = direction[i]
        if not flow.seen:
            flow.seen = 1
            if side:
                flow.stf |= _SERVER_FIRST
        else:
            pause = time_ns[i] - flow.last_ns
            if pause < 0:
                flow.stf |= _BACKWARDS
            if side != flow.last:
                flow.reply_gap_ns = min(flow.reply_gap_ns, pause)
        flow.last = side
        flow.last_ns = time_ns[i]
        if link != _ETHERNET:
            flow.stf |= _LINK
            flow.astf |= _LINK
            continue
        _frame(base + offset[i], np.int64(caplen[i]), np.int64(side), flow)


@inner
def _frame(frame: Word, size: Word, side: Word, flow: Row) -> None:
    """Judge one Ethernet frame; `side` is its direction, which is 0 for a flow's first packet
    (or the flow is out as server-first)."""
    if size > _LARGEST_FRAME:
        flow.stf |= _LARGE
    at = 14
    kind = _be16(frame + 12) if size >= 14 else 0
    while (kind == 0x8100 or kind == 0x88A8 or kind == 0x9100) and at + 4 <= size:
        if at > 14 or kind != 0x8100:
            flow.stf |= _LINK
        kind = _be16(frame + at + 2)
        at += 4
    if kind == 0x0800 and at + 20 <= size:
        header = (_byte(frame + at) & 15) * 4
        end = at + _be16(frame + at + 2)
        if header < 20:
            flow.stf |= _TRUNCATED
        if _be16(frame + at + 6) & 0x3FFF:
            flow.stf |= _FRAGMENT
        hops = _byte(frame + at + 8)
        if hops == 0:
            flow.stf |= _TTL_ZERO
        tos = _byte(frame + at + 1)
        proto = _byte(frame + at + 9)
        l4 = at + header
    elif kind == 0x86DD and at + 40 <= size:
        end = at + 40 + _be16(frame + at + 4)
        hops = _byte(frame + at + 7)
        tos = (_be16(frame + at) >> 4) & 255
        proto = _byte(frame + at + 6)
        l4 = at + 40
    else:
        flow.stf |= _LINK
        flow.astf |= _LINK
        return
    if hops > _HIGHEST_TTL:
        flow.stf |= _TTL
    if tos & 1:
        flow.stf |= _TOS
    if proto != _TCP and proto != _UDP:
        flow.stf |= _PROTOCOL
        return
    header = 8
    if proto == _TCP:
        header = (_byte(frame + l4 + 12) >> 4) * 4 if l4 + 20 <= min(end, size) else 0
    if end > size or header < 8 or l4 + header > end:
        flow.stf |= _TRUNCATED
        return
    payload = end - l4 - header
    flow.payload += payload
    if proto == _TCP:
        _segment(frame + l4, payload, side, flow)


@inner
def _segment(tcp: Word, payload: Word, side: Word, flow: Row) -> None:
    """The handshake and sequence checks of cap_handling.py's `analyze`, in its order."""
    flags = _byte(tcp + 13)
    sequence = np.int64(swap32(load32(tcp + 4)))
    if flags & 2:
        # SYN-ACK numbers are the server's and SYN numbers the client's, whoever sends them.
        if flags & 16:
            if flow.shake != 1:
                flow.astf |= _MIDSTREAM if flow.shake == 0 else _HANDSHAKE
            flow.shake = 2
            flow.expected[1] = sequence + 1
        else:
            if flow.shake == 2:
                flow.astf |= _HANDSHAKE
            else:
                flow.shake = 1
            flow.expected[0] = sequence + 1
        return
    if flow.shake != 2:
        flow.astf |= _MIDSTREAM if flow.shake == 0 else _HANDSHAKE
        return
    ahead = sequence - flow.expected[side]
    if ahead != 0 and not flow.astf & _ORDER_BITS:  # the first one is the reason
        if flow.fin_data[side]:
            flow.astf |= _FIN_DATA
        elif ahead == -4294967296:
            flow.astf |= _WRAP
        else:
            ahead = ((ahead + 2147483648) & 4294967295) - 2147483648
            flow.astf |= _GAP if ahead > 0 else _AGAIN
    if flags & 1:
        if payload:
            flow.fin_data[side] = 1
        payload = 1
    flow.expected[side] = sequence + payload
