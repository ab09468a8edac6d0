"""The second pass: what is kept of a capture goes to the output, changed on the way where asked.

Three threads share the work: one walks the input, one gathers what is kept and gives it addresses,
one writes. A plain pcap file is not even read: its records are gathered from where they are mapped,
and changed in the buffer that is written.
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
from pcap_tools.kernels import I64
from pcap_tools.output import CaptureWriter, open_output
from pcap_tools.readdress import Readdress
from pcap_tools.write import Edit, PcapWriter

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
            for batch, keep in self._written(writer):
                if not isinstance(writer, PcapWriter) or self.readdress is None or self._moved:
                    writer.write(batch, keep)
                else:
                    writer.write_edited(batch, keep, self._edit(batch))
                if progress is not None:
                    done = self.capture.bytes + 16 * self.capture.packets
                    progress("copying", done, self.capture.size)
        return writer

    @property
    def _moved(self) -> bool:
        """Whether packets come with changes already, so that addresses are given before writing."""
        return self.changes is not None and bool(self.changes)

    def _written(self, writer: CaptureWriter) -> Iterator[Kept]:
        in_place = self.readdress is not None or self._moved
        direct = isinstance(writer, PcapWriter) and not self._moved
        batches: Iterator[Kept] = self._batches(mapped=direct or not in_place)
        if direct:
            return batches
        if self.changes is not None:
            batches = self.changes.repaired(batches)
        batches = self._readdressed(batches)
        return batches if self.changes is None else self.changes.closed(batches)

    def _batches(self, mapped: bool) -> Iterator[Kept]:
        for batch in ahead(self.capture.batches(KEEP, mapped=mapped)):
            yield batch, self.kept[self._here(batch) - ORPHAN_FRAGMENT]

    def _here(self, batch: Batch) -> npt.NDArray[np.int32]:
        return self.table.owner[batch.first : batch.first + len(batch)]

    def _readdressed(self, batches: Iterator[Kept]) -> Iterator[Kept]:
        for batch, keep in batches:
            if self.readdress is not None:
                here = slice(batch.first, batch.first + len(batch))
                self.readdress.apply(batch, self.table.owner[here], self.table.direction[here])
            yield batch, keep

    def _edit(self, batch: Batch) -> Edit:
        here = slice(batch.first, batch.first + len(batch))
        owner, direction = self.table.owner[here], self.table.direction[here]

        def edit(packets: Batch, rows: I64) -> None:
            assert self.readdress is not None
            self.readdress.apply(packets, owner[rows], direction[rows])

        return edit
