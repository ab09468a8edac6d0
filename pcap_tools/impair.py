"""Impair a capture on purpose: loss, duplicates, reordering, jitter, truncation, corruption.

Whatever a network or a mirror port does to traffic, at given rates, by a seed, and written down:
which packet, and what it means for its flow. The output is read again as a probe would read it, so
that "this flow has a gap now" is what the flow table finds and not what was intended.

>>> report = impair("corpus.pcap", "lossy.pcap", 7, [Fault("loss", 0.01)])  # doctest: +SKIP
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Batch, Capture, open_capture
from pcap_tools.chance import stream_key, threshold
from pcap_tools.damage import DAMAGE, KINDS, REORDER, damage, mark
from pcap_tools.decode import Decoder
from pcap_tools.disorder import PENDING, Latecomers, Queue, copies, delay
from pcap_tools.errors import EmptyCapture, PcapError
from pcap_tools.flows import IDLE_S, FlowTable
from pcap_tools.forecast import Progress, read_table
from pcap_tools.impair_manifest import PacketList
from pcap_tools.kernels import I32, I64, U8
from pcap_tools.output import open_output
from pcap_tools.suffering import Suffering, suffering
from pcap_tools.table import write_atomically
from pcap_tools.write import refuse_inputs

__all__ = ["REORDER_WINDOW_S", "Fault", "ImpairReport", "impair"]

FORMAT = "probebench-impair"
FORMAT_VERSION = 1

REORDER_WINDOW_S = 1.0
"""A packet is not made late by more seconds than this."""

_AMOUNTS = {"reorder": 1.0, "jitter": 0.0, "truncate": 68.0}
_MOST = {"reorder": 1000.0, "jitter": 3600.0, "truncate": 65535.0}
_REORDER, _JITTER, _TRUNCATE = (KINDS.index(kind) for kind in _AMOUNTS)


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of impairment: a name out of KINDS, and how much of it.

    `rate` is the probability for each packet, `flows` the share of flows it happens in (1: every
    packet, those outside flows too). `amount`: reorder, how many packets of its stream overtake
    (1); jitter, the longest delay in seconds; truncate, the bytes that are left (68, tcpdump's old
    snapshot length).
    """

    kind: str
    rate: float = 1.0
    flows: float = 1.0
    amount: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PcapError(f"no impairment {self.kind!r}; there are {', '.join(KINDS)}")
        for name, value in (("rate", self.rate), ("share of flows", self.flows)):
            if not 0 <= value <= 1:
                raise PcapError(f"{self.kind}: the {name} {value:g} is not between 0 and 1")
        if self.amount is not None and self.kind not in _AMOUNTS:
            raise PcapError(f"{self.kind}: takes a rate only, not {self.amount:g} besides")
        amount, most = self.much, _MOST.get(self.kind, 0.0)
        least = 1 if self.kind in ("reorder", "truncate") else 0
        if not least <= amount <= most or (least and amount != int(amount)):
            wanted = "seconds" if self.kind == "jitter" else "a whole number from 1"
            raise PcapError(f"{self.kind} {amount:g}: wanted is {wanted} up to {most:g}")

    @property
    def much(self) -> float:
        """The amount, or its default (0 for kinds without one)."""
        return _AMOUNTS.get(self.kind, 0.0) if self.amount is None else self.amount


@dataclass(frozen=True, slots=True)
class ImpairReport:
    """What was done: packets in and out, packets touched by kind, and the flows that suffered.

    packets_out = packets_in − touched["loss"] + touched["duplicate"]. `sha256` is the output's,
    `manifest` the CSV of touched packets (MANIFEST_COLUMNS).
    """

    inputs: tuple[str, ...]
    output: str
    manifest: str
    sha256: str
    seed: int
    faults: tuple[Fault, ...]
    packets_in: int
    packets_out: int
    touched: dict[str, int]
    flows_in: int
    flows_out: int
    ignored_bytes: int
    flows: Suffering

    def as_json(self) -> dict[str, Any]:
        """The report's JSON form, without the rows a flow."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "inputs": list(self.inputs),
            "output": self.output,
            "sha256": self.sha256,
            "manifest": self.manifest,
            "seed": self.seed,
            "faults": [{**asdict(fault), "amount": fault.much} for fault in self.faults],
            "packets": {"in": self.packets_in, "out": self.packets_out},
            "touched": self.touched,
            "flows": {"in": self.flows_in, "out": self.flows_out, **self.flows.totals},
            "ignored_bytes": self.ignored_bytes,
        }


def impair(
    paths: Sequence[Path | str] | Path | str,
    output: Path | str,
    seed: int,
    faults: Sequence[Fault],
    *,
    idle_s: float = IDLE_S,
    progress: Progress | None = None,
) -> ImpairReport:
    """Write the captures with `faults` to `output`; OUT.impair.json and OUT.impair.csv beside it.

    The same input, seed and faults give the same bytes on every machine, and the draws of one kind
    do not depend on the others. Raises CaptureError, OutputError, PcapError, and EmptyCapture when
    every packet would be lost.
    """
    output = Path(output)
    manifest = output.with_name(f"{output.name}.impair.csv")
    plan = _Plan(seed, faults)
    with open_capture(paths) as capture:
        refuse_inputs(output, capture.paths)
        table = read_table(capture, idle_s, progress)
        late = _late(capture, table, plan)
        work = _Work(capture, table, plan, late)
        write_atomically(manifest, lambda stream: work.run(output, PacketList(stream), progress))
        with open_capture(output) as written:
            after = read_table(written, idle_s, progress)
        suffered = suffering(table, after, work.sources(), work.counts)
        report = ImpairReport(
            inputs=tuple(str(path) for path in capture.paths),
            output=str(output),
            manifest=str(manifest),
            sha256=work.digest,
            seed=seed,
            faults=tuple(faults),
            packets_in=table.packets,
            packets_out=after.packets,
            touched=dict(zip(KINDS, work.touched.tolist(), strict=True)),
            flows_in=len(table),
            flows_out=len(after),
            ignored_bytes=capture.ignored_bytes,
            flows=suffered,
        )
    beside = output.with_name(f"{output.name}.impair.json")
    write_atomically(beside, lambda stream: stream.write(_text(report)))
    return report


class _Plan:
    """The faults as the kernels take them: keys and thresholds by kind."""

    def __init__(self, seed: int, faults: Sequence[Fault]) -> None:
        asked = {fault.kind: fault for fault in faults}
        if len(asked) < len(faults):
            raise PcapError("an impairment is given twice; give each kind once")
        self.keys = np.array([stream_key(seed, kind) for kind in KINDS])
        self.flow_keys = np.array([stream_key(seed, f"{kind} flows") for kind in KINDS])
        self.amount_keys = np.array([stream_key(seed, f"{kind} amount") for kind in KINDS])
        chosen = [asked.get(kind, Fault(kind, 0.0)) for kind in KINDS]
        self.limits = np.array([threshold(fault.rate) for fault in chosen])
        self.flow_limits = np.array([threshold(fault.flows) for fault in chosen])
        self.distance = int(chosen[_REORDER].much)
        self.jitter_ns = round(chosen[_JITTER].much * 1e9)
        self.cut = int(chosen[_TRUNCATE].much)
        self.reorders = bool(self.limits[_REORDER])
        self.jitters = bool(self.limits[_JITTER]) and self.jitter_ns > 0
        if not self.jitters:
            self.limits[_JITTER] = 0

    def marks(self, first: int, owner: I32) -> U8:
        """The kinds that are due for packets first … of these flows."""
        what = np.empty(len(owner), np.uint8)
        mark(first, owner, self.keys, self.limits, self.flow_keys, self.flow_limits, what)
        return what


def _late(capture: Capture, table: FlowTable, plan: _Plan) -> I64:
    if not plan.reorders:
        return np.empty((0, 2), np.int64)
    latecomers = Latecomers(len(table), plan.distance, REORDER_WINDOW_S)
    for batch in capture.batches():
        part = slice(batch.first, batch.first + len(batch))
        owner = table.owner[part]
        latecomers.update(batch, owner, table.direction[part], plan.marks(batch.first, owner))
    return latecomers.finish()


class _Work:
    """The pass that writes: marks, damages and orders packets batch by batch."""

    def __init__(self, capture: Capture, table: FlowTable, plan: _Plan, late: I64) -> None:
        self._capture, self._table, self._plan, self._late = capture, table, plan, late
        self._decode = Decoder()
        self._clock = np.full(1, np.iinfo(np.int64).min)
        self._last = np.full(len(table) if plan.jitters else 0, np.iinfo(np.int64).min)
        self._sources: list[I32] = []
        self.counts = np.zeros((len(table), len(KINDS)), np.int64)
        self.touched = np.zeros(len(KINDS), np.int64)
        self.digest = ""

    def sources(self) -> I32:
        """The input's owner of each packet of the output."""
        return np.concatenate(self._sources)

    def run(self, output: Path, packets: PacketList, progress: Progress | None) -> None:
        """Write the output and the list of touched packets."""
        capture = self._capture
        with open_output(output, capture, digest=True) as writer:
            for rows, data in self._ordered(progress):
                packets.add(rows)
                self._count(rows)
                index = np.repeat(np.arange(len(rows)), copies(rows["what"]))
                if not len(index):
                    continue
                gone = rows[index]
                self._sources.append(gone["owner"].copy())
                writer.write(
                    Batch(
                        data=data,
                        offset=gone["offset"].copy(),
                        caplen=gone["caplen"].copy(),
                        wirelen=gone["wirelen"].copy(),
                        time_ns=gone["time_ns"].copy(),
                        link=capture.link,
                        first=writer.packets,
                    )
                )
            if not packets.out_frames:
                raise EmptyCapture(
                    f"{output}: every packet would be lost; give a lower rate of loss"
                )
        self.digest = writer.digest

    def _ordered(self, progress: Progress | None) -> Iterator[tuple[npt.NDArray[np.void], U8]]:
        queue = Queue(self._late, self._plan.jitters)
        capture = self._capture
        for batch in capture.batches():
            capture.require_one_link(batch)
            yield queue.push(self._rows(batch), batch.data, int(self._clock[0]))
            if progress is not None:
                progress("impairing", capture.bytes + 16 * capture.packets, capture.size)
        yield queue.finish()

    def _rows(self, batch: Batch) -> npt.NDArray[np.void]:
        plan, part = self._plan, slice(batch.first, batch.first + len(batch))
        owner = self._table.owner[part]
        what = plan.marks(batch.first, owner)
        self._keep_late(batch.first, what)
        caplen, found = batch.caplen.copy(), np.full(len(batch), -1, DAMAGE)
        if plan.limits[_TRUNCATE:].any():
            damage(
                batch.data,
                batch.offset,
                caplen,
                batch.first,
                self._decode(batch),
                plan.amount_keys,
                plan.cut,
                what,
                found,
            )
        rows = np.empty(len(batch), PENDING)
        rows["number"] = rows["anchor"] = np.arange(part.start, part.stop)
        rows["key"] = rows["late"] = 0
        rows["time_ns"], rows["offset"] = batch.time_ns, batch.offset
        rows["caplen"], rows["wirelen"] = caplen, batch.wirelen
        rows["owner"], rows["direction"] = owner, self._table.direction[part]
        rows["what"], rows["damage"] = what, found
        if plan.jitters:
            unit = 1 if self._capture.nanoseconds else 1000
            key = plan.amount_keys[_JITTER]
            delay(rows, plan.jitter_ns, unit, key, self._last, self._clock)
        return rows

    def _keep_late(self, first: int, what: U8) -> None:
        """Leave REORDER to the packets that really come late."""
        begin, end = np.searchsorted(self._late[:, 0], [first, first + len(what)])
        what &= np.uint8(0xFF ^ REORDER)
        what[self._late[begin:end, 0] - first] |= np.uint8(REORDER)

    def _count(self, rows: npt.NDArray[np.void]) -> None:
        hit = rows[rows["what"] > 0]
        for kind in range(len(KINDS)):
            owner = hit["owner"][(hit["what"] >> kind & 1) > 0]
            self.touched[kind] += len(owner)
            np.add.at(self.counts[:, kind], owner[owner >= 0], 1)


def _text(report: ImpairReport) -> bytes:
    """The report, a flow that suffered a line."""
    opened = json.dumps(report.as_json(), indent=1).removesuffix("\n}")
    rows = ",\n  ".join(json.dumps(row) for row in report.flows.rows())
    listed = f"[\n  {rows}\n ]" if rows else "[]"
    return f'{opened},\n "flows_touched": {listed}\n}}\n'.encode()
