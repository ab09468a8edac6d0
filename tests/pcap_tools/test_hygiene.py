"""Policies for damaged captures, against editcap, reordercap and tshark's reassembly."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw
from synth import (
    T0,
    Frame,
    Talk,
    block,
    enhanced,
    interface,
    option,
    section,
    tshark,
    write_pcap,
)
from test_capture import read, read_paths, whole

from pcap_tools.dedup import Window, parse_window
from pcap_tools.errors import EmptyCapture, PcapError
from pcap_tools.flows import flow_table
from pcap_tools.hygiene import Hygiene, Prepared, open_prepared
from pcap_tools.output import open_output

FRAMES = Talk(ms=7).whole().frames
# Given, or scapy asks the network for them.
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}


def prepared(path: Path | list[Path], hygiene: Hygiene) -> list[tuple[int, bytes, int]]:
    """Two passes, which must agree."""
    with open_prepared(path, hygiene) as capture:
        found = read(capture)
        assert read(capture) == found
        assert capture.packets == len(found)
        assert capture.bytes == sum(len(frame) for _, frame, _ in found)
    return found


def edited(tool: str, *arguments: str, source: Path) -> list[tuple[int, bytes, int]]:
    """What one of Wireshark's editors makes of a capture."""
    target = source.with_name("edited.pcap")
    order = [source, target, *arguments] if tool == "reordercap" else [*arguments, source, target]
    subprocess.run([tool, *order], check=True, capture_output=True)
    return read_paths(target)


def mirrored(seed: int, backwards: bool = False) -> list[Frame]:
    """Packets of few kinds, hence many repetitions, near and far in packets and in time."""
    chance = random.Random(seed)
    kinds = [bytes([k]) * chance.randint(1, 40) for k in range(40)]
    time, frames = T0, []
    for _ in range(3000):
        time += chance.choice([0, 0, 1000, 30_000, 1_000_000])
        back = chance.choice([0] * 9 + [500_000]) if backwards else 0
        frames.append((time - back, chance.choice(kinds)))
    return frames


@pytest.mark.parametrize("packets", [2, 5, 30, 600, 100_000])
def test_dedup_leaves_what_editcap_leaves(tmp_path: Path, packets: int) -> None:
    source = write_pcap(tmp_path / "a.pcap", mirrored(packets))
    ours = prepared(source, Hygiene(dedup="exact", window=Window(packets)))
    assert ours == edited("editcap", "-D", str(packets), source=source)
    assert len(ours) < 3000


@pytest.mark.parametrize("window", ["0.000001", "0.0005", "0.02", "5"])
@pytest.mark.parametrize("backwards", [False, True])
def test_dedup_by_time_leaves_what_editcap_leaves(
    tmp_path: Path, window: str, backwards: bool
) -> None:
    source = write_pcap(tmp_path / "a.pcap", mirrored(7, backwards))
    ours = prepared(source, Hygiene(dedup="exact", window=parse_window(f"{window}s")))
    assert ours == edited("editcap", "-w", window, source=source)
    assert len(ours) < 3000


def test_the_window_table_is_swept(tmp_path: Path) -> None:
    """More different packets than slots; then a copy just inside and just outside the window."""
    frames = [(T0 + i, struct.pack("<Q", i) * 3) for i in range(6000)]
    frames += [(T0 + 6000, frames[5996][1]), (T0 + 6001, frames[5996][1])]
    source = write_pcap(tmp_path / "a.pcap", frames, nanoseconds=True)
    assert prepared(source, Hygiene(dedup="exact")) == edited("editcap", "-d", source=source)


def test_dedup_of_a_routed_mirror(tmp_path: Path) -> None:
    """The same packet before and after a router: other MACs, VLAN and TTL; checksum to match."""
    frames = []
    for i, (time, frame) in enumerate(FRAMES):
        before = Ether(frame)
        before[IP].id = i + 1
        del before[IP].chksum
        after = Ether(src="02:aa:00:00:00:01", dst="02:aa:00:00:00:02") / Dot1Q(vlan=7)
        after /= before[IP].copy()
        after[IP].ttl -= 1
        del after[IP].chksum
        six = Ether(**MACS) / IPv6(src="fd00::1", dst="fd00::2", hlim=64) / UDP() / Raw(bytes([i]))
        far = Ether(src="02:bb:00:00:00:02", dst="02:bb:00:00:00:01") / IPv6(bytes(six[IPv6]))
        far[IPv6].hlim = 63
        frames += [(time, bytes(p)) for p in (before, after, six, far)]
    source = write_pcap(tmp_path / "a.pcap", frames)
    assert prepared(source, Hygiene(dedup="exact")) == whole(frames)
    ours = prepared(source, Hygiene(dedup="ip"))
    assert ours == whole([f for i, f in enumerate(frames) if i % 4 in (0, 2)])


@pytest.mark.parametrize("spread", [3_000_000, 10**10])
def test_sort_is_what_reordercap_does(tmp_path: Path, spread: int) -> None:
    """Of 13 MB, which is more than the cache of blocks holds."""
    chance = random.Random(spread)
    frames = [
        (
            T0 + i * 1_000_000 + chance.randrange(spread) // 10**6 * 10**6,
            bytes([i % 251]) * (i % 3000),
        )
        for i in range(1, 9000)
    ]
    source = write_pcap(tmp_path / "a.pcap", frames)
    ours = prepared(source, Hygiene(sort=True))
    assert ours == edited("reordercap", source=source)
    assert ours == whole(sorted(frames, key=lambda frame: frame[0]))


def test_sort_of_several_files_links_and_comments(tmp_path: Path) -> None:
    """pcapng whose comments move with their packets, a compressed pcap, and raw IP."""
    chance = random.Random(5)
    blocks, expected = [], []
    for i in range(400):
        time, frame = chance.randrange(10**6), bytes([i % 256]) * (20 + i % 50)
        text = b"comment of %d" % time if i % 3 == 0 else b""
        body = struct.pack("<IIIII", i % 2, 0, time, len(frame), len(frame))
        body += frame + bytes(-len(frame) % 4) + (option(1, text) if text else b"")
        blocks.append(block(6, body))
        expected.append((time * 1000, frame, text.decode()))
    modern = tmp_path / "a.pcapng"
    names = [option(2, b"one"), option(2, b"two")]
    modern.write_bytes(
        section() + interface(1, 0, names[0]) + interface(1, 0, names[1]) + b"".join(blocks)
    )
    frames = [(chance.randrange(10**6) * 1000, b"E" * (20 + i % 9)) for i in range(300)]
    raw = write_pcap(tmp_path / "b.pcap", frames, link=101)
    subprocess.run(["gzip", raw], check=True)
    target = tmp_path / "c.pcapng"
    with (
        open_prepared([modern, tmp_path / "b.pcap.gz"], Hygiene(sort=True)) as capture,
        open_output(target, capture) as writer,
    ):
        for batch in capture.batches():
            writer.write(batch)
    expected += [(time, frame, "") for time, frame in frames]
    found = read_paths(target)
    assert [time for time, _, _ in found] == sorted(time for time, _, _ in expected)
    assert sorted(f[1] for f in found) == sorted(f[1] for f in expected)
    rows = tshark(target, "frame.time_epoch", "frame.comment", "frame.interface_name")
    for stamp, comment, name in rows:
        if comment:
            assert comment == f"comment of {int(stamp.split('.')[1][:6])}"
            assert name in ("one", "two")
    assert sum(bool(row[1]) for row in rows) == 134


def test_a_capture_in_order_is_streamed(tmp_path: Path) -> None:
    source = write_pcap(tmp_path / "a.pcap", FRAMES)
    with open_prepared(source, Hygiene(sort=True)) as capture:
        assert isinstance(capture, Prepared)
        assert read(capture) == whole(FRAMES)
        assert not capture.treatment.sorted


def test_snapped_and_timeless_packets(tmp_path: Path) -> None:
    frames = [*FRAMES, (0, b"x" * 30), (0, b"y" * 99)]
    source = write_pcap(tmp_path / "a.pcap", frames, snaplen=80)
    ours = prepared(source, Hygiene(snapped="drop", zero_time="drop"))
    assert ours == [(t, f, len(f)) for t, f in frames if t and len(f) <= 80]
    with open_prepared(source, Hygiene(snapped="drop", zero_time="drop")) as capture:
        read(capture)
        done = capture.treatment  # type: ignore[attr-defined]
    assert (done.snapped, done.zero_time) == (sum(len(f) > 80 for _, f in frames), 1)
    nothing = write_pcap(tmp_path / "b.pcap", [(0, b"x" * 30)])
    with open_prepared(nothing, Hygiene(zero_time="drop")) as capture, pytest.raises(EmptyCapture):
        read(capture)


def offloaded(six: bool, vlan: bool) -> list[Frame]:
    """A connection as a host with TSO records it: 20 KB segments, checksums left to the card."""
    talk = Talk(client="fd00::1", server="fd00::2") if six else Talk()
    talk.vlan = 5 if vlan else 0
    talk.open().tcp(0, "PA", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    chance = random.Random(3)
    for size in (20_000, 1460, 1441, 7000, 64_000):
        talk.tcp(1, "PA", chance.randbytes(size)).tcp(0, "A")
    talk.tcp(1, "FPAC", chance.randbytes(9000)).tcp(0, "A").tcp(0, "FA").tcp(1, "A")
    return talk.frames


def follow(path: Path) -> str:
    command = ["tshark", "-n", "-r", path, "-q", "-z", "follow,tcp,raw,0"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    turns: list[str] = []
    for line in shown.splitlines()[6:-1]:  # a turn of the server is indented
        server = line.startswith("\t")
        if turns and turns[-1].startswith("\t") == server:
            turns[-1] += line.strip()
        else:
            turns.append(line)
    return "\n".join(turns)


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("vlan", [False, True])
def test_resegmented_streams_are_the_same_to_tshark(tmp_path: Path, six: bool, vlan: bool) -> None:
    source = write_pcap(tmp_path / "a.pcap", offloaded(six, vlan))
    target = tmp_path / "b.pcap"
    with (
        open_prepared(source, Hygiene(resegment=1500)) as capture,
        open_output(target, capture) as writer,
    ):
        for batch in capture.batches():
            writer.write(batch)
        done = capture.treatment  # type: ignore[attr-defined]
    assert follow(target) == follow(source)
    checks = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
    rows = tshark(
        target, "ip.len", "ipv6.plen", "tcp.checksum.status", "ip.checksum.status",
        "tcp.analysis.flags", "tcp.flags", "tcp.len", "frame.len", options=("-2", *checks),
    )  # fmt: skip
    sizes = [int(row[0] or 0) or int(row[1]) + 40 for row in rows]
    assert max(sizes) == 1500
    assert {row[2] for row in rows} == {"1"}
    assert {row[3] for row in rows} == ({""} if six else {"1"})
    assert not any(row[4] for row in rows)
    assert sum(int(row[6]) for row in rows) == 27 + 20_000 + 1460 + 1441 + 7000 + 64_000 + 9000
    # FIN, PSH and CWR of the last burst.
    burst = [int(row[5], 16) for row in rows[-10:-3]]
    assert [bool(flags & 0x09) for flags in burst] == [False] * 6 + [True]
    assert [bool(flags & 0x80) for flags in burst] == [True] + [False] * 6
    oversized = 6 if six else 4
    assert done.resegmented == oversized
    assert done.kept_oversized == 0
    assert done.segments == done.resegmented + len(rows) - len(offloaded(six, vlan))
    if not six:
        ids = [int(r[0], 16) for r in tshark(target, "ip.id", options=("-Y", "tcp.srcport==80"))]
        assert ids[1:15] == [*range(1, 15)] or ids[1:15] == [*range(ids[1], ids[1] + 14)]
    with open_prepared(source, Hygiene(resegment=1500)) as capture:
        assert flow_table(capture).states() == {"SF": 1}


def test_what_cannot_be_cut_is_kept_and_counted(tmp_path: Path) -> None:
    ether = Ether(**MACS)
    packets = [
        ether / IP() / UDP() / Raw(bytes(3000)),
        ether / IP(flags="MF") / TCP() / Raw(bytes(3000)),
        ether / IP(options=[b"\x94\x04\0\0"]) / TCP(flags="A") / Raw(bytes(3000)),
        ether / IP() / TCP(flags="S") / Raw(bytes(3000)),
        ether / IP() / IP() / TCP(flags="A") / Raw(bytes(3000)),
        ether / Raw(bytes(4000)),
    ]
    frames = [(T0 + i * 1000, bytes(p)) for i, p in enumerate(packets)]
    source = write_pcap(tmp_path / "a.pcap", frames)
    with open_prepared(source, Hygiene(resegment=1500)) as capture:
        assert read(capture) == whole(frames)
        assert capture.treatment.kept_oversized == 5  # type: ignore[attr-defined]
    snapped = write_pcap(
        tmp_path / "b.pcap",
        [(T0, bytes(ether / IP() / TCP(flags="A") / Raw(bytes(3000))))],
        snaplen=99,
    )
    with open_prepared(snapped, Hygiene(resegment=1500)) as capture:
        assert len(read(capture)) == 1
        assert capture.treatment.kept_oversized == 1  # type: ignore[attr-defined]


def test_a_length_of_zero_is_a_segment_without_one(tmp_path: Path) -> None:
    """Some drivers leave the IP length of a segment over 64 KB, or of any, at 0."""
    packet = Ether(**MACS) / IP(len=0) / TCP(flags="PA", seq=7) / Raw(bytes(range(256)) * 20)
    source = write_pcap(tmp_path / "a.pcap", [(T0, bytes(packet))])
    found = prepared(source, Hygiene(resegment=1500))
    assert b"".join(frame[54:] for _, frame, _ in found) == bytes(range(256)) * 20
    assert [len(frame) for _, frame, _ in found] == [1514, 1514, 1514, 794]


def test_comments_stay_with_the_first_segment(tmp_path: Path) -> None:
    frames = offloaded(False, False)
    big = next(f for _, f in frames if len(f) > 9000)
    body = struct.pack("<IIIII", 0, 0, 7, len(big), len(big)) + big + bytes(-len(big) % 4)
    source = tmp_path / "a.pcapng"
    source.write_bytes(
        section() + interface() + enhanced(1, frames[0][1]) + block(6, body + option(1, b"large"))
    )
    target = tmp_path / "b.pcapng"
    with (
        open_prepared(source, Hygiene(resegment=1500)) as capture,
        open_output(target, capture) as writer,
    ):
        for batch in capture.batches():
            writer.write(batch)
    assert [row[0] for row in tshark(target, "frame.comment")][:4] == ["", "large", "", ""]


def test_everything_at_once_and_cleaned(tmp_path: Path) -> None:
    """Each packet twice, out of order, with offloading: cleaning sees one whole connection."""
    frames = [frame for frame in offloaded(False, False) for _ in range(2)]
    frames = frames[10:] + frames[:10]
    source = write_pcap(tmp_path / "a.pcap", frames)
    hygiene = Hygiene(sort=True, dedup="exact", resegment=1500)
    with open_prepared(source, hygiene) as capture:
        table = flow_table(capture)
        assert table.states() == {"SF": 1}
        assert int(table.missing.sum()) == 0


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"snapped": "fix"}, "keep or drop"),
        ({"dedup": "mac"}, "exact or ip"),
        ({"resegment": 100}, "576"),
    ],
)
def test_wrong_policies_are_refused(wrong: dict[str, object], text: str) -> None:
    with pytest.raises(PcapError, match=text):
        Hygiene(**wrong)  # type: ignore[arg-type]


def test_windows_are_parsed() -> None:
    assert parse_window("7") == Window(7)
    assert parse_window("1.5ms").time_ns == 1_500_000
    for text in ("", "1", "1 week", "-3", "9999999"):
        with pytest.raises(PcapError):
            parse_window(text)
