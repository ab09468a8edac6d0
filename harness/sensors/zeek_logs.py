"""Zeek's logs, TSV and JSON: stats, capture_loss, notice, conn.

Formats: base/frameworks/logging/writers/ascii.zeek; fields: policy/misc/stats.zeek,
policy/misc/capture-loss.zeek, base/frameworks/notice/main.zeek, base/protocols/conn/main.zeek.

| field of stats.log (each since the last record) | holds |
| --- | --- |
| pkts_link | packets that reached the capture socket, drops included (AF_Packet.cc and libpcap on Linux: tp_packets) |
| pkts_dropped | of those, dropped for want of room in the ring |
| pkts_proc | packets that Zeek processed |

Packets lost are pkts_dropped of pkts_link. capture_loss.log is another measure: of all ACKs, those
for data that was never seen (`gaps` of `acks`), TCP alone, and wherever the data was lost.
"""  # noqa: E501

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.errors import SensorFailed
from harness.model import Alert, Counters
from harness.model_flows import FlowRecords
from harness.sensors.intake.understand import endpoint, protocol, signature_number

__all__ = ["Final", "capture_loss", "final", "flow_records", "notices", "records", "to_counters"]

Record = dict[str, object]
_LISTS = ("set[", "vector[")


def records(lines: Iterable[str], name: str) -> Iterator[Record]:
    """Rows of a log, whichever form it has; unset fields are left out, numbers are numbers.

    A torn last line is ignored. Raises SensorFailed for a damaged one in the middle.
    """
    head: dict[str, str] = {"#separator": "\t", "#unset_field": "-", "#empty_field": "(empty)"}
    fields: list[str] = []
    types: list[str] = []
    damaged: int | None = None
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\n")
        if not line or line.startswith("###"):
            continue
        if damaged is not None:
            raise SensorFailed(f"{name}: line {damaged} is neither TSV with a header nor JSON")
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except ValueError:
                damaged = number
            continue
        if line.startswith("#separator "):
            head["#separator"] = line.split(" ", 1)[1].encode().decode("unicode_escape")
            continue
        separator = head["#separator"]
        parts = line.split(separator)
        if parts[0].startswith("#"):
            if parts[0] == "#fields":
                fields = parts[1:]
            elif parts[0] == "#types":
                types = parts[1:]
            elif len(parts) > 1:
                head[parts[0]] = parts[1]
            continue
        if len(parts) != len(fields) or len(types) != len(fields):
            damaged = number
            continue
        yield {
            field: _value(text, kind, head["#empty_field"])
            for field, text, kind in zip(fields, parts, types, strict=True)
            if text != head["#unset_field"]
        }


def _value(text: str, kind: str, empty: str) -> object:
    if kind.startswith(_LISTS):
        return [] if text == empty else text.split(",")
    if kind in ("count", "int", "port"):
        return int(text) if text.lstrip("-").isdigit() else text
    if kind in ("double", "interval", "time"):
        try:
            return float(text)
        except ValueError:
            return text
    if kind == "bool":
        return text == "T"
    return re.sub(r"\\x([0-9a-fA-F]{2})", lambda m: chr(int(m[1], 16)), text)


def _count(record: Record, field: str) -> int:
    value = record.get(field, 0)
    return int(value) if isinstance(value, int | float) else 0


@dataclass(frozen=True, slots=True)
class Final:
    """What Zeek says when it ends: packets processed and dropped."""

    received: int
    dropped: int


_FINAL = re.compile(r"(\d+) packets received on interface (\S+), (\d+) \([\d.]+%\) dropped")


def final(text: str) -> Final | None:
    """The last such line of its output (RunState.cc, get_final_stats); None without one."""
    found = _FINAL.findall(text)
    return Final(int(found[-1][0]), int(found[-1][2])) if found else None


def to_counters(stats: Iterable[Record], alerts: int | None, *, exact: bool) -> Counters:
    """The sum of stats.log's records; workers are the peers that capture."""
    sums: dict[str, dict[str, int]] = {}
    bytes_ = flows = 0
    for record in stats:
        peer = sums.setdefault(str(record.get("peer", "zeek")), dict.fromkeys(_PACKETS, 0))
        for field in _PACKETS:
            peer[field] += _count(record, field)
        bytes_ += _count(record, "bytes_recv")
        flows += sum(_count(record, f"{kind}_conns") for kind in ("tcp", "udp", "icmp"))
    # A manager, logger or proxy has no link.
    workers = {peer: sum_ for peer, sum_ in sums.items() if sum_["pkts_link"] or len(sums) == 1}
    total = {field: sum(sum_[field] for sum_ in workers.values()) for field in _PACKETS}
    return Counters(
        received=total["pkts_link"],
        dropped=total["pkts_dropped"],
        decoded=total["pkts_proc"],
        decoded_bytes=bytes_,
        invalid=None,
        flows=flows,
        alerts=alerts,
        workers={peer: sum_["pkts_proc"] for peer, sum_ in workers.items()},
        raw={f"stats.{field}": float(value) for field, value in total.items()},
        exact=exact,
    )


_PACKETS = ("pkts_link", "pkts_dropped", "pkts_proc")


def capture_loss(rows: Iterable[Record]) -> dict[str, float]:
    """`capture_loss.acks`, `.gaps` and `.percent` (100 × gaps / acks) over all records.

    Without acks there is no percentage: nothing was observed.
    """
    acks = gaps = 0
    for row in rows:
        acks += _count(row, "acks")
        gaps += _count(row, "gaps")
    found = {"capture_loss.acks": float(acks), "capture_loss.gaps": float(gaps)}
    if acks:
        found["capture_loss.percent"] = 100.0 * gaps / acks
    return found


def flow_records(rows: Iterable[Record]) -> FlowRecords | None:
    """Rows of conn.log, summed; None when there are none.

    States are Zeek's conn_state. A flow has gaps when bytes of it were missed. Zeek does not say
    why a connection was ended, nor whether its packets came to one worker.
    """
    flows = packets = bytes_ = gaps = 0
    states: dict[str, int] = {}
    for row in rows:
        flows += 1
        state = str(row.get("conn_state", "-"))
        states[state] = states.get(state, 0) + 1
        gaps += _count(row, "missed_bytes") > 0
        packets += _count(row, "orig_pkts") + _count(row, "resp_pkts")
        bytes_ += _count(row, "orig_ip_bytes") + _count(row, "resp_ip_bytes")
    if not flows:
        return None
    return FlowRecords(flows, by_state=states, with_gaps=gaps, packets=packets, bytes=bytes_)


def notices(rows: Iterable[Record]) -> Iterator[Alert]:
    """Notices that belong to a flow or to two hosts, as alerts.

    A notice has a name and no number: see `signature_number`. One of the signature framework is
    named by its signature too. Notices without addresses (Zeek's about itself) are left out.
    """
    for row in rows:
        name = str(row.get("note", ""))
        if name.startswith("Signatures::") and row.get("sub"):
            name = f"{name} {row['sub']}"
        if "id.orig_h" in row:
            ends = [row.get(f"id.{end}") for end in ("orig_h", "orig_p", "resp_h", "resp_p")]
        else:
            ends = [row.get("src"), 0, row.get("dst"), row.get("p", 0)]
        proto = protocol(str(row.get("proto", "")))
        try:
            src, src_port = endpoint(str(ends[0]), str(ends[1] or 0), proto)
            dst, dst_port = endpoint(str(ends[2]), str(ends[3] or 0), proto)
        except ValueError:
            continue
        if proto == "ICMP" and ":" in src:
            proto = "IPv6-ICMP"
        stamp = str(row.get("ts", ""))
        yield Alert(stamp, proto, src, src_port, dst, dst_port, signature_number(name), name)
