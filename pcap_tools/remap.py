"""Rewrite a capture with one iteration's addresses, streaming: any size in constant memory.

The first pass numbers the addresses, since ranks need all of them; the second rewrites.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pcap_tools.capture import Capture, open_capture
from pcap_tools.edits import COUNTS
from pcap_tools.errors import OutputError
from pcap_tools.patch import patch_all
from pcap_tools.plan import AddressPlan
from pcap_tools.pools import DEFAULT_HOME
from pcap_tools.space import Space
from pcap_tools.stand_ins import AddressBook, Scheme, fill_line, new_tables
from pcap_tools.template import analyse_batch
from pcap_tools.write import PcapWriter, refuse_inputs

__all__ = ["RemapReport", "remap", "write_mapping"]


@dataclass(frozen=True)
class RemapReport:
    """What was rewritten; `counts` is what the frames were found to be."""

    output: str
    iteration: int
    packets: int
    bytes: int
    addresses: int
    ignored_bytes: int
    counts: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """The report's JSON form."""
        return asdict(self)


def remap(
    paths: Sequence[Path | str],
    output: Path,
    key: str,
    home: Sequence[str] = DEFAULT_HOME,
    iteration: int = 0,
) -> tuple[RemapReport, AddressPlan]:
    """Write the captures with the addresses of one iteration, and OUTPUT.plan.json beside.

    Timestamps, lengths and order stay. Raises PcapError.
    """
    refuse_inputs(output, list(paths))
    with open_capture(list(paths)) as capture:
        book = _addresses(capture)
        plan = book.plan(key, Space(home=tuple(home)))
        plan.require(iteration, 1)
        plan = replace(plan, run={"first": iteration, "iterations": 1})
        counts = np.zeros(len(COUNTS), np.int64)
        packets, octets = _rewrite(capture, output, book, plan, iteration, counts)
        ignored = capture.ignored_bytes
    plan.save(output.with_name(f"{output.name}.plan.json"))
    report = RemapReport(
        output=str(output),
        iteration=iteration,
        packets=packets,
        bytes=octets,
        addresses=len(book),
        ignored_bytes=ignored,
        counts=dict(zip(COUNTS, counts.tolist(), strict=True)),
    )
    return report, plan


def _addresses(capture: Capture) -> AddressBook:
    book = AddressBook()
    counts = np.zeros(len(COUNTS), np.int64)
    for batch in capture.batches():
        analyse_batch(batch, book, counts)
    return book


def _rewrite(
    capture: Capture,
    output: Path,
    book: AddressBook,
    plan: AddressPlan,
    iteration: int,
    counts: np.ndarray[Any, np.dtype[np.int64]],
) -> tuple[int, int]:
    """Patch and write every batch; returns packets and bytes of frames."""
    slots = book.slots(plan)
    scheme = Scheme.of(plan)
    v4, v6 = new_tables(scheme, 1)
    fill_line(scheme, iteration, v4, v6, 0)
    snaplen = capture.snaplen or 262144
    with PcapWriter(
        output, capture.link, nanoseconds=capture.nanoseconds, snaplen=snaplen
    ) as writer:
        for batch in capture.batches():
            rows, quotes = analyse_batch(batch, book, counts)
            book.relabel(rows, slots)
            book.relabel(quotes, slots)
            patch_all(batch.data.ctypes.data, batch.offset, rows, quotes, v4, v6)
            writer.write(batch)
        return writer.packets, writer.bytes


def write_mapping(plan: AddressPlan, iteration: int, path: Path) -> None:
    """Write original and mapped address with their class, a CSV row each. Raises OutputError."""
    classes = {address: name for name, group in plan.originals.items() for address in group}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["original", "mapped", "class"])
            for original, mapped in plan.mapped(iteration).items():
                writer.writerow([original, mapped, classes.get(original, "kept")])
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
