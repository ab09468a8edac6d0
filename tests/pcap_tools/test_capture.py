"""Reading savefiles, against tshark and against what was written."""

from __future__ import annotations

import io
import struct
from decimal import Decimal
from pathlib import Path

import pytest
from synth import (
    T0,
    Frame,
    Talk,
    block,
    enhanced,
    interface,
    merged,
    option,
    section,
    tshark,
    write_pcap,
)

from pcap_tools import capture as module
from pcap_tools.capture import Capture, open_capture
from pcap_tools.errors import CaptureError, EmptyCapture, UnknownFormat, UnsupportedLink
from pcap_tools.write import PcapWriter

FRAMES = Talk(ms=7).whole().frames


def read(capture: Capture) -> list[tuple[int, bytes, int]]:
    """(time, bytes, length on the wire) of every packet."""
    found = []
    for batch in capture.batches():
        for i in range(len(batch)):
            at = int(batch.offset[i])
            frame = batch.data[at : at + int(batch.caplen[i])].tobytes()
            found.append((int(batch.time_ns[i]), frame, int(batch.wirelen[i])))
    return found


def read_paths(*paths: Path) -> list[tuple[int, bytes, int]]:
    with open_capture(paths) as capture:
        return read(capture)


def whole(frames: list[Frame]) -> list[tuple[int, bytes, int]]:
    return [(time, frame, len(frame)) for time, frame in frames]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_pcap_in_both_byte_orders_and_resolutions(
    tmp_path: Path, order: str, nanoseconds: bool
) -> None:
    frames = [(time + 1001, frame) for time, frame in FRAMES]
    path = write_pcap(tmp_path / "a.pcap", frames, order=order, nanoseconds=nanoseconds)
    with open_capture(path) as capture:
        found = read(capture)
        assert read(capture) == found  # a second pass gives the same
        assert (capture.packets, capture.link, capture.format) == (len(frames), 1, "pcap")
        assert capture.nanoseconds == nanoseconds
        assert capture.bytes == sum(len(frame) for _, frame in frames)
    kept = 1 if nanoseconds else 1000
    assert found == whole([(time // kept * kept, frame) for time, frame in frames])
    stamps = [int(Decimal(row[0]) * 10**9) for row in tshark(path, "frame.time_epoch")]
    assert [time for time, _, _ in found] == stamps


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("resolution", "tick_ns"), [(None, 1000), (9, 1), (6, 1000), (3, 10**6), (0x80 | 20, None)]
)
def test_pcapng_clocks_as_tshark_reads_them(
    tmp_path: Path, order: str, resolution: int | None, tick_ns: int | None
) -> None:
    options = b"" if resolution is None else option(9, bytes([resolution]), order)
    options += option(14, struct.pack(order + "q", 3600), order)
    data = section(order) + interface(1, 0, options, order)
    for time, frame in FRAMES:
        ticks = time // tick_ns if tick_ns else (time << 20) // 10**9
        data += enhanced(ticks, frame, order=order)
    path = tmp_path / "a.pcapng"
    path.write_bytes(data)
    found = read_paths(path)
    assert [frame for _, frame, _ in found] == [frame for _, frame in FRAMES]
    stamps = [int(Decimal(row[0]) * 10**9) for row in tshark(path, "frame.time_epoch")]
    # tshark rounds a power-of-two fraction in floating point.
    slack = 0 if tick_ns else 1
    assert all(abs(a - b) <= slack for (a, _, _), b in zip(found, stamps, strict=True))
    assert found[0][0] == pytest.approx(T0 + 3600 * 10**9, abs=10**6)


def test_a_clock_finer_than_nanoseconds(tmp_path: Path) -> None:
    """2^-40 s since an offset, as no 64-bit count since the epoch could be."""
    options = option(9, bytes([0x80 | 40])) + option(14, struct.pack("<q", T0 // 10**9))
    frame = FRAMES[0][1]
    path = tmp_path / "a.pcapng"
    path.write_bytes(section() + interface(1, 0, options) + enhanced((5 << 40) + (3 << 38), frame))
    assert read_paths(path) == [(T0 + 5_750_000_000, frame, len(frame))]


def test_pcapng_sections_interfaces_and_every_packet_block(tmp_path: Path) -> None:
    first, second, third = (frame for _, frame in FRAMES[:3])
    comment = block(0x0BAD, b"custom block, skipped")
    old = struct.pack("<HHIIII", 1, 0, 0, 5_000_000, len(second), len(second)) + second
    simple = struct.pack(">I", len(third) + 9) + third
    path = tmp_path / "a.pcapng"
    path.write_bytes(
        section()
        + interface()
        + interface(options=option(9, b"\x09"))
        + comment
        + enhanced(7_000_000, first, 1, wire=2000)
        + block(2, old)
        + section(">")
        + interface(order=">", snaplen=len(third))
        + block(3, simple, ">")
    )
    with open_capture(path) as capture:
        found = read(capture)
        assert capture.format == "pcapng"
        assert capture.nanoseconds
    assert found == [
        (7_000_000, first, 2000),
        (5_000_000, second, len(second)),
        (5_000_000, third, len(third) + 9),
    ]


def test_records_that_straddle_the_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [(T0 + i * 1000, bytes([i % 251]) * (1 + i * 37 % 9000)) for i in range(400)]
    classic = write_pcap(tmp_path / "a.pcap", frames)
    modern = tmp_path / "a.pcapng"
    modern.write_bytes(
        section() + interface() + b"".join(enhanced(t // 1000, f) for t, f in frames)
    )
    monkeypatch.setattr(module, "_BUFFER", 4096)
    assert read_paths(classic) == whole(frames)
    assert read_paths(modern) == whole(frames)


def test_a_truncated_tail_keeps_what_precedes_it(tmp_path: Path) -> None:
    frames = FRAMES[:3]
    raw = write_pcap(tmp_path / "whole.pcap", frames).read_bytes()
    ends = [24]
    for _, frame in frames:
        ends.append(ends[-1] + 16 + len(frame))
    path = tmp_path / "cut.pcap"
    for cut in range(ends[1], len(raw)):
        path.write_bytes(raw[:cut])
        complete = sum(end <= cut for end in ends) - 1
        with open_capture(path) as capture:
            assert read(capture) == whole(frames[:complete])
            assert capture.ignored_bytes == cut - ends[complete]


def test_a_pcapng_cut_inside_a_block(tmp_path: Path) -> None:
    head = section() + interface() + enhanced(1, FRAMES[0][1])
    path = tmp_path / "cut.pcapng"
    path.write_bytes(head + enhanced(2, FRAMES[1][1])[:-5])
    with open_capture(path) as capture:
        assert len(read(capture)) == 1
        assert capture.ignored_bytes == path.stat().st_size - len(head)


def test_zeros_after_a_crash_are_a_tail_but_not_in_the_middle(tmp_path: Path) -> None:
    raw = write_pcap(tmp_path / "a.pcap", FRAMES[:2]).read_bytes()
    path = tmp_path / "zeros.pcap"
    path.write_bytes(raw + bytes(5000))
    with open_capture(path) as capture:
        assert len(read(capture)) == 2
        assert capture.ignored_bytes == 5000
    path.write_bytes(raw + bytes(5000) + b"x")
    with open_capture(path) as capture, pytest.raises(CaptureError, match=f"offset {len(raw)}"):
        read(capture)


@pytest.mark.parametrize("field", [4, 8])
def test_corruption_names_file_and_offset(tmp_path: Path, field: int) -> None:
    raw = bytearray(write_pcap(tmp_path / "a.pcap", FRAMES).read_bytes())
    second = 24 + 16 + len(FRAMES[0][1])
    raw[second + field : second + field + 4] = b"\xff\xff\xff\x7f"
    path = tmp_path / "bad.pcap"
    path.write_bytes(raw)
    with (
        open_capture(path) as capture,
        pytest.raises(CaptureError, match=rf"bad\.pcap: corrupt at offset {second}: .*head -c"),
    ):
        read(capture)


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        (b"", EmptyCapture, "empty"),
        (b"GIF89a" + bytes(30), UnknownFormat, "neither pcap nor pcapng"),
        (b"\x1f\x8b\x08" + bytes(30), CaptureError, "damaged gzip"),
        (b"\xd4\xc3\xb2\xa1\x02\x00", CaptureError, "file header"),
        (struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 99, 1), EmptyCapture, "no packet"),
        (section() + interface(), EmptyCapture, "no packet"),
    ],
)
def test_what_is_no_capture_is_one_clear_error(
    tmp_path: Path, content: bytes, error: type[Exception], text: str
) -> None:
    path = tmp_path / "odd.pcap"
    path.write_bytes(content)
    with pytest.raises(error, match=text) as caught, open_capture(path) as capture:
        read(capture)
    assert "odd.pcap" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_directories(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="No such file"):
        open_capture(tmp_path / "none.pcap")
    with pytest.raises(CaptureError, match=r"cannot be read|not a regular file"):
        open_capture(tmp_path)


def test_mixed_link_types_come_in_batches_of_one_each(tmp_path: Path) -> None:
    a = write_pcap(tmp_path / "a.pcap", FRAMES)
    b = write_pcap(tmp_path / "b.pcap", [(t + 1000, f[14:]) for t, f in FRAMES], link=101)
    with open_capture([a, b]) as capture:
        assert capture.links == (1, 101)
        links = [batch.link for batch in capture.batches()]
        assert links == [1, 101] * len(FRAMES)
        with pytest.raises(UnsupportedLink, match=r"Ethernet, raw IP.*pcapng"):
            _ = capture.link
    mixed = tmp_path / "mixed.pcapng"
    frames = [FRAMES[0][1], FRAMES[1][1][14:], FRAMES[2][1][14:], FRAMES[3][1]]
    blocks = [enhanced(i, f, int(i in (1, 2))) for i, f in enumerate(frames)]
    mixed.write_bytes(section() + interface() + interface(101) + b"".join(blocks))
    with open_capture(mixed) as capture:
        assert capture.link == 1  # as far as it was read
        assert [(batch.link, batch.first) for batch in capture.batches()] == [
            (1, 0),
            (101, 1),
            (1, 3),
        ]
        assert [frame for _, frame, _ in read(capture)] == frames
        assert capture.links == (1, 101)


def test_link_types_without_a_reading_are_refused(tmp_path: Path) -> None:
    c = write_pcap(tmp_path / "c.pcap", FRAMES, link=105)
    with pytest.raises(UnsupportedLink, match="105"):
        open_capture(c)
    late = tmp_path / "late.pcapng"
    frame = FRAMES[0][1]
    late.write_bytes(
        section() + interface() + interface(105) + enhanced(1, frame) + enhanced(2, frame, 1)
    )
    with open_capture(late) as capture, pytest.raises(UnsupportedLink, match="105"):
        read(capture)


def test_several_files_are_read_in_time_order(tmp_path: Path) -> None:
    talks = [Talk(sport=2000 + i, start=T0 + i * 33_000_000).whole(5) for i in range(3)]
    paths = [write_pcap(tmp_path / f"{i}.pcap", talk.frames) for i, talk in enumerate(talks)]
    assert read_paths(*reversed(paths)) == whole(merged(*talks))
    # Rotated files, given in any order.
    frames = merged(*talks)
    parts = [write_pcap(tmp_path / f"r{i}.pcap", frames[i * 9 : i * 9 + 9]) for i in range(9)]
    assert read_paths(*reversed([p for p in parts if p.stat().st_size > 24])) == whole(frames)


def test_standard_input_can_be_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_pcap(tmp_path / "a.pcap", FRAMES).read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
    with open_capture("-") as capture:
        assert read(capture) == read(capture) == whole(FRAMES)


def test_the_writer_is_read_back_the_same_and_leaves_nothing_on_errors(tmp_path: Path) -> None:
    source = write_pcap(tmp_path / "a.pcap", FRAMES, nanoseconds=True)
    copy = tmp_path / "copy.pcap"
    with open_capture(source) as capture, PcapWriter(copy, nanoseconds=True) as writer:
        for batch in capture.batches():
            writer.write(batch)
            assert not copy.exists()
    assert copy.read_bytes() == source.read_bytes()
    with pytest.raises(ZeroDivisionError), PcapWriter(tmp_path / "never.pcap"):
        raise ZeroDivisionError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pcap", "copy.pcap"]
