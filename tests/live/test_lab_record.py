"""The recorder on a real path: half-flows as promised, attacks that alert, nothing left behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from lab import netns_tools as net
from lab.errors import LabError, MissingTool
from lab.record import RecordOptions, record
from lab.record_manifest import Recording
from lab.shaping import Shape
from lab.virtual_layout import DEMO_RULES, layout

pytestmark = pytest.mark.live
SYN, SYN_ACK, FIN, RST = 1, 2, 16, 32  # tshark's tcp.completeness


@pytest.fixture(scope="module")
def recording(live_lab: Path, lab_name: str, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """One recording with a rate, looked at by every test."""
    output = tmp_path_factory.mktemp("recording") / "raw.pcap"
    options = RecordOptions(seconds=12, shape=Shape(rate="100mbit"))
    started = time.monotonic()
    done = record(lab_name, output, options)
    assert time.monotonic() - started < 30
    return done


def _leftovers(name: str) -> list[str]:
    """Processes, addresses and shaping still on the recording path."""
    spaces = layout(name).namespaces
    found = []
    for space, interface in ((spaces.client, "cl0"), (spaces.server, "sv0")):
        found += [net.process_command(pid) for pid in net.processes_in(space)]
        [link] = net.ip_json("addr", "show", interface, namespace=space)
        found += [address["local"] for address in link["addr_info"]]
        shaped = net.run(["tc", "-n", space, "qdisc", "show", "dev", interface]).stdout
        found += [line for line in shaped.splitlines() if "tbf" in line or "netem" in line]
    return found


def _tshark(capture: Path, *words: str) -> list[list[str]]:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is the oracle here")
    argv = ["tshark", "-2", "-r", str(capture), "-n", "-T", "fields", *words]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return [line.split("\t") for line in shown.splitlines()]


def test_half_flows_are_in_it_as_promised(recording: Recording) -> None:
    """By tshark's two-pass completeness: three flows and more lack their start, three their end."""
    rows = _tshark(
        recording.path, "-Y", "tcp", "-e", "tcp.stream", "-e", "tcp.completeness",
        "-e", "ip.src", "-e", "ip.dst",
    )  # fmt: skip
    streams = {int(stream): int(seen) for stream, seen, *_ in rows}
    ends: dict[int, set[str]] = defaultdict(set)
    for stream, _, *addresses in rows:
        ends[int(stream)] |= {one for text in addresses for one in text.split(",")}
    begun = {s for s, seen in streams.items() if not seen & SYN}
    unended = {s for s, seen in streams.items() if not seen & (FIN | RST)}
    assert len(begun) >= 3
    assert len(unended) >= 3
    assert begun & unended
    promised = [d for d in recording.steps if d.running_at_start]
    assert len(begun) == len(promised)
    for done in promised:
        assert any(done.step.source in ends[stream] for stream in begun)
    whole = [s for s in streams if s not in begun | unended]
    assert len(whole) > 30


def test_everything_else_is_whole(recording: Recording) -> None:
    """Flow count and size as planned; no frame is larger than the MTU; checksums are right."""
    assert 800 < recording.counts.captured < 3000
    assert recording.counts.dropped == 0
    assert not [done for done in recording.steps if done.failed]
    rows = _tshark(
        recording.path, "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE",
        "-o", "udp.check_checksum:TRUE", "-e", "frame.len", "-e", "ip.checksum.status",
        "-e", "tcp.checksum.status", "-e", "udp.checksum.status", "-e", "_ws.col.Protocol",
    )  # fmt: skip
    assert len(rows) == recording.counts.captured
    assert max(int(row[0]) for row in rows) <= 1514
    bad = [row for row in rows if "0" in {text for cell in row[1:4] for text in cell.split(",")}]
    assert [row for row in bad if row[4] != "ICMP"] == []  # what an error quotes is cut short
    seen = {row[4] for row in rows}
    assert {"HTTP", "DNS", "SSHv2", "SMTP", "ICMP", "ICMPv6"} <= seen
    assert seen & {"TLSv1.2", "TLSv1.3"}


def test_every_attack_alerts_offline(recording: Recording, tmp_path: Path) -> None:
    """Suricata raises just the alerts that the manifest says are due, one a flow."""
    if shutil.which("suricata") is None:
        pytest.skip("suricata is the oracle here")
    groups = "vars.address-groups"
    argv = ["suricata", "-r", str(recording.path), "-S", str(DEMO_RULES), "-l", str(tmp_path)]
    argv += ["--set", f"{groups}.HOME_NET=[10.0.0.0/8,fd00::/8]"]
    argv += ["--set", f"{groups}.EXTERNAL_NET=!$HOME_NET", "-k", "all", "--runmode", "single"]
    subprocess.run(argv, check=True, capture_output=True)
    events = [json.loads(line) for line in (tmp_path / "eve.json").read_text().splitlines()]
    alerts = [event for event in events if event["event_type"] == "alert"]
    assert Counter(alert["alert"]["signature_id"] for alert in alerts) == recording.attacks
    assert len({alert["flow_id"] for alert in alerts}) == len(alerts)
    assert 8 <= len(alerts) <= 14


def test_the_manifest_is_that_of_the_file(recording: Recording) -> None:
    """Digest, tcpdump's report, shaping with the commands, versions of all tools."""
    assert recording.manifest is not None
    data = json.loads(recording.manifest.read_text())
    assert data["capture"]["sha256"] == hashlib.sha256(recording.path.read_bytes()).hexdigest()
    assert data["tcpdump"]["dropped"] == 0
    assert data["shaping"]["rate"] == "100mbit"
    assert data["shaping"]["applied_to"] == ["client", "server"]
    assert len(data["half_flows"]["begun_before"]) >= 3
    assert all(entry["at_s"] < 0 for entry in data["half_flows"]["begun_before"])
    assert len(data["half_flows"]["unterminated"]) >= 3
    assert "unknown" not in data["tools"].values()


def test_nothing_is_left_of_it(recording: Recording, lab_name: str) -> None:
    """No process, no address, no shaping; beside the capture only its manifest."""
    assert _leftovers(lab_name) == []
    assert not (layout(lab_name).directory / "record").exists()
    assert len(list(recording.path.parent.iterdir())) == 2


_RECORD = """
import sys
from pathlib import Path
from lab.record import record
record(sys.argv[1], Path(sys.argv[2]))
"""


def _start_recording(name: str, output: Path) -> subprocess.Popen[bytes]:
    started = subprocess.Popen(
        [sys.executable, "-c", _RECORD, name, str(output)], stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 15
    while not list(output.parent.glob("*.partial-*")) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    return started


def test_ctrl_c_ends_everything(live_lab: Path, lab_name: str, tmp_path: Path) -> None:
    """Interrupted in the middle of the capture: no file, no process."""
    running = _start_recording(lab_name, tmp_path / "raw.pcap")
    with pytest.raises(LabError, match="another recording is running"):
        record(lab_name, tmp_path / "second.pcap")
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=10) == -signal.SIGINT
    assert list(tmp_path.iterdir()) == []
    assert _leftovers(lab_name) == []


def test_a_killed_recorder_takes_its_programs_with_it(
    live_lab: Path, lab_name: str, tmp_path: Path
) -> None:
    """SIGKILL: its programs end by themselves, and the next recording clears the rest."""
    running = _start_recording(lab_name, tmp_path / "raw.pcap")
    running.kill()
    running.wait()
    time.sleep(0.5)
    left = [line for line in _leftovers(lab_name) if " " in line and "tbf" not in line]
    assert [line for line in left if not line.startswith("sshd:")] == []
    done = record(lab_name, tmp_path / "raw.pcap", RecordOptions(seconds=8))
    assert not [entry for entry in done.steps if entry.failed]
    assert len(list(tmp_path.iterdir())) == 2
    assert _leftovers(lab_name) == []


def test_a_failing_application_is_an_error(
    live_lab: Path, lab_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not come up is named; nothing is left."""
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "dnsmasq").write_text("#!/bin/sh\necho 'bad luck' >&2\nexit 5\n")
    (fake / "dnsmasq").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:{os.environ['PATH']}")
    with pytest.raises(LabError, match=r"dnsmasq ended with status 5: bad luck"):
        record(lab_name, tmp_path / "raw.pcap")
    assert list(tmp_path.iterdir()) == [fake]
    assert _leftovers(lab_name) == []


def test_impairments_need_netem(live_lab: Path, lab_name: str, tmp_path: Path) -> None:
    """With the kernel's netem a lossy recording; without it one line before anything starts."""
    space = layout(lab_name).namespaces.client
    probe = ["tc", "-n", space, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    options = RecordOptions(seconds=8, shape=Shape(delay="5ms", loss="0.5%"))
    if net.run(probe, check=False).returncode != 0:
        with pytest.raises(MissingTool, match="netem"):
            record(lab_name, tmp_path / "raw.pcap", options)
        assert list(tmp_path.iterdir()) == []
        return
    Shape.clear(space, "lo")
    assert record(lab_name, tmp_path / "raw.pcap", options).counts.captured > 500
