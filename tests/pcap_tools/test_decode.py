"""Decoding against scapy, and on bytes that nobody meant to be a packet."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from pcap_tools.capture import Batch
from pcap_tools.decode import decode_rows
from pcap_tools.packet import (
    FOLLOWER,
    FRAGMENT,
    MALFORMED,
    MORE_FRAGMENTS,
    PACKET,
    PORTS,
    SNAPPED,
    VERIFIABLE,
    packet_rows,
)
from pcap_tools.packet import IP as IP_BIT

V4 = IP(src="10.1.2.3", dst="203.0.113.9", id=4242)
V6 = IPv6(src="2001:db8::1:2", dst="2001:db8:ffff::9")
ETHER = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")
SEGMENT = TCP(sport=1234, dport=443, flags="PAE", seq=2**32 - 2, ack=77) / Raw(b"hello")
DATAGRAM = UDP(sport=5353, dport=53) / Raw(b"query")

FRAMES: dict[str, tuple[int, Packet]] = {
    "tcp": (1, ETHER / V4 / SEGMENT),
    "udp": (1, ETHER / V4 / DATAGRAM),
    "options": (1, ETHER / IP(src="10.1.2.3", options=[IPOption_Router_Alert()]) / SEGMENT),
    "icmp": (1, ETHER / V4 / ICMP(type=8, code=0, id=99, seq=3)),
    "unreachable": (1, ETHER / V4 / ICMP(type=3, code=1) / V4 / UDP()),
    "sctp": (1, ETHER / V4 / SCTP(sport=9, dport=10)),
    "vlan": (1, ETHER / Dot1Q(vlan=100) / V4 / SEGMENT),
    "two tags": (1, ETHER / Dot1AD(vlan=7) / Dot1Q(vlan=9) / V6 / DATAGRAM),
    "mpls": (1, ETHER / MPLS(label=5, s=0) / MPLS(label=6, s=1) / V4 / SEGMENT),
    "pppoe": (1, ETHER / PPPoE() / PPP() / V4 / SEGMENT),
    "ipv6 tcp": (1, ETHER / V6 / SEGMENT),
    "ipv6 icmp": (1, ETHER / V6 / ICMPv6EchoRequest(id=11, seq=12)),
    "extensions": (
        1,
        ETHER / V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting() / SEGMENT,
    ),
    "authenticated": (1, ETHER / V4 / AH(nh=6, icv=bytes(12)) / SEGMENT),
    "raw": (101, V4 / SEGMENT),
    "raw ipv6": (229, V6 / DATAGRAM),
    "cooked": (113, CookedLinux(proto=0x0800) / V4 / DATAGRAM),
    "cooked 2": (276, CookedLinuxV2(proto=0x86DD) / V6 / DATAGRAM),
}


def decode(frame: bytes, link: int = 1, wirelen: int = 0, after: bytes = b"") -> Any:
    """The row of one frame, which `after` follows in the buffer."""
    data = np.frombuffer(b"\xaa" * 7 + frame + after, np.uint8).copy()
    batch = Batch(
        data,
        np.array([7]),
        np.array([len(frame)], np.uint32),
        np.array([wirelen or len(frame)], np.uint32),
        np.array([0]),
        link,
        0,
    )
    rows = packet_rows(1)
    rows[:] = np.frombuffer(b"\xee" * PACKET.itemsize, PACKET)  # what a batch before left there
    decode_rows(batch.data, batch.offset, batch.caplen, batch.wirelen, link, rows)
    return rows[0]


def address(row: Any, end: str) -> str:
    number = (int(row[f"{end}_hi"]) << 64) | int(row[f"{end}_lo"])
    kind = ipaddress.IPv4Address if row["version"] == 4 else ipaddress.IPv6Address
    return str(kind(number))


@pytest.mark.parametrize("name", FRAMES)
def test_fields_are_scapys(name: str) -> None:
    link, packet = FRAMES[name]
    frame = bytes(packet)
    packet = packet.__class__(frame)
    row = decode(frame, link)
    inner = packet.getlayer(IP) or packet.getlayer(IPv6)
    assert row["flags"] & IP_BIT
    assert (row["version"], address(row, "src")) == (inner.version, inner.src)
    assert address(row, "dst") == inner.dst
    assert row["l3"] == len(frame) - len(bytes(inner))
    assert row["ip_len"] == len(bytes(inner))
    if name == "authenticated":
        # In IPv4, the authentication header is a protocol of its own.
        assert (row["proto"], row["flags"] & PORTS) == (51, 0)
        return
    assert row["flags"] & (PORTS | VERIFIABLE | MALFORMED | SNAPPED) == PORTS | VERIFIABLE
    layer = (
        next(packet.getlayer(kind) for kind in (TCP, UDP, SCTP, ICMP) if packet.haslayer(kind))
        if not packet.haslayer(ICMPv6EchoRequest)
        else packet[ICMPv6EchoRequest]
    )
    assert row["l4"] == len(frame) - len(bytes(layer))
    if isinstance(layer, ICMP | ICMPv6EchoRequest):
        assert (row["sport"], row["dport"]) == (layer.type, layer.code)
        if layer.type != 3:
            assert (row["ack"], row["seq"]) == (layer.id, layer.seq)
    else:
        assert (row["sport"], row["dport"]) == (layer.sport, layer.dport)
    if isinstance(layer, TCP):
        assert (row["seq"], row["ack"]) == (layer.seq, layer.ack)
        assert row["tcp_flags"] == int(layer.flags)
        assert row["payload"] == len(layer.payload)
    tags = [tag.vlan for tag in packet.iterpayloads() if isinstance(tag, Dot1Q | Dot1AD)]
    assert row["vlan"] == sum(tag << 12 * i for i, tag in enumerate(reversed(tags)))


def test_padding_is_no_payload() -> None:
    frame = bytes(ETHER / V4 / TCP(flags="A"))
    assert decode(frame + bytes(6))["payload"] == 0


def test_fragments_are_told_apart() -> None:
    first = decode(bytes(ETHER / IP(flags="MF") / DATAGRAM))
    assert first["flags"] & (PORTS | FRAGMENT | FOLLOWER | MORE_FRAGMENTS | VERIFIABLE) == (
        PORTS | FRAGMENT | MORE_FRAGMENTS
    )
    last = decode(bytes(ETHER / IP(frag=10, id=8) / DATAGRAM))
    assert last["flags"] & (PORTS | FRAGMENT | FOLLOWER | MORE_FRAGMENTS) == FRAGMENT | FOLLOWER
    assert (last["sport"], last["ip_id"]) == (0, 8)
    sixth = decode(bytes(ETHER / V6 / IPv6ExtHdrFragment(offset=3, m=1, id=2**31) / DATAGRAM))
    assert sixth["flags"] & (FOLLOWER | MORE_FRAGMENTS | PORTS) == FOLLOWER | MORE_FRAGMENTS
    assert (sixth["ip_id"], sixth["proto"]) == (2**31, 17)


def test_cut_frames_are_snapped_and_short_frames_malformed() -> None:
    frame = bytes(ETHER / V4 / SEGMENT)
    for size in range(len(frame)):
        cut = decode(frame[:size], wirelen=len(frame))
        assert cut["flags"] & SNAPPED
        assert not cut["flags"] & (MALFORMED | VERIFIABLE)
        assert bool(cut["flags"] & PORTS) == (size >= 54)
        assert decode(frame[:size])["flags"] & MALFORMED


@pytest.mark.parametrize("name", FRAMES)
def test_what_follows_a_cut_frame_does_not_matter(name: str) -> None:
    link, packet = FRAMES[name]
    frame = bytes(packet)
    for size in range(len(frame)):
        row = decode(frame[:size], link, len(frame))
        for after in (frame[size:], bytes(64), b"\xff" * 64):
            assert decode(frame[:size], link, len(frame), after) == row


@pytest.mark.parametrize(
    ("at", "value"),
    [(14, 0x65), (14, 0x43), (16, 0xFF), (46, 0x10), (46, 0xF0)],
    ids=["version", "header length", "total length", "data offset", "data offset beyond"],
)
def test_headers_that_contradict_themselves(at: int, value: int) -> None:
    frame = bytearray(bytes(ETHER / V4 / SEGMENT))
    frame[at] = value
    row = decode(bytes(frame))
    assert row["flags"] & MALFORMED
    assert not row["flags"] & VERIFIABLE


def test_segmentation_offload_takes_the_length_from_the_frame() -> None:
    frame = bytearray(bytes(ETHER / V4 / TCP()) + bytes(70_000 - 54))
    frame[16:18] = b"\0\0"
    row = decode(bytes(frame))
    assert (row["payload"], row["flags"] & MALFORMED) == (70_000 - 54, 0)


def test_other_than_ip() -> None:
    row = decode(bytes(ETHER / ARP()))
    assert (row["version"], row["l3"], row["flags"], row["ethertype"]) == (0, -1, 0, 0x0806)


SEEDS = [bytes(packet) for link, packet in FRAMES.values() if link == 1]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A frame with some bytes changed and its end cut, or bytes at random."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    frame = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame[: draw(st.integers(0, len(frame)))])


@settings(max_examples=500, deadline=None)
@given(frame=damaged(), cut=st.integers(0, 2000), link=st.sampled_from([0, 1, 101, 113, 276]))
def test_no_bytes_outside_the_frame_matter(frame: bytes, cut: int, link: int) -> None:
    wirelen = len(frame) + cut
    row = decode(frame, link, wirelen)
    for after in (bytes(64), b"\xff" * 64, b"\x45" * 64):
        assert decode(frame, link, wirelen, after) == row
    assert -1 <= row["l3"] <= len(frame)
    if row["flags"] & PORTS:
        assert 0 < row["l3"] + 20 <= row["l4"] < len(frame) or link in (0, 101)
    if row["flags"] & VERIFIABLE:
        assert row["l3"] + row["ip_len"] <= len(frame)
        assert row["payload"] >= 0
