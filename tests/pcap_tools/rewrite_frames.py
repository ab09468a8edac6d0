"""Frames of every kind that the rewriting tests need, made by scapy, and captures of them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, IPOption_NOP, TCPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    IPerror6,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
HOME, OUTSIDE = "10.1.2.3", "198.51.100.77"
HOME6, OUTSIDE6 = "fd00:1::3", "2001:db8::77"


def eth() -> Ether:
    return Ether(**MACS)


def frames() -> dict[str, bytes]:
    """One frame a kind, checksums right (as scapy builds them)."""
    ip, back = IP(src=HOME, dst=OUTSIDE), IP(src=OUTSIDE, dst=HOME)
    ip6, back6 = IPv6(src=HOME6, dst=OUTSIDE6), IPv6(src=OUTSIDE6, dst=HOME6)
    tcp = TCP(sport=40000, dport=80, flags="PA", seq=7, ack=9)
    udp = UDP(sport=5353, dport=53)
    quoted_tcp = bytes(ip / tcp / Raw(b"quoted"))
    quoted_udp = bytes(ip / udp / Raw(b"quoted!"))[:28]
    quoted_udp6 = bytes(ip6 / udp / Raw(b"quoted six"))
    made: dict[str, Packet] = {
        "tcp": eth() / ip / tcp / Raw(b"odd"),
        "tcp-back": eth() / back / TCP(sport=80, dport=40000, flags="A"),
        "tcp-options": eth() / IP(src=HOME, dst=OUTSIDE, options=[IPOption_NOP()] * 4) / tcp,
        "udp": eth() / ip / udp / Raw(b"even"),
        "udp-no-checksum": eth() / ip / UDP(sport=1, dport=2, chksum=0) / Raw(b"none"),
        "udp-padded": eth() / ip / UDP(sport=1, dport=2) / Raw(b"x"),
        "icmp-echo": eth() / ip / ICMP() / Raw(b"ping"),
        "icmp-error-tcp": eth() / back / ICMP(type=3, code=1) / Raw(quoted_tcp),
        "icmp-error-udp": eth() / back / ICMP(type=3, code=3) / Raw(quoted_udp),
        "icmp-error-short": eth() / back / ICMP(type=11) / Raw(quoted_tcp[:28]),
        "tcp6": eth() / ip6 / tcp / Raw(b"six"),
        "udp6": eth() / ip6 / udp / Raw(b"sixth"),
        "udp6-extensions": eth()
        / ip6
        / IPv6ExtHdrHopByHop()
        / IPv6ExtHdrDestOpt()
        / udp
        / Raw(b"e"),
        "icmp6-echo": eth() / ip6 / ICMPv6EchoRequest(data=b"ping6"),
        "icmp6-error": eth() / back6 / ICMPv6DestUnreach(code=4) / Raw(quoted_udp6),
        "vlan": eth() / Dot1Q(vlan=7) / ip / tcp / Raw(b"tagged"),
        "qinq": eth() / Dot1AD(vlan=7) / Dot1Q(vlan=8) / ip6 / udp / Raw(b"twice"),
        "multicast": eth() / IP(src=HOME, dst="224.0.0.251") / udp / Raw(b"mdns"),
        "link-local": eth() / IPv6(src="fe80::1", dst="ff02::fb") / udp / Raw(b"mdns"),
        "directed-broadcast": Ether(src=MACS["src"], dst="ff:ff:ff:ff:ff:ff")
        / IP(src=HOME, dst="10.1.2.255")
        / udp
        / Raw(b"netbios"),
        "arp": eth() / ARP(psrc=HOME, pdst="10.1.2.1"),
        "sctp-like": eth() / IP(src=HOME, dst=OUTSIDE, proto=132) / Raw(bytes(12)),
    }
    built = {name: bytes(frame) for name, frame in made.items()}
    built["udp-padded"] += bytes(60 - len(built["udp-padded"]))
    whole = bytes(IP(src=HOME, dst=OUTSIDE, id=99) / udp / Raw(b"f" * 64))
    first = IP(src=HOME, dst=OUTSIDE, id=99, flags="MF", proto=17) / Raw(whole[20:52])
    later = IP(src=HOME, dst=OUTSIDE, id=99, frag=4, proto=17) / Raw(whole[52:])
    built["fragment-first"], built["fragment-later"] = bytes(eth() / first), bytes(eth() / later)
    whole6 = bytes(ip6 / udp / Raw(b"g" * 64))[40:]
    built["fragment6-first"] = bytes(
        eth() / ip6 / IPv6ExtHdrFragment(id=5, m=1, nh=17) / Raw(whole6[:32])
    )
    built["fragment6-later"] = bytes(
        eth() / ip6 / IPv6ExtHdrFragment(id=5, m=0, offset=4, nh=17) / Raw(whole6[32:])
    )
    return built


def write_capture(
    path: Path, packets: Sequence[tuple[int, bytes]], link: int = 1, snap: int = 1 << 18
) -> Path:
    """A nanosecond pcap of (time in ns, frame)."""
    with path.open("wb") as stream:
        stream.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, snap, link))
        for time_ns, frame in packets:
            kept = frame[:snap]
            stream.write(
                struct.pack("<IIII", time_ns // 10**9, time_ns % 10**9, len(kept), len(frame))
            )
            stream.write(kept)
    return path


def read_capture(path: Path) -> list[tuple[int, bytes]]:
    """(time in ns, frame) of a little-endian nanosecond pcap, by nothing but its definition."""
    raw = path.read_bytes()
    assert struct.unpack_from("<I", raw)[0] == 0xA1B23C4D
    packets, place = [], 24
    while place < len(raw):
        seconds, rest, size, _ = struct.unpack_from("<IIII", raw, place)
        packets.append((seconds * 10**9 + rest, raw[place + 16 : place + 16 + size]))
        place += 16 + size
    return packets


def rebuilt(frame: bytes) -> bytes:
    """The frame with every checksum computed anew by scapy, quoted packets' included.

    scapy's own rule for a quoted packet is to keep its bytes, so quotes are rebuilt apart.
    """
    parsed = Ether(frame)
    for layer in (IP, TCP, UDP, ICMP):
        if layer in parsed and not (layer is UDP and parsed[UDP].chksum == 0):
            del parsed[layer].chksum
    for layer in ("ICMPv6EchoRequest", "ICMPv6DestUnreach"):
        if parsed.haslayer(layer):
            del parsed.getlayer(layer).cksum
    for quote in (IPerror, IPerror6):
        if quote in parsed:
            _rebuild_quote(parsed[quote])
    return bytes(parsed)


def _rebuild_quote(quote: Packet) -> None:
    size = len(bytes(quote))
    again = (IP if quote.version == 4 else IPv6)(bytes(quote))
    if IP in again:
        del again[IP].chksum
    said = again.len if IP in again else again.plen + 40
    if size == said:  # the quote is whole: its transport checksum can be computed
        for layer in (TCP, UDP):
            if layer in again:
                del again[layer].chksum
    fresh = (IP if quote.version == 4 else IPv6)(bytes(again))
    if IP in fresh:
        quote.chksum = fresh[IP].chksum
    for layer, inner in ((TCP, TCPerror), (UDP, UDPerror)):
        if layer in fresh and inner in quote and size == said:
            quote[inner].chksum = fresh[layer].chksum


__all__ = ["frames", "read_capture", "rebuilt", "write_capture"]
