"""End connections that the capture does not show ending: a FIN exchange, or a reset.

A connection that was established, of which nothing is missing, and which simply goes on behind the
end of the capture, can be kept in a corpus if it is ended: it then occupies a probe's flow table
as long as it should. The packets appended are of this tool's making, and the report says so.

Frames are built from the last frame that each end sent: link layer, VLAN tags, IP header with its
options, TTL and window stay; the IP identification counts on; TCP options go, but for timestamps
(RFC 7323), which repeat the last values. Sequence numbers follow the last byte each end sent or
acknowledged. They come 1 µs after the flow's last packet and after each other.

Not closed, hence dropped as before: connections with missing bytes, half-open ones, those in
tunnels, behind an IPsec header, or whose last frames of one end were fragments or cut before the
end of the TCP header.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Batch, Capture
from pcap_tools.checksum import fold, pseudo_sum, sum_words
from pcap_tools.connstate import STATES
from pcap_tools.decode import Decoder
from pcap_tools.errors import UnsupportedLink
from pcap_tools.flows import FlowTable
from pcap_tools.kernels import (
    I32,
    I64,
    U8,
    U32,
    as_int,
    copy_bytes,
    inner,
    kernel,
    load32,
    store16,
    store32,
    swap16,
    swap32,
)
from pcap_tools.linklayer import be16, byte_at
from pcap_tools.packet import PacketRows, Row
from pcap_tools.policy import CLOSE, Policy, judge
from pcap_tools.savefile import Meta
from pcap_tools.walk import Word

__all__ = ["Closing", "close_flows", "merged"]

_HEAD = 256  # of a frame, up to the end of its TCP header; longer ones are not closed
_PACKETS = 3  # at most, to close a flow
_FRAME = _HEAD + 12  # at most: head without options, and timestamps
_STEP_NS = 1000

_FIN = 1
_RST = 4
_ACK = 16

_PORTS = 2
_FRAGMENT = 4
_MALFORMED = 32
_TUNNELLED = 256

_S1, _S2, _S3 = (STATES.index(name) for name in ("S1", "S2", "S3"))

_END = np.dtype(
    [
        ("head", np.uint8, (_HEAD,)),
        ("l3", np.int32),
        ("l4", np.int32),
        ("size", np.int32),  # bytes of `head` in use; 0: no frame that can serve was seen
        ("ethertype", np.uint16),
    ],
    align=True,
)


@dataclass(frozen=True)
class Closing:
    """What is appended: `packets` in order of time, each not before packet number `after` was.

    `packets.first` is -1: they are no packets of the capture. `flows` are the flows that they end,
    by `how`: "fin" or "rst". `owner` and `direction` are each packet's flow and sender, as in the
    flow table.
    """

    how: str
    flows: I64
    packets: Batch
    after: I64
    owner: I32
    direction: U8


def close_flows(capture: Capture, table: FlowTable, policy: Policy) -> tuple[FlowTable, Closing]:
    """Close the flows against which nothing speaks but that they are unterminated.

    Reads the capture once more. Returns the table with `closed` filled in, by which `judge` keeps
    those flows, and the packets that end them. Raises UnsupportedLink for several link types.
    """
    if len(capture.links) > 1:
        names = ", ".join(str(path) for path in capture.paths)
        raise UnsupportedLink(
            f"{names}: several link types ({capture.link_text}), and --close makes frames of one; "
            "give captures of one link type, or leave --close"
        )
    flows = _candidates(table, policy)
    slot = np.full(len(table), -1, np.int32)
    slot[flows] = np.arange(len(flows))
    ends = np.zeros((len(flows), 2), _END)
    last = np.zeros(len(flows), np.int64)
    decode = Decoder()
    for batch in capture.batches():
        picked = slice(batch.first, batch.first + len(batch))
        _collect(
            batch.data,
            batch.offset,
            batch.caplen,
            decode(batch),
            table.owner[picked],
            table.direction[picked],
            slot,
            ends,
        )
        _note_last(table.owner[picked], batch.first, slot, last)
    usable = (ends["size"] > 0).all(axis=1)
    flows, ends, last = flows[usable], ends[usable], last[usable]
    built = _built(table, flows, ends, last, policy.close == "rst", capture.link)
    closed = np.zeros(len(table), np.uint8)
    closed[flows] = CLOSE.index(policy.close)
    return replace(table, closed=closed), Closing(policy.close, flows, *built)


def merged(
    batches: Iterable[tuple[Batch, npt.NDArray[np.bool_]]], closing: Closing
) -> Iterator[tuple[Batch, npt.NDArray[np.bool_]]]:
    """Batches and which of their packets are kept, with the closing packets among them by time.

    A batch that takes some in is a copy, whose `first` tells nothing any more. Where the capture's
    time goes backwards, they still follow the last packet of their flow.
    """
    extra, done = closing.packets, 0
    latest = np.iinfo(np.int64).min
    interface: I32 | None = None
    for batch, keep in batches:
        if not len(batch):
            yield batch, keep
            continue
        if batch.meta is not None:
            interface = batch.meta.interface[-1:].copy()
        clock = np.maximum(np.maximum.accumulate(batch.time_ns), latest)
        latest = int(clock[-1])
        until = done + int(np.searchsorted(extra.time_ns[done:], latest))
        place = np.searchsorted(clock, extra.time_ns[done:until], side="right")
        place = np.maximum(place, closing.after[done:until] + 1 - batch.first)
        place = np.maximum.accumulate(place)
        place = place[place < len(batch)]
        if len(place):
            taken = _slice(extra, done, done + len(place))
            done += len(place)
            batch, keep = _with(batch, taken, place), np.insert(keep, place, True)
        yield batch, keep
    if done < len(extra):
        rest = _slice(extra, done, len(extra))
        if interface is not None:
            nothing = np.empty((0, 4), np.int64), np.empty(0, np.uint8)
            rest = replace(rest, meta=Meta(np.repeat(interface, len(rest)), *nothing))
        yield rest, np.ones(len(rest), np.bool_)


def _candidates(table: FlowTable, policy: Policy) -> I64:
    """Flows that nothing but `unterminated` speaks against, and whose numbers are all known."""
    rows = table.rows
    rest = policy.drop - {"unterminated"}
    names, reason = judge(table, replace(policy, drop=rest | {"unterminated"}))
    unterminated = reason == names.index("unterminated")
    _, others = judge(table, replace(policy, drop=rest))
    sound = (
        np.isin(table.state, [_S1, _S2, _S3])
        & (rows["syn"] == 1)
        & (rows["synack"] == 1)
        # An ACK or data of the client: without, the server may never have left SYN-RECEIVED.
        & ((rows["spoiled"] == 1) | (rows["sized"][:, 0] == 1))
        & rows["known"].all(axis=1)
        & (table.missing == 0)
        & (rows["vlan"] >> 24 == 0)
    )
    return np.flatnonzero(unterminated & (others == 0) & sound)


def _built(
    table: FlowTable, flows: I64, ends: PacketRows, last: I64, reset: bool, link: int
) -> tuple[Batch, I64, I32, U8]:
    room = len(flows) * (1 if reset else _PACKETS)
    data = np.empty(room * _FRAME, np.uint8)
    offset = np.arange(room, dtype=np.int64) * _FRAME
    size = np.zeros(room, np.uint32)
    time = np.zeros(room, np.int64)
    slot = np.zeros(room, np.int32)
    sender = np.zeros(room, np.uint8)
    used = _build(table.rows, table.state, flows, ends, reset, data, size, time, slot, sender)
    order = np.argsort(time[:used], kind="stable")
    size = size[order]
    slot = slot[order]
    packets = Batch(data, offset[order], size, size, time[order], link, -1)
    return packets, last[slot], flows[slot].astype(np.int32), sender[order]


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    picked = slice(start, stop)
    columns = ("offset", "caplen", "wirelen", "time_ns")
    return replace(batch, **{name: getattr(batch, name)[picked] for name in columns})


def _with(batch: Batch, extra: Batch, place: I64) -> Batch:
    begin, end = int(batch.offset.min()), int((batch.offset + batch.caplen).max())
    low, high = int(extra.offset.min()), int((extra.offset + extra.caplen).max())
    return Batch(
        np.concatenate([batch.data[begin:end], extra.data[low:high]]),
        np.insert(batch.offset - begin, place, extra.offset - low + (end - begin)),
        np.insert(batch.caplen, place, extra.caplen),
        np.insert(batch.wirelen, place, extra.wirelen),
        np.insert(batch.time_ns, place, extra.time_ns),
        batch.link,
        batch.first,
        meta=batch.meta and _meta_with(batch.meta, place),
    )


def _meta_with(meta: Meta, place: I64) -> Meta:
    """With packets at `place` too: of the interface of the packet before, without options."""
    before = meta.interface[np.maximum(place - 1, 0)]
    noted = meta.noted.copy()
    noted[:, 0] += np.searchsorted(place, noted[:, 0], side="right")
    return Meta(np.insert(meta.interface, place, before), noted, meta.octets)


@kernel
def _note_last(owner: I32, first: int, slot: I32, last: I64) -> None:
    for i in range(len(owner)):
        if owner[i] >= 0 and slot[owner[i]] >= 0:
            last[slot[owner[i]]] = first + i


@kernel
def _collect(
    data: U8,
    offset: I64,
    caplen: U32,
    rows: PacketRows,
    owner: I32,
    direction: U8,
    slot: I32,
    ends: PacketRows,
) -> None:
    """Keep the head of each end's last frame, when it is one that can be built upon."""
    base = np.int64(data.ctypes.data)
    for i in range(len(rows)):
        if owner[i] < 0 or slot[owner[i]] < 0:
            continue
        row = rows[i]
        if np.int64(row.flags) & (_PORTS | _FRAGMENT | _MALFORMED | _TUNNELLED) != _PORTS:
            continue
        frame = base + offset[i]
        l3, l4 = np.int64(row.l3), np.int64(row.l4)
        size = l4 + (byte_at(frame + l4 + 12) >> 4) * 4
        if size > _HEAD or size > np.int64(caplen[i]):
            continue
        # TCP directly behind IP, and a link layer whose lengths are understood.
        place = 9 if row.version == 4 else 6
        if byte_at(frame + l3 + place) != 6 or row.ethertype not in (0x0800, 0x86DD, 0x8864, 0):
            continue
        end = ends[slot[owner[i]], direction[i]]
        copy_bytes(np.int64(end.head.ctypes.data), frame, size)
        end.l3, end.l4, end.size = np.int32(l3), np.int32(l4), np.int32(size)
        end.ethertype = row.ethertype


@kernel
def _build(
    flows: Row,
    state: U8,
    numbers: I64,
    ends: PacketRows,
    reset: bool,
    data: U8,
    size: U32,
    time: I64,
    slot: I32,
    sender: U8,
) -> int:
    """Fill the columns with the packets that close `numbers`; how many there are."""
    base = np.int64(data.ctypes.data)
    following = np.zeros(2, np.int64)
    sent = np.zeros(2, np.int64)
    used = 0
    for s in range(len(numbers)):
        flow = flows[numbers[s]]
        following[0], following[1] = flow.next[0], flow.next[1]
        sent[0] = sent[1] = 0
        how = state[numbers[s]]
        # The client closes first; the side that has closed acknowledges the other's FIN.
        closer = 1 if how == _S2 else 0
        steps = 1 if reset else 3 if how == _S1 else 2
        for step in range(steps):
            end = closer if step % 2 == 0 else 1 - closer
            if reset:
                bits = _RST | _ACK
                end = 0
            else:
                bits = _FIN | _ACK if step < steps - 1 else _ACK
            own, other = ends[s, end], ends[s, 1 - end]
            sent[end] += 1
            size[used] = _frame(
                base + used * _FRAME,
                own,
                other,
                bits,
                following[end],
                following[1 - end],
                sent[end],
            )
            if bits & _FIN:
                following[end] = (following[end] + 1) & 0xFFFFFFFF
            time[used] = flow.last_ns + (step + 1) * _STEP_NS
            slot[used] = s
            sender[used] = end
            used += 1
    return used


@inner
def _frame(out: Word, own: Row, other: Row, bits: Word, seq: Word, ack: Word, count: Word) -> Word:
    """Build the frame that `own` sends, its `count`th here, at address `out`; its length."""
    l3, l4 = np.int64(own.l3), np.int64(own.l4)
    head = np.int64(own.head.ctypes.data)
    stamp = _timestamp(head + l4 + 20, np.int64(own.size) - l4 - 20)
    options = np.int64(12 if stamp > 0 else 0)
    copy_bytes(out, head, l4 + 20)
    ip, tcp = out + l3, out + l4
    store32(tcp + 4, swap32(np.uint64(seq)))
    store32(tcp + 8, swap32(np.uint64(ack)))
    store16(tcp + 12, swap16(np.uint64(((20 + options) << 10) | bits)))
    store16(tcp + 16, np.uint64(0))
    store16(tcp + 18, np.uint64(0))  # not urgent
    if stamp > 0:
        store32(tcp + 20, swap32(np.uint64(0x0101080A)))
        store32(tcp + 24, load32(stamp))
        peer = np.int64(other.head.ctypes.data) + other.l4 + 20
        echo = _timestamp(peer, np.int64(other.size) - other.l4 - 20)
        store32(tcp + 28, load32(echo) if echo > 0 else np.uint64(0))
    segment = as_int(20 + options)
    header = as_int(l4 - l3)
    length = header + segment
    pseudo = pseudo_sum(6, segment)
    if byte_at(ip) >> 4 == 4:
        store16(ip + 2, swap16(np.uint64(length)))
        number = be16(ip + 4)
        if number:  # 0: this end does not number what cannot be fragmented (RFC 6864)
            store16(ip + 4, swap16(np.uint64((number + count) & 0xFFFF)))
        store16(ip + 10, np.uint64(0))
        store16(ip + 10, np.uint64(0xFFFF) ^ sum_words(ip, header))
        pseudo += sum_words(ip + 12, 8)
    else:
        store16(ip + 4, swap16(np.uint64(length - 40)))
        pseudo += sum_words(ip + 8, 32)
    store16(tcp + 16, np.uint64(0xFFFF) ^ fold(pseudo + sum_words(tcp, segment)))
    if own.ethertype == 0x8864:
        store16(ip - 4, swap16(np.uint64(length + 2)))  # PPPoE counts the PPP protocol too
    return l3 + length


@inner
def _timestamp(options: Word, size: Word) -> Word:
    """Address of TSval in TCP options of `size` bytes, or 0."""
    at = np.int64(0)
    while at + 1 < size:
        kind = byte_at(options + at)
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        length = byte_at(options + at + 1)
        if kind == 8 and length == 10 and at + 10 <= size:
            return options + at + 2
        if length < 2:
            break
        at += length
    return np.int64(0)
