"""The second pass: what is kept of a capture goes to the output, changed on the way where asked.

Threads share the work: one reads, one gathers what is kept and gives it addresses, one writes. A
plain pcap file is not even read again: its records are gathered from where they are mapped, and
changed in the buffer that is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pcap_tools.ahead import KEEP, ahead
from pcap_tools.capture import Batch, Capture
from pcap_tools.changes import Changes
from pcap_tools.flows import ORPHAN_FRAGMENT, FlowTable
from pcap_tools.forecast import Progress
from pcap_tools.kernels import I64, U8, U16
from pcap_tools.mapped import mapped_records
from pcap_tools.output import CaptureWriter, open_output
from pcap_tools.readdress import Readdress
from pcap_tools.savefile import Savefile
from pcap_tools.write import RECORD, PcapWriter

__all__ = ["Copying"]

Kept = tuple[Batch, npt.NDArray[np.bool_]]
"""A batch, and which of its packets are written."""


@dataclass(frozen=True)
class Copying:
    """What is copied: the packets of `capture` whose owner is kept (`kept[owner + 4]`), with fresh
    addresses and other changes."""

    capture: Capture
    table: FlowTable
    kept: npt.NDArray[np.bool_]
    readdress: Readdress | None = None
    changes: Changes | None = None

    def to(
        self, output: Path, *, digest: bool = False, progress: Progress | None = None
    ) -> CaptureWriter:
        """Write the output; returns its writer, closed. Raises CaptureError and OutputError."""
        with open_output(output, self.capture, digest=digest) as writer:
            plain, sizes = self.capture.plain, self.table.sizes
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
        batches = self._readdressed(batches)
        return batches if self.changes is None else self.changes.closed(batches)

    def _kept(self) -> Iterator[Kept]:
        for batch in ahead(self.capture.batches(KEEP)):
            owner = self.table.owner[batch.first : batch.first + len(batch)]
            yield batch, self.kept[owner - ORPHAN_FRAGMENT]

    def _readdressed(self, batches: Iterator[Kept]) -> Iterator[Kept]:
        for batch, keep in batches:
            if self.readdress is not None:
                here = slice(batch.first, batch.first + len(batch))
                self.readdress.apply(batch, self.table.owner[here], self.table.direction[here])
            yield batch, keep

    def _records(
        self, writer: PcapWriter, plain: Savefile, sizes: U16, progress: Progress | None
    ) -> None:
        done = 0
        for first, source, part in mapped_records(plain, sizes):
            here = slice(first, first + len(part))
            owner, direction = self.table.owner[here], self.table.direction[here]

            def edit(data: U8, places: I64, rows: I64) -> None:
                caplen = part[rows].astype(np.uint32)  # noqa: B023 -- called within this turn
                nothing = np.zeros(len(rows), np.int64)
                link = self.capture.link
                packets = Batch(data, places, caplen, caplen, nothing, link, first)  # noqa: B023
                assert self.readdress is not None
                self.readdress.apply(packets, owner[rows], direction[rows], first + rows)  # noqa: B023

            keep = self.kept[owner - ORPHAN_FRAGMENT]
            writer.write_records(source, part, keep, edit if self.readdress else None)
            done += len(source)
            self._tell(progress, done)

    def _tell(self, progress: Progress | None, done: int) -> None:
        if progress is not None:
            progress("copying", done, self.capture.size)
