"""Public captures, when they are there: every packet and flow as tshark and capinfos read it.

They lie in ../shared/corpora beside the checkout, or where PROBEBENCH_CORPORA says.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from synth import tshark

from pcap_tools.capture import open_capture
from pcap_tools.clean import clean
from pcap_tools.decode import Decoder
from pcap_tools.errors import PcapError
from pcap_tools.flows import FlowTable, flow_table
from pcap_tools.packet import IP, PORTS
from pcap_tools.policy import Policy
from pcap_tools.remap import remap
from pcap_tools.table import flow_columns

HERE = Path(__file__).resolve()
PLACES = [Path(os.environ.get("PROBEBENCH_CORPORA", "/nonexistent"))]
PLACES += [parent / "shared" / "corpora" for parent in HERE.parents[3:5]]
CORPORA = next((place for place in PLACES if place.is_dir()), PLACES[0])
CAPTURES = sorted(CORPORA.rglob("*.pcap")) if CORPORA.is_dir() else []

pytestmark = [
    pytest.mark.skipif(not CAPTURES, reason="../shared/corpora is not there"),
    pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is the oracle"),
]
every_capture = pytest.mark.parametrize(
    "path", CAPTURES, ids=lambda path: str(path.relative_to(CORPORA))
)

LONG = 1e9  # s: udp.stream has no idle time, so flows have none here


class Seen(NamedTuple):
    """A packet as tshark has it; "" where it has nothing."""

    protocols: str
    length: str
    tcp_stream: str
    udp_stream: str
    source: str
    target: str
    sequence: str
    payload: str
    completeness: str
    flags: str
    offset: str
    more: str
    datagram: str

    @property
    def layers(self) -> list[str]:
        return self.protocols.split(":")

    @property
    def plain(self) -> bool:
        """One IP packet with its transport header, no fragment and not inside of another."""
        layers = self.layers
        outer = sum(layer in ("ip", "ipv6") for layer in layers)
        whole = self.offset in ("", "0") and self.more in ("", "0", "False")
        return outer == 1 and whole and not {"gre", "icmp", "icmpv6", "ipv6.fraghdr"} & {*layers}


FIELDS = (
    *("frame.protocols", "frame.len", "tcp.stream", "udp.stream", "tcp.srcport", "tcp.dstport"),
    *("tcp.seq_raw", "tcp.len", "tcp.completeness", "tcp.flags", "ip.frag_offset", "ip.flags.mf"),
    "udp.length",
)


@cache
def seen(path: Path) -> list[Seen]:
    # Streams are numbered over whole TCP: reassembly and its opinions on ports stay off.
    options = ("-2", "-o", "tcp.desegment_tcp_streams:FALSE", "-o", "ip.defragment:FALSE")
    return [Seen(*row) for row in tshark(path, *FIELDS, options=options)]


@cache
def table_of(path: Path) -> FlowTable:
    return flow_table(path, LONG)


def capinfos(*paths: Path) -> list[dict[str, str]]:
    command = ["capinfos", "-T", "-M", "-r", "-S", "-c", "-d", "-a", "-e", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    names = ("file", "packets", "bytes", "first", "last")
    return [dict(zip(names, line.split("\t"), strict=True)) for line in done.stdout.splitlines()]


@cache
def totals() -> dict[str, dict[str, str]]:
    return {row["file"]: row for row in capinfos(*CAPTURES)}


@every_capture
def test_totals_are_those_of_capinfos(path: Path) -> None:
    with open_capture(path) as capture:
        first, last = [], []
        for batch in capture.batches():
            first.append(int(batch.time_ns.min()))
            last.append(int(batch.time_ns.max()))
    table = table_of(path)
    told = totals()[str(path)]
    assert table.packets == capture.packets == int(told["packets"])
    assert table.bytes == int(told["bytes"])
    assert abs(min(first) / 1e9 - float(told["first"])) < 2e-6
    assert abs(max(last) / 1e9 - float(told["last"])) < 2e-6


@every_capture
def test_headers_are_tsharks(path: Path) -> None:
    rows = []
    with open_capture(path) as capture:
        decode = Decoder()
        for batch in capture.batches():
            rows.append(decode(batch).copy())
    decoded = np.concatenate(rows)
    compared = 0
    for number, (row, frame) in enumerate(zip(decoded, seen(path), strict=True), start=1):
        if not frame.plain or frame.tcp_stream == "":
            continue
        if not row["flags"] & IP or not row["flags"] & PORTS:
            pytest.fail(f"frame {number}: tshark has TCP there: {frame}")
        compared += 1
        assert row["proto"] == 6
        mine = tuple(int(row[name]) for name in ("sport", "dport", "seq", "payload", "tcp_flags"))
        theirs = (frame.source, frame.target, frame.sequence, frame.payload)
        assert mine == (*map(int, theirs), int(frame.flags, 16)), f"frame {number}"
    assert compared or not any(f.tcp_stream and f.plain for f in seen(path))


def streams(path: Path, kind: str) -> Iterator[tuple[int, str, Seen]]:
    """Owner and tshark's stream of each packet that both can know."""
    owners = table_of(path).owner.tolist()
    for owner, frame in zip(owners, seen(path), strict=True):
        stream = frame.tcp_stream if kind == "tcp" else frame.udp_stream
        if frame.plain and stream:
            yield owner, stream, frame


@every_capture
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_flows_are_tsharks_streams(path: Path, kind: str) -> None:
    owner_of, stream_of = defaultdict(set), defaultdict(set)
    for owner, stream, _ in streams(path, kind):
        owner_of[stream].add(owner)
        stream_of[owner].add(stream)
    assert {s: o for s, o in owner_of.items() if len(o) != 1} == {}
    assert {o: s for o, s in stream_of.items() if len(s) != 1} == {}


@every_capture
def test_packets_and_bytes_of_each_stream(path: Path) -> None:
    table = table_of(path)
    counted: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
    for kind in ("tcp", "udp"):
        for owner, _, frame in streams(path, kind):
            counted[owner][0] += 1
            counted[owner][1] += int(frame.length)
    others = {
        owner
        for owner, frame in zip(table.owner.tolist(), seen(path), strict=True)
        if not frame.plain
    }
    for owner, (packets, octets) in counted.items():
        if owner not in others:
            row = table.rows[owner]
            assert (int(row["packets"].sum()), int(row["bytes"].sum())) == (packets, octets)


@every_capture
def test_completeness_is_tsharks(path: Path) -> None:
    """Bits: 1 SYN, 2 SYN-ACK, 16 FIN, 32 RST; and what the states say of them."""
    columns = flow_columns(table_of(path))
    bits: dict[int, int] = {}
    for owner, _, frame in streams(path, "tcp"):
        bits[owner] = bits.get(owner, 0) | int(frame.completeness or "0")
    for owner, seen_bits in bits.items():
        starts, ends, state = (columns[name][owner] for name in ("starts", "ends", "state"))
        assert (starts == "syn") == bool(seen_bits & 1), owner
        if ends == "rst":
            assert seen_bits & 32, owner
        if ends == "fin":
            assert seen_bits & 16, owner
        if not seen_bits & (16 | 32):
            assert ends == "none" and state in ("S0", "S1", "OTH"), owner
        if starts == "syn" and state in ("SF", "S1", "S2", "S3"):
            assert seen_bits & 3 == 3, owner


@every_capture
def test_cleaning_adds_up_and_leaves_only_kept_packets(path: Path, tmp_path: Path) -> None:
    output = tmp_path / "clean.pcap"
    try:
        report = clean(path, output)
    except PcapError as error:
        assert "nothing is left" in str(error)
        return
    result = report.result
    lost = [sum(getattr(t, name) for t in result.dropped.values()) for name in ("packets", "bytes")]
    assert result.kept.packets + lost[0] == result.all.packets
    assert result.kept.bytes + lost[1] == result.all.bytes
    told = capinfos(output)[0]
    assert (int(told["packets"]), int(told["bytes"])) == (result.kept.packets, result.kept.bytes)
    again = clean(output, tmp_path / "again.pcap", Policy(edge_s=0.0))
    assert again.result.kept.packets == result.kept.packets
    assert (tmp_path / "again.pcap").read_bytes() == output.read_bytes()


@every_capture
def test_pcapng_and_back(path: Path, tmp_path: Path) -> None:
    """editcap's pcapng holds the same packets, and what is written of them is the same file."""
    if not shutil.which("editcap"):
        pytest.skip("editcap is the oracle")
    other = tmp_path / "other.pcapng"
    subprocess.run(["editcap", "-F", "pcapng", str(path), str(other)], check=True)
    everything = Policy(drop=frozenset())
    with open_capture(path) as one, open_capture(other) as two:
        assert (one.link, two.format) == (two.link, "pcapng")
        assert list(packets(path)) == list(packets(other))
    clean(path, tmp_path / "a.pcap", everything)
    clean(other, tmp_path / "b.pcap", everything)
    again = tmp_path / "again.pcapng"
    subprocess.run(["editcap", "-F", "pcapng", str(tmp_path / "b.pcap"), str(again)], check=True)
    assert list(packets(tmp_path / "a.pcap")) == list(packets(again))


def packets(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Time, length on the wire and bytes of each packet."""
    with open_capture(path) as capture:
        for batch in capture.batches():
            for i in range(len(batch)):
                begin = int(batch.offset[i])
                octets = batch.data[begin : begin + int(batch.caplen[i])].tobytes()
                yield int(batch.time_ns[i]), int(batch.wirelen[i]), octets


CHECKSUMS = ("ip.checksum.status", "tcp.checksum.status", "udp.checksum.status")
CHECKED = tuple(
    word for layer in ("ip", "tcp", "udp") for word in ("-o", f"{layer}.check_checksum:TRUE")
)
BAD, GOOD = "0", "1"


def statuses(path: Path) -> list[list[str]]:
    return tshark(path, *CHECKSUMS, options=CHECKED)


def test_checksums_after_remapping(tmp_path: Path) -> None:
    """What tshark finds wrong afterwards, tcprewrite cannot put right either."""
    if not (shutil.which("mergecap") and shutil.which("tcprewrite")):
        pytest.skip("mergecap puts the captures together, tcprewrite is the oracle")
    mine, theirs = [], []
    for number, path in enumerate(CAPTURES):
        mine.append(tmp_path / f"{number:03}-mine.pcap")
        remap([path], mine[-1], "corpora")
        theirs.append(tmp_path / f"{number:03}-theirs.pcap")
        command = ["tcprewrite", "--seed=1", "--fixcsum", f"--infile={path}"]
        command += [f"--outfile={theirs[-1]}"]
        subprocess.run(command, check=True, capture_output=True)
    readings = []
    for files in (mine, theirs):
        together = tmp_path / "all.pcapng"
        subprocess.run(["mergecap", "-a", "-w", str(together), *map(str, files)], check=True)
        readings.append(statuses(together))
    originals = [frame for path in CAPTURES for frame in seen(path)]
    good = wrong = 0
    for before, ours, other in zip(originals, *readings, strict=True):
        good += GOOD in ours
        if "mpls" in before.layers:
            continue  # its packet says that it is longer than its frame
        wrong += BAD in ours and BAD not in other
    assert wrong == 0
    assert good > 10_000


def test_the_raw_mix_is_judged_as_its_truth_says() -> None:
    path, truth = CORPORA / "raw-mix.pcap", CORPORA / "raw-mix.csv"
    if not path.exists():
        pytest.skip("raw-mix.pcap is not there")
    with truth.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = flow_columns(flow_table(path))
    found = {
        (client, str(port)): (verdict, int(out) + int(back), state)
        for client, port, verdict, out, back, state in zip(
            *(columns[n] for n in ("client", "client_port", "verdict")),
            *(columns[n] for n in ("packets_out", "packets_in", "state")),
            strict=True,
        )
    }
    assert len(rows) == columns["proto"].count("tcp") == len(found)
    for row in rows:
        verdict, count, _ = found[row["client"], row["client_port"]]
        assert count == int(row["packets"])
        assert (verdict == "keep") == (row["clean"] == "1"), row
