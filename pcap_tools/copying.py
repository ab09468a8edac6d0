"""The second pass: what is kept of a capture goes to the output, changed on the way where asked.

Threads share the work: one reads, one gathers what is kept and gives it addresses, one writes. The
records of a plain pcap file, whose sizes are known, are not walked again: into another pcap file
two threads bring them to their places, part by part (`pcap_tools.parts`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pcap_tools.ahead import KEEP, ahead
from pcap_tools.batches import part_of
from pcap_tools.capture import Batch, Capture
from pcap_tools.changes import Changes
from pcap_tools.errors import OutputError
from pcap_tools.flows import ORPHAN_FRAGMENT, FlowTable
from pcap_tools.forecast import Progress
from pcap_tools.kernels import I64, U8, U16
from pcap_tools.memory import pages_of
from pcap_tools.output import CaptureWriter, open_output
from pcap_tools.parts import (
    BEGIN,
    PLACE,
    RECORD,
    SIZE,
    Room,
    Stop,
    Way,
    carry_kept,
    divide,
    explain,
    place_kept,
)
from pcap_tools.readdress import Readdress
from pcap_tools.savefile import Savefile
from pcap_tools.write import PcapWriter

__all__ = ["ByFlow", "Choice", "Copying"]

_THREADS = 2
_AT_ONCE = 8  # parts: what one thread does before it tells how far it is

Kept = tuple[Batch, npt.NDArray[np.bool_]]
"""A batch, and which of its packets are written."""


class Choice(Protocol):
    """Which packets of a capture are copied, and what is done to them.

    `sizes` are the bytes captured of every packet, None where they are not known (or too large);
    `edits` tells whether `edit` does anything.
    """

    @property
    def sizes(self) -> U16 | None: ...

    @property
    def edits(self) -> bool: ...

    def keep(self, first: int, count: int) -> npt.NDArray[np.bool_]:
        """Whether each of `count` packets from number `first` on is copied."""
        ...

    def edit(self, batch: Batch, numbers: I64) -> None:
        """Change packets in place, of which some need not be kept; several threads may.

        `numbers` are the packets' in the capture, from 0.
        """
        ...

    def edit_others(self, part: Batch, numbers: I64) -> None:
        """Change packets that `carry` left as they are, in place; several threads may."""
        ...

    def place(self, parts: I64, sizes: U16) -> tuple[int, int]:
        """Give parts of the capture's file their places; packets and bytes of frames copied."""
        ...

    def carry(self, way: Way, parts: I64, room: Room) -> Stop:
        """Bring parts of the capture's file to their places; see `pcap_tools.parts.carry_kept`."""
        ...


@dataclass(frozen=True)
class ByFlow:
    """The packets whose owner is kept (`kept[owner + 4]`), with fresh addresses where asked."""

    table: FlowTable
    kept: npt.NDArray[np.bool_]
    readdress: Readdress | None = None

    @property
    def sizes(self) -> U16 | None:
        """See `Choice`."""
        return self.table.sizes

    @property
    def edits(self) -> bool:
        """See `Choice`."""
        return self.readdress is not None

    def keep(self, first: int, count: int) -> npt.NDArray[np.bool_]:
        """See `Choice`."""
        return self.kept[self.table.owner[first : first + count] - ORPHAN_FRAGMENT]

    def edit(self, batch: Batch, numbers: I64) -> None:
        """See `Choice`."""
        if self.readdress is not None:
            owner, direction = self.table.owner[numbers], self.table.direction[numbers]
            self.readdress.apply(batch, owner, direction, numbers)

    def edit_others(self, part: Batch, numbers: I64) -> None:
        """See `Choice`."""
        if self.readdress is not None:
            self.readdress.edit_others(part, numbers)

    def place(self, parts: I64, sizes: U16) -> tuple[int, int]:
        """See `Choice`."""
        return place_kept(parts, sizes, self.table.owner, self.kept)

    def carry(self, way: Way, parts: I64, room: Room) -> Stop:
        """See `Choice`."""
        table = self.table
        if self.readdress is not None:
            return self.readdress.carry(way, parts, table, room)
        stop = carry_kept(
            way.files,
            parts,
            way.sizes,
            table.owner,
            table.direction,
            self.kept,
            room.data,
            room.rows,
            room.offset,
            room.caplen,
            room.owner,
            room.direction,
            room.pace,
        )
        return Stop(*stop)


@dataclass(frozen=True)
class Copying:
    """What is copied of a capture, and how it is changed."""

    capture: Capture
    choice: Choice
    changes: Changes | None = None

    def to(
        self, output: Path, *, digest: bool = False, progress: Progress | None = None
    ) -> CaptureWriter:
        """Write the output; returns its writer, closed. Raises CaptureError and OutputError."""
        with open_output(output, self.capture, digest=digest) as writer:
            plain, sizes = self.capture.plain, self.choice.sizes
            if isinstance(writer, PcapWriter) and plain and sizes is not None and not self.changes:
                _Carrying(self.capture, self.choice, plain, writer, progress).all(sizes)
            else:
                for batch, keep in self._batches():
                    writer.write(batch, keep)
                    if progress is not None:
                        done = self.capture.bytes + RECORD * self.capture.packets
                        progress("copying", done, self.capture.size)
        return writer

    def _batches(self) -> Iterator[Kept]:
        batches = self._kept()
        if self.changes is not None:
            batches = self.changes.repaired(batches)
        batches = self._edited(batches)
        return batches if self.changes is None else self.changes.closed(batches)

    def _kept(self) -> Iterator[Kept]:
        for batch in ahead(self.capture.batches(KEEP)):
            yield batch, self.choice.keep(batch.first, len(batch))

    def _edited(self, batches: Iterator[Kept]) -> Iterator[Kept]:
        for batch, keep in batches:
            if self.choice.edits:
                self.choice.edit(batch, np.arange(batch.first, batch.first + len(batch)))
            yield batch, keep


class _Carrying:
    """Parts of a plain file on their way into a pcap file."""

    def __init__(
        self,
        capture: Capture,
        choice: Choice,
        plain: Savefile,
        writer: PcapWriter,
        progress: Progress | None,
    ) -> None:
        self._capture, self._choice, self._plain = capture, choice, plain
        self._writer, self._progress = writer, progress
        self._own = threading.local()

    def all(self, sizes: U16) -> None:
        """Everything that is copied. Raises CaptureError, GrowingInput and OutputError."""
        parts = divide(sizes)
        packets, octets = self._choice.place(parts, sizes)
        output = self._writer.place_records(packets, octets)
        pages = None if output is None else pages_of(output)
        base = 0 if pages is None else pages.ctypes.data
        files = np.array([self._plain.fileno(), -1 if output is None else output, base])
        way = Way(files, sizes, self._capture.link)
        pieces = [parts[at : at + _AT_ONCE] for at in range(0, len(parts), _AT_ONCE)]
        if output is None:
            for piece in pieces:
                self._tell(self._carry(way, piece, self._append))
            return

        def put(part: I64, records: U8, packets: int) -> None:
            done = 0
            while done < len(records):
                done += os.pwrite(output, records[done:].data, int(part[PLACE]) + done)

        with ThreadPoolExecutor(_THREADS, "copying") as pool:
            try:
                for end in pool.map(lambda piece: self._carry(way, piece, put), pieces):
                    self._tell(end)
            except OSError as error:
                raise OutputError(
                    f"{self._writer.path}: cannot be written: {error.strerror}"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)

    def _carry(self, way: Way, parts: I64, put: Callable[[I64, U8, int], None]) -> int:
        """Carry parts, with `put` for those that need Python; the offset behind them."""
        room = self._room(parts)
        done = 0
        while done < len(parts):
            stop = self._choice.carry(way, parts[done:], room)
            done += stop.parts
            if done == len(parts):
                break
            if stop.packets < 0:
                raise explain(self._plain, parts[done])
            if stop.odd:
                self._edit_others(room, stop)
            put(parts[done], room.data[: stop.octets], stop.packets)
            done += 1
        self._plain.check_unchanged()
        return int(parts[-1, BEGIN] + parts[-1, SIZE])

    def _room(self, parts: I64) -> Room:
        """This thread's memory, as large as the parts need."""
        room: Room | None = getattr(self._own, "room", None)
        if room is None or not room.holds(parts):
            room = self._own.room = Room(parts)
        return room

    def _edit_others(self, room: Room, stop: Stop) -> None:
        caplen = room.caplen[: stop.packets]
        timeless = np.broadcast_to(np.int64(0), len(caplen))
        offset = room.offset[: stop.packets]
        batch = Batch(room.data, offset, caplen, caplen, timeless, self._capture.link, 0)
        others = room.others[: stop.odd]
        self._choice.edit_others(part_of(batch, others), room.rows[others])

    def _append(self, part: I64, records: U8, packets: int) -> None:
        self._writer.write_records(records, packets)

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress("copying", done, self._capture.size)
