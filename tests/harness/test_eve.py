"""Alerts read from records of a real Suricata 7.0.10."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SensorFailed
from harness.sensors.eve import read_alerts

DATA = Path(__file__).parent / "data"
ALERTS = DATA / "suricata-7.0.10-alerts.json"


def test_every_field_of_a_real_record() -> None:
    alerts = list(read_alerts(ALERTS))
    assert len(alerts) == 6
    first = alerts[0]
    assert (first.proto, first.src, first.src_port) == ("TCP", "10.0.0.1", 40000)
    assert (first.dst, first.dst_port) == ("198.51.100.7", 80)
    assert (first.signature_id, first.signature) == (9100001, "T traversal")
    assert first.timestamp.startswith("20")


def test_icmp_has_ports_0() -> None:
    pings = [a for a in read_alerts(ALERTS) if "ICMP" in a.proto]
    assert [(a.proto, a.src_port, a.dst_port) for a in pings] == [
        ("ICMP", 0, 0),
        ("IPv6-ICMP", 0, 0),
    ]


def test_other_events_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "alerts.json"
    path.write_bytes(
        b'{"event_type":"stats","stats":{}}\n'
        b'{"event_type":"alert","alert":{"signature_id":1}}\n' + ALERTS.read_bytes()  # no IP flow
    )
    assert len(list(read_alerts(path))) == 6


def test_a_torn_last_line_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "alerts.json"
    path.write_bytes(ALERTS.read_bytes()[:-20])
    assert len(list(read_alerts(path))) == 5


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "alerts.json"
    lines = ALERTS.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"\0\0\n", *lines[1:]]))
    with pytest.raises(SensorFailed, match="line 2 is not"):
        list(read_alerts(path))
