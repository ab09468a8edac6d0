"""Alerts out of an EVE file (Suricata's JSON lines)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from harness.errors import SensorFailed
from harness.model import Alert

__all__ = ["parse_alert", "read_alerts"]


def parse_alert(record: dict[str, object]) -> Alert | None:
    """One eve record as an Alert; None for another event type or one without an IP flow.

    Ports are 0 where the protocol has none (ICMP records carry icmp_type and icmp_code instead).
    Raises KeyError, TypeError when a field that every alert has is missing.
    """
    alert = record.get("alert")
    if record.get("event_type") != "alert" or not isinstance(alert, dict) or "src_ip" not in record:
        return None
    src_port, dst_port = record.get("src_port", 0), record.get("dest_port", 0)
    return Alert(
        timestamp=str(record["timestamp"]),
        proto=str(record["proto"]),
        src=str(record["src_ip"]),
        src_port=src_port if isinstance(src_port, int) else 0,
        dst=str(record["dest_ip"]),
        dst_port=dst_port if isinstance(dst_port, int) else 0,
        signature_id=int(alert["signature_id"]),
        signature=str(alert.get("signature", "")),
    )


def read_alerts(path: Path) -> Iterator[Alert]:
    """Every alert of a file, in order. A torn last line is what a killed Suricata leaves.

    Raises SensorFailed naming the line when one in the middle is damaged.
    """
    damaged: int | None = None
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if damaged is not None:
                raise SensorFailed(f"{path.name}: line {damaged} is not a JSON alert record")
            try:
                found = parse_alert(json.loads(line))
            except (ValueError, KeyError, TypeError):
                damaged = number
                continue
            if found is not None:
                yield found
