"""Strip half-flows: keep the flows a probe can analyse whole, and say why the others went.

Two passes over the capture: the flow table with a verdict for each flow, then a copy of the
packets whose flow is kept. Packets and bytes in are those kept plus those dropped, by reason.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pcap_tools.beside import compile_beside
from pcap_tools.capture import Capture
from pcap_tools.changes import Changes, change_lines
from pcap_tools.copying import ByFlow, Copying
from pcap_tools.errors import EmptyCapture, OutputError, PcapError
from pcap_tools.flows import FlowTable
from pcap_tools.forecast import (
    Forecast,
    Progress,
    forecast,
    kept_owners,
    read_table,
    tally_json,
)
from pcap_tools.fresh import FreshAddresses
from pcap_tools.hygiene import Hygiene, Prepared, Treatment, open_prepared
from pcap_tools.kernels import I64
from pcap_tools.policy import RULES, Policy, judge
from pcap_tools.readdress import Readdress
from pcap_tools.table import (
    COLUMNS,
    JSON_BEFORE,
    JSON_END,
    flow_columns,
    row_texts,
    write_atomically,
)
from pcap_tools.write import refuse_inputs

__all__ = ["CleanReport", "clean"]

FORMAT = "probebench-clean"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class CleanReport:
    """What was cleaned, kept and dropped; `table` are all flows of the input.

    `sha256` is the output's, or "" when it was not asked for. `ignored_bytes` are those of a
    truncated tail of the input. Times are ns since the epoch, of the input's first and last packet.
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
    table: FlowTable
    changes: dict[str, Any]
    treatment: Treatment

    @property
    def dropped_flows(self) -> list[dict[str, Any]]:
        """A row (COLUMNS) for each dropped flow."""
        columns = flow_columns(self.table, self.policy, self._dropped())
        return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _dropped(self) -> I64:
        return np.flatnonzero(judge(self.table, self.policy)[1])

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
        return {**self._head(), "dropped_flows": self.dropped_flows}

    def write(self, stream: IO[bytes]) -> None:
        """Write the JSON form, a dropped flow a line."""
        head = json.dumps(self._head(), indent=1).removesuffix("\n}")
        stream.write(f'{head},\n "dropped_flows": ['.encode())
        dropped = self._dropped()
        if len(dropped):
            # What ends one row begins the next, but for the last.
            stream.write(b"\n  ")
            last = b""
            end = JSON_END + b",\n  "
            for piece in row_texts(self.table, self.policy, dropped, JSON_BEFORE, end):
                stream.write(last)
                last = bytes(piece)
            stream.write(last[: -len(b",\n  ")] + b"\n ")
        stream.write(b"]\n}\n")

    def _head(self) -> dict[str, Any]:
        result = self.result
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "inputs": list(self.inputs),
            "output": self.output,
            "sha256": self.sha256 or None,
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
            "treatment": self.treatment.as_json(),
            "in": tally_json(result.all),
            "kept": tally_json(result.kept),
            "dropped": {name: tally_json(tally) for name, tally in result.dropped.items()},
            "rules": {name: RULES[name] for name in result.dropped},
            **self.changes,
        }


def clean(
    paths: Sequence[Path | str] | Path | str,
    output: Path | str,
    policy: Policy | None = None,
    *,
    report: Path | str | None = None,
    hygiene: Hygiene | None = None,
    fresh: FreshAddresses | None = None,
    sha256: bool = False,
    progress: Progress | None = None,
) -> CleanReport:
    """Write the flows of `paths` that `policy` keeps to `output`, and the report.

    The output's format follows its name (`pcap_tools.output`). `hygiene` puts the capture right
    first. `fresh` gives the kept packets other addresses, and writes OUT.plan.json.
    The report goes to `report`, or beside the output as OUT.clean.json; "-" is standard output,
    beside which there is nothing. Raises CaptureError for unreadable inputs, EmptyCapture when
    nothing would be kept, OutputError.
    """
    policy = policy or Policy()
    output = Path(output)
    streamed = str(output) == "-"
    compile_beside("track" if fresh is None else "clean")
    with open_prepared(paths, hygiene) as capture:
        if not streamed:
            refuse_inputs(output, capture.paths)
        if fresh is not None and policy.inner:
            raise PcapError(
                "--remap with --flows-by inner: the flows' addresses are inside the tunnels, and "
                "both would be mapped as one; clean first, then remap the result"
            )
        if fresh is not None and streamed:
            raise OutputError(
                "--remap with -o -: without OUT.plan.json no address can be mapped back; give a "
                "file, or remap the result"
            )
        readdress = None if fresh is None else Readdress(fresh)
        table = read_table(capture, policy.idle_s, progress, readdress, policy)
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
        kept = kept_owners(table, policy)
        if readdress is not None:
            readdress.settle(table, kept)
            if closing is not None:
                readdress.apply(closing.packets, closing.owner, closing.direction)
        changes = Changes(closing, policy.checksums == "fix")
        copying = Copying(capture, ByFlow(table, kept, readdress), changes)
        digest = copying.to(output, digest=sha256, progress=progress).digest
        if readdress is not None:
            # Not before: the plan of an earlier output belongs to it for as long as that stands.
            readdress.plan.save(output.with_name(f"{output.name}.plan.json"))
        done = CleanReport(
            inputs=tuple(str(path) for path in capture.paths),
            output=str(output),
            sha256=digest,
            format=capture.format,
            link=capture.link_text,
            nanoseconds=capture.nanoseconds,
            ignored_bytes=capture.ignored_bytes,
            first_ns=table.first_ns,
            last_ns=table.last_ns,
            policy=policy,
            result=result,
            table=table,
            changes=changes.report(table, policy),
            treatment=capture.treatment if isinstance(capture, Prepared) else Treatment(),
        )
    if report is None and not streamed:
        report = output.with_name(output.name + ".clean.json")
    if report is not None:
        write_atomically(Path(report), done.write)
    return done


def _names(capture: Capture) -> str:
    return ", ".join(str(path) for path in capture.paths)
