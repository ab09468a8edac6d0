"""Rewrite a capture with one iteration's addresses, streaming: any size in constant memory.

The first pass numbers the addresses, since ranks need all of them; the second rewrites. `restore`
goes the other way, from a rewritten capture and its plan back to the original.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pcap_tools.addresses import text_of
from pcap_tools.beside import compile_beside
from pcap_tools.byaddress import ByAddress
from pcap_tools.capture import Batch, Capture, open_capture
from pcap_tools.copying import Copying
from pcap_tools.edits import COUNTS, MAC, QUOTING
from pcap_tools.errors import OutputError, PlanError
from pcap_tools.flows import FlowTable, flow_table
from pcap_tools.fresh import FreshAddresses
from pcap_tools.hosts import PortBook, Reuse
from pcap_tools.kernels import I64
from pcap_tools.macs import FixedMacs, mac_words, unicast_macs, write_fixed
from pcap_tools.mentions import Mentions
from pcap_tools.output import open_output
from pcap_tools.patch import Edits, patch_all
from pcap_tools.plan import AddressPlan
from pcap_tools.pools import DEFAULT_HOME
from pcap_tools.population import Population
from pcap_tools.ports import move_all, mover_of
from pcap_tools.scan import analyse_batch
from pcap_tools.space import Space
from pcap_tools.stand_ins import AddressBook, lookup
from pcap_tools.tables import Tables, new_macs, tables_of
from pcap_tools.write import refuse_inputs

__all__ = [
    "RemapOptions",
    "RemapReport",
    "by_frames",
    "remap",
    "restore",
    "rewrite",
    "write_mapping",
]


@dataclass(frozen=True, kw_only=True)
class RemapOptions:
    """How to rewrite a capture.

    `key`, `space`, `prefix` and `hosts` make a plan; `plan` is one that exists instead, and has to
    know every address. `also` names captures whose addresses the new plan shall know too, so that
    several captures can be rewritten alike. `macs` is "keep", "map" or fixed ones.
    """

    key: str = ""
    space: Space = field(default_factory=Space)
    iteration: int = 0
    prefix: bool = False
    hosts: Population | None = None
    macs: str | FixedMacs = "keep"
    plan: AddressPlan | None = None
    also: tuple[Path, ...] = ()


@dataclass(frozen=True)
class RemapReport:
    """What was rewritten; `counts` is what the frames were found to be.

    `mentions` tells the payloads that quote a mapped address, by protocol: packets and the number
    (from 1) of the first. Payloads are never rewritten.
    """

    output: str
    iteration: int
    packets: int
    bytes: int
    addresses: int
    ignored_bytes: int
    counts: dict[str, int]
    mentions: dict[str, dict[str, int]] = field(default_factory=dict)
    reuse: Reuse | None = None

    def as_json(self) -> dict[str, Any]:
        """The report's JSON form."""
        return {**asdict(self), "reuse": self.reuse.as_json() if self.reuse else None}


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
    options = RemapOptions(key=key, space=Space(home=tuple(home)), iteration=iteration)
    return rewrite(paths, output, options)


def rewrite(
    paths: Sequence[Path | str], output: Path, options: RemapOptions
) -> tuple[RemapReport, AddressPlan]:
    """`remap` with every option."""
    refuse_inputs(output, [*paths, *options.also])
    plan = options.plan
    simple = options.hosts is None and options.macs == "keep" and not options.also
    if simple and (plan is None or (plan.macs is None and plan.hosts is None)):
        return _by_addresses(paths, output, options)
    return by_frames(paths, output, options)


def _by_addresses(
    paths: Sequence[Path | str], output: Path, options: RemapOptions
) -> tuple[RemapReport, AddressPlan]:
    """The fast way where addresses are all that changes; see `byaddress`."""
    fresh = FreshAddresses(
        options.key, options.space, options.iteration, options.prefix, options.plan
    )
    work = ByAddress(fresh)
    compile_beside("remap")
    with open_capture(list(paths)) as capture:
        work.collect(capture)
        plan = work.settle()
        writer = Copying(capture, work).to(output)
        ignored = capture.ignored_bytes
    plan.save(output.with_name(f"{output.name}.plan.json"))
    report = RemapReport(
        output=str(output),
        iteration=options.iteration,
        packets=writer.packets,
        bytes=writer.bytes,
        addresses=work.addresses,
        ignored_bytes=ignored,
        counts=dict(zip(COUNTS, work.counts.tolist(), strict=True)),
        mentions=work.mentions.report() if work.mentions else {},
    )
    return report, plan


def by_frames(
    paths: Sequence[Path | str], output: Path, options: RemapOptions
) -> tuple[RemapReport, AddressPlan]:
    """The general way: every frame's addresses are looked up, twice."""
    numbered = options.macs == "map" or bool(options.plan and options.plan.macs is not None)
    with open_capture(list(paths)) as capture:
        fixed = isinstance(options.macs, FixedMacs)
        hosts = options.plan.hosts if options.plan else options.hosts
        table = flow_table(capture) if hosts or fixed else None
        if fixed and capture.link != 1:
            raise PlanError("--macs client=…,server=…: only Ethernet frames have both addresses")
        ports = PortBook(table) if hosts and table else None
        book = AddressBook()
        _collect(capture, book, numbered, ports)
        for path in options.also:
            with open_capture([path]) as other:
                _collect(other, book, numbered, None)
        plan = options.plan or _new_plan(book, options)
        plan.require(options.iteration, 1)
        reuse = None
        if ports:
            plan = _with_ports(plan, ports, book)
            reuse = ports.reuse(plan, book)
        tables = _tables(book, plan, options.iteration)
        plan = replace(plan, run={"first": options.iteration, "iterations": 1})
        mentions = Mentions(plan)
        job = _Job(book, tables, numbered, plan, options, ports, table, mentions)
        packets, octets = job.write(capture, output)
        ignored = capture.ignored_bytes
    plan.save(output.with_name(f"{output.name}.plan.json"))
    report = RemapReport(
        output=str(output),
        iteration=options.iteration,
        packets=packets,
        bytes=octets,
        addresses=int((book.columns()[0] != MAC).sum()),
        ignored_bytes=ignored,
        counts=dict(zip(COUNTS, job.counts.tolist(), strict=True)),
        mentions=mentions.report(),
        reuse=reuse,
    )
    return report, plan


def _collect(capture: Capture, book: AddressBook, macs: bool, ports: PortBook | None) -> None:
    """First pass: enter all addresses into the book, and client sockets into theirs."""
    counts = np.zeros(len(COUNTS), np.int64)
    for batch in capture.batches():
        rows, _ = analyse_batch(batch, book, counts, macs)
        if ports:
            sizes = batch.caplen.astype(np.int64)
            ports.learn(batch.first, batch.data.ctypes.data, batch.offset, sizes, rows)


def _new_plan(book: AddressBook, options: RemapOptions) -> AddressPlan:
    plan = book.plan(options.key, options.space)
    macs = tuple(unicast_macs(book.book).tolist()) if options.macs == "map" else None
    return replace(plan, prefix=options.prefix, hosts=options.hosts, macs=macs)


def _with_ports(plan: AddressPlan, ports: PortBook, book: AddressBook) -> AddressPlan:
    settled = ports.settle(plan, book)
    if plan.sockets is not None and plan.sockets != settled.sockets:
        raise PlanError(
            "the plan moves client ports, and was made for another capture; make a plan of its own"
        )
    return settled


def _tables(book: AddressBook, plan: AddressPlan, iteration: int) -> Tables:
    """What every number of the book becomes. Raises PlanError for an address not in the plan."""
    version, high, low = book.columns()
    there = version != MAC
    plan.require_known(version[there], high[there], low[there])
    macs = new_macs(plan, low[version == MAC]) if plan.macs is not None else None
    high, low = lookup(plan, iteration, version, high, low)
    return tables_of(version, high, low, macs)


class _Job:
    """The second pass."""

    def __init__(
        self,
        book: AddressBook,
        tables: Tables,
        numbered: bool,
        plan: AddressPlan,
        options: RemapOptions,
        ports: PortBook | None = None,
        table: FlowTable | None = None,
        mentions: Mentions | None = None,
    ) -> None:
        self.counts: I64 = np.zeros(len(COUNTS), np.int64)
        self.mentions = mentions
        self._book, self._tables, self._numbered = book, tables, numbered
        self._iteration, self._macs = options.iteration, options.macs
        self._ports, self._table = ports, table
        self._mover = mover_of(plan)

    def write(self, capture: Capture, output: Path) -> tuple[int, int]:
        """Patch and write every batch; returns packets and bytes of frames."""
        with open_output(output, capture) as writer:
            for batch in capture.batches():
                self._patch(batch)
                writer.write(batch)
            return writer.packets, writer.bytes

    def _patch(self, batch: Batch) -> None:
        before = int(self.counts[QUOTING])
        rows, quotes = analyse_batch(batch, self._book, self.counts, self._numbered)
        data, sizes = batch.data.ctypes.data, batch.caplen.astype(np.int64)
        if self.mentions and self.counts[QUOTING] > before:
            self.mentions.look(batch, rows)
        if self._ports:
            moves = self._ports.moves(batch.first, data, batch.offset, sizes, rows, quotes)
        edits = Edits(quotes, self._tables.macs) if len(quotes) else None
        patch_all(data, batch.offset, rows, edits, self._tables.v4, self._tables.v6)
        if self._ports:
            move_all(data, batch.offset, moves, self._mover, self._iteration)
        if isinstance(self._macs, FixedMacs) and self._table:
            here = slice(batch.first, batch.first + len(batch))
            words = mac_words(np.array([self._macs.client, self._macs.server], np.uint64))
            owner, direction = self._table.owner[here], self._table.direction[here]
            write_fixed(data, batch.offset, sizes, owner, direction, words)


def restore(
    paths: Sequence[Path | str], output: Path, plan: AddressPlan
) -> tuple[RemapReport, AddressPlan]:
    """Write the original of a rewritten (or expanded) capture.

    Frames come back as they were, if their checksums were right. Raises PlanError for an address
    that the plan never handed out, and for a plan that moves client ports.
    """
    refuse_inputs(output, list(paths))
    if plan.sockets is not None:
        raise PlanError("the plan moves client ports; map flows back with corpus invert")
    numbered = plan.macs is not None
    with open_capture(list(paths)) as capture:
        book = AddressBook()
        _collect(capture, book, numbered, None)
        version, high, low = book.columns()
        macs = new_macs(plan, low[version == MAC], back=True) if numbered else None
        known = version == MAC
        new_high, new_low = high.copy(), low.copy()
        for stay in plan.stay:
            here = np.flatnonzero(version == stay.version)
            known[here] |= stay.ranks(high[here], low[here]) >= 0
        for group in plan.classes:
            here = np.flatnonzero((version == group.pool.version) & ~known)
            rows, _, ranks = group.origins(high[here], low[here])
            new_high[here[rows]] = group.originals.high[ranks]
            new_low[here[rows]] = group.originals.low[ranks]
            known[here[rows]] = True
        if not known.all():
            first = int(np.flatnonzero(~known)[0])
            text = text_of(int(version[first]), int(high[first]), int(low[first]))
            raise PlanError(
                f"{int((~known).sum()):,} addresses of the capture are none that the plan hands "
                f"out, {text} first; give the plan that the capture was made with"
            )
        options = RemapOptions(macs="keep")
        job = _Job(book, tables_of(version, new_high, new_low, macs), numbered, plan, options)
        packets, octets = job.write(capture, output)
        ignored = capture.ignored_bytes
    report = RemapReport(
        output=str(output),
        iteration=0,
        packets=packets,
        bytes=octets,
        addresses=int((version != MAC).sum()),
        ignored_bytes=ignored,
        counts=dict(zip(COUNTS, job.counts.tolist(), strict=True)),
    )
    return report, plan


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
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
