"""Records read by parts: what a plain reading of the same bytes gives."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcap_tools import parts
from pcap_tools.capture import open_capture
from pcap_tools.errors import GrowingInput
from pcap_tools.parts import HEADER, RECORD, Parts, close_up


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=200), st.booleans()), max_size=40))
def test_what_is_not_kept_is_closed_up(packets: list[tuple[bytes, bool]]) -> None:
    records = [bytes(range(RECORD)) + frame for frame, _ in packets]
    keep = np.array([kept for _, kept in packets], np.bool_)
    sizes = np.array([len(frame) for frame, _ in packets], np.uint16)
    data = np.frombuffer(bytearray(b"".join(records)), np.uint8)
    rows, places = np.empty(len(packets), np.int64), np.empty(len(packets), np.int64)
    count, end = close_up(data, sizes, keep, rows, places)
    wanted = [number for number, (_, kept) in enumerate(packets) if kept]
    assert rows[:count].tolist() == wanted
    assert data[:end].tobytes() == b"".join(records[number] for number in wanted)
    found = [data[at : at + sizes[n]].tobytes() for at, n in zip(places, wanted, strict=False)]
    assert found == [packets[number][0] for number in wanted]


def capture(path: Path, count: int) -> Path:
    head = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    frames = [bytes([n % 251]) * (60 + n % 1400) for n in range(count)]
    path.write_bytes(
        head + b"".join(struct.pack("=IIII", 1, 0, len(f), len(f)) + f for f in frames)
    )
    return path


def test_the_parts_are_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_OCTETS", 5000)
    path = capture(tmp_path / "in.pcap", 500)
    sizes = np.array([60 + n % 1400 for n in range(500)], np.uint16)
    with open_capture([path]) as opened:
        assert opened.plain is not None
        records = Parts(opened.plain, sizes)
        found = list(records)
        assert len(found) > 30 and sum(part.count for part in found) == 500
        backwards = [records.read(part).tobytes() for part in reversed(found)]
    assert b"".join(reversed(backwards)) == path.read_bytes()[HEADER:]


def test_a_part_of_large_packets_among_small_ones_is_not_large(tmp_path: Path) -> None:
    small, large = np.full(60_000, 60, np.uint16), np.full(500, 65_000, np.uint16)
    sizes = np.concatenate([small, large, small])
    path = tmp_path / "in.pcap"
    head = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    path.write_bytes(
        head + b"".join(struct.pack("=IIII", 1, 0, n, n) + bytes(n) for n in sizes.tolist())
    )
    with open_capture([path]) as opened:
        assert opened.plain is not None
        found = list(Parts(opened.plain, sizes))
    assert max(part.end - part.begin for part in found) <= 8 << 20
    ends = np.cumsum([part.count for part in found])
    assert [part.first for part in found] == [0, *ends[:-1]] and ends[-1] == len(sizes)
    assert [part.begin for part in found] == [HEADER, *(part.end for part in found[:-1])]
    assert found[-1].end == path.stat().st_size


def test_a_file_cut_short_meanwhile_is_said(tmp_path: Path) -> None:
    path = capture(tmp_path / "in.pcap", 20)
    sizes = np.array([60 + n for n in range(20)], np.uint16)
    with open_capture([path]) as opened:
        assert opened.plain is not None
        records = Parts(opened.plain, sizes)
        with path.open("r+b") as stream:
            stream.truncate(300)
        with pytest.raises(GrowingInput, match=r"in\.pcap: changed while it was read"):
            records.read(next(iter(records)))
