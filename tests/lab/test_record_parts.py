"""Parts of the recorder that need no lab: its plan, tcpdump's words, the manifest."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from lab import netns_tools
from lab.apps import Site
from lab.capture import Counts, parse_counts
from lab.errors import LabError, OptionError
from lab.record import RecordOptions, record
from lab.record_manifest import Done, Recording, write_manifest
from lab.scenario import Step, long_steps, short_steps
from lab.shaping import Shape
from lab.virtual_layout import DEMO_RULES

SITE = Site(Path("/somewhere"))
HOME = [ip_network(text) for text in ("10.0.0.0/8", "fd00::/8")]


def test_every_rule_has_its_attack_and_every_attack_its_rule() -> None:
    """The rules file and the scenario name the same signatures; no rule counts or thresholds."""
    text = DEMO_RULES.read_text()
    rules = [line for line in text.splitlines() if line and not line.startswith("#")]
    sids = {int(found) for line in rules for found in re.findall(r"\bsid:(\d+);", line)}
    assert sids == {step.attack for step in short_steps(SITE) if step.attack is not None}
    assert not re.search(r"threshold|detection_filter|flowbits|xbits", "\n".join(rules))


def test_plan_is_varied_and_the_same_every_time() -> None:
    """All the kinds of traffic, 50 to 90 flows, 8 to 14 alerts, IPv6 among them."""
    steps = [*short_steps(SITE), *long_steps(SITE)]
    kinds = Counter(step.application for step in steps)
    assert set(kinds) == {"http", "tls", "dns", "ssh", "smtp", "icmp", "udp"}
    assert 50 <= len(steps) <= 90
    assert 8 <= sum(step.attack is not None for step in steps) <= 14
    assert sum(":" in step.source for step in steps) >= 8
    assert short_steps(SITE) == short_steps(SITE)


def test_a_kernel_without_ipv6_gets_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPv6 steps are left out; every signature still has its attack."""
    monkeypatch.setattr(netns_tools, "has_ipv6", lambda: False)
    steps = short_steps(SITE)
    assert not [step for step in steps if ":" in step.source]
    assert {step.attack for step in steps} >= set(range(9_000_001, 9_000_008))


def test_attacks_on_the_home_network_come_from_outside() -> None:
    """$EXTERNAL_NET and $HOME_NET of the rules match where the steps really start."""
    outside_in = {9_000_001, 9_000_002, 9_000_007}
    for step in short_steps(SITE):
        at_home = any(ip_address(step.source) in network for network in HOME)
        assert at_home == (step.attack not in outside_in), step


def test_enough_flows_are_cut_at_each_end() -> None:
    """At least three begun before the capture, three unterminated, and none carries an attack."""
    parts = Counter(step.part for step in long_steps(SITE))
    assert parts["begun-before"] >= 3
    assert parts["unterminated"] >= 3
    assert parts["spanning"] >= 1
    assert all(step.attack is None for step in long_steps(SITE))


def test_reads_tcpdump_s_report() -> None:
    """The three figures, singular and plural alike."""
    text = (
        "listening on cl0\n1 packet captured\n"
        "12 packets received by filter\n3 packets dropped by kernel\n"
    )
    assert parse_counts(text) == Counts(1, 12, 3)


def test_a_report_that_is_not_there_is_an_error() -> None:
    """No report means tcpdump did not end as it should; silence is not zero drops."""
    with pytest.raises(LabError, match="dropped by kernel"):
        parse_counts("5 packets captured\n5 packets received by filter\n")


def _recording(capture: Path) -> Recording:
    attack = Step("http", "Log4Shell", "203.0.113.1", ("curl",), attack=9_000_001)
    cut = Step("ssh", "a login", "10.20.1.1", ("ssh",), "begun-before")
    steps = (
        Done(attack, 1.0, status=0),
        Done(attack, 2.0, status=7, words="no route"),
        Done(cut, -1.5, status=0, running_at_start=True),
    )
    return Recording(
        path=capture,
        counts=Counts(10, 10, 2),
        started_ns=1_700_000_000_123_456_789,
        ended_ns=1_700_000_003_000_000_000,
        steps=steps,
        mtu=1500,
    )


def test_manifest_says_what_was_run_cut_lost_and_shaped(tmp_path: Path) -> None:
    """The digest is that of the file; a failed attack is not due; accidents are in it."""
    capture = tmp_path / "raw.pcap"
    capture.write_bytes(b"some packets")
    done = write_manifest(capture, _recording(capture), Shape(rate="10mbit"))
    assert done.manifest == tmp_path / "raw.pcap.manifest.json"
    data = json.loads(done.manifest.read_text())
    assert data["capture"]["sha256"] == hashlib.sha256(b"some packets").hexdigest()
    assert data["capture"]["started"] == "2023-11-14T22:13:20.123456Z"
    assert data["tcpdump"]["dropped"] == 2
    assert data["shaping"]["rate"] == "10mbit"
    assert "tbf rate 10mbit" in data["shaping"]["tc"][0]
    assert data["failed"][0]["said"] == "no route"
    assert [entry["at_s"] for entry in data["half_flows"]["begun_before"]] == [-1.5]
    assert done.attacks == {9_000_001: 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == [capture.name, done.manifest.name]


@pytest.mark.parametrize("seconds", [1.0, 1e9, float("nan")])
def test_unfit_lengths_are_refused(tmp_path: Path, seconds: float) -> None:
    """Before anything is started."""
    with pytest.raises(OptionError, match="--seconds"):
        record("nowhere", tmp_path / "raw.pcap", RecordOptions(seconds=seconds))


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(OptionError, match="does not exist"):
        record("nowhere", tmp_path / "no" / "raw.pcap")
