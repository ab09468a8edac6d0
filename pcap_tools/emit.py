"""Iterations interleaved: the order of packets, and the kernel that writes them.

Packet j of iteration i is due at t_j + iΔ. The order is periodic: the packets sorted by
t_j mod Δ form one cycle, and cycle n carries, of packet j, iteration n − ⌊t_j / Δ⌋. An iteration in
flight needs one table line, so lines form a ring; work and memory per packet are constant. Packets
that are due at the same nanosecond leave in order of iteration, then of the corpus.

When fewer iterations are asked than would be in flight, most of a cycle would be skipped; then a
binary heap of the iterations' next packets gives the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pcap_tools.edits import KIND, QUOTE, SOURCE, TARGET
from pcap_tools.kernels import (
    I32,
    I64,
    U8,
    U64,
    as_int,
    copy_bytes,
    inlined,
    inner,
    kernel,
    store32,
)
from pcap_tools.patch import Edits, patch
from pcap_tools.ports import Mover, move_port, mover_of
from pcap_tools.stand_ins import Scheme, fill_line, new_tables, refresh
from pcap_tools.template import HEADER, Template, reordered

__all__ = ["Emitter", "Interleave"]

_TABLE_BYTES = 256 << 20  # past this, stand-ins are computed packet by packet
_SPARSE = 4  # cycles per asked iteration from which the heap is cheaper than skipping

# State shared with the kernels (int64): where the next call goes on.
_CYCLE, _POSITION, _DONE, _STARTED, _HEAP = range(5)
_STATE = 5


class _Records(NamedTuple):
    """The template as the kernels take it, in the order of a cycle (or of time for the heap).

    `blob` holds one number, the memory address of the records (array views in the loop would cost
    atomic reference counts). `phase` is t_j mod Δ and `lag` ⌊t_j / Δ⌋ (for the heap t_j and 0).
    """

    blob: I64
    start: I64
    phase: I64
    lag: I64
    rows: I32


class _Run(NamedTuple):
    """What is asked: scalars as one int64 array for the kernels, see `_FIELDS`."""

    scalars: I64
    scheme: Scheme
    v4: U64
    v6: U64


# Fields of _Run.scalars.
_FIRST, _COUNT, _EVERY, _EPOCH, _MAX_LAG, _LINES, _DIRECT, _TICK = range(8)


_Moving = tuple[I32, Mover]  # see `ports`


@inlined
def _stamp(target: int, due: int, tick: int) -> None:
    """Put the timestamp into the record at a memory address."""
    second = np.uint64(due) // np.uint64(1_000_000_000)
    rest = np.uint64(due) - second * np.uint64(1_000_000_000)
    store32(target, second)
    store32(target + 4, rest // np.uint64(1000) if tick == 1000 else rest)


@inner
def _refresh_ends(run: _Run, rows: I32, index: int, iteration: int, line: int) -> None:
    for column in range(SOURCE, TARGET + 1):
        kind, slot = as_int(rows[index, KIND]) & 7, as_int(rows[index, column])
        refresh(run.scheme, kind, slot, iteration, run.v4, run.v6, line)


@inner
def _refresh_row(
    records: _Records, run: _Run, edits: Edits | None, index: int, iteration: int, line: int
) -> None:
    """Compute the stand-ins that one packet needs into a line."""
    if records.rows[index, KIND]:
        _refresh_ends(run, records.rows, index, iteration, line)
    if edits is not None:
        edit = as_int(records.rows[index, QUOTE])
        while edit:
            _refresh_ends(run, edits.quotes, edit - 1, iteration, line)
            edit = as_int(edits.quotes[edit - 1, QUOTE])


@kernel
def _fill_cycles(
    records: _Records,
    run: _Run,
    edits: Edits | None,
    moving: _Moving | None,
    state: I64,
    out: int,
    room: int,
) -> int:
    """Fill the memory at `out` with the next records, cycle by cycle; returns the bytes used."""
    # Everything the inner loop reads is a local: an attribute of a tuple costs atomic reference
    # counts at every use, which would be most of the time.
    start, phase, lags, rows = records.start, records.phase, records.lag, records.rows
    v4, v6 = run.v4, run.v6
    first, count, every = run.scalars[_FIRST], run.scalars[_COUNT], run.scalars[_EVERY]
    epoch, max_lag, lines = run.scalars[_EPOCH], run.scalars[_MAX_LAG], run.scalars[_LINES]
    direct, tick = run.scalars[_DIRECT], run.scalars[_TICK]
    blob = records.blob[0]
    last_cycle = count - 1 + max_lag
    used = 0
    packets = phase.size
    cycle = state[_CYCLE]
    position = state[_POSITION]
    while cycle <= last_cycle:
        if position == 0 and cycle < count and state[_STARTED] == cycle:
            if not direct:
                fill_line(run.scheme, first + cycle, v4, v6, (first + cycle) % lines)
            state[_STARTED] = cycle + 1
        base = epoch + (first + cycle) * every
        while position < packets:
            number = cycle - lags[position]
            if 0 <= number < count:
                source = start[position]
                size = start[position + 1] - source
                if used + size > room:
                    state[_CYCLE] = cycle
                    state[_POSITION] = position
                    return used
                target = out + used
                copy_bytes(target, blob + source, size)
                _stamp(target, base + phase[position], tick)
                line = (first + number) % lines
                if direct:
                    _refresh_row(records, run, edits, position, first + number, line)
                patch(target + HEADER, rows, position, edits, v4, v6, line)
                if moving is not None:
                    moves, mover = moving
                    move_port(target + HEADER, moves, position, mover, first + number)
                used += size
            position += 1
        position = 0
        cycle += 1
    state[_CYCLE] = cycle
    state[_POSITION] = 0
    state[_DONE] = 1
    return used


@inner
def _sift_down(heap: I64, size: int) -> None:
    """Restore the heap of (due, number, position) rows after its top row grew."""
    due, number, position = heap[0, 0], heap[0, 1], heap[0, 2]
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        right = child + 1
        if right < size and (
            heap[right, 0] < heap[child, 0]
            or (heap[right, 0] == heap[child, 0] and heap[right, 1] < heap[child, 1])
        ):
            child = right
        if due < heap[child, 0] or (due == heap[child, 0] and number < heap[child, 1]):
            break
        for column in range(3):
            heap[hole, column] = heap[child, column]
        hole = child
    heap[hole, 0], heap[hole, 1], heap[hole, 2] = due, number, position


@kernel
def _fill_heap(
    records: _Records,
    run: _Run,
    edits: Edits | None,
    moving: _Moving | None,
    state: I64,
    heap: I64,
    out: int,
    room: int,
) -> int:
    """Like `_fill_cycles`, by merging the iterations; returns the bytes used."""
    start, phase, rows = records.start, records.phase, records.rows
    v4, v6 = run.v4, run.v6
    first, lines = run.scalars[_FIRST], run.scalars[_LINES]
    direct, tick = run.scalars[_DIRECT], run.scalars[_TICK]
    base = run.scalars[_EPOCH] + first * run.scalars[_EVERY]
    blob = records.blob[0]
    used = 0
    packets = phase.size
    left = state[_HEAP]
    while left:
        due, number, position = heap[0, 0], heap[0, 1], heap[0, 2]
        source = start[position]
        size = start[position + 1] - source
        if used + size > room:
            break
        if position == 0 and not direct:
            fill_line(run.scheme, first + number, v4, v6, (first + number) % lines)
        target = out + used
        copy_bytes(target, blob + source, size)
        _stamp(target, base + due, tick)
        line = (first + number) % lines
        if direct:
            _refresh_row(records, run, edits, position, first + number, line)
        patch(target + HEADER, rows, position, edits, v4, v6, line)
        if moving is not None:
            moves, mover = moving
            move_port(target + HEADER, moves, position, mover, first + number)
        used += size
        if position + 1 < packets:
            heap[0, 0] = due + phase[position + 1] - phase[position]
            heap[0, 2] = position + 1
        else:
            left -= 1
            for column in range(3):
                heap[0, column] = heap[left, column]
        _sift_down(heap, left)
    state[_HEAP] = left
    state[_DONE] = 0 if left else 1
    return used


@dataclass(frozen=True)
class Interleave:
    """Which iterations, how far apart: `first` … `first + count − 1`, one every `every_ns`."""

    first: int
    count: int
    every_ns: int


class Emitter:
    """Writes the iterations of a template into buffers, in the order they are due.

    `nanoseconds` chooses the timestamps' unit. The buffer must hold the largest record.
    """

    def __init__(self, template: Template, asked: Interleave, nanoseconds: bool = True) -> None:
        every = max(1, asked.every_ns)
        lag = template.due_ns // every
        max_lag = int(lag.max())
        self._heap: I64 | None = None
        if max_lag > _SPARSE * asked.count:
            ordered, phase, lag = template, template.due_ns, np.zeros_like(lag)
            numbers = np.arange(asked.count, dtype=np.int64)
            self._heap = np.stack([numbers * every, numbers, np.zeros_like(numbers)], axis=1)
            lines = asked.count
        else:
            phase = template.due_ns - lag * every
            order = np.lexsort((-lag, phase))  # stable: ties end in the corpus's order
            ordered, phase, lag = reordered(template, order), phase[order], lag[order]
            lines = min(asked.count, max_lag + 1)
        self._ordered = ordered  # keeps the blob's memory, which the kernels know by address
        scheme = Scheme.of(template.plan)
        direct = lines * (scheme.own4.nbytes + scheme.own6.nbytes) > _TABLE_BYTES
        v4, v6 = new_tables(scheme, 1 if direct else lines)
        self._records = _Records(
            np.array([ordered.blob.ctypes.data]),
            ordered.start,
            phase,
            lag,
            ordered.rows,
        )
        self._edits = Edits(ordered.quotes, np.zeros(1, np.uint64)) if ordered.edited else None
        moving = template.plan.sockets is not None
        self._moving = (ordered.moves, mover_of(template.plan)) if moving else None
        scalars = [
            asked.first,
            asked.count,
            every,
            template.first_ns,
            max_lag,
            1 if direct else lines,
            int(direct),
            1 if nanoseconds else 1000,
        ]
        self._run = _Run(np.array(scalars, np.int64), scheme, v4, v6)
        self._state = np.zeros(_STATE, np.int64)
        self._state[_HEAP] = asked.count

    @property
    def done(self) -> bool:
        """True when the last packet was written."""
        return bool(self._state[_DONE])

    @property
    def table_bytes(self) -> int:
        """Size of the stand-ins' tables; does not depend on the number of iterations."""
        return self._run.v4.nbytes + self._run.v6.nbytes

    def fill(self, out: U8) -> int:
        """Fill `out` from its beginning; returns the bytes used, whole records only."""
        if self._heap is not None:
            return _fill_heap(
                self._records,
                self._run,
                self._edits,
                self._moving,
                self._state,
                self._heap,
                out.ctypes.data,
                out.size,
            )
        return _fill_cycles(
            self._records,
            self._run,
            self._edits,
            self._moving,
            self._state,
            out.ctypes.data,
            out.size,
        )
