"""Payloads that quote mapped addresses are counted by protocol; scapy writes the payloads."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewrite_frames import HOME, HOME6, OUTSIDE, eth, read_capture, write_capture
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from pcap_tools.remap import remap

START = 1_700_000_000_000_000_000
OTHER6 = IPv6(src=HOME6, dst="2001:470::1") / UDP(sport=1, dport=2)


def found(tmp_path: Path, *packets: Packet) -> dict[str, dict[str, int]]:
    """Mentions in packets, with all of HOME, OUTSIDE and HOME6 in the capture's headers."""
    everyone = [eth() / IP(src=HOME, dst=OUTSIDE) / UDP(sport=9, dport=9), eth() / OTHER6]
    frames = [bytes(packet) for packet in (*everyone, *packets)]
    source = write_capture(tmp_path / "in.pcap", [(START, frame) for frame in frames])
    report, _ = remap([source], tmp_path / "out.pcap", "key")
    for before, (_, after) in zip(frames, read_capture(tmp_path / "out.pcap"), strict=True):
        payload = 54 if before[12:14] == b"\x08\0" and before[23] == 6 else 62
        assert before[payload:] == after[payload:]  # payloads stay
    return report.mentions


def dns(answer: DNSRR | None = None, name: str = "example.org", kind: str = "A") -> Packet:
    message = DNS(qr=1, qd=DNSQR(qname=name, qtype=kind))
    if answer is not None:
        message = DNS(qr=1, qd=DNSQR(qname=name, qtype=kind), an=answer)
    return eth() / IP(src=OUTSIDE, dst=HOME) / UDP(sport=53, dport=4000) / message


def text(port: int, body: bytes, layer: type[TCP] | type[UDP] = TCP) -> Packet:
    return eth() / IP(src=HOME, dst=OUTSIDE) / layer(sport=4000, dport=port) / Raw(body)


PTR4 = ipaddress.ip_address(HOME).reverse_pointer
PTR6 = ipaddress.ip_address(HOME6).reverse_pointer
YES = {
    "a": ("dns", dns(DNSRR(rrname="example.org", type="A", rdata=OUTSIDE))),
    "aaaa": ("dns", dns(DNSRR(rrname="example.org", type="AAAA", rdata=HOME6), kind="AAAA")),
    "ptr4": ("dns", dns(name=PTR4, kind="PTR")),
    "ptr6": ("dns", dns(name=PTR6, kind="PTR")),
    "port": ("ftp", text(21, f"PORT {HOME.replace('.', ',')},19,136\r\n".encode())),
    "227": ("ftp", text(21, f"227 Entering ({HOME.replace('.', ',')},1,2).\r\n".encode())),
    "eprt": ("ftp", text(21, f"EPRT |1|{HOME}|6275|\r\n".encode())),
    "eprt6": ("ftp", text(21, f"EPRT |2|{HOME6}|6275|\r\n".encode())),
    "via": ("sip", text(5060, f"Via: SIP/2.0/UDP {HOME}:5060;branch=z\r\n".encode(), UDP)),
    "contact": ("sip", text(5060, f"Contact: <sip:a@[{HOME6}]:5060>\r\n".encode())),
    "sdp": ("sip", text(5060, f"v=0\r\nc=IN IP4 {OUTSIDE}\r\n".encode(), UDP)),
}
NO = {
    "other-a": dns(DNSRR(rrname="example.org", type="A", rdata="9.9.9.9")),
    "name": dns(name="10.1.2.3.example.org"),
    "other-port": text(8080, f"PORT {HOME.replace('.', ',')},19,136\r\n".encode()),
    "longer": text(5060, b"Via: 110.1.2.3 1.10.1.2.3 10.1.2.300", UDP),
    "multicast": text(5060, b"c=IN IP4 224.0.0.1", UDP),
}


@pytest.mark.parametrize("name", YES)
def test_a_quoted_address_is_found(tmp_path: Path, name: str) -> None:
    protocol, packet = YES[name]
    expected = {protocol: {"packets": 2, "first": 4}}
    other = eth() / OTHER6
    assert found(tmp_path, other, packet, packet) == expected


@pytest.mark.parametrize("name", NO)
def test_nothing_else_is(tmp_path: Path, name: str) -> None:
    assert found(tmp_path, NO[name]) == {}


@settings(max_examples=60, deadline=None)
@given(
    address=st.ip_addresses(v=6).filter(lambda a: a not in ipaddress.ip_network("::/8")),
    exploded=st.booleans(),
)
def test_any_spelling_of_an_ipv6_address(
    tmp_path_factory: pytest.TempPathFactory, address: ipaddress.IPv6Address, exploded: bool
) -> None:
    spelled = address.exploded if exploded else str(address)
    kept = any(address in ipaddress.ip_network(n) for n in ("fe80::/10", "ff00::/8", "::/8"))
    packets = [
        eth() / IPv6(src=str(address), dst="2001:470::1") / UDP(sport=1, dport=2),
        text(5060, f"Contact: <sip:x@[{spelled}]>".encode()),
    ]
    mentions = found(tmp_path_factory.mktemp("six"), *packets)
    assert bool(mentions) != kept


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=80), port=st.sampled_from([53, 21, 5060]), udp=st.booleans())
def test_any_payload_is_survived(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, port: int, udp: bool
) -> None:
    packet = text(port, body, UDP if udp else TCP)
    found(tmp_path_factory.mktemp("any"), packet)
