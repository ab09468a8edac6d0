"""What is in a capture, and what cleaning would make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pcap_tools.beside import compile_beside
from pcap_tools.capture import open_capture
from pcap_tools.connstate import STATES
from pcap_tools.flowrow import FlowRows
from pcap_tools.flows import FlowTable
from pcap_tools.forecast import Forecast, Progress, Tally, forecast, read_table
from pcap_tools.memory import distinct
from pcap_tools.policy import Policy
from pcap_tools.survey import Survey, Surveyor
from pcap_tools.table import PROTOCOLS

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """A capture's facts. Bytes are of frames on the wire, unless named otherwise.

    `span_s` is last minus first packet; `pps` and `bps` are means over it (0 for one packet).
    `concurrent_flows` is the mean number of flows in progress. `states` counts TCP flows by Zeek's
    conn_state; `versions` counts flows by IP version; `outside` counts packets in no flow;
    `ignored_bytes` is the size of a truncated tail; `snapped_packets` those cut by the snapshot
    length. `survey` tells what is wrong with packets, `passed_over` counts pcapng blocks without
    packets by kind.
    """

    paths: tuple[str, ...]
    format: str
    link: str
    nanoseconds: bool
    snaplen: int
    file_bytes: int
    ignored_bytes: int
    packets: int
    bytes: int
    first_ns: int
    last_ns: int
    span_s: float
    pps: float
    bps: float
    flows: int
    flows_per_s: float
    concurrent_flows: float
    vlans: int
    snapped_packets: int
    missing_bytes: int
    protocols: dict[str, Tally]
    versions: dict[str, int]
    states: dict[str, int]
    outside: dict[str, Tally]
    survey: Survey
    passed_over: dict[str, int]
    forecast: Forecast

    def as_json(self) -> dict[str, Any]:
        """The JSON form: the attributes by their names."""
        return asdict(self)


def inspect(
    paths: Sequence[Path | str] | Path | str,
    policy: Policy | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Read captures and tell what is in them. Raises CaptureError."""
    policy = policy or Policy()
    compile_beside("track")
    with open_capture(paths) as capture:
        surveyor = Surveyor()
        table = read_table(surveyor.watch(capture), policy.idle_s, progress, policy=policy)
        rows = table.rows
        span = (table.last_ns - table.first_ns) / 1e9
        flow_seconds = float((rows["last_ns"] - rows["first_ns"]).sum()) / 1e9
        tcp = rows["proto"] == 6
        counts = np.bincount(table.state[tcp], minlength=len(STATES))
        return Inspection(
            paths=tuple(str(path) for path in capture.paths),
            format=capture.format,
            link=capture.link_text,
            nanoseconds=capture.nanoseconds,
            snaplen=capture.snaplen,
            file_bytes=capture.size,
            ignored_bytes=capture.ignored_bytes,
            packets=table.packets,
            bytes=table.bytes,
            first_ns=table.first_ns,
            last_ns=table.last_ns,
            span_s=span,
            pps=table.packets / span if span > 0 else 0.0,
            bps=table.bytes * 8 / span if span > 0 else 0.0,
            flows=len(table),
            flows_per_s=len(table) / span if span > 0 else 0.0,
            concurrent_flows=flow_seconds / span if span > 0 else 0.0,
            vlans=int(np.count_nonzero(distinct(rows["vlan"] & 0xFFFFFF))),
            snapped_packets=int(rows["truncated"].sum()) + int(table.frames[1, 0]),
            missing_bytes=int(table.missing.sum()),
            protocols=_protocols(rows),
            versions={
                f"IPv{version}": int((rows["version"] == version).sum()) for version in (4, 6)
            },
            states={name: int(n) for name, n in zip(STATES, counts, strict=True) if n},
            outside=_outside(table),
            survey=surveyor.finish(),
            passed_over=capture.passed_over,
            forecast=forecast(table, policy),
        )


def _protocols(rows: FlowRows) -> dict[str, Tally]:
    tallies = {}
    for number in np.flatnonzero(np.bincount(rows["proto"])).tolist():
        picked = rows[rows["proto"] == number]
        tallies[PROTOCOLS.get(number, f"protocol {number}")] = Tally(
            len(picked), int(picked["packets"].sum()), int(picked["bytes"].sum())
        )
    return tallies


def _outside(table: FlowTable) -> dict[str, Tally]:
    names = ("orphan fragments", "cut before the ports", "malformed", "other than IP")
    return {
        name: Tally(0, int(packets), int(octets))
        for name, (packets, octets) in zip(names, table.frames.tolist(), strict=False)
        if packets
    }
