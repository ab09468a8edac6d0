"""Writing captures: formats by name, round trips, and what tshark and capinfos make of them."""

from __future__ import annotations

import io
import os
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synth import Talk, block, enhanced, interface, option, section, tshark, write_pcap
from test_capture import read_paths

from pcap_tools.capture import open_capture
from pcap_tools.errors import OutputError, UnsupportedLink
from pcap_tools.output import is_pcapng, open_output
from pcap_tools.write import PcapWriter

FRAMES = Talk(ms=7).whole().frames


def convert(source: Path | list[Path], target: Path | str, *, comments: bool = True) -> Path:
    with open_capture(source) as capture:
        for _ in capture.batches():
            pass
        with open_output(target, capture, comments=comments) as writer:
            for batch in capture.batches():
                writer.write(batch)
    return Path(target)


@pytest.mark.parametrize("nanoseconds", [False, True])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".lz4"])
def test_pcap_to_pcapng_and_back_is_byte_exact(
    tmp_path: Path, nanoseconds: bool, suffix: str
) -> None:
    frames = [(t + 1, f) for t, f in FRAMES] + [(FRAMES[-1][0] + 1000, b"")]
    source = write_pcap(tmp_path / "a.pcap", frames, nanoseconds=nanoseconds, snaplen=4000)
    modern = convert(source, tmp_path / f"b.pcapng{suffix}")
    if suffix:
        packer = {".gz": "gzip", ".zst": "zstd", ".lz4": "lz4"}[suffix]
        subprocess.run([packer, "-t", modern], check=True, capture_output=True)
    back = convert(modern, tmp_path / f"c.pcap{suffix}")
    assert convert(back, tmp_path / "d.pcap").read_bytes() == source.read_bytes()
    assert not list(tmp_path.glob(".*"))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**32 * 10**9 - 1), st.binary(max_size=70), st.integers(0, 9)),
        min_size=1,
        max_size=12,
    )
)
def test_any_packets_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, packets: list[tuple[int, bytes, int]]
) -> None:
    directory = tmp_path_factory.mktemp("round")
    raw = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
    for time, frame, more in packets:
        if time < 10**9 and not frame and not more:
            continue  # a record of zeros is a torn tail
        raw += struct.pack("<IIII", *divmod(time, 10**9), len(frame), len(frame) + more) + frame
    if len(raw) == 24:
        return
    source = directory / "a.pcap"
    source.write_bytes(raw)
    back = convert(convert(source, directory / "b.pcapng"), directory / "c.pcap")
    assert back.read_bytes() == raw


def commented(order: str = "<") -> bytes:
    """Two sections, names, comments, and blocks without packets."""
    names = option(1, b"an interface comment", order) + option(2, b"eth7", order)
    names += option(8, struct.pack(order + "Q", 10**9), order) + option(9, b"\x09", order)
    data = section(order)[:-4]
    body = struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + option(1, b"section comment", order)
    body += option(4, b"the tests", order)
    data = block(0x0A0D0D0A, body, order) + interface(1, 2000, names, order)
    data += interface(1, 0, option(2, b"idle", order), order)
    data += block(4, struct.pack(order + "HH", 0, 0), order)
    for i, (time, frame) in enumerate(FRAMES):
        options = b""
        if i % 3 == 1:
            options = option(1, b"packet comment %d" % i, order)
            options += option(2, struct.pack(order + "I", 1), order)
            options += option(4, struct.pack(order + "Q", 5), order)
        padded = frame + bytes(-len(frame) % 4) + options
        head = struct.pack(
            order + "IIIII", 0, time >> 32, time & 0xFFFFFFFF, len(frame), len(frame)
        )
        data += block(6, head + padded, order)
    data += block(10, struct.pack(order + "II", 0x544C534B, 4) + b"keys", order)
    data += block(5, struct.pack(order + "III", 0, 0, 0), order)
    return data


@pytest.mark.parametrize("order", "<>")
def test_comments_and_names_are_kept_or_dropped(tmp_path: Path, order: str) -> None:
    source = tmp_path / "a.pcapng"
    later = section() + interface(options=option(2, b"wlan0")) + enhanced(9, FRAMES[0][1])
    source.write_bytes(commented(order) + later)
    fields = (
        "frame.comment",
        "frame.interface_name",
        "frame.packet_flags",
        "frame.drop_count",
        "frame.cap_len",
        "frame.len",
        "frame.time_epoch",
    )
    before = tshark(source, *fields)
    assert any(row[0] for row in before)
    kept = convert(source, tmp_path / "b.pcapng")
    # tshark looks interfaces of later sections up in the first.
    assert before[-1][1] == before[0][1] == "eth7"
    before[-1][1] = "wlan0"
    assert tshark(kept, *fields) == before
    facts = subprocess.run(["capinfos", kept], capture_output=True, text=True, check=True).stdout
    assert "section comment" in facts
    assert "an interface comment" in facts or "eth7" in facts
    assert "Interface #1" in facts  # that of the second section, the idle one is left out
    assert "Interface #2" not in facts
    bare = convert(source, tmp_path / "c.pcapng", comments=False)
    assert [row[4:] for row in tshark(bare, *fields)] == [row[4:] for row in before]
    for text in (b"comment", b"eth7", b"the tests"):
        assert text in kept.read_bytes()
        assert text not in bare.read_bytes()
    with open_capture(source) as capture:
        assert len(list(capture.batches())) >= 1
        assert capture.passed_over == {
            "name resolution": 1,
            "interface statistics": 1,
            "decryption secrets": 1,
        }


def test_long_options_do_not_fit_the_buffer_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pcap_tools import write

    monkeypatch.setattr(write, "_BUFFER", 300_000)
    data = section() + interface()
    comments = b"".join(option(1, bytes([97 + i % 26]) * 60_000) for i in range(40))
    for time, frame in FRAMES:
        head = struct.pack("<IIIII", 0, 0, time % 2**32, len(frame), len(frame))
        data += block(6, head + frame + bytes(-len(frame) % 4) + comments)
    source = tmp_path / "a.pcapng"
    source.write_bytes(data)
    kept = convert(source, tmp_path / "b.pcapng")
    assert kept.read_bytes().count(comments) == len(FRAMES)
    assert read_paths(kept) == read_paths(source)


def test_padding_is_zero(tmp_path: Path) -> None:
    """Nothing of an earlier buffer leaks into a file."""
    frames = [(i * 1000, b"\xff" * (i % 4 + 1)) for i in range(4 << 20 >> 5)]
    source = write_pcap(tmp_path / "a.pcap", frames * 2)
    written = convert(source, tmp_path / "b.pcapng").read_bytes()
    for size in (1, 2, 3):
        padded = struct.pack("<II", size, size) + b"\xff" * size + bytes(4 - size)
        assert written.count(padded) == len(frames) // 4 * 2


def test_mixed_links_go_to_pcapng_and_not_to_pcap(tmp_path: Path) -> None:
    a = write_pcap(tmp_path / "a.pcap", FRAMES)
    b = write_pcap(tmp_path / "b.pcap", [(t + 1000, f[14:]) for t, f in FRAMES], link=101)
    with pytest.raises(UnsupportedLink, match=r"Ethernet, raw IP.*OUT\.pcapng"):
        convert([a, b], tmp_path / "c.pcap")
    both = convert([a, b], tmp_path / "c.pcapng")
    assert [frame for _, frame, _ in read_paths(both)] == [
        f for _, frame in FRAMES for f in (frame, frame[14:])
    ]
    rows = tshark(both, "frame.encap_type", "ip.src")
    assert [row[0] for row in rows] == ["1", "7"] * len(FRAMES)
    assert all(row[1] for row in rows)
    with (
        open_capture(both) as capture,
        pytest.raises(OutputError, match="one link type"),
        PcapWriter(tmp_path / "d.pcap", 1) as writer,
    ):
        for batch in capture.batches():
            writer.write(batch)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pcap", "b.pcap", "c.pcapng"]


def test_standard_output_is_pcap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_pcap(tmp_path / "a.pcap", FRAMES)
    sink = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(sink))
    convert(source, "-")
    assert sink.getvalue() == source.read_bytes()


def test_capinfos_counts_what_was_written(tmp_path: Path) -> None:
    target = tmp_path / "b.pcapng.gz"
    source = write_pcap(tmp_path / "a.pcap", FRAMES)
    with open_capture(source) as capture, open_output(target, capture, digest=True) as writer:
        for batch in capture.batches():
            writer.write(batch, batch.caplen > 60)
    shown = subprocess.run(
        ["capinfos", "-TMcd", target], capture_output=True, text=True, check=True
    ).stdout.splitlines()[-1]
    assert [int(word) for word in shown.split("\t")[1:]] == [writer.packets, writer.bytes]
    assert writer.packets == sum(len(frame) > 60 for _, frame in FRAMES)
    summed = subprocess.run(["sha256sum", target], capture_output=True, text=True, check=True)
    assert summed.stdout.split()[0] == writer.digest


@pytest.mark.parametrize("name", ["b.pcap", "b.pcap.gz", "b.pcapng", "b.pcapng.zst"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    """The file size limit of a process stands in for the disk's."""
    noise = os.urandom(1_000_000)
    frames = [(i * 10**9, noise[i * 1000 : i * 1000 + 1000]) for i in range(1000)]
    source = write_pcap(tmp_path / "a.pcap", frames)
    code = (
        "import sys, signal, resource\n"
        "from pcap_tools.capture import open_capture\n"
        "from pcap_tools.output import open_output\n"
        "from pcap_tools.errors import OutputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        "try:\n"
        "  with open_capture(sys.argv[1]) as c, open_output(sys.argv[2], c) as w:\n"
        "    for b in c.batches(): w.write(b)\n"
        "except OutputError as error: print(error)\n"
    )
    done = subprocess.run(
        [os.sys.executable, "-c", code, source, tmp_path / name],  # type: ignore[attr-defined]
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"{tmp_path / name}: cannot be written: File too large\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.pcap"]


def test_names_decide_the_format(tmp_path: Path) -> None:
    assert is_pcapng("a.pcapng") and is_pcapng("x/a.PCAPNG.gz") and is_pcapng("a.ntar.lz4")
    assert not is_pcapng("a.pcap") and not is_pcapng("-") and not is_pcapng("a.cap.zst")
    source = write_pcap(tmp_path / "a.pcap", FRAMES)
    for name in ("b.erf", "b.pcap.xz"):
        with pytest.raises(OutputError, match="not written here"):
            convert(source, tmp_path / name)
