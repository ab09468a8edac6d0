"""Checksums against tshark's verdict, before and after they are put right."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.packet import Packet, Raw
from synth import T0, write_pcap
from test_decode import decode

from pcap_tools.capture import open_capture
from pcap_tools.decode import Decoder
from pcap_tools.verify import bad_checksums, repair
from pcap_tools.write import PcapWriter

ETHER = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")
V4 = IP(src="10.1.2.3", dst="203.0.113.9")
V6 = IPv6(src="2001:db8::1:2", dst="2001:db8:ffff::9")
FIELDS = ("ip", "tcp", "udp", "icmp", "icmpv6", "sctp")

PACKETS: list[Packet] = [
    V4 / TCP(flags="PA") / Raw(b"odd"),
    V4 / UDP(sport=1, dport=2) / Raw(b"even"),
    V4 / ICMP() / Raw(b"xyz"),
    V4 / SCTP(sport=7, dport=8) / SCTPChunkData(data=b"abc"),
    IP(src="10.1.2.3", options=[IPOption_Router_Alert()]) / TCP(),
    V6 / TCP(flags="S"),
    V6 / UDP(sport=1, dport=2) / Raw(b"odd"),
    V6 / ICMPv6EchoRequest(data=b"ping"),
    V6 / IPv6ExtHdrHopByHop() / UDP(sport=5, dport=6),
    V6 / SCTP(sport=7, dport=8) / SCTPChunkData(data=b"abcd"),
]
PLACES = {6: 16, 17: 6, 1: 2, 58: 2, 132: 8}


def frames() -> list[bytes]:
    """Every packet right; with its transport checksum wrong; IPv4 with a wrong header; padded."""
    found = []
    for packet in PACKETS:
        right = bytes(ETHER / packet)
        row = decode(right)
        place = int(row["l4"]) + PLACES[int(row["proto"])]
        wrong = bytearray(right)
        wrong[place] ^= 0x55
        found += [right, bytes(wrong), right + bytes(9)]
        if row["version"] == 4:
            header = bytearray(right)
            header[24] ^= 0xAA
            found.append(bytes(header))
    return found


def judged(path: Path) -> list[bool]:
    """Whether tshark finds a wrong checksum in each packet."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "occurrence=f"]
    for name in ("ip", "tcp", "udp"):
        command += ["-o", f"{name}.check_checksum:TRUE"]
    command += ["-o", "sctp.checksum:CRC 32c"]
    for name in FIELDS:
        command += ["-e", f"{name}.checksum.status"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # 0 bad, 1 good, 2 unverified, 3 not present (epan/proto.h, PROTO_CHECKSUM_E_BAD …)
    return ["0" in line.split("\t") for line in done.stdout.split("\n")[:-1]]


def mine(path: Path) -> list[bool]:
    with open_capture(path) as capture:
        return [
            bool(bad)
            for batch in capture.batches()
            for bad in bad_checksums(batch, Decoder()(batch))
        ]


def test_wrong_checksums_are_those_tshark_finds_and_repairing_leaves_none(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "t.pcap", [(T0, frame) for frame in frames()])
    wrong = judged(path)
    assert sum(wrong) == 10 + 5
    assert mine(path) == wrong
    with (
        open_capture(path) as capture,
        PcapWriter(tmp_path / "fixed.pcap", capture.link) as writer,
    ):
        fixed = 0
        for batch in capture.batches():
            before = batch.data.copy()
            changed, bad = repair(batch, Decoder())
            assert (batch.data == before).all()
            writer.write(changed)
            fixed += int(bad.sum())
    assert fixed == sum(wrong)
    assert not any(judged(tmp_path / "fixed.pcap"))
    right = [bytes(ETHER / packet) for packet in PACKETS]
    with open_capture(tmp_path / "fixed.pcap") as capture:
        for batch in capture.batches():
            written = {
                batch.data[o : o + n].tobytes()
                for o, n in zip(batch.offset, batch.caplen, strict=True)
            }
            assert written == {*right, *(frame + bytes(9) for frame in right)}


@pytest.mark.parametrize(
    "packet",
    [
        V4 / UDP(sport=1, dport=2, chksum=0) / Raw(b"none"),
        V6 / UDP(sport=1, dport=4789, chksum=0) / Raw(b"tunnel"),
        V6 / IPv6ExtHdrRouting(segleft=1, addresses=["2001:db8::7"]) / TCP(chksum=7),
        fragment(V4 / UDP(sport=1, dport=2, chksum=9) / Raw(bytes(3000)), 1000)[0],
        IP(src="10.0.0.1", proto=253) / Raw(b"experimental"),
    ],
    ids=["none", "none in a tunnel", "routed", "fragment", "unknown"],
)
def test_what_cannot_be_judged_is_not_wrong(tmp_path: Path, packet: Packet) -> None:
    assert mine(write_pcap(tmp_path / "t.pcap", [(T0, bytes(ETHER / packet))])) == [False]


def test_none_is_wrong_over_ipv6(tmp_path: Path) -> None:
    frame = bytes(ETHER / V6 / UDP(sport=1, dport=2, chksum=0) / Raw(b"none"))
    assert mine(write_pcap(tmp_path / "t.pcap", [(T0, frame)])) == [True]


def test_cut_packets_are_not_judged(tmp_path: Path) -> None:
    frame = bytes(ETHER / V4 / TCP(chksum=1) / Raw(bytes(100)))
    assert mine(write_pcap(tmp_path / "t.pcap", [(T0, frame)], snaplen=100)) == [False]
