"""Syslog, CEF and EVE messages, mostly as their specifications and senders write them."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.model import Alert
from harness.sensors.intake import cef, syslog
from harness.sensors.intake.options import IntakeOptions
from harness.sensors.intake.understand import endpoint, signature_number, understanding


def understand(line: str, **options: object) -> Alert | None:
    return understanding(IntakeOptions.model_validate({"port": 514, **options}))(line, 1.7e9)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        # RFC 5424, section 6.5, examples 1, 2 and 3
        (
            "<34>1 2003-10-11T22:14:15.003Z host.example.com su - ID47 - \ufeff'su root' failed",
            ("'su root' failed", "2003-10-11T22:14:15.003Z", "host.example.com", "su", 34),
        ),
        (
            "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to …",
            ("%% It's time to …", "2003-08-24T05:14:15.000003-07:00", "192.0.2.1", "myproc", 165),
        ),
        (
            '<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [a@32473 b="x]\\"y"][c@1] An ev',
            ("An ev", "2003-10-11T22:14:15.003Z", "h", "evntslog", 165),
        ),
        ("<165>1 - - - - - -", ("", "", "", "", 165)),
        # RFC 3164, section 5.4
        (
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            (
                "'su root' failed for lonvick on /dev/pts/8",
                "Oct 11 22:14:15",
                "mymachine",
                "su",
                34,
            ),
        ),
        (
            "<13>Feb  5 17:32:18 10.0.0.99 ids[312]: [1:2:3] x",
            ("[1:2:3] x", "Feb  5 17:32:18", "10.0.0.99", "ids", 13),
        ),
        ("<13>no header at all", ("no header at all", "", "", "", 13)),
        ("no priority", ("no priority", "", "", "", None)),
    ],
)
def test_syslog(line: str, wanted: tuple[object, ...]) -> None:
    found = syslog.parse(line + "\n")
    assert (found.text, found.timestamp, found.host, found.app, found.priority) == wanted


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_no_message_is_too_strange(line: str) -> None:
    syslog.parse(line)
    cef.parse(line)
    cef.parse("CEF:0|" + line)
    for form in ("syslog", "cef", "eve"):
        understand(line, format=form)


def test_cef_as_its_specification_has_it() -> None:
    """The examples of "ArcSight Common Event Format", escapes included."""
    found = cef.parse(
        "Sep 19 08:26:10 host CEF:0|Security|threatmanager|1.0|100|detected a \\| in message|10|"
        "src=10.0.0.1 act=blocked a \\= and a \\\\ msg=two\\nlines dst=1.1.1.1 cs1Label=a b"
    )
    assert found is not None
    assert (found.vendor, found.class_id, found.severity) == ("Security", "100", "10")
    assert found.name == "detected a | in message"
    assert found.extension == {
        "src": "10.0.0.1", "act": "blocked a = and a \\", "msg": "two\nlines",
        "dst": "1.1.1.1", "cs1Label": "a b",
    }  # fmt: skip


def test_a_cef_alert() -> None:
    line = (
        "<134>1 2026-01-02T03:04:05Z box - - - - CEF:0|V|P|1|TRAVERSAL|Path traversal|7|"
        "rt=1 src=10.0.0.1 spt=40000 dst=198.51.100.7 dpt=80 proto=TCP"
    )
    found = understand(line, format="cef")
    number = 2**52 + (int(hashlib.sha256(b"TRAVERSAL").hexdigest()[:13], 16))
    assert found == Alert(
        "2026-01-02T03:04:05Z", "TCP", "10.0.0.1", 40000, "198.51.100.7", 80, number,
        "Path traversal",
    )  # fmt: skip
    six = line.replace("src=10.0.0.1", "c6a2=2001:db8::1").replace("dst=198.51.100.7", "c6a3=::2")
    found = understand(six, format="cef")
    assert found is not None and (found.src, found.dst) == ("2001:db8::1", "::2")


def test_a_cef_alert_with_keys_of_its_own() -> None:
    line = "CEF:0|V|P|1|x|y|7|attacker=10.0.0.1 victim=10.0.0.2 rule=1:77:3 proto=17 spt=5 dpt=53"
    fields = {"src": "attacker", "dst": "victim", "signature_id": "rule"}
    found = understand(line, format="cef", fields=fields)
    assert found is not None
    assert (found.proto, found.src_port, found.signature_id) == ("UDP", 5, 77)
    assert understand(line, format="cef") is None  # no addresses under the usual keys


FAST = "[1:9100001:1] T traversal [Classification: (null)] [Priority: 3] {TCP} "


@pytest.mark.parametrize(
    ("rest", "ends"),
    [
        ("10.0.0.1:40000 -> 198.51.100.7:80", ("10.0.0.1", 40000, "198.51.100.7", 80)),
        # Suricata writes IPv6 whole, Snort short; both put the port behind a colon
        (
            "2001:0db8:0000:0000:0000:0000:0000:0001:41000 -> 2001:db8::80:80",
            ("2001:0db8:0000:0000:0000:0000:0000:0001", 41000, "2001:db8::80", 80),
        ),
        ("[2001:db8::1]:41000 -> [::2]:80", ("2001:db8::1", 41000, "::2", 80)),
    ],
)
def test_fast_alerts(rest: str, ends: tuple[object, ...]) -> None:
    found = understand(f"<13>Feb  5 17:32:18 h suricata[9]: {FAST}{rest}")
    assert found is not None
    assert (found.src, found.src_port, found.dst, found.dst_port) == ends
    assert (found.signature_id, found.signature, found.proto) == (9100001, "T traversal", "TCP")
    assert found.timestamp.startswith("2023-11-14T22:13:20")  # of arrival: 3164 has no year


@pytest.mark.parametrize(
    "ends",
    ["10.0.0.9:8 -> 198.51.100.1:0", "10.0.0.9 -> 198.51.100.1"],
)
def test_icmp_has_no_ports(ends: str) -> None:
    found = understand(f"[1:5:1] ping [Priority: 3] {{ICMP}} {ends}")
    assert found is not None
    assert (found.src, found.src_port, found.dst_port) == ("10.0.0.9", 0, 0)


def test_icmp6() -> None:
    whole = "2001:0db8:0000:0000:0000:0000:0000:0001"
    assert endpoint(f"{whole}:128", None, "IPv6-ICMP") == (whole, 0)
    assert endpoint("2001:db8::1", None, "IPv6-ICMP") == ("2001:db8::1", 0)


def test_a_pattern_of_ones_own() -> None:
    pattern = (
        r"rule=(?P<signature>\S+) (?P<proto>\w+) (?P<src>[\d.]+)/(?P<src_port>\d+) > "
        r"(?P<dst>[\d.]+)/(?P<dst_port>\d+)"
    )
    found = understand("<9>1 - - - - - - rule=SQLi tcp 10.0.0.1/5 > 10.0.0.2/80", pattern=pattern)
    assert found is not None
    assert (found.src_port, found.dst_port, found.proto) == (5, 80, "TCP")
    assert found.signature_id == signature_number("SQLi") >= 2**52


def test_eve_behind_a_syslog_header() -> None:
    record = {
        "timestamp": "2026-01-01T00:00:00.000000+0000", "event_type": "alert", "proto": "TCP",
        "src_ip": "10.0.0.1", "src_port": 1, "dest_ip": "10.0.0.2", "dest_port": 2,
        "alert": {"signature_id": 7, "signature": "s"},
    }  # fmt: skip
    line = f"<13>Feb  5 17:32:18 suricata[9]: {json.dumps(record)}"
    found = understand(line, format="eve")
    assert found is not None and (found.signature_id, found.dst_port) == (7, 2)
    assert understand(line[:-5], format="eve") is None  # cut in the middle
    assert understand(json.dumps({**record, "event_type": "flow"}), format="eve") is None


def test_what_is_no_alert() -> None:
    assert understand("<13>Feb  5 17:32:18 h cron[1]: job done") is None
    assert understand(FAST + "nobody:1 -> 10.0.0.1:2") is None


def test_numbers_of_names_are_exact_in_json_and_never_a_rules() -> None:
    for text in ("a", "SQL Injection", "ET TROJAN x"):
        number = signature_number(text)
        assert 2**52 <= number < 2**53 and json.loads(json.dumps(float(number))) == number
    assert signature_number(" 1:2100498:7 ") == signature_number("2100498") == 2100498
