"""One flow a file: what is in the files, names, windows, errors; and back to the input's bytes."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import dpkt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from synth import MS, T0, Frame, Talk, block, enhanced, interface, merged, section, write_pcap

from pcap_tools import scatter
from pcap_tools.errors import CaptureError, EmptyCapture, OutputError, PcapError
from pcap_tools.flows import flow_table
from pcap_tools.merge import merge
from pcap_tools.split import SplitOptions, split
from pcap_tools.splitfiles import SPLIT_COLUMNS
from pcap_tools.table import flow_columns

BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "corpora"
CORPORA = Path(os.environ.get("PROBEBENCH_CORPORA", BESIDE))
ETHER = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")
SMALLEST = 1 << 18  # windows are at least as large as the largest packet


def records(path: Path) -> list[Frame]:
    """Times in ns and frames, as dpkt reads them."""
    with path.open("rb") as stream:
        return [(round(float(t) * 1e6) * 1000, bytes(b)) for t, b in dpkt.pcap.Reader(stream)]


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "split.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def other() -> list[Frame]:
    lone = ETHER / IP(src="10.9.9.9", dst="10.9.9.8", frag=9) / Raw(b"x" * 16)
    return [(T0 + 11 * MS, bytes(ETHER / ARP())), (T0 + 22 * MS, bytes(lone))]


def mix() -> tuple[list[Talk], list[Frame]]:
    talks = [
        Talk(sport=1111).whole(),
        Talk(sport=2222, dport=443, ms=7).whole(5),
        Talk(sport=3333, dport=53).udp(0).udp(1),
        Talk(client="2001:db8::1", server="2001:db8::2", sport=4444, dport=8080).whole(),
        Talk(sport=5555, vlan=7).whole(),
    ]
    ping = ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(type=8, id=7)
    talks.append(Talk(start=T0 + 5 * MS).add(bytes(ping)))
    return talks, other()


def test_each_flow_has_a_file_of_its_packets(tmp_path: Path) -> None:
    talks, outside = mix()
    raw = write_pcap(tmp_path / "raw.pcap", sorted(merged(*talks) + outside, key=lambda f: f[0]))
    report = split(raw, tmp_path / "out")
    table = rows(tmp_path / "out")
    assert list(table[0]) == list(SPLIT_COLUMNS)
    files = {row["client_port"]: row["file"] for row in table}
    for talk in talks[:5]:
        assert records(tmp_path / "out" / files[str(talk.sport)]) == talk.frames
    assert [row["file"] for row in table if row["proto"] == "icmp"] == ["5-icmp-0.pcap"]
    assert files["2222"] == "1-tcp-443.pcap"
    assert files["3333"] == "2-udp-53.pcap"
    assert records(tmp_path / "out" / "other.pcap") == outside
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(row["file"] for row in table),
        *("other.pcap", "split.csv", "split.json", "split.order"),
    }
    assert (report.flows, report.files, report.other) == (6, 7, 2)
    assert report.packets == sum(len(talk.frames) for talk in talks) + 2
    assert json.loads((tmp_path / "out" / "split.json").read_text()) == report.as_json()


def test_the_table_counts_each_side(tmp_path: Path) -> None:
    talk = Talk(sport=1111).whole()
    split(write_pcap(tmp_path / "raw.pcap", talk.frames), tmp_path / "out")
    (row,) = rows(tmp_path / "out")
    client = [frame for _, frame in talk.frames if frame[26:30] == bytes([10, 0, 0, 1])]
    server = [frame for _, frame in talk.frames if frame[26:30] != bytes([10, 0, 0, 1])]
    assert (int(row["packets_out"]), int(row["packets_in"])) == (len(client), len(server))
    assert (int(row["bytes_out"]), int(row["bytes_in"])) == (
        sum(map(len, client)),
        sum(map(len, server)),
    )
    assert int(row["first_ns"]) == T0
    assert int(row["duration_ns"]) == talk.frames[-1][0] - T0
    assert int(row["reply_gap_ns"]) == 10 * MS


def test_the_table_says_what_the_flow_table_says(tmp_path: Path) -> None:
    talks, outside = mix()
    talks.append(Talk(sport=6666).open())
    raw = write_pcap(tmp_path / "raw.pcap", sorted(merged(*talks) + outside, key=lambda f: f[0]))
    split(raw, tmp_path / "out")
    columns = flow_columns(flow_table(raw))
    shared = [name for name in SPLIT_COLUMNS if name in columns]
    assert len(shared) == 13
    found = [[row[name] for name in shared] for row in rows(tmp_path / "out")]
    assert found == [list(map(str, r)) for r in zip(*(columns[n] for n in shared), strict=True)]


frames_of_flows = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 3), st.booleans()), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=frames_of_flows, nanoseconds=st.booleans(), big=st.booleans())
def test_merging_gives_the_input_back(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int, int, bool]],
    nanoseconds: bool,
    big: bool,
) -> None:
    """Any interleaving, also of packets with one time and packets without a flow; `big` frames
    make many windows."""
    tmp_path = tmp_path_factory.mktemp("merge")
    talks = [Talk(sport=1000 + n, dport=53) for n in range(6)]
    time, frames = T0, []
    for flow, pause, back in steps:
        time += pause * MS + (pause if nanoseconds else 0)
        size = 60_000 if big else 10 * flow
        if flow < 6:
            frames.append((time, talks[flow].udp(int(back), b"x" * size).frames[-1][1]))
        else:
            frames.append((time, other()[0][1]))
    raw = write_pcap(tmp_path / "raw.pcap", frames, nanoseconds=nanoseconds)
    report = split(raw, tmp_path / "out", SplitOptions(window=SMALLEST))
    again = merge(tmp_path / "out", tmp_path / "again.pcap", 1 << 20)
    assert report.exact and again.exact
    assert (again.packets, again.files) == (len(frames), report.files)
    assert (tmp_path / "again.pcap").read_bytes() == raw.read_bytes()


def test_flows_across_windows_are_appended_to(tmp_path: Path) -> None:
    chance = random.Random(5)
    talks = [Talk(sport=1000 + n, dport=53, ms=chance.randrange(1, 9)) for n in range(40)]
    for talk in talks:
        for n in range(40):
            talk.udp(n % 2, b"x" * chance.randrange(1400))
    raw = write_pcap(tmp_path / "raw.pcap", merged(*talks))
    assert raw.stat().st_size > 3 * SMALLEST
    split(raw, tmp_path / "out", SplitOptions(window=1))
    for row in rows(tmp_path / "out"):
        talk = talks[int(row["client_port"]) - 1000]
        assert records(tmp_path / "out" / row["file"]) == talk.frames


def test_fragments_stay_with_their_flow_even_when_they_come_first(tmp_path: Path) -> None:
    whole = ETHER / IP(src="10.0.0.1", dst="10.0.0.2", id=9) / UDP(sport=1, dport=53)
    parts = [bytes(part) for part in fragment(whole / Raw(b"x" * 3000))]
    frames = [(T0 + n * MS, frame) for n, frame in enumerate([parts[1], parts[2], parts[0]])]
    raw = write_pcap(tmp_path / "raw.pcap", frames)
    split(raw, tmp_path / "out")
    assert records(tmp_path / "out" / "0-udp-53.pcap") == frames
    assert not (tmp_path / "out" / "other.pcap").exists()


def test_other_formats_give_the_same_packets_back(tmp_path: Path) -> None:
    talk = Talk().whole()
    plain = write_pcap(tmp_path / "plain.pcap", talk.frames, snaplen=262144)
    swapped = write_pcap(tmp_path / "swapped.pcap", talk.frames, order=">")
    ng = tmp_path / "new.pcapng"
    ng.write_bytes(
        section()
        + interface()
        + block(0x0BAD, b"skip")
        + b"".join(enhanced(time // 1000, frame) for time, frame in talk.frames)
    )
    torn = tmp_path / "torn.pcap"
    torn.write_bytes(plain.read_bytes() + b"torn")
    for raw in (swapped, ng, torn):
        report = split(raw, tmp_path / raw.stem)
        again = merge(tmp_path / raw.stem, tmp_path / "again.pcap")
        assert not report.exact and not again.exact
        assert (tmp_path / "again.pcap").read_bytes() == plain.read_bytes()


def test_the_file_header_comes_back_too(tmp_path: Path) -> None:
    raw = write_pcap(tmp_path / "raw.pcap", Talk().whole().frames)
    data = bytearray(raw.read_bytes())
    data[6:16] = b"\x03\0\x01\0\0\0\x02\0\0\0"  # minor version, zone, accuracy
    data[16:20] = bytes(4)  # no snapshot length
    raw.write_bytes(data)
    assert split(raw, tmp_path / "out").exact
    merge(tmp_path / "out", tmp_path / "again.pcap")
    assert (tmp_path / "again.pcap").read_bytes() == data


def test_files_may_be_rewritten_before_merging_but_not_cut(tmp_path: Path) -> None:
    first, second = Talk(sport=1111).whole(), Talk(sport=2222).whole()
    raw = write_pcap(tmp_path / "raw.pcap", merged(first, second))
    split(raw, tmp_path / "out")
    path = tmp_path / "out" / "0-tcp-80.pcap"
    edited = path.read_bytes().replace(bytes([10, 0, 0, 1]), bytes([10, 7, 7, 7]))
    path.write_bytes(edited)
    merge(tmp_path / "out", tmp_path / "again.pcap")
    moved = [f.replace(bytes([10, 0, 0, 1]), bytes([10, 7, 7, 7])) for _, f in first.frames]
    assert {f for _, f in records(tmp_path / "again.pcap")} == {
        *moved,
        *(f for _, f in second.frames),
    }
    for broken in (edited[:-1], edited + bytes(16), edited[:32] + b"\xff" + edited[33:]):
        path.write_bytes(broken)
        with pytest.raises(CaptureError, match=r"0-tcp-80\.pcap: has not the packets"):
            merge(tmp_path / "out", tmp_path / "no.pcap")
    path.unlink()
    with pytest.raises(CaptureError, match=r"0-tcp-80\.pcap: cannot be read: No such file"):
        merge(tmp_path / "out", tmp_path / "no.pcap")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith((".no", "no"))]


def test_what_is_no_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"split\.json: cannot be read: No such file"):
        merge(tmp_path, tmp_path / "no.pcap")
    for text in ("{}", "[1]", "no", '{"format": "probebench-split", "version": 9}'):
        (tmp_path / "split.json").write_text(text)
        with pytest.raises(CaptureError, match="is not a report of `corpus split`"):
            merge(tmp_path, tmp_path / "no.pcap")
    raw = write_pcap(tmp_path / "raw.pcap", Talk().whole().frames)
    split(raw, tmp_path / "out")
    order = tmp_path / "out" / "split.order"
    rest = order.read_bytes()[16:]
    order.write_bytes(b"probebench-order\xff\0\0\0" + rest[4:])
    with pytest.raises(CaptureError, match="names a flow that is not there"):
        merge(tmp_path / "out", tmp_path / "no.pcap")
    for cut in (rest[:-3], rest[:-8]):
        order.write_bytes(b"probebench-order" + cut)
        with pytest.raises(CaptureError, match=r"split\.order: is cut"):
            merge(tmp_path / "out", tmp_path / "no.pcap")
    order.write_bytes(b"probebench-other" + rest)
    with pytest.raises(CaptureError, match="is not what `corpus split` wrote"):
        merge(tmp_path / "out", tmp_path / "no.pcap")
    order.write_bytes(b"probebench-order" + rest)
    table = tmp_path / "out" / "split.csv"
    text = table.read_text()
    for changed, message in (
        (text.replace("0-tcp-80.pcap", ""), "a flow without a file"),
        (text.splitlines()[0], "0 flows where 1 were split"),
        (text.replace("file", "name"), "is not what `corpus split` wrote"),
    ):
        table.write_text(changed)
        with pytest.raises(CaptureError, match=message):
            merge(tmp_path / "out", tmp_path / "no.pcap")
    assert not list(tmp_path.glob("*no.pcap*"))


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path) -> None:
    raw = write_pcap(tmp_path / "raw.pcap", Talk().whole().frames)
    with pytest.raises(OutputError, match="is not empty"):
        split(raw, tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        split(raw, raw)
    with pytest.raises(OutputError, match="make it first"):
        split(raw, tmp_path / "none" / "out")
    (tmp_path / "out").mkdir()
    split(raw, tmp_path / "out")
    assert (tmp_path / "out" / "0-tcp-80.pcap").exists()


def test_a_full_disk_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel stops at what the system refuses; the way around it says what that was."""
    raw = write_pcap(tmp_path / "raw.pcap", merged(Talk(sport=1).whole(), Talk(sport=2).whole()))

    def stopped(*arguments: object) -> tuple[int, int]:
        return 1, 7

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(scatter, "_write_segments", stopped)
        patched.setattr("pcap_tools.scatter.os.write", full)
        with pytest.raises(OutputError, match=r"/out: cannot be written: No space left"):
            split(raw, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["raw.pcap"]


def test_a_file_that_the_kernel_could_not_write_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talks = [Talk(sport=n).whole() for n in (1, 2, 3)]
    raw = write_pcap(tmp_path / "raw.pcap", merged(*talks))
    real = scatter._write_segments

    def interrupted(*arguments: object) -> tuple[int, int]:
        *before, start, append = arguments
        done = real(*before, start, append)
        if start == 0:  # as if the second file's write had ended early
            out = next(tmp_path.glob(".out.*"))
            (out / "2-tcp-80.pcap").unlink()
            os.truncate(out / "1-tcp-80.pcap", 100)
            return 1, 100
        return done

    monkeypatch.setattr(scatter, "_write_segments", interrupted)
    split(raw, tmp_path / "out")
    for number, talk in enumerate(talks):
        assert records(tmp_path / "out" / f"{number}-tcp-80.pcap") == talk.frames


def test_more_flows_than_file_descriptors(tmp_path: Path) -> None:
    talks = [Talk(sport=n, dport=53).udp(0).udp(1) for n in range(1024, 1424)]
    raw = write_pcap(tmp_path / "raw.pcap", merged(*talks))
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40));"
        "from pcap_tools.split import split; from pcap_tools.merge import merge;"
        f"split({str(raw)!r}, {str(tmp_path / 'out')!r});"
        f"merge({str(tmp_path / 'out')!r}, {str(tmp_path / 'again.pcap')!r})"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
    assert len(rows(tmp_path / "out")) == 400
    assert (tmp_path / "again.pcap").read_bytes() == raw.read_bytes()


def test_options_refuse_nonsense(tmp_path: Path) -> None:
    for options, message in (
        ({"target": "ixia"}, "the targets are any, stf, astf"),
        ({"reply_gap_s": 0.1}, "for stf only"),
        ({"target": "stf", "reply_gap_s": -1}, "0 to 3600"),
        ({"idle_s": 0}, "above 0 s"),
    ):
        with pytest.raises(PcapError, match=message):
            SplitOptions(**options)  # type: ignore[arg-type]
    raw = write_pcap(tmp_path / "raw.pcap", Talk().talk().frames)
    with pytest.raises(EmptyCapture, match=r"no flow fits astf \(midstream 1\)"):
        split(raw, tmp_path / "out", SplitOptions(target="astf"))
    assert [path.name for path in tmp_path.iterdir()] == ["raw.pcap"]


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the shared corpora are not here")
def test_real_captures_come_back_and_trex_files_stay_whole(tmp_path: Path) -> None:
    """TRex's own files are one flow each, unless tshark says otherwise."""
    for raw in sorted(CORPORA.rglob("*.pcap")):
        report = split(raw, tmp_path / raw.stem, SplitOptions(window=SMALLEST))
        merge(tmp_path / raw.stem, tmp_path / "again.pcap", 1 << 20)
        assert report.exact
        assert (tmp_path / "again.pcap").read_bytes() == raw.read_bytes(), raw
        if raw.parent.name == "trex" and report.flows == 1:
            (row,) = rows(tmp_path / raw.stem)
            assert (tmp_path / raw.stem / row["file"]).read_bytes() == raw.read_bytes()
            with raw.open("rb") as stream:
                first = dpkt.ethernet.Ethernet(next(iter(dpkt.pcap.Reader(stream)))[1]).data
            assert row["client"] == (
                ".".join(map(str, first.src)) if len(first.src) == 4 else row["client"]
            )
            assert row["stf"] == "yes"
