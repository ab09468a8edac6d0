"""Captures as they should have been: policies for what `survey` finds, applied while reading.

`open_prepared(paths, Hygiene(...))` is a Capture, and can stand wherever one does. In this order:
snapped packets and packets without a timestamp are dropped, the rest is put in order of time,
duplicates are dropped, and segments larger than the MTU are cut. Every pass gives the same packets.

>>> with open_prepared("raw.pcap", Hygiene(sort=True, dedup="exact")) as capture:
...     for batch in capture.batches():
...         ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pcap_tools.batches import owned, taken
from pcap_tools.capture import Batch, Capture, open_capture
from pcap_tools.dedup import Duplicates, Window
from pcap_tools.errors import EmptyCapture, PcapError
from pcap_tools.reorder import Reordered
from pcap_tools.resegment import Resegmenter
from pcap_tools.savefile import Savefile

__all__ = ["Hygiene", "Prepared", "Treatment", "open_prepared", "prepare"]


@dataclass(frozen=True, slots=True)
class Hygiene:
    """What to do; the default is nothing.

    `snapped` and `zero_time` are "keep" or "drop". `dedup` is "" (keep), "exact" or "ip", with its
    `window`. `resegment` is the MTU in bytes, or 0. Raises PcapError for other values.
    """

    snapped: str = "keep"
    zero_time: str = "keep"
    sort: bool = False
    dedup: str = ""
    window: Window = field(default_factory=Window)
    resegment: int = 0

    def __post_init__(self) -> None:
        for name in ("snapped", "zero_time"):
            if getattr(self, name) not in ("keep", "drop"):
                option = name.replace("_", "-")
                raise PcapError(f"--{option} {getattr(self, name)}: give keep or drop")
        if self.dedup not in ("", "exact", "ip"):
            raise PcapError(f"--dedup {self.dedup}: give exact or ip")
        if self.resegment:
            Resegmenter(self.resegment)

    def __bool__(self) -> bool:
        return self != Hygiene(window=self.window)


@dataclass(frozen=True, slots=True)
class Treatment:
    """What a pass did: packets dropped by reason, whether they had to be sorted, packets that were
    cut (`resegmented`) into `segments`, and packets larger than the MTU that could not be."""

    snapped: int = 0
    zero_time: int = 0
    duplicates: int = 0
    sorted: bool = False
    resegmented: int = 0
    segments: int = 0
    kept_oversized: int = 0

    def lines(self) -> list[str]:
        """A line for each thing done."""
        texts = [
            (self.snapped, f"dropped {self.snapped:,} snapped packets"),
            (self.zero_time, f"dropped {self.zero_time:,} packets with timestamp 0"),
            (self.duplicates, f"dropped {self.duplicates:,} duplicates"),
            (self.sorted, "put packets in order of time"),
            (
                self.resegmented,
                f"cut {self.resegmented:,} packets larger than the MTU into {self.segments:,}",
            ),
            (
                self.kept_oversized,
                f"left {self.kept_oversized:,} packets larger than the MTU whole (UDP, tunnels, "
                "fragments, IP options, snapped)",
            ),
        ]
        return [text for happened, text in texts if happened]

    def as_json(self) -> dict[str, Any]:
        """The JSON form: the attributes by their names."""
        return asdict(self)


class Prepared(Capture):
    """A capture seen through a Hygiene. `treatment` tells what the last whole pass did."""

    def __init__(self, capture: Capture, hygiene: Hygiene) -> None:
        self.__dict__.update(capture.__dict__)
        self._capture = capture
        self.hygiene = hygiene
        self.treatment = Treatment()
        self._dropped = [0, 0]
        self._reordered = Reordered(capture, self._filtered) if hygiene.sort else None

    @property
    def plain(self) -> Savefile | None:
        """None: the file's bytes are not the capture's."""
        return None

    def batches(self, keep: int = 1) -> Iterator[Batch]:
        """All packets as they are to be; the last `keep` stay valid. Raises as Capture.batches."""
        hygiene = self.hygiene
        self.packets = self.bytes = 0
        duplicates = Duplicates(hygiene.window, hygiene.dedup) if hygiene.dedup else None
        segments = Resegmenter(hygiene.resegment) if hygiene.resegment else None
        repeated = 0
        for batch in self._source(keep):
            if duplicates is not None:
                again = duplicates(batch)
                if again.any():
                    repeated += int(np.count_nonzero(again))
                    batch = taken(batch, np.flatnonzero(~again))
            for part in (batch,) if segments is None else segments(batch):
                if len(part):
                    numbered = replace(part, first=self.packets)
                    if keep > 1 and (segments is not None or hygiene.sort):
                        numbered = owned(numbered)  # these stages use their buffers again
                    self.packets += len(part)
                    self.bytes += int(part.caplen.sum(dtype=np.int64))
                    yield numbered
        self.treatment = Treatment(
            snapped=self._dropped[0],
            zero_time=self._dropped[1],
            duplicates=repeated,
            sorted=self._reordered is not None and not self._reordered.was_sorted,
            resegmented=segments.split if segments else 0,
            segments=segments.segments if segments else 0,
            kept_oversized=segments.kept if segments else 0,
        )
        if not self.packets:
            raise EmptyCapture(f"{self._names()}: no packet is left ({self.treatment.lines()[0]})")

    def _source(self, keep: int) -> Iterator[Batch]:
        if self._reordered is not None:
            return self._reordered.batches()
        return self._filtered(self._capture.batches(keep))

    def _filtered(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches without the packets that are dropped one by one."""
        snapped, zero = self.hygiene.snapped == "drop", self.hygiene.zero_time == "drop"
        self._dropped = [0, 0]
        for batch in batches:
            if snapped or zero:
                cut = (batch.caplen < batch.wirelen) & snapped
                timeless = (batch.time_ns == 0) & zero & ~cut
                self._dropped[0] += int(np.count_nonzero(cut))
                self._dropped[1] += int(np.count_nonzero(timeless))
                gone = cut | timeless
                if gone.any():
                    batch = taken(batch, np.flatnonzero(~gone))
            yield batch


def prepare(capture: Capture, hygiene: Hygiene) -> Capture:
    """The capture as `hygiene` wants it: the capture itself when nothing is asked."""
    return Prepared(capture, hygiene) if hygiene else capture


def open_prepared(
    paths: Sequence[Path | str] | Path | str, hygiene: Hygiene | None = None
) -> Capture:
    """`open_capture`, prepared. Raises as that."""
    return prepare(open_capture(paths), hygiene or Hygiene())
