"""Formats beside plain pcap, against the tools that write or read them."""

from __future__ import annotations

import struct
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest
from synth import T0, Talk, tshark, write_pcap
from test_capture import read_paths, whole

from pcap_tools.capture import open_capture
from pcap_tools.errors import CaptureError, UnknownFormat, UnsupportedLink

FRAMES = Talk(ms=7).whole().frames


@pytest.mark.parametrize("variant", ["modpcap", "nokiapcap", "rh6_1pcap", "suse6_3pcap"])
@pytest.mark.parametrize("packets", [2, len(FRAMES)])
def test_patched_pcaps_as_editcap_writes_them(tmp_path: Path, variant: str, packets: int) -> None:
    source = write_pcap(tmp_path / "a.pcap", FRAMES[:packets])
    path = tmp_path / "b.pcap"
    subprocess.run(["editcap", "-F", variant, source, path], check=True, capture_output=True)
    assert path.read_bytes() != source.read_bytes()
    assert read_paths(path) == whole(FRAMES[:packets])
    with open_capture(path) as capture:
        assert capture.plain is None


def test_patched_pcap_of_the_other_byte_order(tmp_path: Path) -> None:
    """Kuznetsov's, big-endian; tshark reads it too."""
    data = struct.pack(">IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1)
    for time, frame in FRAMES:
        seconds, rest = divmod(time, 10**9)
        data += struct.pack(">IIII", seconds, rest // 1000, len(frame), len(frame))
        data += struct.pack(">IHBB", 3, 0x800, 0, 0) + frame
    path = tmp_path / "a.pcap"
    path.write_bytes(data)
    assert read_paths(path) == whole(FRAMES)
    assert len(tshark(path, "frame.len")) == len(FRAMES)


@pytest.mark.parametrize("magic", [0x1C0001AC, 0x1C0001AB])
@pytest.mark.parametrize("order", "<>")
def test_ixia_captures_have_a_longer_file_header(tmp_path: Path, magic: int, order: str) -> None:
    raw = write_pcap(
        tmp_path / "a.pcap", FRAMES, order=order, nanoseconds=magic == 0x1C0001AC
    ).read_bytes()
    path = tmp_path / "b.lcap"
    path.write_bytes(
        struct.pack(order + "I", magic) + raw[4:24] + struct.pack(order + "I", 0) + raw[24:]
    )
    assert read_paths(path) == whole(FRAMES)
    assert len(tshark(path, "frame.len")) == len(FRAMES)


@pytest.mark.parametrize("minor", [2, 3])
def test_old_versions_have_the_lengths_the_other_way_round(tmp_path: Path, minor: int) -> None:
    data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, minor, 0, 0, 60, 1)
    for _, frame in FRAMES:
        kept = frame[:60]
        data += struct.pack("<IIII", 5, 6, len(frame), len(kept)) + kept
    path = tmp_path / "a.pcap"
    path.write_bytes(data)
    assert [(len(frame), wire) for _, frame, wire in read_paths(path)] == [
        (int(cap), int(wire)) for cap, wire in tshark(path, "frame.cap_len", "frame.len")
    ]
    assert [wire for _, _, wire in read_paths(path)] == [len(frame) for _, frame in FRAMES]


def test_aix_writes_nanoseconds_and_interface_types(tmp_path: Path) -> None:
    data = struct.pack(">IHHiIII", 0xA1B2C3D4, 2, 2, 0, 0, 65535, 6)
    for time, frame in FRAMES:
        data += struct.pack(">IIII", *divmod(time, 10**9), len(frame), len(frame)) + frame
    path = tmp_path / "a.pcap"
    path.write_bytes(data)
    with open_capture(path) as capture:
        assert capture.link == 1
    assert read_paths(path) == whole(FRAMES)


def erf(
    kind: int, time_ns: int, body: bytes, wire: int, extensions: tuple[bytes, ...] = ()
) -> bytes:
    """An ERF record, by Endace's description."""
    seconds, rest = divmod(time_ns, 10**9)
    ticks = (seconds << 32) | ((rest << 32) // 10**9)
    size = 16 + 8 * len(extensions) + len(body)
    padding = -size % 8
    kind |= 0x80 if extensions else 0
    chain = [
        bytes([extension[0] | (0x80 if i + 1 < len(extensions) else 0)]) + extension[1:]
        for i, extension in enumerate(extensions)
    ]
    head = struct.pack("<Q", ticks) + struct.pack(">BBHHH", kind, 4, size + padding, 0, wire)
    return head + b"".join(chain) + body + bytes(padding)


def ethernet(time: int, frame: bytes, kind: int = 2, extensions: tuple[bytes, ...] = ()) -> bytes:
    return erf(kind, time, b"\0\0" + frame + b"FCS!", len(frame) + 4, extensions)


def test_erf_ethernet_and_ip_as_tshark_reads_them(tmp_path: Path) -> None:
    host = (b"\x03" + bytes(7),)
    flow = (b"\x04" + b"\1" * 7, b"\x03" + bytes(7))
    data = b""
    for i, (time, frame) in enumerate(FRAMES):
        match i % 4:
            case 0:
                data += ethernet(time, frame)
            case 1:
                data += ethernet(time, frame, 11, host)
            case 2:
                data += ethernet(time, frame, 16, flow)
            case 3:
                data += erf(22, time, frame[14:], len(frame) - 14)
    path = tmp_path / "a.erf"
    path.write_bytes(data)
    found = read_paths(path)
    expected = [frame if i % 4 < 3 else frame[14:] for i, (_, frame) in enumerate(FRAMES)]
    assert [frame for _, frame, _ in found] == expected
    with open_capture(path) as capture:
        assert {batch.link for batch in capture.batches()} == {1, 228}
        assert (capture.format, capture.nanoseconds, capture.ignored_bytes) == ("erf", True, 0)
    rows = tshark(path, "frame.time_epoch", "tcp.seq_raw", "ip.len", options=("-2", "-Y", "ip"))
    assert [time for time, _, _ in found] == [int(Decimal(row[0]) * 10**9) for row in rows]
    assert [
        struct.unpack(">H", f[16 if i % 4 < 3 else 2 :][:2])[0] for i, f in enumerate(expected)
    ] == [int(row[2]) for row in rows]


def test_erf_padding_and_provenance_are_passed_over(tmp_path: Path) -> None:
    """Not against tshark: 4.0 reads on inside a padding record."""
    path = tmp_path / "a.erf"
    path.write_bytes(
        erf(48, 0, bytes(40), 0)
        + b"".join(ethernet(t, f) + erf(27, t, bytes(24), 0) for t, f in FRAMES)
        + erf(48, 0, bytes(40), 0)
    )
    assert [frame for _, frame, _ in read_paths(path)] == [frame for _, frame in FRAMES]
    with open_capture(path) as capture:
        assert len(list(capture.batches())) == 1
        assert capture.ignored_bytes == 0


def test_erf_snapped_and_truncated(tmp_path: Path) -> None:
    frame = FRAMES[3][1]
    path = tmp_path / "a.erf"
    short = erf(2, T0, b"\0\0" + frame[:62], len(frame) + 4)
    path.write_bytes(ethernet(T0, frame) + short + ethernet(T0, frame)[:-9])
    with open_capture(path) as capture:
        lengths = [
            (int(b.caplen[i]), int(b.wirelen[i])) for b in capture.batches() for i in range(len(b))
        ]
        assert lengths == [(len(frame), len(frame)), (62, len(frame))]
        assert capture.ignored_bytes == len(ethernet(T0, frame)) - 9


def test_erf_of_other_types_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.erf"
    path.write_bytes(ethernet(T0, FRAMES[0][1]) + erf(1, T0, bytes(24), 24))
    with pytest.raises(UnsupportedLink, match=r"type 1 \(HDLC_POS\)"):
        read_paths(path)


@pytest.mark.parametrize("link", [12, 14, 101, 228])
def test_raw_ip_link_types(tmp_path: Path, link: int) -> None:
    frames = [(time, frame[14:]) for time, frame in FRAMES]
    path = write_pcap(tmp_path / "a.pcap", frames, link=link)
    from pcap_tools.flows import flow_table

    assert flow_table(path).states() == {"SF": 1}


def compressed(path: Path, codec: str) -> Path:
    """What the codec's own program makes of a file."""
    done = subprocess.run([codec, "-c", path], check=True, capture_output=True)
    target = path.with_name(f"{path.name}.packed")
    target.write_bytes(done.stdout)
    return target


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4"])
def test_compressed_by_magic_and_several_members(tmp_path: Path, codec: str) -> None:
    frames = [(T0 + i * 1000, bytes([i % 251]) * 1000) for i in range(3000)]
    path = write_pcap(tmp_path / "a.pcap", frames)
    packed = compressed(path, codec)
    assert read_paths(packed) == whole(frames)
    raw = path.read_bytes()
    halves = b""
    for half in (raw[:70_001], raw[70_001:]):
        (tmp_path / "half").write_bytes(half)
        halves += compressed(tmp_path / "half", codec).read_bytes()
    packed.write_bytes(halves)
    assert read_paths(packed) == whole(frames)


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4"])
def test_cut_and_damaged_compression_is_one_clear_line(tmp_path: Path, codec: str) -> None:
    frames = [(T0 + i * 1000, bytes(range(251)) * 4) for i in range(300)]
    packed = compressed(write_pcap(tmp_path / "a.pcap", frames), codec)
    good = packed.read_bytes()
    packed.write_bytes(good[: len(good) * 2 // 3])
    with pytest.raises(CaptureError, match=f"{codec} data end too soon") as caught:
        read_paths(packed)
    assert "\n" not in str(caught.value)
    flipped = bytearray(good)
    flipped[len(good) // 2 : len(good) // 2 + 8] = b"\xff\x55" * 4
    packed.write_bytes(flipped)
    with pytest.raises(CaptureError, match=f"damaged {codec}|too soon"):
        read_paths(packed)
    packed.write_bytes(good + b"what is this")
    with pytest.raises(CaptureError, match=f"damaged {codec}|too soon"):
        read_paths(packed)


def test_a_bomb_fills_no_memory(tmp_path: Path) -> None:
    """2 GB of zeros in 64 KB of zstd: its pieces stay small."""
    import itertools

    from pcap_tools.compression import decompressor

    bomb = subprocess.run(
        "head -c 2000000000 /dev/zero | zstd -c", shell=True, check=True, capture_output=True
    ).stdout
    pieces = decompressor("zstd")(iter([bomb]), "bomb")
    assert max(len(piece) for piece in itertools.islice(pieces, 4)) <= 1 << 26


def test_other_packers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.xz"
    path.write_bytes(b"\xfd7zXZ\0" + bytes(30))
    with pytest.raises(UnknownFormat, match="xz"):
        open_capture(path)
