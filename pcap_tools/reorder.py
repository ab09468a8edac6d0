"""Packets in order of time, whatever their order in the files: an index is sorted, not the bytes.

26 to 30 bytes a packet are kept while the index is built, and 8 more for the order; frames are then
read at their places through a small cache of blocks, which costs little when packets are nearly in
order or in a few ordered stretches. A capture in order needs no index: it is streamed as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Batch, Capture
from pcap_tools.errors import CaptureError
from pcap_tools.extents import pread
from pcap_tools.kernels import I32, I64, U8, copy_bytes, kernel
from pcap_tools.savefile import Meta
from pcap_tools.walk import MAX_PACKET, U32

__all__ = ["Reordered"]

_ROWS = 1 << 13
_BUFFER = 1 << 20
_BLOCK = 1 << 15
_BLOCKS = 256

Stage = Callable[[Iterator[Batch]], Iterator[Batch]]


class Reordered:
    """The packets of a capture, less those a `filter` leaves out, in order of time; equal times
    stay as they were. `was_sorted` is known after the first pass."""

    def __init__(self, capture: Capture, filtered: Stage) -> None:
        self._capture = capture
        self._filtered = filtered
        self._index: _Index | None = None
        self.was_sorted: bool | None = None

    def batches(self) -> Iterator[Batch]:
        """All packets; valid until the next batch. Raises as Capture.batches."""
        if self.was_sorted is None:
            packets, self.was_sorted = self._look()
            if not self.was_sorted:
                self._index = _Index(self._filtered(self._capture.batches()), packets)
        if self._index is None:
            yield from self._filtered(self._capture.batches())
        else:
            yield from self._index.batches(self._capture)
            self._capture.check_unchanged()

    def _look(self) -> tuple[int, bool]:
        packets, last, ordered = 0, np.iinfo(np.int64).min, True
        for batch in self._filtered(self._capture.batches()):
            if len(batch):
                times = batch.time_ns
                ordered = ordered and times[0] >= last and bool((times[1:] >= times[:-1]).all())
                last = times[-1]
                packets += len(batch)
        return packets, ordered


class _Index:
    """Where every packet is, and in which order they are due."""

    def __init__(self, batches: Iterator[Batch], packets: int) -> None:
        self._time: I64 = np.empty(packets, np.int64)
        self._where: I64 = np.empty(packets, np.int64)
        self._caplen: U32 = np.empty(packets, np.uint32)
        self._wirelen: U32 = np.empty(packets, np.uint32)
        self._kind: npt.NDArray[np.uint16] = np.empty(packets, np.uint16)
        self._interface: I32 = np.empty(0, np.int32)
        self._kinds: list[tuple[int, int, bool]] = []  # file, link, whether it has Meta
        notes: list[I64] = []
        done = 0
        for batch in batches:
            part = slice(done, done + len(batch))
            self._time[part] = batch.time_ns
            self._where[part] = batch.offset + batch.position
            self._caplen[part] = batch.caplen
            self._wirelen[part] = batch.wirelen
            kind = (batch.file, batch.link, batch.meta is not None)
            if kind not in self._kinds:
                self._kinds.append(kind)
            self._kind[part] = self._kinds.index(kind)
            if batch.meta is not None:
                if not len(self._interface):
                    self._interface = np.zeros(packets, np.int32)
                self._interface[part] = batch.meta.interface
                if len(batch.meta.noted):
                    noted = batch.meta.noted[:, [0, 2, 3]]
                    noted[:, 0] += done
                    notes.append(noted)
            done += len(batch)
        # A row for each packet with options: packet, bytes of options, other byte order.
        self._notes: I64 = np.concatenate(notes) if notes else np.empty((0, 3), np.int64)
        self._order: I64 = np.argsort(self._time, kind="stable")

    def batches(self, capture: Capture) -> Iterator[Batch]:
        """The packets in order, in batches of one link type."""
        data: U8 = np.empty(_BUFFER + MAX_PACKET, np.uint8)
        cache: U8 = np.empty(_BLOCKS * _BLOCK, np.uint8)
        held: I64 = np.full((_BLOCKS, 2), -1, np.int64)
        descriptors = np.array([file.fileno() for file in capture.files], np.int32)
        file_of = np.array([kind[0] for kind in self._kinds], np.int64)
        alike = np.array([self._alike(kind) for kind in self._kinds], np.int64)
        done = 0
        while done < len(self._order):
            picks = self._order[done : done + _ROWS]
            kinds = self._kind[picks]
            other = np.flatnonzero(alike[kinds] != alike[kinds[0]])
            picks = picks[: other[0]] if len(other) else picks
            caplen = self._caplen[picks]
            spans = caplen.astype(np.int64)
            rows, notes = self._options(picks)
            frames = (spans[rows] + 3) & ~3
            spans[rows] = frames + notes[:, 1]
            ends = np.cumsum(spans)
            if len(data) < spans[0]:
                data = np.empty(int(spans[0]), np.uint8)
            count = max(int(np.searchsorted(ends, len(data), side="right")), 1)
            offset = (ends - spans)[:count]
            _file, link, has_meta = self._kinds[int(kinds[0])]
            files = file_of[kinds[:count]]
            got = _read(
                descriptors,
                files,
                self._where[picks[:count]],
                spans[:count],
                offset,
                data,
                cache,
                held,
            )
            if got < count:
                capture.check_unchanged()
                raise CaptureError(f"{capture.files[int(files[got])].name}: cannot be read again")
            meta = None
            if has_meta:
                near = rows < count
                rows, notes = rows[near], notes[near]
                noted = np.empty((len(rows), 4), np.int64)
                noted[:, 0] = rows
                noted[:, 1] = offset[rows] + frames[near]
                noted[:, 2:] = notes[:, 1:]
                meta = Meta(self._interface[picks[:count]], noted, data)
            yield Batch(
                data,
                offset,
                caplen[:count],
                self._wirelen[picks[:count]],
                self._time[picks[:count]],
                link,
                done,
                meta=meta,
            )
            done += count

    def _alike(self, kind: tuple[int, int, bool]) -> int:
        """Kinds of packets that can share a batch have the same number."""
        return [other[1:] for other in self._kinds].index(kind[1:])

    def _options(self, picks: I64) -> tuple[I64, I64]:
        """Which of the packets have options, as rows of `picks`, and their rows of notes."""
        if not len(self._notes):
            return np.empty(0, np.int64), self._notes
        at = np.minimum(np.searchsorted(self._notes[:, 0], picks), len(self._notes) - 1)
        rows = np.flatnonzero(self._notes[at, 0] == picks)
        return rows, self._notes[at[rows]]


@kernel
def _read(
    descriptors: I32,
    files: I64,
    where: I64,
    spans: I64,
    offset: I64,
    out: U8,
    cache: U8,
    held: I64,
) -> int:
    """Read spans[i] bytes at where[i] of files[i] to out[offset[i]:]: how many packets it got.

    `held` tells what is in the blocks of `cache`: file and block number as one, and bytes.
    """
    base, target = np.int64(cache.ctypes.data), np.int64(out.ctypes.data)
    for i in range(len(where)):
        file = files[i]
        descriptor = descriptors[file]
        block = where[i] // _BLOCK
        inside = where[i] - block * _BLOCK
        if inside + spans[i] > _BLOCK:
            got = pread(descriptor, target + offset[i], np.int64(spans[i]), np.int64(where[i]))
            if got != spans[i]:
                return i
            continue
        slot = (block + file * 7) % _BLOCKS
        name = (file << 40) | block
        place = base + slot * _BLOCK
        if held[slot, 0] != name:
            held[slot, 1] = pread(descriptor, place, np.int64(_BLOCK), np.int64(block * _BLOCK))
            held[slot, 0] = name
        if inside + spans[i] > held[slot, 1]:
            return i
        copy_bytes(target + offset[i], place + inside, spans[i])
    return len(where)
