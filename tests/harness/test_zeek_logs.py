"""Zeek's logs in the forms its ASCII writer has (fields as in Zeek 7), and what is made of them."""

from __future__ import annotations

import json

import pytest

from harness.errors import SensorFailed
from harness.sensors.intake.understand import signature_number
from harness.sensors.zeek_logs import (
    capture_loss,
    final,
    flow_records,
    notices,
    records,
    to_counters,
)


def tsv(path: str, fields: str, types: str, *rows: str) -> list[str]:
    """A log with tabs where the text has blanks."""
    head = ["#separator \\x09", "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-"]
    lines = [f"#path {path}", "#open 2026-01-01-00-00-00", f"#fields {fields}", f"#types {types}"]
    body = [*lines, *rows, "#close 2026-01-01-00-00-09"]
    return head + [line.replace(" ", "\t") for line in body]


STATS = tsv(
    "stats",
    "ts peer mem pkts_proc bytes_recv pkts_dropped pkts_link pkt_lag tcp_conns udp_conns icmp_conns",  # noqa: E501
    "time string count count count count count interval count count count",
    "1700000001.5 worker-1 80 100 5000 0 100 0.001 4 1 0",
    "1700000001.5 worker-2 80 300 9000 50 350 0.001 6 0 1",
    "1700000001.5 manager 80 0 0 - - - 0 0 0",
    "1700000002.5 worker-1 80 200 6000 10 210 0.001 1 0 0",
)


def test_stats_are_sums_of_increases() -> None:
    found = to_counters(records(STATS, "stats.log"), 7, exact=True)
    assert (found.received, found.dropped, found.decoded) == (660, 60, 600)
    assert (found.flows, found.decoded_bytes, found.alerts) == (13, 20000, 7)
    assert found.workers == {"worker-1": 300, "worker-2": 300}  # the manager captures nothing
    assert found.received == found.dropped + (found.decoded or 0)  # link includes drops


def test_json_says_the_same_as_tsv() -> None:
    rows = list(records(STATS, "stats.log"))
    again = list(records([json.dumps(row) + "\n" for row in rows], "stats.log"))
    assert again == rows
    assert "pkts_link" not in rows[2]  # unset is not zero
    assert rows[0]["pkt_lag"] == 0.001 and rows[0]["peer"] == "worker-1"


def test_capture_loss_is_gaps_of_acks() -> None:
    log = tsv(
        "capture_loss", "ts ts_delta peer gaps acks percent_lost",
        "time interval string count count double",
        "1.0 5.0 worker-1 5 100 5.0", "6.0 5.0 worker-1 0 150 0.0",
    )  # fmt: skip
    assert capture_loss(records(log, "x")) == {
        "capture_loss.acks": 250.0, "capture_loss.gaps": 5.0, "capture_loss.percent": 2.0,
    }  # fmt: skip
    assert "capture_loss.percent" not in capture_loss([])  # nothing seen is not nothing lost


NOTICE = tsv(
    "notice",
    "ts uid id.orig_h id.orig_p id.resp_h id.resp_p proto note msg sub src dst p peer_descr actions",  # noqa: E501
    "time string addr port addr port enum enum string string addr addr port string set[enum]",
    "1.5 C1 10.0.0.1 46592 192.0.2.6 443 tcp My::Attack text - 10.0.0.1 192.0.2.6 443 - A,B",
    "2.5 C2 2001:db8::1 8 2001:db8::2 0 icmp My::Ping x - 2001:db8::1 2001:db8::2 0 - (empty)",
    "3.5 - - - - - - SSH::Guessing x y 10.0.0.9 192.0.2.9 - w1 A",
    "4.5 C3 10.0.0.1 5 192.0.2.6 6 udp Signatures::Sensitive_Signature x sig-7 - - - - A",
    "5.5 - - - - - - CaptureLoss::Too_Much_Loss x - - - - - A",
    "6.5 - - - - - - Scan::Port_Scan x - 10.0.0.7 - - - A",
)


def test_notices_are_alerts() -> None:
    found = list(notices(records(NOTICE, "notice.log")))
    ends = [(a.proto, a.src, a.src_port, a.dst, a.dst_port) for a in found]
    assert ends == [
        ("TCP", "10.0.0.1", 46592, "192.0.2.6", 443),
        ("IPv6-ICMP", "2001:db8::1", 0, "2001:db8::2", 0),
        ("", "10.0.0.9", 0, "192.0.2.9", 0),
        ("UDP", "10.0.0.1", 5, "192.0.2.6", 6),
    ]
    assert found[0].signature_id == signature_number("My::Attack") > 2**52
    assert found[3].signature == "Signatures::Sensitive_Signature sig-7"


def test_connections() -> None:
    log = tsv(
        "conn", "ts uid proto conn_state missed_bytes orig_pkts orig_ip_bytes resp_pkts resp_ip_bytes",  # noqa: E501
        "time string enum string count count count count count",
        "1.0 C1 tcp SF 0 5 500 4 400", "1.0 C2 tcp SF 99 1 50 0 0", "1.0 C3 udp S0 - 1 60 0 0",
    )  # fmt: skip
    found = flow_records(records(log, "conn.log"))
    assert found is not None
    assert (found.flows, found.with_gaps, found.packets, found.bytes) == (3, 1, 11, 1010)
    assert found.by_state == {"SF": 2, "S0": 1} and found.wrong_thread is None
    assert flow_records([]) is None


def test_a_torn_last_line_is_what_a_killed_zeek_leaves() -> None:
    assert len(list(records([*STATS[:-2], "17000\tworker-1"], "x"))) == 3
    with pytest.raises(SensorFailed, match="x: line 12 is neither TSV with a header nor JSON"):
        list(records([*STATS[:-2], "17000\tworker-1", STATS[-2]], "x"))


def test_other_separators_and_escapes() -> None:
    log = ["#separator |", "#set_separator|,", "#unset_field|-", "#fields|a|b|c",
           "#types|string|set[count]|bool", r"x\x09y|1,2|T"]  # fmt: skip
    assert list(records(log, "x")) == [{"a": "x\ty", "b": ["1", "2"], "c": True}]


def test_last_words() -> None:
    said = (
        "1700000009.1 listening on af_packet::rx0\n\n"
        "1700000019.1 5979 packets received on interface af_packet::rx0, 21 (0.35%) dropped, "
        "0 (0.00%) not processed\n1700000019.2 received termination signal\n"
    )
    found = final(said)
    assert found is not None and (found.received, found.dropped) == (5979, 21)
    assert final("1.0 listening on rx0") is None
