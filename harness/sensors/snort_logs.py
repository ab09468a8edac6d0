"""Snort 3's statistics and alerts, in the forms it writes them.

Formats: perf_monitor's {json,csv,text}_formatter.cc, utils/stats.cc (what is printed at shutdown),
loggers/alert_json.cc and alert_fast.cc.

| peg | holds |
| --- | --- |
| daq.received | packets that reached the capture socket, drops NOT included (libdaq's afpacket module subtracts them: hw_packets_received += tp_packets - tp_drops) |
| daq.dropped | dropped for want of room in the ring |
| daq.analyzed | packets that Snort took from the DAQ |
| daq.outstanding | taken over and not yet processed |

`Counters.received` includes drops, so it is received + dropped. A peg that is zero is not printed.
"""  # noqa: E501

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping

from harness.errors import SensorFailed
from harness.model import Alert, Counters
from harness.sensors.intake.options import FAST
from harness.sensors.intake.understand import endpoint, protocol

__all__ = [
    "fast_alerts",
    "from_csv",
    "from_json",
    "from_text",
    "json_alerts",
    "signature_of",
    "to_counters",
]

Pegs = dict[str, float]
_RULE = re.compile(r"\[\*\*\] \[(\d+):(\d+):\d+\]")
_FIELD = re.compile(r"^\s*(\S[^:]*?): (\d+)(?:\s|$)")
_ALERT = re.compile(FAST)


def _add(pegs: Pegs, name: str, value: float) -> None:
    # A number that stands now, and one that is a maximum, are not summed over intervals.
    if name.endswith((".outstanding", "_max", ".pcaps")):
        pegs[name] = max(pegs.get(name, 0), value)
    else:
        pegs[name] = pegs.get(name, 0) + value


def from_json(text: str, name: str) -> Pegs:
    """Sums over all intervals of a perf_monitor JSON file; it is not closed while Snort runs.

    Raises SensorFailed naming the file when it is damaged.
    """
    body = text.strip()
    if not body or body == "[":
        return {}
    if not body.endswith("]"):
        # The record that is being written ends anywhere.
        body = body[: body.rfind("},{") + 1] if not body.endswith("}") else body
        body += "]"
    try:
        rows = json.loads(body)
    except ValueError as error:
        raise SensorFailed(f"{name}: not perf_monitor's JSON: {error}") from None
    pegs: Pegs = {}
    for row in rows:
        for module, values in row.items():
            if isinstance(values, Mapping):
                for peg, value in values.items():
                    if isinstance(value, int | float):
                        _add(pegs, f"{module}.{peg}", value)
    return pegs


def from_csv(text: str, name: str) -> Pegs:
    """Sums over all intervals of a perf_monitor CSV file ("#timestamp,daq.received,…").

    A file has a header again where Snort was restarted; a torn last line is ignored. Raises
    SensorFailed.
    """
    pegs: Pegs = {}
    header: list[str] = []
    for row in csv.reader(text[: text.rfind("\n") + 1].splitlines()):
        if row and row[0] == "#timestamp":
            header = row
            continue
        if not header or len(row) != len(header):
            raise SensorFailed(f"{name}: not perf_monitor's CSV: a row without a header for it")
        for peg, value in zip(header[1:], row[1:], strict=True):
            if value.isdigit():
                _add(pegs, peg, int(value))
    return pegs


def from_text(text: str) -> Pegs:
    """Numbers by "section.name" of perf_monitor's text, or of what Snort prints at shutdown.

    A section's name stands on a line of its own under a ruler of dashes.
    """
    pegs: Pegs = {}
    section = ""
    ruler = False
    for line in text.splitlines():
        if line.startswith("-----"):
            ruler = True
        elif ruler:
            section, ruler = line.strip(), False
        elif found := _FIELD.match(line):
            _add(pegs, f"{section}.{found[1]}", int(found[2]))
    return pegs


def to_counters(
    pegs: Mapping[str, float], workers: Mapping[str, Mapping[str, float]], *, exact: bool
) -> Counters:
    """Pegs of all threads together, and by thread, as Counters."""

    def count(name: str) -> int:
        return round(pegs.get(name, 0))

    flows = "stream.flows" in pegs
    alerts = "detection.total_alerts" if "detection.total_alerts" in pegs else "detection.alerts"
    return Counters(
        received=count("daq.received") + count("daq.dropped"),
        dropped=count("daq.dropped"),
        decoded=count("daq.analyzed"),
        decoded_bytes=count("daq.rx_bytes") if "daq.rx_bytes" in pegs else None,
        invalid=count("codec.discards") if exact else None,
        flows=count("stream.flows") if flows else None,
        alerts=count(alerts) if exact else None,
        workers={name: round(own.get("daq.analyzed", 0)) for name, own in workers.items()},
        raw={name: float(value) for name, value in pegs.items()},
        exact=exact,
    )


def signature_of(gid: int, sid: int) -> int:
    """A rule's number; those of other generators than 1 (Snort's own checks) stay apart."""
    return sid if gid == 1 else gid * 10**9 + sid


def json_alerts(lines: Iterable[str], name: str) -> Iterator[Alert]:
    """alert_json's lines; a torn last one is ignored. Raises SensorFailed for a damaged one.

    Needed are proto, src_addr, dst_addr, gid, sid; ports are missing for ICMP.
    """
    damaged: int | None = None
    for number, line in enumerate(lines, 1):
        if damaged is not None:
            raise SensorFailed(f"{name}: line {damaged} is not an alert of alert_json")
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            proto = protocol(str(row["proto"]))
            src = endpoint(str(row["src_addr"]), str(row.get("src_port", 0)), proto)
            dst = endpoint(str(row["dst_addr"]), str(row.get("dst_port", 0)), proto)
            number_ = signature_of(int(row.get("gid", 1)), int(row["sid"]))
            stamp = str(row.get("timestamp", row.get("seconds", "")))
            found = Alert(stamp, _icmp(proto, src[0]), *src, *dst, number_, str(row.get("msg", "")))
        except (ValueError, KeyError, TypeError):
            damaged = number
            continue
        yield found


def _icmp(proto: str, address: str) -> str:
    return "IPv6-ICMP" if proto == "ICMP" and ":" in address else proto


def fast_alerts(lines: Iterable[str]) -> Iterator[Alert]:
    """alert_fast's lines; others are left out.

    `07/03-00:30:10.0 [**] [1:2:3] "msg" [**] [Priority: 0] {TCP} 192.0.2.1:80 -> …`
    """
    for line in lines:
        rule, found = _RULE.search(line), _ALERT.search(line.replace(" [**] [", " [", 2))
        if rule is None or found is None:
            continue
        proto = protocol(found["proto"])
        try:
            src, dst = endpoint(found["src"], None, proto), endpoint(found["dst"], None, proto)
        except ValueError:
            continue
        message = found["signature"].removesuffix(" [**]").strip().strip('"')
        number = signature_of(int(rule[1]), int(rule[2]))
        stamp = line.split(" ", 1)[0]
        yield Alert(stamp, _icmp(proto, src[0]), *src, *dst, number, message)
