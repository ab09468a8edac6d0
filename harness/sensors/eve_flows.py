"""Flow records of an EVE file, summed into `harness.model_flows.FlowRecords`.

The fields, from src/output-json-flow.c (Suricata 7.0.10, 8.0.4): `flow.reason` is timeout, forced,
shutdown or unknown (8 adds tcp_reuse); `flow.state` new, established, closed or bypassed;
`flow.emergency`, `flow.wrong_thread`, `tcp.tc_gap` and `tcp.ts_gap` are there only when true;
`flow.alerted` always is.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import SensorFailed
from harness.model_flows import FlowRecords

__all__ = ["read_flows", "summarise"]

_KIND = b'"event_type":"flow"'


def _records(lines: Iterable[bytes], name: str) -> Iterator[dict[str, Any]]:
    """Flow events among the lines; a torn last line is what a killed Suricata leaves."""
    damaged: int | None = None
    for number, line in enumerate(lines, 1):
        if damaged is not None:
            raise SensorFailed(f"{name}: line {damaged} is not a JSON flow record")
        if _KIND not in line:
            continue
        try:
            record = json.loads(line)
            record["flow"]["reason"]
        except (ValueError, KeyError, TypeError):
            damaged = number
            continue
        yield record


def summarise(lines: Iterable[bytes], name: str = "eve") -> FlowRecords:
    """Sum the flow events among eve lines; other event types are passed over.

    Raises SensorFailed naming the line when one in the middle is damaged.
    """
    reasons: Counter[str] = Counter()
    states: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    packets = size = 0
    for record in _records(lines, name):
        flow, tcp = record["flow"], record.get("tcp") or {}
        reasons[str(flow["reason"])] += 1
        states[str(flow.get("state", "unknown"))] += 1
        packets += int(flow.get("pkts_toserver", 0)) + int(flow.get("pkts_toclient", 0))
        size += int(flow.get("bytes_toserver", 0)) + int(flow.get("bytes_toclient", 0))
        for key in ("wrong_thread", "emergency", "alerted"):
            seen[key] += bool(flow.get(key))
        seen["gap"] += bool(tcp.get("tc_gap") or tcp.get("ts_gap"))
    return FlowRecords(
        flows=sum(reasons.values()),
        by_reason=dict(sorted(reasons.items())),
        by_state=dict(sorted(states.items())),
        wrong_thread=seen["wrong_thread"],
        with_gaps=seen["gap"],
        alerted=seen["alerted"],
        packets=packets,
        bytes=size,
        emergency=seen["emergency"],
    )


def read_flows(path: Path) -> FlowRecords:
    """The flow events of a file, gzip or plain. Raises SensorFailed."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if packed else path.open("rb") as lines:
        return summarise(lines, path.name)
