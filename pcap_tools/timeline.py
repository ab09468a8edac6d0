"""A corpus's flows in time: which packet belongs to which, how long they last, idle gaps capped.

A flow here is what shares VLAN, protocol, both addresses and both ports, in either direction; a
bare SYN after a FIN or RST begins another one. Later fragments follow their first fragment. ICMP
counts by address pair; frames without IP are one flow each.

Capping idle gaps at S works on three levels. Each flow's own gaps are capped. Then the flows are
drawn together: their starts, in unchanged order and proportion, are scaled into the duration of the
longest of them, so that the corpus lasts at most twice that. Iterations overlap, so how far apart
flows of one iteration start changes nothing of the steady state (rate and concurrency depend on
their own durations only), but it is what a run needs to get there: a capture of minutes reaches its
steady state in seconds. Last, on the order that results, silences of the whole corpus are capped.
The order inside a flow and of the flows' starts is kept; that between later packets of flows that
depend on each other (a control channel and its data) may change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pcap_tools.edits import ADDRESS, KIND, SOURCE, TARGET, Book, intern
from pcap_tools.kernels import I32, I64, U8, as_int, inner, kernel, load16, load32, load_u8, swap16
from pcap_tools.layers import ETHERNET, upper6
from pcap_tools.stand_ins import AddressBook
from pcap_tools.template import HEADER, Template, reordered

__all__ = ["Flows", "cap_gaps", "find_flows"]

_TCP, _UDP, _SCTP, _DCCP, _UDPLITE = 6, 17, 132, 33, 136
_FRAGMENT = 1 << 16  # keys of fragment trains, apart from every flow's
_FIN_RST, _SYN, _ACK = 0x05, 0x02, 0x10


@dataclass(frozen=True)
class Flows:
    """`number[k]` is the flow of packet k; `count` flows; `seconds` the sum of their durations."""

    number: I64
    count: int
    seconds: float


@inner
def _ordered(first: int, second: int) -> tuple[int, int]:
    return (first, second) if first <= second else (second, first)


@inner
def _vlan(frame: int, size: int, link: int) -> int:
    if link != ETHERNET or size < 18:
        return 0
    kind = swap16(load16(frame + 12))
    if kind == 0x8100 or kind == 0x88A8 or kind == 0x9100:
        return as_int(swap16(load16(frame + 14)) & np.uint64(0x0FFF))
    return 0


@kernel
def _number(
    blob: U8, start: I64, rows: I32, link: int, keys: Book, flow_of: I64, closed: U8, number: I64
) -> int:
    """Flow of each packet; returns how many. `flow_of` maps keys to flows, −1 at first."""
    flows = 0
    for index in range(start.size - 1):
        row = rows[index]
        if row[KIND] == 0:
            number[index] = flows
            flows += 1
            continue
        frame = blob.ctypes.data + start[index] + HEADER
        size = start[index + 1] - start[index] - HEADER
        ends = (as_int(row[SOURCE]) << 32) | as_int(row[TARGET])
        low, high = _ordered(as_int(row[SOURCE]), as_int(row[TARGET]))
        pair = (low << 32) | high
        if row[KIND] == 4:
            offset = as_int(row[ADDRESS]) - 12
            place = offset + (as_int(load_u8(frame + offset)) & 15) * 4
            protocol = as_int(load_u8(frame + offset + 9))
            field = as_int(swap16(load16(frame + offset + 6)))
            fragment = 2 if field & 0x1FFF else (1 if field & 0x2000 else 0)
            train = as_int(load16(frame + offset + 4))
        else:
            offset = as_int(row[ADDRESS]) - 8
            protocol, place, fragment, _, train_place = upper6(frame, offset, size)
            train = as_int(load32(frame + train_place)) if train_place else 0
        key = -1
        train_key = -1
        if fragment:
            train_key = intern(keys, np.uint64(_FRAGMENT), np.uint64(ends), np.uint64(train))
            if fragment == 2 and flow_of[train_key] >= 0:
                number[index] = flow_of[train_key]
                continue
            if fragment == 2:
                key = train_key  # its first fragment was not seen (yet): a flow of its own
        ports = 0
        flags = 0
        if key < 0:
            if (protocol in (_TCP, _UDP, _SCTP, _DCCP, _UDPLITE)) and place + 4 <= size:
                source = as_int(swap16(load16(frame + place)))
                target = as_int(swap16(load16(frame + place + 2)))
                if as_int(row[SOURCE]) > as_int(row[TARGET]):
                    source, target = target, source
                elif as_int(row[SOURCE]) == as_int(row[TARGET]):
                    source, target = _ordered(source, target)
                ports = (source << 16) | target
            if protocol == _TCP and place + 14 <= size:
                flags = as_int(load_u8(frame + place + 13))
            word = (_vlan(frame, size, link) << 32) | ports
            label = (as_int(row[KIND]) << 8) | (protocol & 255)
            key = intern(keys, np.uint64(label), np.uint64(pair), np.uint64(word))
        if flow_of[key] < 0 or (closed[key] and flags & (_SYN | _ACK) == _SYN):
            flow_of[key] = flows
            closed[key] = 0
            flows += 1
        if flags & _FIN_RST:
            closed[key] = 1
        number[index] = flow_of[key]
        if train_key >= 0:
            flow_of[train_key] = flow_of[key]
    return flows


@kernel
def _durations(due_ns: I64, number: I64, first: I64, last: I64) -> None:
    for index in range(due_ns.size):
        flow = number[index]
        if first[flow] < 0:
            first[flow] = due_ns[index]
        last[flow] = due_ns[index]


def find_flows(template: Template) -> Flows:
    """The flows of a template."""
    keys = AddressBook()
    keys.reserve(2 * template.packets)
    room = keys.book.entries.shape[0]
    number = np.empty(template.packets, np.int64)
    count = _number(
        template.blob,
        template.start,
        template.rows,
        template.link,
        keys.book,
        np.full(room, -1, np.int64),
        np.zeros(room, np.uint8),
        number,
    )
    first, last = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    _durations(template.due_ns, number, first, last)
    return Flows(number, count, float((last - first).sum()) / 1e9)


@kernel
def _cap_inside(due_ns: I64, number: I64, gap: int, before: I64, capped: I64) -> None:
    for index in range(due_ns.size):
        flow = number[index]
        previous = before[flow]
        if previous < 0:
            capped[index] = due_ns[index]
        else:
            step = due_ns[index] - due_ns[previous]
            capped[index] = capped[previous] + min(step, gap)
        before[flow] = index


def _draw_together(capped: I64, flows: Flows) -> I64:
    """Times with flow starts scaled into the longest flow's duration, if they are spread wider."""
    first, last = np.full(flows.count, -1, np.int64), np.zeros(flows.count, np.int64)
    _durations(capped, flows.number, first, last)
    start = int(first.min())
    spread, longest = int(first.max()) - start, int((last - first).max())
    if spread <= longest:
        return capped
    nearer = start + np.floor((first - start) * (longest / spread)).astype(np.int64)
    moved: I64 = capped + (nearer - first)[flows.number]
    return moved


def cap_gaps(template: Template, flows: Flows, gap_ns: int) -> tuple[Template, Flows]:
    """Template and flows with no silence longer than `gap_ns`, in the order that results."""
    capped = np.empty_like(template.due_ns)
    before = np.full(flows.count, -1, np.int64)
    _cap_inside(template.due_ns, flows.number, gap_ns, before, capped)
    capped = _draw_together(capped, flows)
    order = np.argsort(capped, kind="stable")
    steps = np.minimum(np.diff(capped[order]), gap_ns)
    due = np.concatenate([np.zeros(1, np.int64), np.cumsum(steps)])
    ordered = replace(reordered(template, order), due_ns=due)
    number = flows.number[order]
    first, last = np.full(flows.count, -1, np.int64), np.zeros(flows.count, np.int64)
    _durations(due, number, first, last)
    return ordered, Flows(number, flows.count, float((last - first).sum()) / 1e9)
