"""Closed connections against tshark's and Suricata's opinion of how they end."""

from __future__ import annotations

import json
import random
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, IPOption_Router_Alert
from scapy.layers.l2 import GRE, CookedLinux, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.packet import Packet
from synth import MS, T0, Frame, Talk, merged, tshark, write_pcap

from pcap_tools.capture import Batch, open_capture
from pcap_tools.clean import CleanReport, clean
from pcap_tools.closing import Closing, close_flows
from pcap_tools.closing import merged as with_closing
from pcap_tools.connstate import STATES
from pcap_tools.errors import EmptyCapture, UnsupportedLink
from pcap_tools.flows import flow_table
from pcap_tools.policy import DEFAULT_DROP, Policy

FIN, RST = Policy(close="fin"), Policy(close="rst")

# How the conversations go on until the capture ends.
UNFINISHED = {
    "S1": lambda t: t.open().talk(),
    "idle": lambda t: t.open(),
    "unacknowledged": lambda t: t.open().talk().tcp(0, "PA", b"more").tcp(1, "PA", b"answer"),
    "S2": lambda t: t.open().talk().tcp(0, "FA").tcp(1, "A").tcp(1, "PA", b"late").tcp(0, "A"),
    "S3": lambda t: t.open().talk().tcp(1, "FA").tcp(0, "A"),
    "wrapped": lambda t: replace(t, isn=(2**32 - 60, 2**32 - 700)).open().talk(),
}


def closed(tmp_path: Path, frames: list[Frame], policy: Policy, link: int = 1) -> CleanReport:
    raw = write_pcap(tmp_path / "raw.pcap", frames, link=link)
    report = clean(raw, tmp_path / "out.pcap", policy)
    result = report.result
    assert result.all.packets == result.kept.packets + sum(
        tally.packets for tally in result.dropped.values()
    )
    assert len(tshark(tmp_path / "out.pcap", "frame.number")) == (
        result.kept.packets + report.changes["closed"]["packets"]
    )
    assert json.loads((tmp_path / "out.pcap.clean.json").read_text()) == report.as_json()
    return report


def opinions(path: Path) -> dict[str, list[list[str]]]:
    """tshark's (completeness, analysis flags, checksum) of the packets of each client port."""
    fields = ["tcp.srcport", "tcp.dstport", "tcp.completeness", "tcp.analysis.flags"]
    fields += ["ip.checksum.status", "tcp.checksum.status"]
    checks = ("-2", "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
    found: dict[str, list[list[str]]] = {}
    for a, b, *rest in tshark(path, *fields, options=checks):
        found.setdefault(max(a, b, key=int), []).append(rest)
    return found


@pytest.mark.parametrize("variant", ["IPv4", "IPv6", "VLAN"])
@pytest.mark.parametrize("policy", [FIN, RST], ids=["fin", "rst"])
def test_tshark_finds_closed_flows_complete(tmp_path: Path, policy: Policy, variant: str) -> None:
    talks = []
    for i, script in enumerate(UNFINISHED.values()):
        talk = Talk(sport=30000 + i, start=T0 + i * 3 * MS, vlan=7 if variant == "VLAN" else 0)
        if variant == "IPv6":
            talk.client, talk.server = "2001:db8::1", "2001:db8:f::2"
        talks.append(script(talk))
    report = closed(tmp_path, merged(*talks), policy)
    assert report.changes["closed"]["count"] == len(UNFINISHED)
    assert not report.result.dropped
    for i, (port, packets) in enumerate(sorted(opinions(tmp_path / "out.pcap").items())):
        name = list(UNFINISHED)[i]
        bits = int(packets[0][0])
        ends = 16 if policy is FIN else 48 if name in ("S2", "S3") else 32
        assert (port, bits & 48) == (port, ends)
        assert bits & 7 == 7
        assert all(flags == "" and "0" not in status for _, flags, *status in packets)
    table = flow_table(tmp_path / "out.pcap")
    expected = {"SF"} if policy is FIN else {"RSTO"}
    assert {STATES[code] for code in table.state} == expected
    assert table.missing.sum() == 0
    clock = [float(t) for (t,) in tshark(tmp_path / "out.pcap", "frame.time_epoch")]
    assert clock == sorted(clock)


def test_suricata_finds_closed_flows_closed(tmp_path: Path) -> None:
    for policy in (FIN, RST):
        scripts = enumerate(UNFINISHED.values())
        talks = [script(Talk(sport=30000 + i, start=T0 + i * 3 * MS)) for i, script in scripts]
        closed(tmp_path, merged(*talks), policy)
        logs = tmp_path / policy.close
        logs.mkdir()
        command = ["suricata", "-r", str(tmp_path / "out.pcap"), "-l", str(logs)]
        subprocess.run([*command, "-S", "/dev/null"], capture_output=True, check=True)
        events = [json.loads(line) for line in (logs / "eve.json").read_text().splitlines()]
        flows = [event for event in events if event["event_type"] == "flow"]
        assert len(flows) == len(UNFINISHED)
        for flow in flows:
            assert (flow["flow"]["state"], flow["tcp"]["state"]) == ("closed", "closed")
        assert not [event for event in events if event["event_type"] == "anomaly"]


@pytest.mark.parametrize(
    ("link", "below"),
    [
        (1, Ether() / PPPoE(sessionid=3) / PPP()),
        (113, CookedLinux(proto=0x0800)),
        (101, None),
    ],
    ids=["PPPoE", "cooked", "raw"],
)
def test_other_link_layers_options_and_timestamps(
    tmp_path: Path, link: int, below: Packet | None
) -> None:
    def segment(end: int, flags: str, seq: int, ack: int, clock: int, echo: int) -> bytes:
        a, b = ("10.0.0.1", "10.0.0.2") if end == 0 else ("10.0.0.2", "10.0.0.1")
        ip = IP(src=a, dst=b, id=end * 65535, ttl=50 + end, options=[IPOption_Router_Alert()])
        tcp = TCP(sport=[4000, 80][end], dport=[80, 4000][end], flags=flags, seq=seq, ack=ack)
        tcp.options = [("NOP", None), ("NOP", None), ("Timestamp", (clock, echo))]
        return bytes(ip / tcp if below is None else below / ip / tcp)

    parts = [
        segment(0, "S", 10, 0, 100, 0),
        segment(1, "SA", 90, 11, 700, 100),
        segment(0, "A", 11, 91, 101, 700),
    ]
    closed(tmp_path, [(T0 + i * MS, part) for i, part in enumerate(parts)], FIN, link)
    fields = ["ip.src", "ip.id", "ip.ttl", "ip.len", "ip.checksum.status", "tcp.checksum.status"]
    fields += ["tcp.flags", "tcp.options.timestamp.tsval", "tcp.options.timestamp.tsecr"]
    fields += ["tcp.analysis.flags", "pppoe.payload_length"]
    checks = ("-2", "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
    rows = tshark(tmp_path / "out.pcap", *fields, options=checks)
    size = "58" if below is not None and link == 1 else ""
    common = ("50", "56", "1", "1")
    assert [tuple(row) for row in rows[3:]] == [
        ("10.0.0.1", "0x0000", *common, "0x0011", "101", "700", "", size),
        ("10.0.0.2", "0x0000", "51", *common[1:], "0x0011", "700", "101", "", size),
        ("10.0.0.1", "0x0000", *common, "0x0010", "101", "700", "", size),
    ]


def test_what_cannot_be_closed_correctly_is_dropped_as_before(tmp_path: Path) -> None:
    gap = Talk(sport=1001).open().talk()
    del gap.frames[4]
    silent = Talk(sport=1002).tcp(0, "S").tcp(1, "SA")
    acked = Talk(sport=1003).open().tcp(0, "A", ack=7000)
    begun = Talk(sport=1004).talk()
    tunnel = [
        (time, bytes(Ether() / IP(src="1.2.3.4", dst="4.3.2.1") / GRE() / IP(frame[14:])))
        for time, frame in Talk(sport=1005).open().frames
    ]
    good = Talk(sport=1006, client="10.0.0.6").open()
    frames = merged(gap, silent, acked, begun, good) + tunnel
    report = closed(tmp_path, sorted(frames), replace(FIN, inner=True))
    assert [row["client_port"] for row in report.changes["closed"]["flows"]] == [1006]
    assert [row["closed"] for row in report.changes["closed"]["flows"]] == ["fin"]
    reasons = {row["client_port"]: row["reason"] for row in report.dropped_flows}
    assert reasons == {
        1001: "capture-loss",
        1002: "unterminated",
        1003: "capture-loss",
        1004: "midstream",
        1005: "unterminated",
    }


def test_cut_and_kept_flows(tmp_path: Path) -> None:
    """Who keeps unterminated flows and asks to close them gets those closed that can be."""
    frames = merged(Talk(sport=1001).open(), Talk(sport=1002).tcp(0, "S").tcp(1, "SA"))
    policy = replace(FIN, drop=DEFAULT_DROP - {"unterminated"})
    report = closed(tmp_path, frames, policy)
    assert (report.changes["closed"]["count"], report.result.kept.flows) == (1, 2)
    strict = clean(tmp_path / "raw.pcap", tmp_path / "strict.pcap", FIN)
    assert (strict.result.kept.flows, strict.changes["closed"]["packets"]) == (1, 3)
    with pytest.raises(EmptyCapture):
        clean(tmp_path / "raw.pcap", tmp_path / "none.pcap")


def test_closing_packets_say_whose_they_are(tmp_path: Path) -> None:
    frames = merged(Talk(sport=1001).whole(), Talk(sport=1002).open(), Talk(sport=1003).open())
    with open_capture(write_pcap(tmp_path / "t.pcap", frames)) as capture:
        table, closing = close_flows(capture, flow_table(capture), FIN)
    ends = [0, 1, 0, 0, 1, 0]
    assert closing.owner.tolist() in ([1, 1, 1, 2, 2, 2], [1, 2, 1, 2, 1, 2])
    assert sorted(closing.direction.tolist()) == sorted(ends)
    ports = np.array(
        [table.rows["port"][f, d] for f, d in zip(closing.owner, closing.direction, strict=True)]
    )
    for at, port in zip(closing.packets.offset, ports, strict=True):
        assert int.from_bytes(closing.packets.data[at + 34 : at + 36].tobytes(), "big") == port


def test_comments_of_the_packets_around_stay(tmp_path: Path) -> None:
    talks = [Talk(sport=4000 + n, start=T0 + n * 3 * MS).open().talk() for n in range(6)]
    raw = write_pcap(tmp_path / "raw.pcap", merged(*talks))
    count = sum(len(talk.frames) for talk in talks)
    noted = [option for n in range(1, count + 1) for option in ("-a", f"{n}:frame {n}")]
    subprocess.run(["editcap", "-F", "pcapng", *noted, raw, tmp_path / "raw.pcapng"], check=True)
    fields = ("frame.time_epoch", "tcp.srcport", "tcp.seq_raw", "tcp.flags", "frame.comment")
    before = tshark(tmp_path / "raw.pcapng", *fields)
    clean(tmp_path / "raw.pcapng", tmp_path / "out.pcapng", FIN)
    after = tshark(tmp_path / "out.pcapng", *fields)
    assert [row for row in after if row[-1]] == before and len(before) == count
    assert len(after) == count + 3 * len(talks)
    facts = subprocess.run(["capinfos", tmp_path / "out.pcapng"], capture_output=True, check=True)
    assert b"Interface #0" in facts.stdout and b"Interface #1" not in facts.stdout


def test_several_link_types_are_refused_as_such(tmp_path: Path) -> None:
    frames = Talk().open().talk().frames
    a = write_pcap(tmp_path / "a.pcap", frames)
    b = write_pcap(tmp_path / "b.pcap", [(t, f[14:]) for t, f in frames], link=101)
    with pytest.raises(UnsupportedLink, match=r"Ethernet, raw IP\), and --close makes frames of"):
        clean([a, b], tmp_path / "out.pcapng", FIN)


def batches_of(times: list[int], size: int) -> list[tuple[Batch, npt.NDArray[np.bool_]]]:
    """One-byte frames at `times`, `size` a batch; the byte is the packet's number."""
    found = []
    for first in range(0, len(times), size):
        part = np.array(times[first : first + size])
        data = np.arange(first, first + len(part), dtype=np.uint8)
        one = np.ones(len(part), np.uint32)
        keep = np.array([(first + i) % 3 > 0 for i in range(len(part))])
        found.append((Batch(data, np.arange(len(part)), one, one, part, 1, first), keep))
    return found


@settings(max_examples=200, deadline=None)
@given(
    times=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    ordered=st.booleans(),
    size=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_closing_packets_come_in_time_and_after_their_flow(
    times: list[int], ordered: bool, size: int, seed: int
) -> None:
    times = sorted(times) if ordered else times
    chance = random.Random(seed)
    extra = sorted(
        (times[k] + chance.randrange(3) + 1, k)
        for k in (chance.randrange(len(times)) for _ in range(chance.randrange(6)))
    )
    count = len(extra)
    one = np.ones(count, np.uint32)
    packets = Batch(
        np.arange(200, 200 + count, dtype=np.uint8),
        np.arange(count),
        one,
        one,
        np.array([time for time, _ in extra], np.int64),
        1,
        -1,
    )
    after = np.array([k for _, k in extra], np.int64)
    closing = Closing(
        "fin",
        np.zeros(0, np.int64),
        packets,
        after,
        np.zeros(count, np.int32),
        np.zeros(count, np.uint8),
    )
    seen: list[tuple[int, int, bool]] = []
    for batch, keep in with_closing(batches_of(times, size), closing):
        bytes_ = batch.data[batch.offset]
        seen += zip(batch.time_ns.tolist(), bytes_.tolist(), keep.tolist(), strict=True)
    assert [(t, b, k) for t, b, k in seen if b < 200] == [
        (time, i, i % 3 > 0) for i, time in enumerate(times)
    ]
    assert [(t, b, k) for t, b, k in seen if b >= 200] == [
        (time, 200 + i, True) for i, (time, _) in enumerate(extra)
    ]
    order = [b for _, b, _ in seen]
    for i, (_, k) in enumerate(extra):
        assert order.index(200 + i) > order.index(k)
    if ordered:
        assert [t for t, _, _ in seen] == sorted(t for t, _, _ in seen)
