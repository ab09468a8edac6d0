"""`corpus convert` and what reading guards against: files that change, and parts of files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import typer
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from synth import T0, Frame, Talk, enhanced, interface, section, tshark, write_pcap
from test_capture import read_paths
from typer.testing import CliRunner, Result

from harness.cli import corpus_convert, corpus_flows
from pcap_tools import capture as capture_module
from pcap_tools.capture import open_capture
from pcap_tools.convert import convert
from pcap_tools.errors import GrowingInput, OutputError, PcapError
from pcap_tools.hygiene import Hygiene
from pcap_tools.survey import Finding, survey

FRAMES = Talk(ms=7).whole().frames
# Given, or scapy asks the network for them.
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
ROOT = Path(__file__).resolve().parents[2]
CORPORA = sorted(
    path
    for up in ROOT.parents
    for path in (up / "shared" / "corpora").rglob("*.pcap")
    if up.name != "shared"
)

app = typer.Typer()
corpus_convert.register(app)
corpus_flows.register(app)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)


def damaged() -> list[Frame]:
    """One of everything: a snapped, a timeless, an early, a large and a repeated packet."""
    large = Ether(**MACS) / IP() / TCP(flags="A") / Raw(bytes(2900))
    frames = list(FRAMES)
    frames.insert(4, frames[3])
    return [*frames, (T0 - 2 * 10**9, bytes(large)), (0, b"z" * 60)]


def test_the_survey_counts_each_kind_of_damage(tmp_path: Path) -> None:
    source = write_pcap(tmp_path / "a.pcap", damaged(), snaplen=1000)
    with open_capture(source) as capture:
        found = survey(capture)
    last = len(FRAMES) + 1
    first_snapped = next(i for i, (_, f) in enumerate(damaged(), 1) if len(f) > 1000)
    assert found.snapped == Finding(sum(len(f) > 1000 for _, f in damaged()), first_snapped)
    assert found.zero_time == Finding(1, last + 2)
    assert found.backwards == Finding(2, last + 1)
    assert found.back_ns == T0 - 2 * 10**9
    assert found.oversized == Finding(1, last + 1)
    assert found.largest == 2940
    assert found.duplicates == Finding(1, 5)
    assert found.packets == len(damaged())
    assert len(found.lines()) == 5


def test_the_survey_sees_the_ip_packet_not_the_frame(tmp_path: Path) -> None:
    """A full-sized packet with two VLAN tags, and one with padding, are within the MTU."""
    from scapy.layers.l2 import Dot1Q

    full = Ether(**MACS) / Dot1Q(vlan=1) / Dot1Q(vlan=2) / IP() / TCP() / Raw(bytes(1460))
    more = Ether(**MACS) / IP() / TCP() / Raw(bytes(1461))
    frames = [
        (T0, bytes(full)),
        (T0, bytes(Ether(**MACS) / IP() / TCP()) + bytes(1600)),
        (T0, bytes(more)),
    ]
    with open_capture(write_pcap(tmp_path / "a.pcap", frames)) as capture:
        assert survey(capture).oversized == Finding(1, 3)


def test_convert_mends_and_tells(tmp_path: Path) -> None:
    source = write_pcap(tmp_path / "a.pcap", damaged())
    target = tmp_path / "b.pcapng.gz"
    options = ("--sort", "--dedup", "exact", "--resegment", "1500", "--zero-time", "drop")
    shown = run("convert", source, "-o", target, *options, "--json")
    assert shown.exit_code == 0, shown.output
    report = json.loads(shown.stdout)
    assert report["treatment"] == {
        "snapped": 0,
        "zero_time": 1,
        "duplicates": 1,
        "sorted": True,
        "resegmented": 1,
        "segments": 2,
        "kept_oversized": 0,
    }
    assert report["survey"]["backwards"]["packets"] == 2
    rows = tshark(target, "frame.time_epoch", "frame.len")
    assert len(rows) == report["packets"] == len(FRAMES) + 2
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    plain = run("convert", source, "-o", tmp_path / "c.pcap")
    assert plain.exit_code == 0
    assert "--dedup exact" in plain.output and "--sort" in plain.output
    assert (tmp_path / "c.pcap").read_bytes() == source.read_bytes()


def test_inspect_shows_the_damage(tmp_path: Path) -> None:
    source = write_pcap(tmp_path / "a.pcap", damaged())
    shown = run("inspect", source)
    assert shown.exit_code == 0, shown.output
    assert "--resegment 1500" in shown.output
    assert json.loads(run("inspect", source, "--json").stdout)["survey"]["duplicates"] == {
        "packets": 1,
        "first": 5,
    }


def test_convert_from_and_to_standard_streams(tmp_path: Path) -> None:
    """As in a pipe: compressed pcapng in, pcap out, the report elsewhere."""
    source = write_pcap(tmp_path / "a.pcap", FRAMES)
    convert(source, tmp_path / "a.pcapng.zst")
    done = subprocess.run(
        [sys.executable, "-m", "harness", "corpus", "convert", "-", "-o", "-", "--json"],
        input=(tmp_path / "a.pcapng.zst").read_bytes(),
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == source.read_bytes()
    assert json.loads(done.stderr)["packets"] == len(FRAMES)


def test_wrong_options_and_outputs_are_refused(tmp_path: Path) -> None:
    source = write_pcap(tmp_path / "a.pcap", FRAMES)
    for wrong in (
        ("-o", source),
        ("-o", tmp_path / "none" / "b.pcap"),
        ("-o", tmp_path / "b.pcap", "--comments", "maybe"),
        ("-o", tmp_path / "b.pcap", "--dedup", "mac"),
        ("-o", tmp_path / "b.pcap", "--dedup-window", "soon"),
    ):
        shown = run("convert", source, *wrong)
        assert shown.exit_code == 1 and shown.exception
        assert "\n" not in str(shown.exception)
    with pytest.raises(OutputError, match="also an input"):
        convert(source, source)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pcap"]


@pytest.mark.parametrize("growth", ["append", "cut", "touch"])
def test_an_input_that_changes_is_one_line_and_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, growth: str
) -> None:
    monkeypatch.setattr(capture_module, "_BUFFER", 4096)
    frames = [(T0 + i * 1000, bytes([i % 251]) * 500) for i in range(200)]
    source = write_pcap(tmp_path / "a.pcap", frames)

    def change() -> None:
        if growth == "append":
            with source.open("ab") as stream:
                stream.write(b"\1" * 7)
        elif growth == "cut":
            os.truncate(source, source.stat().st_size - 3000)
        else:
            os.utime(source, ns=(1, 1))

    steps: list[str] = []

    def progress(step: str, done: int, total: int) -> None:
        if step == "writing" and step not in steps:
            change()
        steps.append(step)

    with pytest.raises(GrowingInput, match=r"a\.pcap: changed while it was read") as caught:
        convert(source, tmp_path / "b.pcap", progress=progress)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pcap"]


def test_a_sorted_copy_of_an_input_that_was_cut(tmp_path: Path) -> None:
    frames = [(T0 - i * 1000, bytes([i % 251]) * 500) for i in range(20_000)]
    source = write_pcap(tmp_path / "a.pcap", frames)

    def progress(step: str, done: int, total: int) -> None:
        if step == "writing" and source.stat().st_size > 1000:
            os.truncate(source, 1000)

    with pytest.raises(GrowingInput):
        convert(source, tmp_path / "b.pcap", Hygiene(sort=True), progress=progress)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pcap"]


def test_more_rotated_files_than_may_be_open(tmp_path: Path) -> None:
    """The soft limit is raised as far as the hard one allows."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        paths = []
        for i in range(300):
            frame = FRAMES[i % len(FRAMES)][1]
            paths.append(write_pcap(tmp_path / f"r{i:04}.pcap", [(T0 + i * 10**6, frame)]))
        found = read_paths(*reversed(paths))
        assert [time for time, _, _ in found] == [T0 + i * 10**6 for i in range(300)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_an_unreadable_input(tmp_path: Path) -> None:
    with pytest.raises(PcapError, match="cannot be read"):
        convert(tmp_path / "none.pcap", tmp_path / "b.pcap")


@pytest.mark.parametrize("nanoseconds", [False, True])
def test_any_part_of_a_plain_file_can_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nanoseconds: bool
) -> None:
    """In two threads at once, from and to record boundaries, as a parallel second pass does."""
    monkeypatch.setattr(capture_module, "_BUFFER", 4096)
    frames = [(T0 + i * 1000, bytes([i % 251]) * (i % 1400)) for i in range(1, 900)]
    source = write_pcap(tmp_path / "a.pcap", frames, nanoseconds=nanoseconds)
    with open_capture(source) as capture:
        file = capture.plain
        assert file is not None
        bounds = []
        for batch in capture.batches():
            bounds.append(batch.position + int(batch.offset[0]) - file.record)
        bounds.append(file.size)
        assert len(bounds) > 50

        def part(start: int) -> list[bytes]:
            found = []
            for c in file.columns(bounds[start], bounds[start + 5]):
                for at, size in zip(c.offset.tolist(), c.caplen.tolist(), strict=True):
                    found.append(c.data[at : at + size].tobytes())
            return found

        starts = range(0, len(bounds) - 5, 5)
        with ThreadPoolExecutor(2) as pool:
            parts = list(pool.map(part, starts))
        covered = [frame for part in parts for frame in part]
        assert covered == [frame for _, frame in frames[: len(covered)]]
        rest = list(file.columns(bounds[starts[-1] + 5]))
        assert len(covered) + sum(len(c.offset) for c in rest) == len(frames)
        assert capture.ignored_bytes == 0
    modern = tmp_path / "a.pcapng"
    modern.write_bytes(section() + interface() + enhanced(1, b"x" * 60))
    with open_capture(modern) as capture:
        assert capture.plain is None
        with pytest.raises(ValueError, match="beginning"):
            next(capture.files[0].columns(0))


@pytest.mark.skipif(not CORPORA, reason="no shared captures here")
@pytest.mark.parametrize("source", CORPORA, ids=lambda path: path.name)
def test_shared_captures_survive_the_round_trip(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "b.pcapng.lz4")
    convert(tmp_path / "b.pcapng.lz4", tmp_path / "c.pcap")
    assert read_paths(tmp_path / "c.pcap") == read_paths(source)
