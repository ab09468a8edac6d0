"""One flow a file: DIR/<flow>-<protocol>-<server port>.pcap, and DIR/split.csv that lists them.

Example:
    report = split("clean.pcap", "flows/", SplitOptions(target="stf"))
    print(report.files, report.dropped)

The way back is pcap_tools.merge. Files are pcap, with their packets in the capture's order.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pcap_tools.capture import Capture, open_capture
from pcap_tools.decode import Decoder
from pcap_tools.errors import EmptyCapture, OutputError, PcapError, UnsupportedLink
from pcap_tools.flows import IDLE_S, FlowTable, FlowTracker
from pcap_tools.kernels import I32
from pcap_tools.scatter import WINDOW, Scatter
from pcap_tools.splitfiles import (
    FORMAT,
    FORMAT_VERSION,
    ORDER_NAME,
    REPORT_NAME,
    TABLE_NAME,
    Verdicts,
    capture_header,
    file_names,
    original_header,
    write_order,
    write_split_table,
)
from pcap_tools.trexadapt import Adapter
from pcap_tools.trexfit import FitSurvey
from pcap_tools.walk import U32

__all__ = ["TARGETS", "SplitOptions", "SplitReport", "split"]

TARGETS = {
    "any": "every flow, and packets outside flows, unchanged",
    "stf": "flows that TRex's STF loader takes, adapted where that is enough; the others dropped",
    "astf": "flows that TRex's ASTF parser takes, unchanged; the others dropped",
}
"""What the files are for: what is written."""

Progress = Callable[[str, int, int], None]
"""Called with the step's name, and bytes done of bytes in all."""


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How to split.

    `target` is one of TARGETS. `reply_gap_s` (for stf): at least so many seconds from a packet to
    one of the other end that follows it. `idle_s` of silence ends a flow without TCP. `window` is
    the size of the buffers in bytes; two are used.
    """

    target: str = "any"
    reply_gap_s: float = 0.0
    idle_s: float = IDLE_S
    window: int = WINDOW

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise PcapError(f"unknown target {self.target!r}; the targets are {', '.join(TARGETS)}")
        if not 0 <= self.reply_gap_s <= 3600 or (self.reply_gap_s and self.target != "stf"):
            raise PcapError(
                f"a reply gap of {self.reply_gap_s:g} s for {self.target}: it must be 0 to 3600 s, "
                "and is for stf only (astf has its own timing, any changes nothing)"
            )
        if not 0 < self.idle_s < 2**32:
            raise PcapError(f"an idle time of {self.idle_s:g} s: it must be above 0 s")


@dataclass(frozen=True, slots=True)
class SplitReport:
    """What was written; also in DIR/split.json.

    `flows` of the capture, `files`, `packets` and `bytes` (of frames) written, `other` packets
    without a flow (written to other.pcap for target any, else left out). `dropped` are flows not
    written, by reason; `adapted` packets changed, by what was changed; `stf` and `astf` flows that
    do not fit, by reason. `exact`: merging gives the input back byte for byte. `header` is what
    merging puts in front, in hexadecimal. `ignored_bytes` are those of the input's truncated tail.
    """

    inputs: tuple[str, ...]
    directory: str
    target: str
    reply_gap_s: float
    flows: int
    files: int
    packets: int
    bytes: int
    other: int
    exact: bool
    header: str
    ignored_bytes: int
    dropped: dict[str, int] = field(default_factory=dict)
    adapted: dict[str, int] = field(default_factory=dict)
    stf: dict[str, int] = field(default_factory=dict)
    astf: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The report's JSON form, as in DIR/split.json."""
        head = {"format": FORMAT, "version": FORMAT_VERSION}
        return {**head, **asdict(self), "inputs": list(self.inputs)}


def split(
    paths: Sequence[Path | str] | Path | str,
    directory: Path | str,
    options: SplitOptions | None = None,
    progress: Progress | None = None,
) -> SplitReport:
    """Write each flow of `paths` to a file of its own in `directory`, which is new or empty.

    The directory gets its name when it is whole. Memory: two windows, 13 bytes a packet and about
    300 bytes a flow. Raises CaptureError, EmptyCapture (nothing to write), UnsupportedLink (link
    types differ) and OutputError.
    """
    options = options or SplitOptions()
    directory = Path(directory)
    _refuse_full(directory)
    with open_capture(paths) as capture:
        table, caplen = _read(capture, options.idle_s, progress)
        unfinished = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
        try:
            unfinished.mkdir()
            report = _write(capture, table, caplen, directory, unfinished, options, progress)
            unfinished.rename(directory)
        except OSError as error:
            raise OutputError(f"{directory}: cannot be written: {error.strerror}") from None
        finally:
            if unfinished.exists():
                with contextlib.suppress(OSError):
                    shutil.rmtree(unfinished)
    return report


def _refuse_full(directory: Path) -> None:
    if directory.is_dir():
        if next(directory.iterdir(), None) is not None:
            raise OutputError(f"{directory}: is not empty; give a new directory")
    elif directory.exists():
        raise OutputError(f"{directory}: is a file; give a new directory")
    elif not directory.absolute().parent.is_dir():
        raise OutputError(f"{directory}: there is no directory {directory.parent}; make it first")


def _read(capture: Capture, idle_s: float, progress: Progress | None) -> tuple[FlowTable, U32]:
    """The flow table, and the captured length of each packet."""
    decode, tracker = Decoder(), FlowTracker(idle_s)
    caplen = np.empty(1 << 16, np.uint32)
    for batch in capture.batches():
        if batch.link != capture.links[0]:
            raise UnsupportedLink(
                f"{capture.paths[0]}: packet {batch.first}: link types differ, and a flow's file "
                "has one; split the capture by interface first"
            )
        tracker.update(batch, decode(batch))
        stop = batch.first + len(batch)
        if stop > len(caplen):
            caplen = np.concatenate([caplen, np.empty(max(len(caplen), len(batch)), np.uint32)])
        caplen[batch.first : stop] = batch.caplen
        _tell(progress, "reading flows", capture)
    return tracker.finish(), caplen[: capture.packets]


def _write(
    capture: Capture,
    table: FlowTable,
    caplen: U32,
    directory: Path,
    unfinished: Path,
    options: SplitOptions,
    progress: Progress | None,
) -> SplitReport:
    header = capture_header(capture)
    names = file_names(table)
    survey = FitSurvey(table)
    verdicts = None
    if options.target != "any":  # what is written depends on them
        for batch in capture.batches():
            survey.update(batch)
            _tell(progress, "judging flows", capture)
        verdicts = Verdicts.of(survey.finish(), options.target, options.reply_gap_s)
    owner = _file_numbers(table, verdicts)
    if not (owner >= 0).any():
        assert verdicts is not None
        reasons = ", ".join(f"{name} {count:,}" for name, count in verdicts.dropped.items())
        raise EmptyCapture(
            f"{', '.join(map(str, capture.paths))}: no flow fits {options.target} ({reasons})"
        )
    adapter = None
    if options.target == "stf":
        step = 1 if capture.nanoseconds else 1000
        gap_ns = -(-round(options.reply_gap_s * 1e9) // step) * step
        adapter = Adapter(len(table), gap_ns)
    with Scatter(unfinished, names, owner, caplen, header, options.window) as scatter:
        for batch in capture.batches():
            if verdicts is None:
                survey.update(batch)
            if adapter is not None:
                part = slice(batch.first, batch.first + len(batch))
                adapter.update(batch, owner[part], table.direction[part])
            scatter.write(batch)
            _tell(progress, "writing flows", capture)
        scatter.flush()
        # The last window's files are created while the tables are written.
        verdicts = verdicts or Verdicts.of(survey.finish(), "any")
        write_split_table(unfinished / TABLE_NAME, table, verdicts, names)
        write_order(unfinished / ORDER_NAME, owner, caplen)
    original = original_header(capture)
    report = SplitReport(
        inputs=tuple(str(path) for path in capture.paths),
        directory=str(directory),
        target=options.target,
        reply_gap_s=options.reply_gap_s,
        flows=len(table),
        files=scatter.files,
        packets=scatter.packets,
        bytes=scatter.bytes,
        other=int(table.frames[:4, 0].sum()),
        exact=original is not None and options.target == "any" and not capture.ignored_bytes,
        header=(original or header).hex(),
        ignored_bytes=capture.ignored_bytes,
        dropped=verdicts.dropped,
        adapted=dict(adapter.counts) if adapter is not None else {},
        stf=verdicts.stf_counts,
        astf=verdicts.astf_counts,
    )
    (unfinished / REPORT_NAME).write_text(json.dumps(report.as_json(), indent=1) + "\n")
    return report


def _file_numbers(table: FlowTable, verdicts: Verdicts | None) -> I32:
    """The number of each packet's file: its flow, len(table) for other.pcap, −1 for none."""
    if verdicts is None:
        return np.where(table.owner < 0, np.int32(len(table)), table.owner)
    numbers = np.arange(len(table) + 1, dtype=np.int32)
    numbers[:-1][~verdicts.written] = -1
    numbers[-1] = -1
    return numbers[np.where(table.owner < 0, len(table), table.owner)]


def _tell(progress: Progress | None, step: str, capture: Capture) -> None:
    if progress is not None:
        progress(step, capture.bytes + 16 * capture.packets, capture.size)
