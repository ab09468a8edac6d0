"""Strip half-flows: keep the flows a probe can analyse whole, and say why the others went.

Two passes over the capture: the flow table with a verdict for each flow, then a copy of the
packets whose flow is kept. Packets and bytes in are those kept plus those dropped, by reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Capture, link_name, open_capture
from pcap_tools.changes import Changes, change_lines
from pcap_tools.decode import Decoder
from pcap_tools.errors import EmptyCapture
from pcap_tools.flows import ORPHAN_FRAGMENT, FlowTable, FlowTracker
from pcap_tools.kernels import I32
from pcap_tools.policy import NEEDS_CHECKSUMS, RULES, Policy, judge, packet_rules
from pcap_tools.table import COLUMNS, flow_columns, write_atomically
from pcap_tools.write import PcapWriter, refuse_inputs

__all__ = ["CleanReport", "Forecast", "Tally", "clean", "forecast", "read_table"]

FORMAT = "probebench-clean"
FORMAT_VERSION = 1

Progress = Callable[[str, int, int], None]
"""Called with the step's name, and bytes done of bytes in all."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Flows, packets, and bytes of frames on the wire."""

    flows: int
    packets: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.packets:,} packets, {self.bytes:,} bytes, {self.flows:,} flows"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a policy makes of a capture: all = kept + the sum of `dropped` (by reason)."""

    all: Tally
    kept: Tally
    dropped: dict[str, Tally]


@dataclass(frozen=True, slots=True)
class CleanReport:
    """What was cleaned, kept and dropped; `dropped_flows` has a row (COLUMNS) a dropped flow.

    `changes` tells how the output differs from the packets kept: Changes.report.

    `sha256` is the output's. `ignored_bytes` are those of a truncated tail of the input. Times are
    ns since the epoch, of the first and the last packet of the input.
    """

    inputs: tuple[str, ...]
    output: str
    sha256: str
    format: str
    link: str
    nanoseconds: bool
    ignored_bytes: int
    first_ns: int
    last_ns: int
    policy: Policy
    result: Forecast
    dropped_flows: tuple[dict[str, Any], ...]
    changes: dict[str, Any]

    def lines(self) -> list[str]:
        """What happened, for people: one line for what was kept and one a reason."""
        kept = [f"kept {self.result.kept} of {self.result.all}"]
        return (
            kept
            + [
                f"dropped {name}: {tally} ({RULES[name]})"
                for name, tally in self.result.dropped.items()
            ]
            + change_lines(self.changes)
        )

    def as_json(self) -> dict[str, Any]:
        """The report's JSON form, as written to OUT.clean.json."""
        result = self.result
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "inputs": list(self.inputs),
            "output": self.output,
            "sha256": self.sha256,
            "capture": {
                "format": self.format,
                "link": self.link,
                "nanoseconds": self.nanoseconds,
                "first_ns": self.first_ns,
                "last_ns": self.last_ns,
                "ignored_bytes": self.ignored_bytes,
            },
            "policy": {
                "drop": [name for name in RULES if name in self.policy.drop],
                "edge_s": self.policy.edge_s,
                "idle_s": self.policy.idle_s,
                "flows_by": "inner" if self.policy.inner else "outer",
                "close": self.policy.close,
                "checksums": self.policy.checksums,
            },
            "in": tally_json(result.all),
            "kept": tally_json(result.kept),
            "dropped": {name: tally_json(tally) for name, tally in result.dropped.items()},
            "rules": {name: RULES[name] for name in result.dropped},
            **self.changes,
            "dropped_flows": list(self.dropped_flows),
        }


def clean(
    paths: Sequence[Path | str] | Path | str,
    output: Path | str,
    policy: Policy | None = None,
    *,
    report: Path | str | None = None,
    progress: Progress | None = None,
) -> CleanReport:
    """Write the flows of `paths` that `policy` keeps to `output`, a pcap file, and the report.

    The report goes to `report`, or beside the output as OUT.clean.json. Raises CaptureError for
    unreadable inputs, EmptyCapture when nothing would be kept, OutputError.
    """
    policy = policy or Policy()
    output = Path(output)
    with open_capture(paths) as capture:
        refuse_inputs(output, capture.paths)
        table = read_table(capture, policy.idle_s, progress, policy)
        closing = None
        if policy.close:
            from pcap_tools.closing import close_flows

            table, closing = close_flows(capture, table, policy)
        result = forecast(table, policy)
        if result.kept.packets == 0:
            reasons = ", ".join(f"{name} {t.packets:,}" for name, t in result.dropped.items())
            raise EmptyCapture(
                f"{_names(capture)}: nothing is left of {result.all.packets:,} packets "
                f"(dropped: {reasons}); keep more with --keep, or record a longer capture"
            )
        changes = Changes(closing, policy.checksums == "fix")
        digest = _copy(capture, output, kept_owners(table, policy), table.owner, changes, progress)
        _, reason = judge(table, policy)
        columns = flow_columns(table, policy, np.flatnonzero(reason))
        done = CleanReport(
            inputs=tuple(str(path) for path in capture.paths),
            output=str(output),
            sha256=digest,
            format=capture.format,
            link=link_name(capture.link),
            nanoseconds=capture.nanoseconds,
            ignored_bytes=capture.ignored_bytes,
            first_ns=table.first_ns,
            last_ns=table.last_ns,
            policy=policy,
            result=result,
            dropped_flows=tuple(
                dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns.values(), strict=True)
            ),
            changes=changes.report(table, policy),
        )
    text = _report_text(done)
    beside = output.with_name(output.name + ".clean.json") if report is None else Path(report)
    write_atomically(beside, lambda stream: stream.write(text))
    return done


def read_table(
    capture: Capture, idle_s: float, progress: Progress | None = None, policy: Policy | None = None
) -> FlowTable:
    """The flow table of an open capture, telling `progress` how far it is.

    Without a policy, flows are taken by outer headers and no checksum is verified.
    """
    policy = policy or Policy()
    decode, tracker = Decoder(policy.inner), FlowTracker(idle_s)
    wrong = None
    if NEEDS_CHECKSUMS in policy.drop:
        from pcap_tools.verify import BadChecksums  # kernels that only who asks must load

        wrong = BadChecksums()
    for batch in capture.batches():
        rows = decode(batch)
        tracker.update(batch, rows)
        if wrong is not None:
            wrong.update(batch, rows)
        if progress is not None:
            progress("reading flows", capture.bytes + 16 * capture.packets, capture.size)
    table = tracker.finish()
    if wrong is None:
        return table
    return replace(table, bad_checksums=wrong.flows(table.owner, len(table)))


def forecast(table: FlowTable, policy: Policy) -> Forecast:
    """What `policy` keeps and drops of the capture behind `table`."""
    names, reason = judge(table, policy)
    packets = table.rows["packets"].sum(axis=1)
    octets = table.rows["bytes"].sum(axis=1)
    found: dict[str, list[int]] = {}
    for code in np.unique(reason).tolist():
        picked = reason == code
        found[names[code]] = [
            int(picked.sum()),
            int(packets[picked].sum()),
            int(octets[picked].sum()),
        ]
    for owner, name in packet_rules(policy).items():
        outside = table.frames[owner - ORPHAN_FRAGMENT]
        if outside[0]:
            total = found.setdefault(name, [0, 0, 0])
            total[1] += int(outside[0])
            total[2] += int(outside[1])
    kept = Tally(*found.pop("", [0, 0, 0]))
    dropped = {name: Tally(*found[name]) for name in RULES if name in found}
    return Forecast(Tally(len(table), table.packets, table.bytes), kept, dropped)


def kept_owners(table: FlowTable, policy: Policy) -> npt.NDArray[np.bool_]:
    """Whether packets of an owner are kept, at index owner − ORPHAN_FRAGMENT."""
    outside = packet_rules(policy)
    special = [not outside[owner] for owner in range(ORPHAN_FRAGMENT, 0)]
    return np.concatenate([np.array(special), judge(table, policy)[1] == 0])


def tally_json(tally: Tally) -> dict[str, int]:
    """A tally's JSON form."""
    return {"flows": tally.flows, "packets": tally.packets, "bytes": tally.bytes}


def _report_text(report: CleanReport) -> bytes:
    """The report, a dropped flow a line: indented throughout it would cost 60 µs a flow."""
    head = report.as_json()
    rows = ",\n  ".join(json.dumps(row) for row in head.pop("dropped_flows"))
    listed = f"[\n  {rows}\n ]" if rows else "[]"
    opened = json.dumps(head, indent=1).removesuffix("\n}")
    return f'{opened},\n "dropped_flows": {listed}\n}}\n'.encode()


def _copy(
    capture: Capture,
    output: Path,
    kept: npt.NDArray[np.bool_],
    owner: I32,
    changes: Changes,
    progress: Progress | None,
) -> str:
    with PcapWriter(
        output,
        capture.link,
        nanoseconds=capture.nanoseconds,
        snaplen=capture.snaplen,
        digest=True,
    ) as writer:
        pairs = (
            (batch, kept[owner[batch.first : batch.first + len(batch)] - ORPHAN_FRAGMENT])
            for batch in capture.batches()
        )
        for batch, keep in changes.applied(pairs):
            writer.write(batch, keep)
            if progress is not None:
                progress("copying", capture.bytes + 16 * capture.packets, capture.size)
    return writer.digest


def _names(capture: Capture) -> str:
    return ", ".join(str(path) for path in capture.paths)
