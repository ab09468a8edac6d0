"""What the fuzzers start from: every kind of header that something here reads, made by scapy."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    fragment6,
)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

__all__ = ["LINKS", "corpora", "frames", "savefiles"]

LINKS = (1, 0, 101, 108, 113, 228, 229, 276)
"""Link types with a reading here."""

_MAC = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}


def _packets() -> Iterator[Packet]:
    four, six = IP(src="10.1.2.3", dst="8.8.4.4"), IPv6(src="fd00::1", dst="2001:db8::2")
    tcp = TCP(sport=40000, dport=443, flags="PA", seq=1000, ack=77, options=[("MSS", 1460)])
    for base in (four, six):
        for flags in ("S", "SA", "A", "PA", "FA", "R"):
            yield base / TCP(sport=40000, dport=80, flags=flags, seq=1, ack=2) / Raw(b"data" * 5)
        yield base / tcp / Raw(b"\x16\x03\x01" + bytes(120))
        yield base / UDP(sport=5000, dport=53) / Raw(bytes(range(60)))
        yield base / UDP(sport=5000, dport=5001, chksum=0) / Raw(b"x")
        yield base / SCTP(sport=9, dport=10) / SCTPChunkData(data=b"sctp")
        yield base / GRE(proto=0x0800) / four / tcp
        yield base / GRE(proto=0x6558, key_present=1, key=7) / Ether(**_MAC) / six / tcp
        yield (
            base
            / GRE(proto=0x88BE, seqnum_present=1, seqence_number=1)
            / Raw(bytes.fromhex("1001000000000000") + bytes(Ether(**_MAC) / four / tcp))
        )
        yield base / UDP(sport=1, dport=4789) / VXLAN(vni=5) / Ether(**_MAC) / four / tcp
        yield base / UDP(sport=1, dport=6081) / GENEVE(vni=5, proto=0x6558) / Ether(**_MAC) / six
        yield base / UDP(sport=2152, dport=2152) / GTP_U_Header(teid=9) / four / tcp
        yield base / UDP(sport=3544, dport=3544) / IPv6(src="2001:0::1", dst="fe80::1") / tcp
        yield base / four / UDP(sport=7, dport=8) / Raw(b"inner")
        yield base / six / UDP(sport=7, dport=8) / Raw(b"inner")
        yield base / AH(spi=1, seq=2, icv=b"1234") / tcp
        yield base / ESP(spi=1, seq=2, data=b"cipher" * 6)
    yield four / ICMP() / Raw(b"ping")
    yield four / ICMP(type=3, code=3) / four / UDP(sport=1, dport=2) / Raw(b"quoted")
    yield four / ICMP(type=5, code=1, gw="10.9.9.9") / four / tcp
    yield six / ICMPv6EchoRequest(data=b"ping")
    yield six / ICMPv6DestUnreach() / six / tcp
    yield six / ICMPv6ND_NS(tgt="fd00::5") / ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:09")
    yield six / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / tcp
    yield six / IPv6ExtHdrRouting(addresses=["fd00::7"], segleft=1) / tcp
    yield six / IPv6ExtHdrFragment(id=4, m=1) / tcp
    yield IP(src="10.1.2.3", dst="8.8.4.4", options=[IPOption_Router_Alert()]) / tcp
    yield from fragment(four / UDP(sport=5000, dport=53) / Raw(bytes(600)), fragsize=256)
    yield from fragment6(six / IPv6ExtHdrFragment() / UDP(sport=1, dport=2) / Raw(bytes(2000)), 600)


def frames(link: int) -> list[bytes]:
    """Seeds as frames of a link type."""
    found = []
    packets = list(_packets())
    for packet in packets:
        kind = 0x0800 if isinstance(packet, IP) else 0x86DD
        raw = bytes(packet)
        if link == 1:
            found.append(bytes(Ether(**_MAC) / packet))
        elif link == 113:
            found.append(struct.pack(">HHH8sH", 0, 1, 6, bytes(8), kind) + raw)
        elif link == 276:
            found.append(struct.pack(">HHIHBB8s", kind, 0, 1, 1, 0, 6, bytes(8)) + raw)
        elif link in (0, 108):
            family = 2 if kind == 0x0800 else 30
            found.append(struct.pack("<I" if link == 0 else ">I", family) + raw)
        else:
            found.append(raw)
    if link == 1:
        first = packets[3]
        tags = [Dot1Q(vlan=5), Dot1AD(vlan=6) / Dot1Q(vlan=7), Dot1Q() / Dot1Q() / Dot1Q()]
        tags += [MPLS(label=3, s=0) / MPLS(label=4, s=1), PPPoE(sessionid=1) / PPP(proto=0x21)]
        found += [bytes(Ether(**_MAC) / tag / first) for tag in tags]
        found.append(bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.0.0.1", pdst="10.0.0.2")))
        found.append(bytes(Dot3(**_MAC) / LLC() / SNAP(code=0x0800) / first))
    return found


def corpora(directory: Path) -> list[bytes]:
    """Ethernet frames of the captures below a directory, a few of each; none when it is absent."""
    from pcap_tools.capture import open_capture
    from pcap_tools.errors import PcapError

    found = []
    for path in sorted(directory.rglob("*.pcap")):
        try:
            with open_capture(path) as capture:
                batch = next(capture.batches())
                if batch.link != 1:
                    continue
                for number in range(0, len(batch), max(1, len(batch) // 20)):
                    begin = int(batch.offset[number])
                    found.append(batch.data[begin : begin + int(batch.caplen[number])].tobytes())
        except PcapError:
            continue
    return found


def _block(kind: int, body: bytes, order: str) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def savefiles(packets: Sequence[bytes]) -> list[bytes]:
    """Captures of every format, byte order and clock; a few packets each."""
    found = []
    for order in "<>":
        for magic, unit in ((0xA1B2C3D4, 1), (0xA1B23C4D, 1000), (0xA1B2CD34, 1)):
            parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 1)]
            for number, frame in enumerate(packets):
                size = len(frame)
                head = struct.pack(order + "IIII", 1_700_000_000 + number, 5 * unit, size, size)
                if magic == 0xA1B2CD34:
                    head += struct.pack(order + "IHBB", 1, 0x0800, 0, 0)
                parts.append(head + frame)
            found.append(b"".join(parts))
        for options in (b"", struct.pack(order + "HHBxxxHHqHH", 9, 1, 9, 14, 8, -5, 0, 0)):
            parts = [_block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)]
            parts.append(_block(1, struct.pack(order + "HHI", 1, 0, 0) + options, order))
            parts.append(_block(1, struct.pack(order + "HHI", 1, 0, 96) + options, order))
            for number, frame in enumerate(packets):
                size = len(frame)
                head = struct.pack(order + "IIIII", number & 1, 0x60000, number, size, size)
                parts.append(_block(6, head + frame, order))
            parts.append(_block(3, struct.pack(order + "I", len(packets[0])) + packets[0], order))
            old = struct.pack(order + "HHIIII", 0, 0, 1, 2, len(packets[0]), len(packets[0]))
            parts.append(_block(2, old + packets[0], order))
            parts.append(_block(5, struct.pack(order + "III", 0, 1, 2), order))
            found.append(b"".join(parts))
    parts = []
    for frame in packets:  # ERF: type 2 (Ethernet), two bytes of padding
        head = struct.pack("<Q", 1_700_000_000 << 32) + struct.pack(
            ">BBHHH", 2, 4, len(frame) + 18, 0, len(frame)
        )
        parts.append(head + bytes(2) + frame)
    found.append(b"".join(parts))
    return found
