"""Packets out of their order: which come late and behind which, and the stage that holds them.

Reordering follows RFC 4737: a packet is late by n when n later packets of its stream (its flow, and
the end that sent it) arrive before it. It takes the time of the last of them, so time never goes
backwards. At most one packet of a stream is late at a time, hence every late packet is exactly one
reordered packet in RFC 4737's sense, of extent n.

Jitter gives every packet a delay of its own and sorts what results; within a flow the order stays,
so that reordering happens only where it was asked for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Batch
from pcap_tools.chance import draw
from pcap_tools.damage import DAMAGE, DUPLICATE, JITTER, LOSS, REORDER
from pcap_tools.kernels import I32, I64, U8, as_int, copy_bytes, kernel

__all__ = ["PENDING", "Latecomers", "Queue", "copies", "delay"]

PENDING = np.dtype(
    [
        ("number", np.int64),  # in the input, from 0
        ("key", np.int64),  # what is sorted by first: with jitter the time, else 0
        ("anchor", np.int64),  # then the number of the packet it follows; its own unless late
        ("late", np.int64),  # then 1 for a late packet
        ("time_ns", np.int64),
        ("offset", np.int64),
        ("caplen", np.uint32),
        ("wirelen", np.uint32),
        ("owner", np.int32),
        ("direction", np.uint8),
        ("what", np.uint8),
        ("damage", DAMAGE),
    ],
    align=True,
)
"""A packet on its way through."""

Rows = npt.NDArray[np.void]

_WAITING = np.dtype([("number", np.int64), ("time_ns", np.int64), ("left", np.int64)], align=True)
_FLUSH = 1 << 12  # packets at least, or sorting small queues again and again would dominate


class Latecomers:
    """Finds, in one forward pass, behind which packet each packet marked REORDER comes.

    A packet `window_s` or more away is no anchor: then, and where fewer than `distance` packets of
    its stream follow, the marked packet stays where it is. 24 bytes a stream, 16 a late packet.
    """

    def __init__(self, flows: int, distance: int, window_s: float) -> None:
        self._waiting = np.zeros(2 * flows, _WAITING)
        self._distance = distance
        self._window_ns = int(window_s * 1e9)
        self._pairs: list[I64] = []

    def update(self, batch: Batch, owner: I32, direction: U8, what: U8) -> None:
        """Account the packets of a batch."""
        pairs = np.empty((len(batch), 2), np.int64)
        used = _find_late(
            batch.time_ns,
            batch.first,
            owner,
            direction,
            what,
            self._waiting,
            self._distance,
            self._window_ns,
            pairs,
        )
        if used:
            self._pairs.append(pairs[:used].copy())

    def finish(self) -> I64:
        """Rows (late packet, packet it comes behind), in order of the late packets."""
        if not self._pairs:
            return np.empty((0, 2), np.int64)
        pairs = np.concatenate(self._pairs)
        return pairs[np.argsort(pairs[:, 0])]


@kernel
def _find_late(
    time_ns: I64,
    first: int,
    owner: I32,
    direction: U8,
    what: U8,
    waiting: Rows,
    distance: int,
    window_ns: int,
    pairs: I64,
) -> int:
    used = 0
    for i in range(len(owner)):
        if owner[i] < 0 or what[i] & LOSS:
            continue
        entry = waiting[2 * as_int(owner[i]) + as_int(direction[i])]
        if entry.left > 0:
            entry.left -= 1
            if entry.left == 0 and time_ns[i] - entry.time_ns < window_ns:
                pairs[used, 0] = entry.number
                pairs[used, 1] = first + i
                used += 1
                continue
            if entry.left > 0:
                continue
        if what[i] & REORDER:
            entry.number = first + i
            entry.time_ns = time_ns[i]
            entry.left = distance
    return used


@kernel
def delay(
    rows: Rows, longest_ns: int, unit_ns: int, key: np.uint64, last_ns: I64, clock: I64
) -> None:
    """Set time and key of each row to its arrival plus, for JITTER, a uniform draw of 0 … longest.

    Delays are whole multiples of `unit_ns`. A flow's packets stay in order: `last_ns` (one a flow)
    is its latest time so far. `clock[0]` is the latest arrival; a time before it is put right.
    JITTER is left on the packets whose time changed, those that waited for others among them.
    """
    steps = longest_ns // unit_ns + 1
    for i in range(len(rows)):
        row = rows[i]
        clock[0] = max(clock[0], row.time_ns)
        due = clock[0]
        if as_int(row.what) & LOSS:
            row.key = row.time_ns = due
            continue
        if as_int(row.what) & JITTER:
            due += as_int(draw(key, row.number) % np.uint64(steps)) * unit_ns
        if row.owner >= 0:
            # Every packet of a flow waits for those before it, delayed on purpose or not.
            due = max(due, last_ns[row.owner])
            last_ns[row.owner] = due
        bits = as_int(row.what) & ~JITTER
        row.what = np.uint8(bits | JITTER if due != row.time_ns else bits)
        row.key = row.time_ns = due


class Queue:
    """Holds packets until everything that precedes them has come, and lets them go in order.

    `late` are the pairs of `Latecomers`. Memory: the frames within the jitter, and late packets.
    """

    def __init__(self, late: I64, sorted_by_time: bool) -> None:
        self._late = late
        self._sorted = sorted_by_time
        self._bytes = np.empty(1 << 16, np.uint8)
        self._spare = np.empty(1 << 16, np.uint8)
        self._fill = 0
        self._held: list[Rows] = []
        self._count = self._kept = 0

    def push(self, rows: Rows, data: U8, clock_ns: int) -> tuple[Rows, U8]:
        """Take a batch's rows with frames in `data`; returns what may go, and its bytes.

        `clock_ns` bounds the keys to come from below (with jitter). What is returned is valid until
        the next call.
        """
        first, stop = int(rows["number"][0]), int(rows["number"][-1]) + 1
        begin, end = np.searchsorted(self._late[:, 0], [first, stop])
        for number, anchor in self._late[begin:end].tolist():
            rows[number - first]["anchor"], rows[number - first]["late"] = anchor, 1
        self._resolve(rows, first, stop)
        if not self._count and not self._sorted and begin == end:
            return rows, data  # nothing is out of order: no byte is moved
        self._take(rows, data)
        if self._sorted and self._count < max(_FLUSH, 2 * self._kept):
            return rows[:0], self._bytes
        return self._release(stop, clock_ns)

    def finish(self) -> tuple[Rows, U8]:
        """What is still held."""
        highest = np.iinfo(np.int64).max
        return self._release(highest, highest)

    def _resolve(self, rows: Rows, first: int, stop: int) -> None:
        """Give late packets whose anchors are in `rows` their anchors' time and key."""
        for held in [*self._held, rows]:
            due = np.flatnonzero(
                (held["late"] == 1) & (held["anchor"] >= first) & (held["anchor"] < stop)
            )
            if len(due):
                anchors = rows[held["anchor"][due] - first]
                held["key"][due] = anchors["key"]
                held["time_ns"][due] = anchors["time_ns"]

    def _take(self, rows: Rows, data: U8) -> None:
        size = int(rows["caplen"].sum(dtype=np.int64))
        if self._fill + size > len(self._bytes):
            larger = np.empty(2 * (self._fill + size), np.uint8)
            larger[: self._fill] = self._bytes[: self._fill]
            self._bytes = larger
        taken = rows.copy()
        self._fill = _pack(data, taken, self._bytes, self._fill)
        self._held.append(taken)
        self._count += len(rows)

    def _release(self, stop: int, clock_ns: int) -> tuple[Rows, U8]:
        if not self._held:
            return np.empty(0, PENDING), self._bytes
        rows = np.concatenate(self._held) if len(self._held) > 1 else self._held[0]
        ready = rows["anchor"] < stop
        if self._sorted:
            ready &= rows["key"] <= clock_ns
        gone, kept = rows[ready], rows[~ready]
        gone = gone[np.lexsort((gone["late"], gone["anchor"], gone["key"]))]
        # Frames that stay move to the other buffer; those that go remain readable in this one.
        released, size = self._bytes, int(kept["caplen"].sum(dtype=np.int64))
        if size > len(self._spare):
            self._spare = np.empty(2 * size, np.uint8)
        self._fill = _pack(released, kept, self._spare, 0)
        self._bytes, self._spare = self._spare, released
        self._held = [kept] if len(kept) else []
        self._count = self._kept = len(kept)
        return gone, released


@kernel
def _pack(data: U8, rows: Rows, target: U8, fill: int) -> int:
    """Copy the rows' frames to target[fill:] and point the rows there; returns the new fill."""
    source, sink = np.int64(data.ctypes.data), np.int64(target.ctypes.data)
    for i in range(len(rows)):
        size = as_int(rows[i].caplen)
        copy_bytes(sink + fill, source + rows[i].offset, size)
        rows[i].offset = fill
        fill += size
    return fill


def copies(what: U8) -> I64:
    """How many times packets of these bits appear in the output: 0, 1 or 2."""
    counted: I64 = 1 + ((what & DUPLICATE) > 0) - ((what & LOSS) > 0).astype(np.int64)
    return counted
