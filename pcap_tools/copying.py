"""The second pass: what is kept of a capture goes to the output, changed on the way where asked.

Threads share the work: one reads, one gathers what is kept and gives it addresses, one writes. The
records of a plain pcap file, whose sizes are known, are not walked again: into another pcap file
two threads put them to their places, part by part.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pcap_tools.ahead import KEEP, ahead
from pcap_tools.capture import Batch, Capture
from pcap_tools.changes import Changes
from pcap_tools.errors import OutputError
from pcap_tools.flows import ORPHAN_FRAGMENT, FlowTable
from pcap_tools.forecast import Progress
from pcap_tools.kernels import I64, U8, U16
from pcap_tools.output import CaptureWriter, open_output
from pcap_tools.parts import HEADER, RECORD, Part, Parts, close_up
from pcap_tools.readdress import Readdress
from pcap_tools.savefile import Savefile
from pcap_tools.write import PcapWriter

__all__ = ["ByFlow", "Choice", "Copying"]

_THREADS = 2

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
                self._records(writer, plain, sizes, progress)
            else:
                for batch, keep in self._batches():
                    writer.write(batch, keep)
                    self._tell(progress, self.capture.bytes + RECORD * self.capture.packets)
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

    def _records(
        self, writer: PcapWriter, plain: Savefile, sizes: U16, progress: Progress | None
    ) -> None:
        records = Parts(plain, sizes)
        parts = list(records)
        kept = [self._count(part, sizes) for part in parts]
        packets, octets = (sum(column) for column in zip(*kept, strict=True))
        placed = writer.place_records(packets, octets)
        if placed is None:
            for part, (count, _) in zip(parts, kept, strict=True):
                writer.write_records(self._made(records, part, sizes), count)
                self._tell(progress, part.end)
            return
        ends = HEADER + np.cumsum([RECORD * packets + octets for packets, octets in kept])

        def put(number: int) -> int:
            begin = HEADER if number == 0 else int(ends[number - 1])
            placed.put(begin, self._made(records, parts[number], sizes).data)
            return parts[number].end

        with ThreadPoolExecutor(_THREADS, "copying") as pool:
            try:
                for end in pool.map(put, range(len(parts))):
                    self._tell(progress, end)
            except OSError as error:
                raise OutputError(f"{writer.path}: cannot be written: {error.strerror}") from None
            finally:
                pool.shutdown(cancel_futures=True)

    def _count(self, part: Part, sizes: U16) -> tuple[int, int]:
        """Packets kept of a part, and their bytes."""
        keep = self.choice.keep(part.first, part.count)
        return int(np.count_nonzero(keep)), int(part.of(sizes).sum(where=keep, dtype=np.int64))

    def _made(self, records: Parts, part: Part, sizes: U16) -> U8:
        """The records that are kept of a part, changed."""
        piece, keep = part.of(sizes), self.choice.keep(part.first, part.count)
        rows: I64
        places: I64
        data = records.read(part)
        if keep.all():
            rows = np.arange(part.first, part.first + part.count)
            places = np.cumsum(piece + np.int64(RECORD), dtype=np.int64) - piece
        else:
            rows, places = np.empty(part.count, np.int64), np.empty(part.count, np.int64)
            count, end = close_up(data, piece, keep, rows, places)
            data, rows, places = data[:end], rows[:count], places[:count]
            piece = piece[rows]
            rows += part.first
        if self.choice.edits and len(rows):
            caplen = piece.astype(np.uint32)
            timeless = np.broadcast_to(np.int64(0), len(rows))
            batch = Batch(data, places, caplen, caplen, timeless, self.capture.link, part.first)
            self.choice.edit(batch, rows)
        return data

    def _tell(self, progress: Progress | None, done: int) -> None:
        if progress is not None:
            progress("copying", done, self.capture.size)
