"""Records read by parts: what a plain reading of the same bytes gives."""

from __future__ import annotations

import errno
import os
import shlex
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcap_tools import parts
from pcap_tools.errors import CaptureError, GrowingInput
from pcap_tools.extents import read_whole, write_whole
from pcap_tools.kernels import I64, U8, U16, kernel
from pcap_tools.memory import pages_of
from pcap_tools.parts import (
    BEGIN,
    COUNT,
    FIRST,
    HEADER,
    PLACE,
    RECORD,
    SIZE,
    Room,
    Stop,
    Way,
    carry_kept,
    place_kept,
)
from pcap_tools.remap import remap

KEPT, DROPPED = 0, -1  # owner codes


def carried(
    path: Path, frames: list[bytes], keep: list[bool], octets: int
) -> tuple[bytes, list[Stop]]:
    """What is brought of a capture's records to another file, and where the kernel stopped."""
    sizes = np.array([len(frame) for frame in frames], np.uint16)
    owner = np.array([KEPT if kept else DROPPED for kept in keep], np.int32)
    kept = np.array([False, False, False, False, True])
    table = parts.divide(sizes)
    packets, size = place_kept(table, sizes, owner, kept)
    assert packets == sum(keep)
    room, output = Room(table), path.with_name("out")
    stops = []
    with path.open("rb") as source, output.open("wb") as target:
        target.write(path.read_bytes()[:HEADER])
        target.flush()
        way = Way(np.array([source.fileno(), target.fileno() if octets else -1, 0]), sizes, 1)
        at = 0
        while at < len(table):
            stop = Stop(
                *carry_kept(
                    way.files,
                    table[at:],
                    sizes,
                    owner,
                    np.zeros(len(frames), np.uint8),
                    kept,
                    room.data,
                    room.rows,
                    room.offset,
                    room.caplen,
                    room.owner,
                    room.direction,
                    room.pace,
                )
            )
            stops.append(stop)
            at += stop.parts
            if at < len(table):
                os.pwrite(target.fileno(), room.data[: stop.octets], int(table[at, PLACE]))
                for row in range(stop.packets):
                    frame = frames[room.rows[row]]
                    begin = room.offset[row]
                    assert room.data[begin : begin + room.caplen[row]].tobytes() == frame
                at += 1
    assert output.stat().st_size == HEADER + RECORD * packets + size
    return output.read_bytes(), stops


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=200), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([1, 300, 1 << 20]),
    st.booleans(),
)
def test_what_is_kept_comes_to_its_place(
    tmp_path_factory: pytest.TempPathFactory,
    packets: list[tuple[bytes, bool]],
    octets: int,
    whole: bool,
) -> None:
    path = tmp_path_factory.mktemp("carried") / "in.pcap"
    records = [
        struct.pack("=IIII", number, 0, len(frame), len(frame)) + frame
        for number, (frame, _) in enumerate(packets)
    ]
    head = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    path.write_bytes(head + b"".join(records))
    keep = [kept for _, kept in packets]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parts, "_OCTETS", octets)
        frames = [frame for frame, _ in packets]
        found, stops = carried(path, frames, keep, octets if whole else 0)
    assert found == head + b"".join(r for r, kept in zip(records, keep, strict=True) if kept)
    # Python has nothing to do with a whole way, and writes every part of one that ends before.
    assert [stop.parts > 0 for stop in stops] == ([True] if whole else [False] * len(stops))


def capture(path: Path, count: int) -> Path:
    head = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    frames = [bytes([n % 251]) * (60 + n % 1400) for n in range(count)]
    path.write_bytes(
        head + b"".join(struct.pack("=IIII", 1, 0, len(f), len(f)) + f for f in frames)
    )
    return path


@pytest.mark.skipif(not Path("/dev/shm").is_mount(), reason="no tmpfs at /dev/shm")
def test_pages_that_are_found_ahead_hold_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thirds of the packets, with every writing said to be slow."""
    monkeypatch.setattr(parts, "_OCTETS", 9000)
    path = capture(tmp_path / "in.pcap", 600)
    sizes = np.array([60 + n % 1400 for n in range(600)], np.uint16)
    owner = np.where(np.arange(600) % 3, KEPT, DROPPED).astype(np.int32)
    kept = np.array([False, False, False, False, True])
    table = parts.divide(sizes)
    packets, octets = place_kept(table, sizes, owner, kept)
    room, size = Room(table), HEADER + RECORD * packets + octets
    with path.open("rb") as source, tempfile.TemporaryFile(dir="/dev/shm") as target:
        target.truncate(size)
        pages = pages_of(target.fileno())
        assert pages is not None and len(pages) == size
        files = np.array([source.fileno(), target.fileno(), pages.ctypes.data])
        for part in range(len(table)):
            room.pace[0] = 1
            arguments = files, table[part : part + 1], sizes, owner, np.zeros(600, np.uint8), kept
            columns = room.data, room.rows, room.offset, room.caplen, room.owner, room.direction
            assert Stop(*carry_kept(*arguments, *columns, room.pace)).parts == 1
        found = target.read()
        assert pages.tobytes() == found
    begins = HEADER + np.cumsum([0, *(sizes[:-1].astype(np.int64) + RECORD)])
    whole = path.read_bytes()
    wanted = [whole[begins[n] : begins[n] + RECORD + sizes[n]] for n in range(600) if n % 3]
    assert found[HEADER:] == b"".join(wanted)


def test_only_files_in_memory_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.touch()
    with path.open("r+b") as stream:
        assert pages_of(stream.fileno()) is None  # nothing to map
        stream.write(b"1")
        stream.flush()
        device = os.fstat(stream.fileno()).st_dev
        line = f"1 0 {os.major(device)}:{os.minor(device)} / / rw - KIND none rw\n"
        for kind, mapped in (("tmpfs", True), ("ext4", False)):
            monkeypatch.setattr(Path, "read_text", lambda *_, k=kind, **__: line.replace("KIND", k))
            assert (pages_of(stream.fileno()) is not None) == mapped


def test_the_parts_are_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_OCTETS", 5000)
    monkeypatch.setattr(parts, "_PLACES", 7)
    path = capture(tmp_path / "in.pcap", 500)
    sizes = np.array([60 + n % 1400 for n in range(500)], np.uint16)
    table = parts.divide(sizes)
    assert len(table) > 30
    assert_whole(table, sizes, path)
    assert table[:-1, SIZE].min() >= 5000 and table[:, SIZE].max() < 5000 + RECORD + 1460


def assert_whole(table: I64, sizes: U16, path: Path) -> None:
    ends = table[:, FIRST] + table[:, COUNT]
    assert table[:, FIRST].tolist() == [0, *ends[:-1]] and ends[-1] == len(sizes)
    ends = table[:, BEGIN] + table[:, SIZE]
    assert table[:, BEGIN].tolist() == [HEADER, *ends[:-1]]
    assert ends[-1] == path.stat().st_size
    assert (table[:, PLACE] == table[:, BEGIN]).all()


def test_a_part_of_large_packets_among_small_ones_is_not_large(tmp_path: Path) -> None:
    small, large = np.full(60_000, 60, np.uint16), np.full(500, 65_000, np.uint16)
    sizes = np.concatenate([small, large, small])
    path = tmp_path / "in.pcap"
    head = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    path.write_bytes(
        head + b"".join(struct.pack("=IIII", 1, 0, n, n) + bytes(n) for n in sizes.tolist())
    )
    table = parts.divide(sizes)
    assert_whole(table, sizes, path)
    assert table[:, SIZE].max() < (1 << 20) + RECORD + 65_000
    room = Room(table[:1])
    assert room.holds(table[:1])
    assert not room.holds(np.array([[0, 4 * table[0, COUNT], 0, 1, 0]]))
    assert not room.holds(np.array([[0, 1, 0, 4 * table[0, SIZE], 0]]))


def test_a_file_cut_short_meanwhile_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = capture(tmp_path / "in.pcap", 20)
    whole = parts.divide

    def cut(sizes: U16) -> I64:
        with path.open("r+b") as stream:
            stream.truncate(300)
        return whole(sizes)

    monkeypatch.setattr("pcap_tools.copying.divide", cut)
    with pytest.raises(GrowingInput, match=r"in\.pcap: changed while it was read"):
        remap([path], tmp_path / "out.pcap", "key")
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.pcap"]


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a disk with a bad sector: the kernel stops, the way around it says why."""
    path = capture(tmp_path / "in.pcap", 20)

    def failing(descriptor: int, size: int, at: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def stopped(*arguments: object) -> tuple[int, int, int, int]:
        monkeypatch.setattr(os, "pread", failing)
        return 0, -1, 0, 0

    monkeypatch.setattr("pcap_tools.byaddress.carry_known", stopped)
    with pytest.raises(
        CaptureError, match=r"in\.pcap: read error at offset 24: Input/output error"
    ):
        remap([path], tmp_path / "out.pcap", "key")
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.pcap"]


@kernel
def _read(descriptor: int, data: U8, at: int) -> bool:
    return bool(read_whole(descriptor, np.int64(data.ctypes.data), len(data), at))


@kernel
def _write(descriptor: int, data: U8, at: int) -> bool:
    return bool(write_whole(descriptor, np.int64(data.ctypes.data), len(data), at))


def test_what_comes_in_pieces_is_put_together() -> None:
    """The kernel gives such a file a page or so at a time."""
    room = np.zeros(50_000, np.uint8)
    with Path("/proc/kallsyms").open("rb", buffering=0) as stream:
        assert len(os.pread(stream.fileno(), 50_000, 300)) < 50_000
        assert _read(stream.fileno(), room, 300)
    whole = Path("/proc/kallsyms").read_bytes()
    assert room.tobytes() == whole[300:50_300]


def test_less_than_all_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    room = np.zeros(8, np.uint8)
    with path.open("r+b") as stream:
        assert _read(stream.fileno(), room, 2) and room.tobytes() == b"23456789"
        assert not _read(stream.fileno(), room.copy(), 3)
        assert _write(stream.fileno(), room, 6)
        assert path.read_bytes() == b"01234523456789"
    with path.open("rb") as stream:
        assert not _write(stream.fileno(), room, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own takes root")
@pytest.mark.parametrize("command", [["remap"], ["clean"], ["clean", "--remap"]])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, command: list[str]) -> None:
    path = capture(tmp_path / "in.pcap", 3000)
    output = tmp_path / "full" / "out.pcap"
    output.parent.mkdir()
    probebench = [sys.executable, "-m", "harness", "corpus", *command, str(path), "-o", str(output)]
    if command != ["clean"]:
        probebench += ["--key", "key"]
    if "clean" in command:
        probebench += ["--keep", "non-ip"]
    mounted = f"mount -t tmpfs -o size=300k none {output.parent} && {shlex.join(probebench)}"
    script = f"{mounted}; echo status $?; ls -A {output.parent}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=True
    )
    said = done.stderr.splitlines()
    assert said[-1] == f"probebench: {output}: cannot be written: No space left on device"
    assert len(said) == 1 or "%" in said[0]  # how far it was, where that took a second
    assert done.stdout == "status 2\n"
