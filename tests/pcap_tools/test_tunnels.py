"""Inner packets against tshark's innermost layers and Suricata's flow records."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.contrib.erspan import ERSPAN_I, ERSPAN_II, ERSPAN_III, ERSPAN_PlatformSpecific
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, GRE_PPTP, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw
from synth import MS, T0, write_pcap

from pcap_tools.capture import Batch, open_capture
from pcap_tools.decode import Decoder
from pcap_tools.flows import FlowTable, flow_table
from pcap_tools.packet import FRAGMENT, PACKET, PORTS, SNAPPED, TUNNELLED, VERIFIABLE
from pcap_tools.packet import IP as IP_BIT
from pcap_tools.table import flow_columns
from pcap_tools.tunnels import DEPTH, inner_frame

BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "corpora"
CORPORA = Path(os.environ.get("PROBEBENCH_CORPORA", BESIDE))

ETHER = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")
OUTER = ETHER / IP(src="192.0.2.1", dst="192.0.2.2")
SIX = ETHER / IPv6(src="2001:db8:a::1", dst="2001:db8:a::2")
INNER = IP(src="10.1.2.3", dst="203.0.113.9", id=7) / TCP(sport=1234, dport=80, seq=9) / Raw(b"hi")
INNER6 = IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1234, dport=80) / Raw(b"hello")
BRIDGED = Ether(src="0a:00:00:00:00:01", dst="0e:00:00:00:00:02") / INNER
VLANS = Ether(src="0a:00:00:00:00:01", dst="0e:00:00:00:00:02") / Dot1Q(vlan=5) / INNER6
FAR = Ether(src="0a:00:00:00:00:01", dst="a2:00:00:00:00:02") / INNER
PSEUDOWIRE = MPLS(label=16, s=1, ttl=9)
CONTROLLED = MPLS(label=18, s=1, ttl=9)
AUTH = b"\0\1\2\3" + b"idkey" + bytes(8) + b"\0"
ORIGIN = b"\0\0" + b"\xfe\xed\xfe\xed\xfe\xed"

FRAMES: dict[str, Packet] = {
    "ipip": OUTER / INNER,
    "6in4": OUTER / INNER6,
    "4in6": SIX / INNER,
    "mpls in ip": OUTER.copy() / MPLS(label=16, s=1) / INNER,
    "gre": OUTER / GRE() / INNER,
    "gre checksum key sequence": OUTER
    / GRE(chksum_present=1, key_present=1, seqnum_present=1, key=77)
    / INNER6,
    "gre bridged": OUTER / GRE(proto=0x6558) / BRIDGED,
    "nvgre": OUTER / GRE(proto=0x6558, key_present=1, key=0x123400) / VLANS,
    "gre mpls": OUTER / GRE(proto=0x8847) / PSEUDOWIRE / INNER,
    "pptp": OUTER / GRE_PPTP(seqnum_present=1, call_id=3) / PPP() / INNER,
    "pptp acknowledged": OUTER
    / GRE_PPTP(seqnum_present=1, acknum_present=1, call_id=3)
    / Raw(b"\xff\x03\x00\x21" + bytes(INNER)),
    "pptp short protocol": OUTER
    / GRE_PPTP(seqnum_present=1, call_id=3)
    / Raw(b"\x21" + bytes(INNER)),
    "erspan 1": OUTER / GRE(proto=0x88BE) / ERSPAN_I() / BRIDGED,
    "erspan 2": OUTER / GRE(proto=0x88BE, seqnum_present=1) / ERSPAN_II(session_id=3) / BRIDGED,
    "erspan 3": OUTER / GRE(proto=0x22EB, seqnum_present=1) / ERSPAN_III() / VLANS,
    "erspan 3 platform": OUTER
    / GRE(proto=0x22EB, seqnum_present=1)
    / ERSPAN_III(o=1)
    / ERSPAN_PlatformSpecific()
    / BRIDGED,
    "vxlan": OUTER / UDP(sport=9, dport=4789) / VXLAN(vni=42) / BRIDGED,
    "vxlan linux": SIX / UDP(sport=9, dport=8472) / VXLAN(vni=42) / VLANS,
    "geneve": OUTER / UDP(sport=9, dport=6081) / GENEVE(vni=3, proto=0x6558) / BRIDGED,
    "geneve options": OUTER
    / UDP(sport=9, dport=6081)
    / GENEVE(vni=3, proto=0x6558, options=[GeneveOptions(type=1, data=b"12345678")])
    / VLANS,
    "geneve ip": OUTER / UDP(sport=9, dport=6081) / GENEVE(proto=0x0800) / INNER,
    "gtp": OUTER / UDP(sport=2152, dport=2152) / GTP_U_Header(teid=99, gtp_type=255) / INNER,
    "gtp sequence": OUTER
    / UDP(sport=2152, dport=2152)
    / GTP_U_Header(teid=99, gtp_type=255, S=1, seq=4)
    / INNER6,
    "gtp extension": OUTER
    / UDP(sport=2152, dport=2152)
    / GTP_U_Header(teid=99, gtp_type=255, E=1, next_ex=0x85)
    / GTPPDUSessionContainer(type=1, QFI=9)
    / INNER,
    "teredo": OUTER / UDP(sport=3544, dport=40000) / Raw(bytes(INNER6)),
    "teredo indications": OUTER / UDP(sport=40000, dport=3544) / Raw(AUTH + ORIGIN + bytes(INNER6)),
    "nested": OUTER
    / UDP(sport=9, dport=4789)
    / VXLAN(vni=42)
    / Ether(src="02:00:00:00:00:03", dst="02:00:00:00:00:04")
    / IP(src="172.16.0.1", dst="172.16.0.2")
    / GRE()
    / INNER,
}
LINK_LAYER: dict[str, Packet] = {
    "three tags": ETHER / Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / INNER,
    "pseudowire": ETHER / MPLS(label=17, s=1, ttl=9) / FAR,
    "pseudowire and control word": ETHER / CONTROLLED / Raw(bytes(4) + bytes(BRIDGED)),
    "pseudowire and tag": ETHER / CONTROLLED / Raw(bytes(4) + bytes(VLANS)),
    "pppoe and mpls": ETHER / PPPoE(sessionid=1) / PPP(proto=0x281) / MPLS(label=3, s=1) / INNER,
    "mpls in a tag": ETHER / Dot1Q(vlan=9) / MPLS(label=3, s=0) / MPLS(label=4, s=1) / INNER6,
}
FRAMES["mpls in ip"][IP].proto = 137


def decode(frame: bytes, *, wirelen: int = 0, after: bytes = b"", inner: bool = True) -> Any:
    """The row of one frame, which `after` follows in the buffer."""
    batch = Batch(
        np.frombuffer(b"\xaa" * 7 + frame + after, np.uint8).copy(),
        np.array([7]),
        np.array([len(frame)], np.uint32),
        np.array([wirelen or len(frame)], np.uint32),
        np.array([0]),
        1,
        0,
    )
    return Decoder(inner)(batch)[0]


def described(row: Any) -> tuple[str, str, str, str]:
    """Addresses and ports of a row, as tshark writes them."""
    kind = ipaddress.IPv4Address if row["version"] == 4 else ipaddress.IPv6Address
    ends = [kind(int(row[f"{e}_hi"]) << 64 | int(row[f"{e}_lo"])) for e in ("src", "dst")]
    ported = row["flags"] & PORTS and row["proto"] in (6, 17, 132)
    ports = [str(row[name]) if ported else "" for name in ("sport", "dport")]
    if not row["version"]:
        return ("", "", *ports)  # type: ignore[return-value]
    return (str(ends[0]), str(ends[1]), *ports)  # type: ignore[return-value]


def innermost(path: Path) -> list[tuple[str, str, str, str]]:
    """tshark's last addresses and ports of each packet."""
    fields = ["frame.protocols"]
    fields += [f"{p}.{e}" for p in ("ip", "ipv6") for e in ("src", "dst")]
    fields += [f"{p}.{e}port" for p in ("tcp", "udp", "sctp") for e in ("src", "dst")]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "occurrence=l"]
    command += ["-o", "ip.defragment:FALSE", "-d", "udp.port==8472,vxlan"]
    # tshark cannot guess either whether a pseudowire has a control word.
    command += ["-d", "mpls.label==17,pwethnocw", "-d", "mpls.label==18,pwethcw"]
    for quoting in ("icmp", "icmpv6"):  # the packet they quote is not a tunnel's
        command += ["--disable-protocol", quoting]
    for name in fields:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = []
    for line in done.stdout.split("\n")[:-1]:
        protocols, *values = line.split("\t")
        layers = protocols.split(":")[::-1]
        last = {name: layers.index(name) if name in layers else 99 for name in layers}
        version = min(("ip", "ipv6"), key=lambda name: last.get(name, 99))
        address = values[:2] if version == "ip" else values[2:4]
        transport = [n for n in ("tcp", "udp", "sctp") if last.get(n, 99) < last.get(version, 99)]
        at = 4 + 2 * ("tcp", "udp", "sctp").index(transport[0]) if transport else 0
        ports = values[at : at + 2] if transport else ["", ""]
        found.append((*address, *ports))
    return found  # type: ignore[return-value]


def test_every_tunnels_inner_packet_is_tsharks(tmp_path: Path) -> None:
    frames = {**FRAMES, **LINK_LAYER}
    path = write_pcap(tmp_path / "t.pcap", [(T0, bytes(p)) for p in frames.values()])
    expected = innermost(path)
    for (name, packet), seen in zip(frames.items(), expected, strict=True):
        row = decode(bytes(packet))
        assert (name, described(row)) == (name, seen)
        six = bytes(packet).endswith(bytes(INNER6))
        assert (name, seen[:1]) == (name, ("2001:db8::1",) if six else ("10.1.2.3",))
        assert row["l3"] == len(bytes(packet)) - len(bytes(INNER6 if six else INNER))
        assert row["flags"] & VERIFIABLE
        assert bool(row["flags"] & TUNNELLED) == (name in FRAMES)
        assert row["vlan"] >> 24 == (name in FRAMES) + (name == "nested")


def test_the_outer_reading_is_what_it_was(tmp_path: Path) -> None:
    for name, packet in FRAMES.items():
        row = decode(bytes(packet), inner=False)
        assert row["l3"] == 14, name
        assert not row["flags"] & TUNNELLED
    for name, packet in LINK_LAYER.items():
        outer, inner = (decode(bytes(packet), inner=inner).item() for inner in (False, True))
        assert outer == inner, name


def test_tags_around_and_inside_a_tunnel_are_kept() -> None:
    tagged = ETHER / Dot1Q(vlan=9) / FRAMES["nvgre"][IP]
    assert decode(bytes(tagged))["vlan"] & 0xFFFFFF == 9 << 12 | 5
    assert decode(bytes(ETHER / Dot1Q(vlan=9) / OUTER[IP] / INNER))["vlan"] & 0xFFFFFF == 9


@pytest.mark.parametrize(
    "payload",
    [
        UDP(sport=9, dport=4789) / VXLAN(vni=1) / ETHER / ARP(),
        UDP(sport=9, dport=4789) / VXLAN(flags=0) / BRIDGED,
        UDP(sport=9, dport=4789) / Raw(bytes(range(200))),
        UDP(sport=9, dport=3544) / Raw(b"\x60" + bytes(60)),
        GRE(proto=0x880B) / PPP(proto=0xC021) / Raw(bytes(20)),
        GRE(version=2) / Raw(bytes(40)),
        GRE_PPTP(call_id=3) / Raw(b""),
        UDP(sport=2152, dport=2152) / GTP_U_Header(gtp_type=1),
        GRE() / Raw(bytes(INNER)[:19]),
        GRE() / Raw(b"\x45\0\xff\xff" + bytes(INNER)[4:]),
    ],
    ids=lambda packet: packet.summary()[:30],
)
def test_what_is_no_ip_in_a_tunnel_stays_the_tunnels(payload: Packet) -> None:
    frame = bytes(OUTER / payload)
    assert decode(frame).item() == decode(frame, inner=False).item()


def test_labels_before_something_unknown_are_no_ip() -> None:
    row = decode(bytes(ETHER / MPLS(label=3, s=1) / Raw(b"\x10" + bytes(60))))
    assert (row["version"], row["ethertype"], row["flags"]) == (0, 0x8847, 0)


def test_a_fragmented_tunnel_is_counted_and_stays() -> None:
    packet = OUTER[IP] / GRE() / INNER / Raw(bytes(1400))
    decoder = Decoder(inner=True)
    for piece in fragment(packet, 800):
        frame = np.frombuffer(bytes(ETHER / piece), np.uint8)
        size = np.array([len(frame)], np.uint32)
        row = decoder(Batch(frame, np.array([0]), size, size, np.array([0]), 1, 0))[0]
        assert row["l3"] == 14
    assert (decoder.tunnelled, decoder.opaque) == (0, 2)
    whole = decode(bytes(OUTER / GRE() / fragment(INNER / Raw(bytes(1400)), 800)[0]))
    assert whole["flags"] & (FRAGMENT | PORTS | TUNNELLED) == FRAGMENT | PORTS | TUNNELLED


def test_nesting_ends_at_a_bound() -> None:
    packet = ETHER
    for i in range(DEPTH + 3):
        packet = packet / IP(src=f"192.0.2.{i}", dst="198.51.100.1")
    row = decode(bytes(packet / UDP()))
    assert described(row)[0] == f"192.0.2.{DEPTH}"
    assert row["vlan"] >> 24 == DEPTH


def test_a_cut_inner_packet_is_snapped() -> None:
    for name, packet in FRAMES.items():
        frame = bytes(packet)
        row = decode(frame[:-1], wirelen=len(frame))
        assert (name, row["flags"] & (TUNNELLED | SNAPPED)) == (name, TUNNELLED | SNAPPED)


SEEDS = [bytes(packet) for packet in (*FRAMES.values(), *LINK_LAYER.values())]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A tunnel's frame with some bytes changed and its end cut."""
    frame = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame[: draw(st.integers(0, len(frame)))])


@settings(max_examples=500, deadline=None)
@given(frame=damaged(), cut=st.integers(0, 100))
def test_no_bytes_outside_the_frame_matter(frame: bytes, cut: int) -> None:
    wirelen = len(frame) + cut
    row = decode(frame, wirelen=wirelen).copy()
    for after in (bytes(64), b"\xff" * 64, b"\x45" * 64):
        assert decode(frame, wirelen=wirelen, after=after).item() == row.item()
    if row["flags"] & TUNNELLED:
        assert row["flags"] & IP_BIT
        assert 14 + 20 <= row["l3"] < len(frame)
    if row["flags"] & VERIFIABLE:
        assert row["l3"] + row["ip_len"] <= len(frame)
        assert row["payload"] >= 0


def test_one_kernel_call_does_what_the_decoder_does() -> None:
    frame = np.frombuffer(bytes(FRAMES["nested"]), np.uint8).copy()
    rows, scratch = np.zeros(1, PACKET), np.zeros(1, PACKET)
    rows[0] = decode(bytes(frame), inner=False)
    assert inner_frame(frame.ctypes.data, len(frame), rows[0], scratch[0]) == 2
    assert rows[0].item() == decode(bytes(frame)).item()


def columns_of(table: FlowTable) -> list[dict[str, Any]]:
    columns = flow_columns(table)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def suricata_flows(path: Path, logs: Path) -> list[tuple[Any, ...]]:
    """Suricata's flow records: protocol, ends and packets each way, sorted."""
    command = ["suricata", "-r", str(path), "-l", str(logs), "-S", "/dev/null", "-k", "none"]
    command += ["--set", "decoder.vxlan.ports=[8472, 4789]", "--set", "stream.midstream=true"]
    subprocess.run(command, capture_output=True, check=True)
    found = []
    for line in (logs / "eve.json").read_text().splitlines():
        event = json.loads(line)
        if event["event_type"] == "flow":
            ends = sorted([event["src_ip"], event["dest_ip"]])
            ports = sorted([event.get("src_port", 0), event.get("dest_port", 0)])
            flow = event["flow"]
            packets = sorted([flow["pkts_toserver"], flow["pkts_toclient"]])
            found.append((event["proto"].lower(), *map(expanded, ends), *ports, *packets))
    return sorted(found)


def expanded(address: str) -> str:
    return str(ipaddress.ip_address(address))


def test_flows_by_inner_headers_are_suricatas(tmp_path: Path) -> None:
    """The same conversation outside, in a tunnel, in another of that kind, and in two."""
    segments = [
        IP(src=a, dst=b, id=i) / TCP(sport=p, dport=q, flags=flags, seq=seq, ack=ack)
        for i, (a, b, p, q, flags, seq, ack) in enumerate(
            [
                ("10.0.0.1", "10.0.0.2", 4000, 80, "S", 1, 0),
                ("10.0.0.2", "10.0.0.1", 80, 4000, "SA", 9, 2),
                ("10.0.0.1", "10.0.0.2", 4000, 80, "A", 2, 10),
            ]
        )
    ]
    bridge = Ether(src="0a:00:00:00:00:01", dst="0e:00:00:00:00:02")
    vxlan = [OUTER / UDP(sport=9, dport=4789) / VXLAN(vni=vni) / bridge for vni in (1, 2)]
    wraps = [ETHER, *vxlan, vxlan[0] / OUTER[IP] / GRE()]
    packets = [bytes(wrap / segment) for wrap in wraps for segment in segments]
    path = write_pcap(tmp_path / "t.pcap", [(T0 + i * MS, p) for i, p in enumerate(packets)])
    mine = columns_of(flow_table(path, inner=True))
    assert [(r["client"], r["packets_out"], r["packets_in"]) for r in mine] == [
        ("10.0.0.1", 2, 1),  # outside
        ("10.0.0.1", 4, 2),  # inside VXLAN, whatever the network identifier
        ("10.0.0.1", 2, 1),  # inside GRE inside VXLAN
    ]
    inside = [r for r in suricata_flows(path, tmp_path) if r[1].startswith("10.")]
    assert [record[5:] for record in inside] == [(1, 2), (1, 2), (2, 4)]


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the shared captures are not here")
def test_the_shared_captures_packet_by_packet() -> None:
    for path in sorted(CORPORA.glob("suricata-verify/*.pcap")):
        if path.stat().st_size > 100_000:
            continue
        decoder = Decoder(inner=True)
        mine: list[tuple[str, str, str, str]] = []
        with open_capture(path) as capture:
            for batch in capture.batches():
                mine += [described(row) for row in decoder(batch)]
        assert (path.name, mine) == (path.name, innermost(path))
