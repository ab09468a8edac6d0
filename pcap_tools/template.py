"""A corpus in memory, as records ready to be written: pcap record header, frame, frame, …

Each frame is stored once with right checksums, next to the row that says how to change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pcap_tools.capture import open_capture
from pcap_tools.edits import COLUMNS, COUNTS, QUOTE
from pcap_tools.kernels import I32, I64, U8, copy_bytes, kernel, store32
from pcap_tools.plan import AddressPlan
from pcap_tools.population import Population
from pcap_tools.ports import MOVE_COLUMNS
from pcap_tools.scan import analyse_batch
from pcap_tools.space import Space
from pcap_tools.stand_ins import AddressBook

if TYPE_CHECKING:
    from pcap_tools.hosts import Reuse

__all__ = ["HEADER", "Template", "load_template", "reordered"]

HEADER = 16  # bytes of a pcap record header


@dataclass(frozen=True)
class Template:
    """One iteration of a corpus, packets in time order (ties in file order).

    `blob` holds the records; record k is blob[start[k] : start[k + 1]]. `due_ns[k]` is its time
    since the first packet, `first_ns` that packet's time since the epoch. `rows` and `quotes` are
    `edits` rows with the plan's slots. `bytes` counts frames as captured, `counts` what was found.
    `snaplen` is the longest frame at least. With a bounded population, `moves` says where client
    ports stand (`ports`; one row otherwise) and `reuse` when five-tuples come back.
    """

    blob: U8
    start: I64
    due_ns: I64
    rows: I32
    quotes: I32
    first_ns: int
    link: int
    snaplen: int
    nanoseconds: bool
    ignored_bytes: int
    counts: dict[str, int]
    plan: AddressPlan
    moves: I32
    reuse: Reuse | None

    @property
    def packets(self) -> int:
        """Packets of one iteration."""
        return len(self.due_ns)

    @property
    def edited(self) -> bool:
        """True when a frame has more to change than the addresses of its IP header."""
        return len(self.quotes) > 1

    @property
    def bytes(self) -> int:
        """Bytes of one iteration's frames."""
        return len(self.blob) - HEADER * self.packets

    @property
    def span_ns(self) -> int:
        """Time from the first packet to the last."""
        return int(self.due_ns[-1])


@kernel
def _pack(data: U8, offset: I64, caplen: I64, wirelen: I64, blob: U8) -> None:
    place = blob.ctypes.data
    base = data.ctypes.data
    for index in range(offset.size):
        store32(place + 8, np.uint64(caplen[index]))
        store32(place + 12, np.uint64(wirelen[index]))
        copy_bytes(place + HEADER, base + offset[index], caplen[index])
        place += HEADER + caplen[index]


@kernel
def gather(blob: U8, start: I64, order: I64, target: U8, target_start: I64) -> None:
    """Copy records in another order; `target_start` gets the new bounds (one more than records)."""
    place = 0
    for index in range(order.size):
        source = start[order[index]]
        size = start[order[index] + 1] - source
        target_start[index] = place
        copy_bytes(target.ctypes.data + place, blob.ctypes.data + source, size)
        place += size
    target_start[order.size] = place


def load_template(
    paths: Sequence[Path | str], key: str, space: Space, hosts: Population | None = None
) -> Template:
    """Read a whole corpus. Raises CaptureError and PlanError."""
    ports = None
    book = AddressBook()
    counts = np.zeros(len(COUNTS), np.int64)
    blobs: list[U8] = []
    sizes: list[I64] = []
    times: list[I64] = []
    all_rows: list[I32] = []
    all_quotes: list[I32] = []
    quoted = 0
    with open_capture(list(paths)) as capture:
        if hosts:
            from pcap_tools.flows import flow_table  # loaded when needed: start-up
            from pcap_tools.hosts import PortBook

            ports = PortBook(flow_table(capture))
        for batch in capture.batches():
            rows, quotes = analyse_batch(batch, book, counts)
            for edits in (rows, quotes):  # edits name the next one of the same frame
                edits[edits[:, QUOTE] > 0, QUOTE] += quoted
            quoted += len(quotes)
            caplen = batch.caplen.astype(np.int64)
            blob = np.empty(int(caplen.sum()) + HEADER * len(batch), np.uint8)
            _pack(batch.data, batch.offset, caplen, batch.wirelen.astype(np.int64), blob)
            blobs.append(blob)
            sizes.append(caplen + HEADER)
            times.append(batch.time_ns.copy())
            all_rows.append(rows)
            all_quotes.append(quotes)
        link, nanoseconds, ignored = capture.link, capture.nanoseconds, capture.ignored_bytes
    plan = replace(book.plan(key, space), hosts=hosts)
    slots = book.slots(plan)
    rows, quotes = np.concatenate(all_rows), np.concatenate([*all_quotes, _one_row()])
    time_ns, size = np.concatenate(times), np.concatenate(sizes)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(size)])
    blob = np.concatenate(blobs)
    moves, reuse = np.zeros((1, MOVE_COLUMNS), np.int32), None
    if ports:
        where = (0, blob.ctypes.data, start[:-1] + HEADER, size - HEADER, rows)
        ports.learn(*where)
        plan = ports.settle(plan, book)
        moves, reuse = ports.moves(*where, quotes), ports.reuse(plan, book)
    book.relabel(rows, slots)
    book.relabel(quotes, slots)
    unordered = Template(
        blob=blob,
        start=start,
        due_ns=time_ns - time_ns.min(),
        rows=rows,
        quotes=quotes,
        first_ns=int(time_ns.min()),
        link=link,
        snaplen=max(262144, int(size.max()) - HEADER),
        nanoseconds=nanoseconds,
        ignored_bytes=ignored,
        counts=dict(zip(COUNTS, counts.tolist(), strict=True)),
        plan=plan,
        moves=moves,
        reuse=reuse,
    )
    if (np.diff(time_ns) >= 0).all():
        return unordered
    return reordered(unordered, np.argsort(time_ns, kind="stable"))


def reordered(template: Template, order: I64) -> Template:
    """The same template with its records in another order."""
    blob, start = np.empty_like(template.blob), np.empty_like(template.start)
    gather(template.blob, template.start, order, blob, start)
    return replace(
        template,
        blob=blob,
        start=start,
        due_ns=template.due_ns[order],
        rows=template.rows[order],
        moves=template.moves[order] if template.reuse else template.moves,
    )


def _one_row() -> I32:
    """Kernels take arrays of at least one row."""
    return np.zeros((1, COLUMNS), np.int32)
