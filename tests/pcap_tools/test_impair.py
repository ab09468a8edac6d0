"""Impairments: the manifest makes the output again, and other tools see what it says."""

from __future__ import annotations

import csv
import json
import struct
import subprocess
from collections import Counter
from pathlib import Path

import dpkt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from synth import MS, T0, Frame, Talk, merged, tshark, write_pcap

from pcap_tools.chance import happens, stream_key, threshold
from pcap_tools.damage import KINDS
from pcap_tools.errors import EmptyCapture, OutputError, PcapError
from pcap_tools.impair import Fault, impair

ETHER = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")
EVERY = [
    Fault("loss", 0.05),
    Fault("duplicate", 0.05),
    Fault("reorder", 0.1, amount=2),
    Fault("jitter", amount=0.02),
    Fault("truncate", 0.05, amount=60),
    Fault("corrupt", 0.05),
    Fault("corrupt-ip", 0.05),
    Fault("payload", 0.1),
]


def conversations(count: int = 12, rounds: int = 6) -> list[Frame]:
    """TCP over both IP versions, DNS-like UDP, echo, and a packet outside flows."""
    talks = [Talk(sport=40000 + i, start=T0 + 3 * i * MS).whole(rounds) for i in range(count)]
    six = Talk("2001:db8::1", "2001:db8:1::2", start=T0 + MS).whole(rounds)
    dns = Talk(dport=53, start=T0 + 2 * MS).udp(0, b"question").udp(1, b"answer" * 20)
    ping = [
        (T0 + 7 * MS, bytes(ETHER / IP(src="10.0.0.9", dst="192.0.2.1") / ICMP() / Raw(b"p" * 56))),
        (T0 + 8 * MS, bytes(ETHER / ARP())),
    ]
    return sorted(merged(*talks, six, dns) + ping, key=lambda frame: frame[0])


def records(path: Path) -> list[tuple[int, int, int, bytes]]:
    """(seconds, fraction, wire length, bytes) of a little-endian pcap, by its format alone."""
    octets, at, found = path.read_bytes(), 24, []
    while at < len(octets):
        seconds, fraction, caplen, wirelen = struct.unpack_from("<IIII", octets, at)
        found.append((seconds, fraction, wirelen, octets[at + 16 : at + 16 + caplen]))
        at += 16 + caplen
    return found


def manifest(output: Path) -> list[dict[str, str]]:
    with Path(f"{output}.impair.csv").open() as stream:
        return list(csv.DictReader(stream))


def made_again(source: Path, output: Path, nanoseconds: bool) -> list[tuple[int, int, int, bytes]]:
    """The output by the documented meaning of the manifest, from the input's records."""
    original, rows = records(source), manifest(output)
    placed: dict[int, tuple[int, int, int, bytes]] = {}
    touched = set()
    for row in rows:
        touched.add(int(row["frame"]))
        if not row["out_frame"]:
            continue
        _, _, wirelen, frame = original[int(row["frame"]) - 1]
        octets = bytearray(frame[: int(row["caplen"])])
        for field, size in (("checksum", 2), ("header_checksum", 2), ("payload", 1)):
            if row[f"{field}_at"]:
                at = int(row[f"{field}_at"])
                octets[at : at + size] = int(row[field]).to_bytes(size, "big")
        seconds, rest = divmod(int(row["time_ns"]), 10**9)
        record = (seconds, rest if nanoseconds else rest // 1000, wirelen, bytes(octets))
        for column in ("out_frame", "copy_frame"):
            if row[column]:
                placed[int(row[column])] = record
    others = (record for n, record in enumerate(original, 1) if n not in touched)
    frame = 1
    for record in others:
        while frame in placed:
            frame += 1
        placed[frame] = record
    return [placed[n] for n in sorted(placed)]


def when(record: tuple[int, int, int, bytes], nanoseconds: bool = False) -> int:
    return record[0] * 10**9 + record[1] * (1 if nanoseconds else 1000)


faults = st.lists(
    st.builds(
        Fault,
        st.sampled_from(["loss", "duplicate", "corrupt", "corrupt-ip", "payload"]),
        st.sampled_from([0.0, 0.05, 0.5]),
        st.sampled_from([1.0, 0.3]),
    )
    | st.builds(Fault, st.just("reorder"), st.just(0.2), st.just(1.0), st.integers(1, 4))
    | st.builds(Fault, st.just("truncate"), st.just(0.2), st.just(1.0), st.integers(1, 200))
    | st.builds(Fault, st.just("jitter"), st.just(0.7), st.just(1.0), st.floats(0, 0.2)),
    max_size=6,
    unique_by=lambda fault: fault.kind,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(asked=faults, seed=st.integers(0, 99), nanoseconds=st.booleans(), shuffled=st.booleans())
def test_the_manifest_makes_the_output_again(
    tmp_path: Path, asked: list[Fault], seed: int, nanoseconds: bool, shuffled: bool
) -> None:
    frames = conversations(5, 3)
    if shuffled:  # time goes backwards in the input
        frames = frames[20:30] + frames[:20] + frames[30:]
    source = write_pcap(tmp_path / "in.pcap", frames, nanoseconds=nanoseconds)
    output = tmp_path / "out.pcap"
    report = impair(source, output, seed, asked)
    assert records(output) == made_again(source, output, nanoseconds)
    assert report.packets_in == len(frames)
    assert report.packets_out == len(records(output))
    touched = report.touched
    assert report.packets_out == report.packets_in - touched["loss"] + touched["duplicate"]
    named = Counter(kind for row in manifest(output) for kind in row["what"].split("+"))
    assert {kind: n for kind, n in touched.items() if n} == named
    times = [when(record, nanoseconds) for record in records(output)]
    if not shuffled or touched["jitter"]:
        assert times == sorted(times)


def test_nothing_asked_is_a_copy(tmp_path: Path) -> None:
    source = write_pcap(tmp_path / "in.pcap", conversations())
    report = impair(source, tmp_path / "out.pcap", 1, [])
    assert (tmp_path / "out.pcap").read_bytes() == source.read_bytes()
    assert report.flows.totals["touched"] == 0 and manifest(tmp_path / "out.pcap") == []


def test_a_seed_repeats_and_another_differs(tmp_path: Path) -> None:
    source = write_pcap(tmp_path / "in.pcap", conversations())
    written = []
    for n, seed in enumerate((5, 5, 6)):
        impair(source, tmp_path / f"{n}.pcap", seed, EVERY)
        written.append((tmp_path / f"{n}.pcap").read_bytes())
    assert written[0] == written[1] != written[2]


def hit(output: Path, kind: str, column: str = "frame") -> set[int]:
    return {int(r[column]) for r in manifest(output) if kind in r["what"].split("+")}


def test_one_impairment_does_not_change_what_another_draws(tmp_path: Path) -> None:
    source = write_pcap(tmp_path / "in.pcap", conversations(40))
    impair(source, tmp_path / "all.pcap", 5, EVERY)
    lost = hit(tmp_path / "all.pcap", "loss")
    for fault in EVERY:
        if fault.kind in ("jitter", "reorder"):
            continue
        impair(source, tmp_path / "one.pcap", 5, [fault])
        alone = hit(tmp_path / "one.pcap", fault.kind)
        # A lost packet suffers nothing else; what is cut off can no longer be damaged.
        assert hit(tmp_path / "all.pcap", fault.kind) - lost <= alone
        if fault.kind in ("loss", "duplicate", "truncate"):
            assert hit(tmp_path / "all.pcap", fault.kind) == (
                alone if fault.kind == "loss" else alone - lost
            )


def many_flows(tmp_path: Path, flows: int = 1000, packets: int = 20) -> Path:
    """UDP with payload, packets one microsecond apart, in turn from every flow."""
    heads = [
        bytes(ETHER / IP(src=f"10.0.{i >> 8}.{i & 255}") / UDP(sport=5000) / Raw(b"x" * 60))
        for i in range(flows)
    ]
    frames = [(T0 + n * 1000, heads[n % flows]) for n in range(flows * packets)]
    return write_pcap(tmp_path / "many.pcap", frames)


@pytest.mark.parametrize("kind", KINDS)
def test_rates_are_met(tmp_path: Path, kind: str) -> None:
    """Within five standard deviations of the binomial distribution, per packet and per flow."""
    source, packets, flows = many_flows(tmp_path), 20_000, 1000
    amount = {"reorder": 1, "jitter": 1e-4, "truncate": 60}.get(kind)
    out = tmp_path / "out.pcap"
    report = impair(source, out, 3, [Fault(kind, 0.1, amount=amount)])
    # A packet cannot be late while another one of its stream is, or without one behind it.
    low = 0.08 if kind == "reorder" else 0.1
    spread = 5 * (packets * 0.1 * 0.9) ** 0.5
    assert packets * low - spread <= report.touched[kind] <= packets * 0.1 + spread
    report = impair(source, out, 3, [Fault(kind, 0.5, flows=0.2, amount=amount)])
    assert abs(report.flows.totals["touched"] - flows * 0.2) <= 5 * (flows * 0.2 * 0.8) ** 0.5
    within = 20 * report.flows.totals["touched"]
    low = 0.3 if kind == "reorder" else 0.5
    assert low * within - 5 * (within / 4) ** 0.5 <= report.touched[kind]
    assert report.touched[kind] <= 0.5 * within + 5 * (within / 4) ** 0.5


def test_many_batches(tmp_path: Path) -> None:
    """2.4 MB are several buffers: frames that are held cross them."""
    source, out = many_flows(tmp_path), tmp_path / "out.pcap"
    asked = [f if f.kind != "jitter" else Fault("jitter", 0.5, amount=0.01) for f in EVERY]
    impair(source, out, 8, asked)
    assert records(out) == made_again(source, out, False)


def suffered(output: Path) -> dict[int, dict[str, object]]:
    stored = json.loads(Path(f"{output}.impair.json").read_text())
    return {row["flow"]: row for row in stored["flows_touched"]}


def test_tshark_misses_segments_exactly_where_a_gap_is_said(tmp_path: Path) -> None:
    frames = merged(*(Talk(sport=i, start=T0 + i * MS).whole(8) for i in range(1, 41)))
    source, out = write_pcap(tmp_path / "in.pcap", frames), tmp_path / "out.pcap"
    impair(source, out, 11, [Fault("loss", 0.1, flows=0.5)])
    gaps = {row["client_port"] for row in suffered(out).values() if row["gap_bytes"]}
    assert 5 < len(gaps) < 25
    lost = {
        int(min(ports, key=int) if ports[0] != "80" else ports[1])
        for *ports, segment, ack in tshark(
            out,
            "tcp.srcport",
            "tcp.dstport",
            "tcp.analysis.lost_segment",
            "tcp.analysis.ack_lost_segment",
        )
        if segment or ack
    }
    lost.discard(80)
    # tshark also notices a lost SYN or FIN, of which no byte of data is missing.
    original = dict(enumerate(frames, 1))
    without_data = {
        int(row["flow"])
        for row in manifest(out)
        if original[int(row["frame"])][1][47] & 3 and row["what"] == "loss"
    }
    flow_of = {row["client_port"]: n for n, row in suffered(out).items()}
    assert gaps <= lost
    assert {flow_of[port] for port in lost - gaps} <= without_data


def test_tshark_sees_late_segments_where_they_are(tmp_path: Path) -> None:
    """Full segments in one direction, 0.1 ms apart: each late one is out of order."""
    frames = []
    for i in range(1, 9):
        talk = Talk(sport=i, start=T0 + i * 20 * MS).open()
        for _ in range(60):
            talk.tcp(1, "PA", b"r" * 1000)
            talk.time -= 9 * MS + 900_000
        frames += talk.tcp(0, "A").close().frames
    frames.sort(key=lambda frame: frame[0])
    source, out = write_pcap(tmp_path / "in.pcap", frames), tmp_path / "out.pcap"
    report = impair(source, out, 4, [Fault("reorder", 0.05, amount=2)])
    said = {
        int(r["out_frame"]): r for r in manifest(out) if len(frames[int(r["frame"]) - 1][1]) > 60
    }
    assert len(said) > 10 and report.packets_out == len(frames)
    fields = ("out_of_order", "retransmission", "fast_retransmission")
    rows = tshark(out, "frame.number", *(f"tcp.analysis.{name}" for name in fields))
    seen = {int(number) for number, *marks in rows if any(marks)}
    assert {n for n in seen if n in said} == set(said)
    assert all(len(records(out)[n - 1][3]) < 60 for n in seen - set(said))
    # No byte is missing, and no flow is in another state.
    assert report.flows.totals["with_gap"] == report.flows.totals["split"] == 0


def test_late_by_as_many_packets_as_asked(tmp_path: Path) -> None:
    frames = [(T0 + n * 1000, bytes(ETHER / IP() / UDP() / Raw(bytes([n])))) for n in range(200)]
    source = write_pcap(tmp_path / "in.pcap", frames)
    impair(source, tmp_path / "out.pcap", 4, [Fault("reorder", 0.05, amount=3)])
    order = [record[3][42] for record in records(tmp_path / "out.pcap")]
    late = {frame - 1 for frame in hit(tmp_path / "out.pcap", "reorder")}
    assert late
    # RFC 4737: reordered is what has a higher number before it; its extent counts how many.
    for place, number in enumerate(order):
        ahead = sum(other > number for other in order[:place])
        assert ahead == (3 if number in late else 0)


def test_a_pause_is_not_stretched_into_a_late_packet(tmp_path: Path) -> None:
    frames = [(T0 + n * 2 * 10**9, bytes(ETHER / IP() / UDP())) for n in range(20)]
    source = write_pcap(tmp_path / "in.pcap", frames)
    report = impair(source, tmp_path / "out.pcap", 4, [Fault("reorder", 1.0)])
    assert report.touched["reorder"] == 0
    assert (tmp_path / "out.pcap").read_bytes() == source.read_bytes()


def test_editcap_takes_out_exactly_the_duplicates(tmp_path: Path) -> None:
    source, out = write_pcap(tmp_path / "in.pcap", conversations(30)), tmp_path / "out.pcap"
    report = impair(source, out, 2, [Fault("duplicate", 0.1)])
    command = ["editcap", "-F", "pcap", "-D", "2", str(out), str(tmp_path / "single.pcap")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{report.touched['duplicate']} packets skipped" in done.stdout + done.stderr
    assert records(tmp_path / "single.pcap") == records(source)


def checksums(path: Path) -> tuple[set[int], set[int]]:
    """Frames whose transport, and whose IPv4 header checksum is wrong, by tshark."""
    options = [
        part for name in ("ip", "tcp", "udp") for part in ("-o", f"{name}.check_checksum:TRUE")
    ]
    fields = ("frame.number", "tcp.checksum.status", "udp.checksum.status", "icmp.checksum.status")
    rows = tshark(path, *fields, "ip.checksum.status", options=tuple(options))
    transport = {int(row[0]) for row in rows if "0" in row[1:4]}
    return transport, {int(row[0]) for row in rows if row[4] == "0"}


def test_tshark_finds_exactly_the_wrong_checksums(tmp_path: Path) -> None:
    source, out = write_pcap(tmp_path / "in.pcap", conversations(30)), tmp_path / "out.pcap"
    assert checksums(source) == (set(), set())
    asked = [Fault("corrupt", 0.2), Fault("corrupt-ip", 0.1), Fault("payload", 0.3)]
    impair(source, out, 9, asked)
    rows = manifest(out)
    # The last of two changes to a checksum counts: a flipped payload keeps it right.
    transport = {int(r["out_frame"]) for r in rows if r["checksum_at"] and "corrupt" in kinds(r)}
    header = {int(r["out_frame"]) for r in rows if r["header_checksum_at"]}
    assert checksums(out) == (transport, header)
    assert len(transport) > 20 and len(header) > 10


def kinds(row: dict[str, str]) -> list[str]:
    return row["what"].split("+")


def test_payload_changes_by_one_bit_and_its_checksum_is_right(tmp_path: Path) -> None:
    source, out = write_pcap(tmp_path / "in.pcap", conversations(20)), tmp_path / "out.pcap"
    impair(source, out, 9, [Fault("payload", 1.0)])
    assert checksums(out) == (set(), set())
    changed = 0
    for before, after in zip(records(source), records(out), strict=True):
        one, other = (dpkt.ethernet.Ethernet(record[3]).data for record in (before, after))
        if isinstance(one, dpkt.arp.ARP):
            assert one.pack() == other.pack()
            continue
        one, other = (
            p.data.data.data if hasattr(p.data.data, "data") else p.data.data for p in (one, other)
        )
        bits = sum((a ^ b).bit_count() for a, b in zip(bytes(one), bytes(other), strict=True))
        assert bits == (1 if len(bytes(one)) else 0)
        changed += bits
    assert changed == len(hit(out, "payload")) > 50


def test_cut_packets_keep_their_length_on_the_wire(tmp_path: Path) -> None:
    source, out = write_pcap(tmp_path / "in.pcap", conversations(20)), tmp_path / "out.pcap"
    impair(source, out, 9, [Fault("truncate", 0.3, amount=100)])
    rows = tshark(out, "frame.number", "frame.cap_len", "frame.len")
    cut = {int(number) for number, caplen, wirelen in rows if caplen != wirelen}
    assert cut == hit(out, "truncate", "out_frame")
    assert {caplen for _, caplen, wirelen in rows if caplen != wirelen} == {"100"}


def test_jitter_delays_and_keeps_the_order_in_flows(tmp_path: Path) -> None:
    frames = conversations(20)
    source, out = write_pcap(tmp_path / "in.pcap", frames), tmp_path / "out.pcap"
    report = impair(source, out, 9, [Fault("jitter", amount=0.05)])
    assert report.touched["jitter"] == len(frames)
    before = {n: when(record) for n, record in enumerate(records(source), 1)}
    last: dict[str, int] = {}
    delays = []
    for row in manifest(out):
        delays.append(int(row["time_ns"]) - before[int(row["frame"])])
        assert last.get(row["flow"], 0) < int(row["frame"])
        last[row["flow"]] = int(row["frame"])
    assert 0 <= min(delays) < max(delays) <= 50 * MS
    assert 20 * MS < sum(delays) / len(delays) < 36 * MS
    # Other flows' packets do change places: the frames are not in the input's order.
    order = [int(row["frame"]) for row in manifest(out)]
    assert order != sorted(order)
    assert report.flows.totals["with_gap"] == report.flows.totals["state_changed"] == 0


def test_what_flows_suffer(tmp_path: Path) -> None:
    """A flow loses one chosen packet: the report says what that makes of it."""
    frames = Talk().whole(1).frames
    source, out = write_pcap(tmp_path / "in.pcap", frames), tmp_path / "out.pcap"
    for number, reason, gap in ((0, "midstream", 0), (4, "capture-loss", 1000), (6, "", 0)):
        seed = next(seed for seed in range(10_000) if lost_by(seed, len(frames)) == [number])
        impair(source, out, seed, [Fault("loss", 0.1)])
        assert [int(row["frame"]) for row in manifest(out)] == [number + 1]
        (row,) = suffered(out).values()
        assert row["packets"] == {"loss": 1} and row["flows_after"] == 1
        assert (row["reason"], row["reason_after"], row["gap_bytes"]) == ("", reason, gap)


def test_a_connection_without_its_handshake_joins_the_one_before(tmp_path: Path) -> None:
    """Same ports again, SYN and SYN-ACK lost: the second is no flow of its own any more."""
    first = Talk().whole(1)
    second = Talk(start=T0 + 5 * 10**9, isn=(70_000, 90_000)).whole(1)
    frames = first.frames + second.frames
    source, out = write_pcap(tmp_path / "in.pcap", frames), tmp_path / "out.pcap"
    due = [len(first.frames), len(first.frames) + 1]
    seed = next(seed for seed in range(10_000) if lost_by(seed, len(frames)) == due)
    report = impair(source, out, seed, [Fault("loss", 0.1)])
    assert (report.flows_in, report.flows_out) == (2, 1)
    assert report.flows.totals["gone"] == 1
    rows = suffered(out)
    assert rows[1]["flows_after"] == 0 and rows[1]["state_after"] == ""
    assert 0 not in rows or rows[0]["flows_after"] == 1


def lost_by(seed: int, packets: int) -> list[int]:
    key, limit = stream_key(seed, "loss"), threshold(0.1)
    return [n for n in range(packets) if happens(key, n, limit)]


def test_errors(tmp_path: Path) -> None:
    source = write_pcap(tmp_path / "in.pcap", conversations(1))
    for asked, part in (
        (("blur", 0.1), "no impairment 'blur'"),
        (("loss", 1.5), "the rate 1.5 is not between 0 and 1"),
        (("loss", float("nan")), "the rate nan is not"),
        (("loss", 0.1, 2.0), "share of flows 2 is not"),
        (("loss", 0.1, 1.0, 3.0), "takes a rate only"),
        (("reorder", 0.1, 1.0, 0.5), "a whole number from 1"),
        (("reorder", 0.1, 1.0, float("nan")), "a whole number from 1"),
        (("truncate", 0.1, 1.0, 0), "a whole number from 1"),
        (("jitter", 0.1, 1.0, -1), "seconds"),
    ):
        with pytest.raises(PcapError, match=part):
            Fault(*asked)  # type: ignore[arg-type]
    with pytest.raises(PcapError, match="given twice"):
        impair(source, tmp_path / "out.pcap", 1, [Fault("loss", 0.1), Fault("loss", 0.2)])
    with pytest.raises(EmptyCapture, match="every packet would be lost"):
        impair(source, tmp_path / "out.pcap", 1, [Fault("loss", 1.0)])
    with pytest.raises(OutputError, match="also an input"):
        impair(source, source, 1, [])
    assert [path.name for path in tmp_path.iterdir()] == ["in.pcap"]
