"""Cleaning: a raw mix whose truth is known, tshark's opinion of the output, and the books."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, GRE, Ether
from synth import MS, T0, Frame, Talk, merged, tshark, write_pcap

from pcap_tools.clean import CleanReport, clean
from pcap_tools.errors import EmptyCapture, OutputError, PcapError
from pcap_tools.policy import RULES, Policy

SECOND = 10**9


def raw_mix(seed: int) -> tuple[list[Frame], dict[int, str]]:
    """A capture cut at both ends and with losses, and the truth: client port to what befell it."""
    chance = random.Random(seed)
    frames: list[Frame] = []
    truth: dict[int, str] = {}
    begin, end = T0 + 20 * SECOND, T0 + 40 * SECOND
    for i in range(120):
        port = 20_000 + i
        talk = Talk(
            client=f"10.0.{i % 7}.{i % 200 + 1}",
            sport=port,
            start=T0 + chance.randrange(60 * SECOND),
            ms=chance.choice([5, 200, 900]),
            isn=(chance.randrange(2**32), chance.randrange(2**32)),
        ).open()
        talk.talk(chance.randrange(1, 6))
        talk = talk.tcp(chance.randrange(2), "RA") if i % 5 == 0 else talk.close()
        kept = [frame for frame in talk.frames if begin <= frame[0] < end]
        if not kept:
            continue
        if kept[0] is not talk.frames[0]:
            truth[port] = "begun"
        elif talk.frames[-1][0] >= end:
            # Only the client's last acknowledgment may be outside: both have said FIN.
            rest = [frame for frame in talk.frames if frame[0] >= end]
            truth[port] = "clean" if i % 5 and len(rest) == 1 else "unterminated"
        elif chance.random() < 0.2:
            data = [frame for frame in kept[3:-3] if len(frame[1]) > 60]
            kept.remove(chance.choice(data))
            truth[port] = "lost"
        else:
            truth[port] = "clean"
        frames += kept
    return sorted(frames, key=lambda frame: frame[0]), truth


def books_balance(report: CleanReport) -> None:
    result = report.result
    for name in ("flows", "packets", "bytes"):
        dropped = sum(getattr(tally, name) for tally in result.dropped.values())
        assert getattr(result.all, name) == getattr(result.kept, name) + dropped


@pytest.mark.parametrize("seed", range(3))
def test_exactly_the_clean_flows_of_a_raw_mix_are_kept(tmp_path: Path, seed: int) -> None:
    frames, truth = raw_mix(seed)
    assert set(truth.values()) == {"begun", "unterminated", "lost", "clean"}
    raw = write_pcap(tmp_path / "raw.pcap", frames)
    report = clean(raw, tmp_path / "clean.pcap")
    books_balance(report)
    assert report.result.all.packets == len(frames)
    reasons = {row["client_port"]: row["reason"] for row in report.dropped_flows}
    assert {p for p in truth if p not in reasons} == {
        p for p, what in truth.items() if what == "clean"
    }
    allowed = {
        "begun": {"midstream"},
        "unterminated": {"unterminated", "unanswered", "capture-loss"},
        "lost": {"capture-loss"},
    }
    for port, reason in reasons.items():
        assert reason in allowed[truth[port]]
    # tshark's two passes agree: handshake, data and an end in every stream that is left.
    rows = tshark(
        tmp_path / "clean.pcap", "tcp.stream", "tcp.completeness", "tcp.analysis.lost_segment"
    )
    for _, bits, lost in rows:
        assert int(bits) & 7 == 7
        assert int(bits) & 8
        assert int(bits) & 48
        assert lost == ""
    assert len({stream for stream, _, _ in rows}) == report.result.kept.flows


def test_kept_packets_are_unchanged_and_in_order(tmp_path: Path) -> None:
    good, bad = Talk(sport=1111).whole(), Talk(sport=2222).open()
    raw = write_pcap(tmp_path / "raw.pcap", merged(good, bad), nanoseconds=True)
    before = raw.read_bytes()
    report = clean([raw], tmp_path / "out.pcap", sha256=True)
    expected = write_pcap(tmp_path / "expected.pcap", good.frames, nanoseconds=True)
    assert (tmp_path / "out.pcap").read_bytes() == expected.read_bytes()
    assert report.sha256 == hashlib.sha256(expected.read_bytes()).hexdigest()
    assert raw.read_bytes() == before


def test_the_report_beside_the_output(tmp_path: Path) -> None:
    raw = write_pcap(tmp_path / "raw.pcap", merged(Talk().whole(), Talk(sport=2).open()))
    raw.write_bytes(raw.read_bytes() + b"torn")
    report = clean(raw, tmp_path / "out.pcap")
    stored = json.loads((tmp_path / "out.pcap.clean.json").read_text())
    assert stored == report.as_json()
    assert stored["in"]["packets"] == stored["kept"]["packets"] + 3
    assert stored["dropped"]["unterminated"] == {"flows": 1, "packets": 3, "bytes": 162}
    assert [flow["reason"] for flow in stored["dropped_flows"]] == ["unterminated"]
    assert stored["capture"]["ignored_bytes"] == 4
    clean(raw, tmp_path / "out.pcap", report=tmp_path / "why.json")
    assert json.loads((tmp_path / "why.json").read_text())["sha256"] == stored["sha256"]


def test_every_reason_and_how_to_keep_it(tmp_path: Path) -> None:
    """One flow or packet for each rule; dropping it, then keeping it, moves just that one."""
    ether = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")
    middle = T0 + 50 * SECOND
    lossy = Talk(sport=5, start=middle).whole()
    del lossy.frames[4]
    bad = bytearray(Talk(sport=6).open().frames[0][1])
    bad[46] = 0x10
    wrong = Talk(sport=9, start=middle).whole()
    time, frame = wrong.frames[4]
    wrong.frames[4] = (time, frame[:-1] + b"?")
    cases: dict[str, list[Frame]] = {
        "midstream": Talk(sport=1, start=middle).talk().close().frames,
        "unanswered": Talk(sport=2, start=middle).tcp(0, "S").frames,
        "one-sided": [
            frame
            for frame in Talk(sport=10, start=middle).whole().frames
            if frame[1][:6].endswith(b"\1")
        ]
        + [
            frame
            for frame in Talk(sport=11, start=middle).whole().frames
            if frame[1][:6].endswith(b"\0")
        ],
        "rejected": Talk(sport=3, start=middle).tcp(0, "S").tcp(1, "RA").frames,
        "unterminated": Talk(sport=4, start=middle).open().talk().frames,
        "capture-loss": lossy.frames,
        "edge": Talk(sport=7, dport=514, start=T0 + 100 * SECOND).udp(0).frames,
        "one-way": Talk(sport=8, dport=514, start=middle).udp(0).frames,
        "malformed": [(middle, bytes(bad))],
        "non-ip": [(middle, bytes(ether / ARP()))],
        "fragment": [(middle, bytes(ether / IP(src="10.9.9.9", frag=9) / UDP()))],
        "truncated": [],
        "checksum": wrong.frames,
    }
    assert set(cases) == set(RULES)
    base = (
        Talk(sport=100, start=T0).whole().frames
        + Talk(sport=99, dport=53, start=middle).udp(0).udp(1).frames
    )
    frames = sorted(sum(cases.values(), base), key=lambda frame: frame[0])
    raw = write_pcap(tmp_path / "raw.pcap", frames)
    nothing, everything = Policy(drop=frozenset()), Policy(drop=frozenset(RULES))
    all_kept = clean(raw, tmp_path / "all.pcap", nothing)
    assert all_kept.result.kept.packets == len(frames)
    assert (tmp_path / "all.pcap").read_bytes() == raw.read_bytes()
    strict = clean(raw, tmp_path / "strict.pcap", everything)
    books_balance(strict)
    assert {name: tally.packets for name, tally in strict.result.dropped.items()} == {
        name: len(part) for name, part in cases.items() if part
    }
    for name, part in cases.items():
        kept = clean(raw, tmp_path / "one.pcap", Policy(drop=frozenset(RULES) - {name}))
        books_balance(kept)
        extra = kept.result.kept.packets - strict.result.kept.packets
        # A one-way flow at the edge is still a one-way flow.
        assert extra == (0 if name == "edge" else len(part))
    default = clean(raw, tmp_path / "default.pcap").result
    assert {"checksum", "rejected", "one-way"}.isdisjoint(default.dropped)


def test_wrong_checksums_are_put_right_and_counted(tmp_path: Path) -> None:
    talk, dropped = Talk(sport=1).whole(), Talk(sport=2).open()
    for frames in (talk.frames, dropped.frames):
        time, frame = frames[2]
        frames[2] = (time, frame[:24] + b"??" + frame[26:])
    raw = write_pcap(tmp_path / "raw.pcap", merged(talk, dropped))
    report = clean(raw, tmp_path / "out.pcap", Policy(checksums="fix"))
    assert report.changes == {"fixed_checksums": 1}
    assert report.lines()[-1] == "put right the checksums of 1 packets"
    right = write_pcap(tmp_path / "right.pcap", Talk(sport=1).whole().frames)
    assert (tmp_path / "out.pcap").read_bytes() == right.read_bytes()


def test_flows_inside_tunnels_are_judged_one_by_one(tmp_path: Path) -> None:
    ether = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")
    wrap = ether / IP(src="192.0.2.1", dst="192.0.2.2") / GRE()
    frames = merged(Talk(sport=1).whole(), Talk(sport=2).open())
    frames = [(time, bytes(wrap / IP(frame[14:]))) for time, frame in frames]
    raw = write_pcap(tmp_path / "raw.pcap", frames)
    outer = clean(raw, tmp_path / "outer.pcap", Policy(edge_s=0))
    assert (outer.result.all.flows, outer.result.kept.flows) == (1, 1)
    assert outer.lines()[-1] == (
        f"1 flows are tunnels ({len(frames)} packets): --flows-by inner judges what they carry"
    )
    inner = clean(raw, tmp_path / "inner.pcap", Policy(inner=True))
    assert (inner.result.all.flows, inner.result.kept.flows) == (2, 1)
    books_balance(inner)
    assert inner.as_json()["policy"]["flows_by"] == "inner"
    ports = tshark(tmp_path / "inner.pcap", "tcp.srcport", "tcp.dstport")
    assert {min(pair, key=int) for pair in ports} == {"1"}


def test_snapped_flows_are_truncated(tmp_path: Path) -> None:
    frames = merged(Talk(sport=1).whole(), Talk(sport=2).open().close())
    raw = write_pcap(tmp_path / "raw.pcap", frames, snaplen=80)
    result = clean(raw, tmp_path / "out.pcap").result
    assert (result.kept.flows, result.dropped["truncated"].flows) == (1, 1)


def test_nothing_left_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    raw = write_pcap(tmp_path / "raw.pcap", Talk().open().frames)
    with pytest.raises(EmptyCapture, match=r"nothing is left of 3 packets .*unterminated 3"):
        clean(raw, tmp_path / "out.pcap")
    assert [path.name for path in tmp_path.iterdir()] == ["raw.pcap"]


def test_the_output_may_not_be_an_input(tmp_path: Path) -> None:
    raw = write_pcap(tmp_path / "raw.pcap", Talk().whole().frames)
    before = raw.read_bytes()
    (tmp_path / "alias.pcap").symlink_to(raw)
    with pytest.raises(OutputError, match="also an input"):
        clean(raw, tmp_path / "alias.pcap")
    assert raw.read_bytes() == before


def test_a_full_disk_is_one_line_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_pcap(tmp_path / "raw.pcap", Talk().whole().frames)

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(OutputError, match="No space left"):
        patched.setattr("pcap_tools.sink.os.write", full)
        clean(raw, tmp_path / "out.pcap")
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        clean(raw, tmp_path / "none" / "out.pcap")
    assert [path.name for path in tmp_path.iterdir()] == ["raw.pcap"]


def test_policies_refuse_nonsense() -> None:
    with pytest.raises(PcapError, match="unknown rule 'foo'"):
        Policy(drop=frozenset({"foo"}))
    with pytest.raises(PcapError, match="idle"):
        Policy(idle_s=0)


def test_answered_udp_at_the_edges_stays(tmp_path: Path) -> None:
    answered = Talk(dport=53, start=T0).udp(0).udp(1)
    alone = Talk(sport=9, dport=53, start=T0 + 99 * SECOND).udp(0)
    early = Talk(sport=8, dport=514, start=T0 + 3 * MS).udp(0)
    raw = write_pcap(tmp_path / "raw.pcap", merged(answered, early, alone))
    result = clean(raw, tmp_path / "out.pcap").result
    assert (result.kept.flows, result.dropped["edge"].flows) == (1, 2)
    result = clean(raw, tmp_path / "out.pcap", Policy(edge_s=0)).result
    assert result.kept.flows == 3
