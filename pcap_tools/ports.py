"""Client ports in frames: who opened what, where the port stands, and the kernel that moves it.

The flow table says which end of a TCP or UDP flow is the client; of ICMP it is who sends the echo
request. What an ICMP error quotes moves with its flow. Left as they are: ports below 1024, SCTP
(its checksum is over the whole packet, RFC 9260), fragments without a port, and ports in tunnels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pcap_tools.checksum import fold
from pcap_tools.edits import (
    ADDRESS,
    FLAGS,
    KIND,
    L4_SUM,
    NEVER_ZERO,
    QUOTE,
    SOURCE,
    TARGET,
    Book,
    intern,
    seek,
)
from pcap_tools.kernels import (
    I32,
    I64,
    U8,
    U64,
    as_int,
    inner,
    kernel,
    load16,
    load_u8,
    store16,
    swap16,
)
from pcap_tools.layers import big16, upper6
from pcap_tools.permute import forward
from pcap_tools.plan import AddressPlan

__all__ = [
    "MOVE_COLUMNS",
    "Mover",
    "find_moves",
    "learn_ports",
    "move_all",
    "move_port",
    "mover_of",
    "transport",
]

# Columns of a move (int32). Offsets count from the frame's first byte; 0 means "none".
PLACE = 0  # offset of the port; 0: nothing moves
GROUP = 1  # class of the client (after `find_moves`: number of the socket, see `resolve`)
NUMBER = 2  # rank of the port within client and protocol
SUM = 3  # offset of the transport checksum
OUTER = 4  # offset of the checksum of the ICMP error around it
UDP_RULE = 5  # not 0: a computed 0 is sent as 0xffff
MOVE_COLUMNS = 6

_ONES = np.uint64(0xFFFF)
_TCP, _UDP, _ICMP, _ICMP6, _DCCP, _UDPLITE = 6, 17, 1, 58, 33, 136
_FIRST = 1024


class Mover(NamedTuple):
    """What the kernel needs of a plan: `permutations` and (cycle, turns, width) by class, and the
    free ports."""

    permutations: U64
    steps: I64
    free: U64


@inner
def transport(frame: int, size: int, rows: I32, index: int) -> tuple[int, int]:
    """(protocol, offset of the transport header) of a row's packet; protocol −1 without one."""
    if rows[index, KIND] == 4:
        offset = as_int(rows[index, ADDRESS]) - 12
        if big16(frame + offset + 6) & 0x1FFF:
            return -1, 0
        header = (as_int(load_u8(frame + offset)) & 15) * 4
        return as_int(load_u8(frame + offset + 9)), offset + header
    if rows[index, KIND] == 6:
        protocol, place, _, _, _ = upper6(frame, as_int(rows[index, ADDRESS]) - 8, size)
        return protocol, place
    return -1, 0


@inner
def _ends(frame: int, size: int, protocol: int, place: int, turned: int) -> tuple[int, int, int]:
    """(1 when the source is the client, else 0; offset of the client's port; of the server's, 0 for
    none). The offset is 0 when the protocol has no port to move."""
    none = as_int(0)
    if place + 8 > size:
        return none, none, none
    if protocol in (_TCP, _UDP, _DCCP, _UDPLITE):
        if turned:
            return none, place + 2, place
        return as_int(1), place, place + 2
    kind = as_int(load_u8(frame + place))
    if protocol == _ICMP and (kind == 8 or kind == 0):
        return as_int(kind == 8), place + 4, none
    if protocol == _ICMP6 and (kind == 128 or kind == 129):
        return as_int(kind == 128), place + 4, none
    return none, none, none


@kernel
def learn_ports(
    data: int,
    offsets: I64,
    sizes: I64,
    rows: I32,
    owner: I32,
    direction: U8,
    flows: I32,
    seen: I64,
    book: Book,
) -> None:
    """Enter each flow's client socket into the book, as (protocol, client's number, port).

    `flows[f]` becomes (1 + number of source, 1 + number of target, whether the port moves) at the
    flow's first packet with a transport header; `seen` counts flows by server port. The book has
    room for a socket a packet. Echo identifiers are one socket each.
    """
    for index in range(offsets.size):
        flow = as_int(owner[index])
        if flow < 0 or (rows[index, KIND] != 4 and rows[index, KIND] != 6):
            continue
        frame = data + offsets[index]
        protocol, place = transport(frame, sizes[index], rows, index)
        echo = protocol in (_ICMP, _ICMP6)
        if flows[flow, 0] and not echo:
            continue
        turned = as_int(direction[index])
        from_client, own, other = _ends(frame, sizes[index], protocol, place, turned)
        flows[flow, 0] = 1 + rows[index, SOURCE]
        flows[flow, 1] = 1 + rows[index, TARGET]
        if not own:
            continue
        if other:
            seen[big16(frame + other)] += 1
        port = big16(frame + own)
        if port < _FIRST and not echo:
            continue
        client = as_int(rows[index, SOURCE] if from_client else rows[index, TARGET])
        intern(book, np.uint64(protocol), np.uint64(client), np.uint64(port))
        flows[flow, 2] = 1


@inner
def _socket(
    frame: int, size: int, protocol: int, place: int, turned: int, rows: I32, index: int, book: Book
) -> tuple[int, int]:
    """(offset of the client's port, number of the socket in the book or −1)."""
    from_client, own, _ = _ends(frame, size, protocol, place, turned)
    if not own:
        return as_int(0), as_int(-1)
    client = as_int(rows[index, SOURCE] if from_client else rows[index, TARGET])
    port = np.uint64(big16(frame + own))
    return own, seek(book, np.uint64(protocol), np.uint64(client), port)


@kernel
def find_moves(
    data: int,
    offsets: I64,
    sizes: I64,
    rows: I32,
    quotes: I32,
    owner: I32,
    direction: U8,
    book: Book,
    moves: I32,
) -> None:
    """Fill a (zeroed) move for each packet whose client socket is in the book.

    GROUP takes the number of the socket, which the caller has to resolve.
    """
    for index in range(offsets.size):
        if rows[index, KIND] != 4 and rows[index, KIND] != 6:
            continue
        frame, size = data + offsets[index], sizes[index]
        protocol, place = transport(frame, size, rows, index)
        own, socket = as_int(0), as_int(-1)
        if owner[index] >= 0:
            turned = as_int(direction[index])
            own, socket = _socket(frame, size, protocol, place, turned, rows, index, book)
        total, rule = as_int(rows[index, L4_SUM]), as_int(rows[index, FLAGS]) & NEVER_ZERO
        if protocol == _ICMP:
            total = place + 2
        outer = as_int(0)
        edit = as_int(rows[index, QUOTE]) - 1
        quoted = socket < 0 and edit >= 0 and protocol in (_ICMP, _ICMP6)
        if quoted and (quotes[edit, KIND] == 4 or quotes[edit, KIND] == 6):
            outer = total
            inner, at = transport(frame, size, quotes, edit)
            for turn in range(2):  # whichever end has a socket is the client
                if socket < 0:
                    own, socket = _socket(frame, size, inner, at, as_int(turn), quotes, edit, book)
            total, rule = as_int(quotes[edit, L4_SUM]), as_int(quotes[edit, FLAGS]) & NEVER_ZERO
            if inner == _ICMP:
                total = at + 2
        if socket >= 0:
            moves[index, PLACE] = own
            moves[index, GROUP] = socket
            moves[index, SUM] = total
            moves[index, OUTER] = outer
            moves[index, UDP_RULE] = rule


@inner
def move_port(frame: int, moves: I32, index: int, mover: Mover, iteration: int) -> None:
    """Give the frame at a memory address the client port of an iteration (RFC 1624 updates)."""
    if moves[index, PLACE] == 0:
        return
    group = as_int(moves[index, GROUP])
    turn = (iteration // mover.steps[group, 0]) % mover.steps[group, 1]
    number = np.uint64(turn * mover.steps[group, 2] + moves[index, NUMBER])
    port = swap16(mover.free[forward(mover.permutations[group], number)])
    place = frame + moves[index, PLACE]
    delta = (_ONES ^ load16(place)) + port
    store16(place, port)
    if moves[index, SUM]:
        place = frame + moves[index, SUM]
        old = load16(place)
        value = _ONES ^ fold((_ONES ^ old) + delta)
        if value == 0 and moves[index, UDP_RULE]:
            value = _ONES
        store16(place, value)
        delta += (_ONES ^ old) + value
    if moves[index, OUTER]:
        place = frame + moves[index, OUTER]
        store16(place, _ONES ^ fold((_ONES ^ load16(place)) + delta))


@kernel
def move_all(data: int, offsets: I64, moves: I32, mover: Mover, iteration: int) -> None:
    """Give every frame of a batch the client ports of an iteration."""
    for index in range(offsets.size):
        move_port(data + offsets[index], moves, index, mover, iteration)


def mover_of(plan: AddressPlan) -> Mover:
    """The plan's sockets as the kernels take them; for a plan without any nothing moves."""
    sockets = plan.sockets
    if sockets is None:
        nothing = np.zeros((1, 1), np.uint64)
        return Mover(nothing, np.ones((1, 3), np.int64), nothing[0])
    permutations = [sockets.permutation(plan.key, g).parameters for g in range(len(plan.classes))]
    cycles = np.array([group.cycle for group in plan.classes], np.int64)
    steps = np.column_stack([cycles, sockets.turns, sockets.widths])
    return Mover(np.stack(permutations), np.ascontiguousarray(steps), sockets.free)
