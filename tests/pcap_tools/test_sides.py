"""Two sides of a capture, and tcpprep's cache: read by tcpprep and tcprewrite themselves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import dpkt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP, Ether
from synth import MS, T0, Frame, Talk, merged, write_pcap

from pcap_tools.errors import CaptureError, OutputError, PcapError
from pcap_tools.sides import SidesOutputs, sides
from pcap_tools.tcpprep import CLIENT, NOT_SENT, SERVER, read_cache, write_cache

BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "corpora"
CORPORA = Path(os.environ.get("PROBEBENCH_CORPORA", BESIDE))
ARP_FRAME = bytes(Ether(src="02:00:00:00:00:00", dst="ff:ff:ff:ff:ff:ff") / ARP())


def records(path: Path) -> list[Frame]:
    with path.open("rb") as stream:
        return [(round(float(t) * 1e6) * 1000, bytes(b)) for t, b in dpkt.pcap.Reader(stream)]


def tool(*command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=True
    )
    return done.stdout


def mix() -> tuple[list[Frame], list[int]]:
    """Frames, and the code each is due (synth's MAC addresses tell the sender)."""
    talks = [
        Talk(sport=1111).whole(),
        Talk(sport=2222, dport=9999, ms=7).whole(),
        Talk(client="2001:db8::1", server="2001:db8::2", sport=3333).whole(),
        Talk(sport=4444, dport=53, ms=3).udp(0).udp(1).udp(0),
    ]
    frames = sorted([*merged(*talks), (T0 + 15 * MS, ARP_FRAME)], key=lambda frame: frame[0])
    codes = [
        NOT_SENT if frame == ARP_FRAME else SERVER if frame[11] else CLIENT for _, frame in frames
    ]
    return frames, codes


@pytest.mark.parametrize("outside", ["client", "server", "drop"])
def test_both_sides_are_the_capture(tmp_path: Path, outside: str) -> None:
    frames, codes = mix()
    raw = write_pcap(tmp_path / "raw.pcap", frames)
    outputs = SidesOutputs(*(tmp_path / name for name in ("c.pcap", "s.pcap", "k.cache")))
    report = sides(raw, outputs, outside)
    place = {"client": CLIENT, "server": SERVER, "drop": NOT_SENT}[outside]
    codes = [place if code == NOT_SENT else code for code in codes]
    for path, code, side in (
        (outputs.client, CLIENT, report.client),
        (outputs.server, SERVER, report.server),
    ):
        wanted = [frame for frame, sent in zip(frames, codes, strict=True) if sent == code]
        assert path is not None
        assert records(path) == wanted
        assert (side.packets, side.bytes) == (len(wanted), sum(len(f) for _, f in wanted))
    assert report.outside == 1
    assert report.dropped.packets == (outside == "drop")
    assert report.client.packets + report.server.packets + report.dropped.packets == len(frames)
    assert read_cache(tmp_path / "k.cache")[0].tolist() == codes


def test_tcpprep_reads_the_cache(tmp_path: Path) -> None:
    frames, codes = mix()
    raw = write_pcap(tmp_path / "raw.pcap", frames)
    sides(raw, SidesOutputs(cache=tmp_path / "k.cache"), "drop")
    # Two lines: one of args, one that counts.
    assert "raw.pcap: sides of its flows" in tool("tcpprep", "-P", tmp_path / "k.cache")
    names = {CLIENT: "Primary", SERVER: "Secondary", NOT_SENT: "Don't Send"}
    told = [
        line.split("->")[1].strip()
        for line in tool("tcpprep", "-I", tmp_path / "k.cache").splitlines()
        if "->" in line
    ]
    assert told == [names[code] for code in codes]


def test_tcprewrite_follows_the_cache(tmp_path: Path) -> None:
    """It gives frames of the two interfaces other MAC addresses: who got which?"""
    # Not IPv6: tcprewrite 4.4.3 gives it multicast MAC addresses, whatever was asked for.
    pairs = [pair for pair in zip(*mix(), strict=True) if pair[0][1][12:14] != b"\x86\xdd"]
    frames, codes = [frame for frame, _ in pairs], [code for _, code in pairs]
    raw = write_pcap(tmp_path / "raw.pcap", frames)
    sides(raw, SidesOutputs(cache=tmp_path / "k.cache"))
    macs = "02:00:00:00:00:c1,02:00:00:00:00:5e"
    out = tmp_path / "out.pcap"
    tool("tcprewrite", "-c", tmp_path / "k.cache", f"--enet-smac={macs}", "-i", raw, "-o", out)
    rewritten = [frame[11] for _, frame in records(out)]
    assert rewritten == [0x5E if code == SERVER else 0xC1 for code in codes]


def test_tcpprep_agrees_where_it_can_know(tmp_path: Path) -> None:
    """By ports (servers below 1024), and by who spoke first, on flows that have both."""
    talks = [Talk(client=f"10.0.0.{n}", sport=4000 + n, ms=n + 1).whole() for n in range(9)]
    raw = write_pcap(tmp_path / "raw.pcap", merged(*talks))
    sides(raw, SidesOutputs(cache=tmp_path / "ours"))
    for mode in ("--port", "--auto=first"):
        tool("tcpprep", mode, "-i", raw, "-o", tmp_path / "theirs")
        assert (
            read_cache(tmp_path / "ours")[0].tolist() == read_cache(tmp_path / "theirs")[0].tolist()
        )


@given(st.lists(st.sampled_from([CLIENT, SERVER, NOT_SENT]), max_size=40), st.text(max_size=20))
def test_caches_come_back(
    tmp_path_factory: pytest.TempPathFactory, codes: list[int], comment: str
) -> None:
    path = tmp_path_factory.mktemp("cache") / "k"
    comment = comment.encode(errors="ignore").decode()
    write_cache(path, np.array(codes, np.uint8), comment)
    found, text = read_cache(path)
    assert (found.tolist(), text) == (codes, comment)


def test_large_caches_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(1).choice(np.array([0, 2, 3], np.uint8), 1003)
    write_cache(tmp_path / "whole", codes)
    monkeypatch.setattr("pcap_tools.tcpprep._CHUNK", 16)
    write_cache(tmp_path / "parts", codes)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_other_files_are_no_caches(tmp_path: Path) -> None:
    path = tmp_path / "k"
    write_cache(path, np.full(9, CLIENT, np.uint8), "text")
    data = path.read_bytes()
    for broken, message in (
        (b"", "is no tcpprep cache"),
        (b"x" + data[1:], "is no tcpprep cache"),
        (data[:8] + b"03" + data[10:], "only version 04"),
        (data[:-1], "it is cut"),
    ):
        path.write_bytes(broken)
        with pytest.raises(PcapError, match=message):
            read_cache(path)
    with pytest.raises(CaptureError, match="No such file"):
        read_cache(tmp_path / "none")


def test_nonsense_is_refused(tmp_path: Path) -> None:
    raw = write_pcap(tmp_path / "raw.pcap", Talk().whole().frames)
    with pytest.raises(PcapError, match="no output was asked for"):
        SidesOutputs()
    with pytest.raises(OutputError, match="asked for twice"):
        SidesOutputs(tmp_path / "a", tmp_path / "a")
    with pytest.raises(OutputError, match="also an input"):
        sides(raw, SidesOutputs(raw))
    with pytest.raises(PcapError, match="client, server or drop"):
        sides(raw, SidesOutputs(tmp_path / "a"), "left")
    with pytest.raises(PcapError, match="one file, and there are 2"):
        sides([raw, raw], SidesOutputs(cache=tmp_path / "k"))
    assert [path.name for path in tmp_path.iterdir()] == ["raw.pcap"]


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the shared corpora are not here")
def test_real_captures_lose_nothing(tmp_path: Path) -> None:
    for raw in sorted(CORPORA.rglob("*.pcap")):
        outputs = SidesOutputs(*(tmp_path / name for name in ("c.pcap", "s.pcap", "k.cache")))
        sides(raw, outputs)
        assert outputs.client and outputs.server and outputs.cache
        halves = {
            CLIENT: iter(records(outputs.client)),
            SERVER: iter(records(outputs.server)),
        }
        codes = read_cache(outputs.cache)[0].tolist()
        assert [next(halves[code]) for code in codes] == records(raw), raw
        assert all(next(half, None) is None for half in halves.values())
        stats = tool("tcpprep", "-S", outputs.cache)
        assert f"Total packets:\t\t{len(codes)}" in stats
