"""Mixed captures: dimensions as other tools measure them, and every flow whole and its own."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import dpkt
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from synth import MS, T0, Frame, Talk, tshark, write_pcap

from pcap_tools.capture import open_capture
from pcap_tools.classes import Mix, MixClass, read_mix
from pcap_tools.dimensions import Rate
from pcap_tools.errors import EmptyCapture, MixError, OutputError
from pcap_tools.flows import flow_table
from pcap_tools.mix import MixOptions, MixPlan, MixReport, plan_mix, write_mix

TLS = b"\x16\x03\x01\0\x40\x01" + bytes(63)
ETHER = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")
SECOND = 10**9


def corpus() -> list[Frame]:
    """Web of all sizes, TLS, DNS, ping and ARP within ten seconds; flow k's port is 40000 + k."""
    frames: list[Frame] = []
    for i in range(40):
        talk = Talk(sport=40000 + i, start=T0 + i * 200 * MS, client=f"10.0.0.{i % 5 + 1}").open()
        if i % 4 == 0:
            talk.dport = 443
            talk.frames.clear()
            talk.time, talk.seq = talk.start, list(talk.isn)
            talk.open().tcp(0, "PA", TLS).tcp(1, "PA", TLS)
        frames += talk.talk(i % 7 + 1).close().frames
        if i % 3 == 0:
            dns = Talk(sport=50000 + i, dport=53, start=T0 + i * 190 * MS)
            frames += dns.udp(0, b"\xab\xcd\x01\0\0\x01").udp(1, b"\xab\xcd\x81\0" * 20).frames
    six = Talk("2001:db8::1", "2001:db8:1::2", sport=48000, start=T0 + 33 * MS)
    frames += six.whole(3).frames
    ping = ETHER / IP(src="10.0.0.9", dst="192.0.2.1") / ICMP() / Raw(b"p" * 56)
    frames += [(T0 + 7 * SECOND, bytes(ping)), (T0 + 6 * SECOND, bytes(ETHER / ARP()))]
    return sorted(frames, key=lambda frame: frame[0])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pcap(tmp_path_factory.mktemp("mix") / "in.pcap", corpus())


def mixed(source: Path, output: Path, **options: object) -> tuple[MixPlan, MixReport]:
    with open_capture(source) as capture:
        plan = plan_mix(capture, MixOptions(**options))  # type: ignore[arg-type]
        return plan, write_mix(capture, plan, output)


def planned(source: Path, **options: object) -> MixPlan:
    with open_capture(source) as capture:
        return plan_mix(capture, MixOptions(**options))  # type: ignore[arg-type]


def packets(path: Path) -> list[tuple[int, bytes]]:
    with path.open("rb") as stream:
        return [(round(float(t) * 1e6) * 1000, frame) for t, frame in dpkt.pcap.Reader(stream)]


def ends(frame: bytes) -> tuple[object, ...] | None:
    """The endpoints of a frame, whichever way it goes, read by dpkt."""
    ip = dpkt.ethernet.Ethernet(frame).data
    if not isinstance(ip, dpkt.ip.IP | dpkt.ip6.IP6):
        return None
    if isinstance(ip.data, dpkt.icmp.ICMP):
        return (1, frozenset([ip.src, ip.dst]))
    return (ip.p, frozenset([(ip.src, ip.data.sport), (ip.dst, ip.data.dport)]))


def test_nothing_asked_is_the_flows_as_they_were(source: Path, tmp_path: Path) -> None:
    plan, report = mixed(source, tmp_path / "out.pcap")
    # Packets of one microsecond may change places.
    assert sorted(packets(tmp_path / "out.pcap")) == sorted(
        packet for packet in packets(source) if ends(packet[1])
    )
    assert plan.outside == 1 and plan.before == plan.after
    assert report.flows_found == len(report.replicas) == len(plan.traits)


def test_dimensions_are_what_other_tools_measure(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    plan, _ = mixed(
        source, out, flows=300, targets={"packets-per-flow": 14.0, "encrypted": 0.5, "udp": 0.2}
    )
    after = plan.after
    assert not plan.missed() and after.flows == 300
    done = subprocess.run(
        ["capinfos", "-M", "-T", "-c", "-d", "-r", str(out)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [int(cell) for cell in done.stdout.split()[1:3]] == [after.packets, after.bytes]
    rows = tshark(out, "frame.len", "tcp.stream", "udp.stream", "frame.protocols", "tcp.port")
    streams = {row[1] for row in rows if row[1]}, {row[2] for row in rows if row[2]}
    assert len(streams[0]) == after.protocols["tcp"][0]
    assert len(streams[1]) == after.protocols["udp"][0] == pytest.approx(60, abs=1)
    tls = {row[1] for row in rows if ":tls" in row[3]}
    octets = sum(int(row[0]) for row in rows if row[1] in tls)
    assert octets == after.encrypted_bytes
    assert octets / after.bytes == pytest.approx(0.5, rel=0.02)
    assert after.packets / 300 == pytest.approx(14, rel=0.02)


def each_flow_is_its_source(source: Path, output: Path, plan: MixPlan) -> None:
    """By the manifest alone: same packets, shifted, with another client port; and fresh."""
    rows = json.loads(Path(f"{output}.mix.json").read_text())["flows"]
    assert Counter(row["source"] for row in rows) == Counter(
        {n: int(c) for n, c in enumerate(plan.copies) if c}
    )
    table = flow_table(source)
    originals: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for owner, packet in zip(table.owner.tolist(), packets(source), strict=True):
        originals[owner].append(packet)
    found: dict[object, list[tuple[int, bytes]]] = defaultdict(list)
    for packet in packets(output):
        found[ends(packet[1])].append(packet)
    assert len(found) == len(rows)
    starts = []
    for row in rows:
        before = originals[row["source"]]
        client = int(table.rows["port"][row["source"], 0])
        expected = [
            (time + row["shift_ns"], ported(frame, client, row["client_port"]))
            for time, frame in before
        ]
        key = ends(expected[0][1])
        assert found[key] == expected
        assert (row["copy"] == 0) == (row["shift_ns"] == 0 and row["client_port"] == client)
        starts.append(expected[0][0])
    assert starts == sorted(starts)


def ported(frame: bytes, old: int, new: int) -> bytes:
    """The frame with another client port and the checksum that dpkt computes."""
    if old == new:
        return frame
    ether = dpkt.ethernet.Ethernet(frame)
    layer = ether.data.data
    if layer.sport == old:
        layer.sport = new
    else:
        layer.dport = new
    layer.sum = 0
    if isinstance(ether.data, dpkt.ip.IP):
        ether.data.sum = 0  # dpkt then computes both
    return bytes(ether)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flows=st.integers(1, 400),
    seed=st.integers(0, 50),
    weights=st.tuples(*[st.floats(0.01, 3)] * 3),
)
def test_every_flow_is_whole_and_has_its_own_ends(
    source: Path, tmp_path: Path, flows: int, seed: int, weights: tuple[float, float, float]
) -> None:
    classes = tuple(
        MixClass(name, match, None, weight)
        for name, match, weight in zip(
            ("web", "tls", "dns"), ({"port": 80}, {"port": 443}, {"port": 53}), weights, strict=True
        )
    )
    plan, report = mixed(
        source, tmp_path / "out.pcap", mix=Mix(classes, rest=1e-6), flows=flows, seed=seed
    )
    assert plan.after.flows in (flows, flows - 1)  # ping may be there once only
    times = [time for time, _ in packets(tmp_path / "out.pcap")]
    assert times == sorted(times)
    assert report.flows_found == len(report.replicas)
    each_flow_is_its_source(source, tmp_path / "out.pcap", plan)


def test_copies_have_right_checksums_and_spread_evenly(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    plan, report = mixed(source, out, flows=2000, mix=Mix(rest=0.0, classes=(
        MixClass("one", {"port": 80, "packets": "12-15"}), MixClass("dns", {"port": 53})
    )))  # fmt: skip
    names = ("ip", "tcp", "udp")
    options = [part for name in names for part in ("-o", f"{name}.check_checksum:TRUE")]
    rows = tshark(out, *(f"{name}.checksum.status" for name in names), options=tuple(options))
    assert Counter(status for row in rows for status in row if status) == {"1": 2 * len(rows)}
    # New flows a tenth of the span: within a few flows of each other.
    starts = report.replicas["start_ns"] - plan.traits.table.first_ns
    span = plan.traits.table.last_ns - plan.traits.table.first_ns
    counts = np.bincount(starts * 10 // (span + 1), minlength=10)
    assert counts.min() > 190 and counts.max() < 210
    assert set(report.replicas["port"][report.replicas["copy"] > 0] >= 32768) == {True}


def test_a_seed_repeats(source: Path, tmp_path: Path) -> None:
    digests = [
        mixed(source, tmp_path / "out.pcap", flows=77, seed=seed)[1].sha256 for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_nanoseconds_and_microseconds_keep_distances_in_flows(tmp_path: Path) -> None:
    frames = [(time + 123, frame) for time, frame in corpus()]
    source = write_pcap(tmp_path / "in.pcap", frames, nanoseconds=True)
    plan, report = mixed(source, tmp_path / "out.pcap", flows=200)
    assert report.flows_found == plan.after.flows == 200
    span = plan.before.seconds / plan.before.flows
    assert plan.after.seconds / 200 == pytest.approx(span, rel=0.2)
    found = flow_table(tmp_path / "out.pcap").rows
    lasting = plan.traits.table.rows["last_ns"] - plan.traits.table.rows["first_ns"]
    assert (found["last_ns"] - found["first_ns"] == lasting[report.replicas["flow"]]).all()


def test_flow_rate_apart_from_packet_rate(source: Path) -> None:
    """The same packets a second, at two rates of new flows."""
    for fps in (100.0, 160.0):
        rates = (Rate(2000.0, "pps"), Rate(fps, "fps"))
        plan = planned(source, rates=rates, flows=1000)
        at = plan.after.at(rates[0])
        assert at["pps"] == pytest.approx(2000) and at["fps"] == pytest.approx(fps, rel=0.02)
    with pytest.raises(MixError, match="same unit"):
        planned(source, rates=(Rate(1.0, "pps"), Rate(2.0, "pps")))


def test_attack_share_from_a_reference_and_from_labels(source: Path, tmp_path: Path) -> None:
    event = ("TCP", "10.0.0.3", 40002, "198.51.100.7", 80)
    again = ("udp", "198.51.100.7", 53, "10.0.0.1", 50003)
    plan = planned(source, events=(event, again), flows=1000, targets={"attack": 0.3})
    assert plan.before.attack_flows == 2
    assert plan.after.attack == pytest.approx(0.3, abs=0.002)
    number = next(n for n, port in enumerate(plan.traits.table.rows["port"][:, 0]) if port == 40002)
    labels = tmp_path / "labels.csv"
    labels.write_text(f"flow,label,weight\n{number},attack,\n1,,0\n")
    plan = planned(source, labels=labels, targets={"attack": 0.0})
    assert plan.copies[number] == plan.copies[1] == 0 and plan.after.attack == 0
    with pytest.raises(MixError, match="no flow is labelled attack"):
        planned(source, targets={"attack": 0.5})
    with pytest.raises(MixError, match="names no flow of this capture"):
        planned(source, events=(("tcp", "10.9.9.9", 1, "10.0.0.1", 2),))
    for text, part in (
        ("a,b\n", "wanted are a column flow"),
        ("flow,label\n99999,x\n", ":2: there is no flow 99999"),
        ("flow,label\n0,y\nx,x\n", ":3: invalid literal"),
        ("flow,weight\n0,-1\n", ":2: weight -1"),
    ):
        labels.write_text(text)
        with pytest.raises(MixError, match=part):
            planned(source, labels=labels)


def test_shares_of_flows_packets_and_bytes(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "mix.toml"
    for place, unit in enumerate(("flows", "packets", "bytes")):
        file.write_text(
            f'of = "{unit}"\nflows = 3000\n'
            '[[class]]\nname = "dns"\nmatch = {proto = "udp", port = 53}\nshare = 0.1\n'
            '[[class]]\nname = "tls"\nmatch = {encrypted = true}\nshare = 0.6\n'
            '[[class]]\nname = "long"\nmatch = {packets = "20-", state = ["SF"]}\nweight = 2\n'
        )
        after = planned(source, mix=read_mix(file)).after
        total = (after.flows, after.packets, after.bytes)[place]
        assert after.classes["dns"][place] / total == pytest.approx(0.1, rel=0.02)
        assert after.classes["tls"][place] / total == pytest.approx(0.6, rel=0.02)
        # The remainder goes to the others as 2 × theirs to 1 × theirs.
        before = planned(source, mix=read_mix(file)).before.classes
        old = before["long"][place] / before["rest"][place]
        new = after.classes["long"][place] / after.classes["rest"][place]
        assert new == pytest.approx(2 * old, rel=0.1)  # ping cannot be copied


def test_mix_files_that_are_wrong(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "mix.toml"
    one = "[[class]]\nweight = 1\n"
    for text, part in (
        ("of = 3", "wanted is flows, packets or bytes"),
        ("flows = 0", "whole number from 1"),
        ("speed = 1", "unknown key 'speed'"),
        ("class = 3", r"written as \[\[class\]\]"),
        ("[[class]]", "give either share or weight"),
        ("[[class]]\nshare = 1.5", "a number from 0 to 1"),
        ("[[class]]\nweight = true", "a number from 0"),
        (one + "name = 'rest'", "is there twice"),
        (one + "match = 3", "match is a table"),
        (one + "match = {colour = 1}", "unknown key 'colour'"),
        (one + "match = {proto = 'tpc'}", "wanted is a name such as tcp"),
        (one + "match = {state = 'XX'}", "there are S0"),
        (one + "match = {port = 'a-b'}", "a range such as"),
        (one + "match = {encrypted = 'rot13'}", "wanted is true, false or tls"),
        ("[[class]]\nshare = 0.7\n[[class]]\nshare = 0.7", "come to more than 1"),
        ("[[class]]\nshare = 0.5\nmatch = {port = 1}", "no flow of the capture matches"),
        ("rest = 0\n[[class]]\nshare = 0.5\nmatch = {port = 53}", "nothing for the remainder"),
        ("rest = 0", "every flow has weight 0"),
        ("x", "is not TOML"),
    ):
        file.write_text(text)
        with pytest.raises(MixError, match=part):
            planned(source, mix=read_mix(file))


def test_what_cannot_be_had_is_said_with_the_nearest(source: Path, tmp_path: Path) -> None:
    with pytest.raises(MixError, match=r"packets-per-flow=900 \(nearest 36; flows have 1 to 36\)"):
        planned(source, targets={"packets-per-flow": 900.0})
    plan = planned(source, targets={"packets-per-flow": 900.0}, nearest=True)
    assert plan.after.packets_per_flow == 36 and plan.missed()
    for name, value, part in (
        ("speed", 1.0, "no dimension 'speed'"),
        ("encrypted", 1.5, "a share from 0 to 1"),
        ("frame-size", 0.0, "a number above 0"),
        ("udp", float("nan"), "a share from 0 to 1"),
    ):
        with pytest.raises(MixError, match=part):
            planned(source, targets={name: value})
    with pytest.raises(MixError, match="can be made"):
        planned(source, flows=5, mix=Mix((MixClass("ping", {"proto": "icmp"}),), rest=0.0))
    arp = write_pcap(tmp_path / "arp.pcap", [(T0, bytes(ETHER / ARP()))])
    with pytest.raises(EmptyCapture, match="no flow in it"):
        planned(arp)
    for text in ("5", "-1fps", "1e99pps", "kpps", "5 mps"):
        with pytest.raises(MixError, match="as 20kpps"):
            Rate.parse(text)
    assert Rate.parse("1.5Gbps") == Rate(1.5e9, "bps")


def test_client_ports_run_out(tmp_path: Path) -> None:
    source = write_pcap(tmp_path / "in.pcap", Talk().udp(0).frames)
    with pytest.raises(MixError, match="no free client port left"):
        mixed(source, tmp_path / "out.pcap", flows=32_770)
    plan, report = mixed(source, tmp_path / "out.pcap", flows=32_768)
    assert report.flows_found == plan.after.flows == len(set(report.replicas["port"].tolist()))


def test_a_udp_checksum_never_becomes_none(tmp_path: Path) -> None:
    """Over all client ports the sum passes 0, which is sent as 0xffff (RFC 768)."""
    source = write_pcap(tmp_path / "in.pcap", Talk(sport=0xFFFF).udp(0, b"\xe0\x70").frames)
    mixed(source, tmp_path / "out.pcap", flows=32_768)
    sums = Counter(frame[40:42] for _, frame in packets(tmp_path / "out.pcap"))
    assert sums[b"\xff\xff"] == 1 and sums[b"\0\0"] == 0 and len(sums) == 32_768


def test_letting_go_of_scratch_pages_loses_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, kept = mixed(source, tmp_path / "kept.pcap", flows=500)
    monkeypatch.setattr("pcap_tools.assemble._RESIDENT", 1)
    _, trimmed = mixed(source, tmp_path / "trimmed.pcap", flows=500)
    assert trimmed.sha256 == kept.sha256


def test_no_room_for_scratch(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pcap_tools.assemble.os.posix_fallocate", full)
    with pytest.raises(OutputError, match=r"no room for .* bytes of scratch: No space left"):
        mixed(source, tmp_path / "out.pcap")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="also an input"):
        mixed(source, source)
