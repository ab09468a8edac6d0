"""Addresses given by flows against addresses looked up frame by frame, after cleaning."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw
from synth import MS, T0, Frame, Talk, merged, tshark, write_pcap

from pcap_tools.clean import clean
from pcap_tools.packet import packet_rows
from pcap_tools.plain import mark_plain, other_frames
from pcap_tools.policy import DEFAULT_DROP, Policy
from pcap_tools.readdress import FreshAddresses
from pcap_tools.remap import RemapOptions, by_frames
from pcap_tools.walk import U32

CORPORA = Path(__file__).resolve().parents[3] / "shared" / "corpora"
ETHER = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")


def odd_frames() -> list[Frame]:
    """Frames whose addresses no flow tells, and some that look plain and are not."""
    ends = {"src": "10.0.0.9", "dst": "198.51.100.9"}
    quoted = IP(src="10.0.0.8", dst="203.0.113.3") / UDP(sport=5, dport=6) / Raw(b"q" * 20)
    whole = IP(**ends, id=7) / UDP(sport=9000, dport=9001) / Raw(b"f" * 3000)
    cut = bytes(ETHER / IP(**ends) / TCP(sport=1, dport=2) / Raw(b"x" * 50))
    frames = [
        bytes(ETHER / ARP(psrc="10.0.0.7", pdst="10.0.0.6")),
        bytes(ETHER / IP(src="203.0.113.3", dst="10.0.0.8") / ICMP(type=3, code=1) / quoted),
        *[bytes(ETHER / piece) for piece in reversed(fragment(whole, 1000))],
        bytes(ETHER / IP(**ends) / UDP(sport=4000, dport=53) / DNS(qd=DNSQR(qname="a.example"))),
        bytes(ETHER / Dot1Q(vlan=4) / Dot1Q(vlan=5) / IP(**ends) / UDP(sport=7, dport=8)),
        bytes(ETHER / IP(**ends, options=b"\x01\x01\x01\x00") / UDP(sport=7, dport=9)),
        bytes(ETHER / IP(**ends) / UDP(sport=7, dport=10, chksum=0) / Raw(b"no sum")),
        bytes(ETHER / IP(**ends, chksum=1) / UDP(sport=7, dport=11, chksum=2) / Raw(b"wrong")),
        bytes(ETHER / IP(**ends) / TCP(sport=7, dport=12, chksum=3) / Raw(b"wrong")),
        bytes(ETHER / IPv6(src="fd00::1", dst="2600::1") / UDP(sport=7, dport=13) / Raw(b"odd")),
        bytes(ETHER / IP(**ends, proto=47) / Raw(b"\0" * 8)),
        bytes(ETHER / IP(src="10.0.0.9", dst="224.0.0.1") / UDP(sport=7, dport=14)),
        cut + b"trailer",
        cut[:40],
        cut[:15],
    ]
    return [(T0 + number * MS, frame) for number, frame in enumerate(frames)]


def both_ways(raw: Path, directory: Path, policy: Policy) -> tuple[bytes, bytes]:
    """The bytes of clean, then remap; and of both in one."""
    first, second, one = (directory / f"{name}.pcap" for name in ("first", "second", "one"))
    clean([raw], first, policy)
    by_frames([first], second, RemapOptions(key="key"))
    clean([raw], one, policy, fresh=FreshAddresses("key"))
    plans = [path.with_name(path.name + ".plan.json").read_bytes() for path in (second, one)]
    assert plans[0] == plans[1]
    return second.read_bytes(), one.read_bytes()


@pytest.mark.parametrize("drop", [DEFAULT_DROP, frozenset[str]()])
def test_in_one_as_in_two(tmp_path: Path, drop: frozenset[str]) -> None:
    talks = [Talk(sport=1000 + n, client=f"10.1.0.{n}").whole() for n in range(1, 5)]
    six = Talk(client="fd00::5", server="2600::5", vlan=3).whole()
    half = Talk(client="10.66.0.1", server="203.0.113.66", sport=5).open()  # in no plan if dropped
    raw = write_pcap(tmp_path / "raw.pcap", sorted([*merged(*talks, six, half), *odd_frames()]))
    two, one = both_ways(raw, tmp_path, Policy(drop))
    assert one == two
    assert b"10.66.0.1" not in (tmp_path / "one.pcap.plan.json").read_bytes() or not drop


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_in_one_as_in_two_whatever_the_bytes(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("damaged")
    chance = random.Random(seed)
    frames = [*Talk().whole().frames, *odd_frames()]
    damaged = []
    for time, frame in frames:
        octets = bytearray(frame)
        for _ in range(chance.choice([0, 0, 1, 3])):
            octets[chance.randrange(12, len(octets))] = chance.randrange(256)
        damaged.append((time, bytes(octets[: chance.choice([len(octets)] * 4 + [60])])))
    raw = write_pcap(tmp_path / "raw.pcap", damaged)
    two, one = both_ways(raw, tmp_path, Policy(frozenset()))
    assert one == two


def test_checksums_are_right_for_tshark(tmp_path: Path) -> None:
    raw = write_pcap(
        tmp_path / "raw.pcap",
        merged(Talk().whole(), Talk(client="fd00::5", server="2600::5").whole()),
    )
    clean([raw], tmp_path / "one.pcap", fresh=FreshAddresses("key"))
    checks = ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]
    fields = tshark(
        tmp_path / "one.pcap", "tcp.checksum.status", "ip.checksum.status", options=checks
    )
    assert {row[0] for row in fields} == {"1"}
    assert {row[1] for row in fields} == {"1", ""}


@pytest.mark.skipif(not CORPORA.is_dir(), reason="no ../shared/corpora beside this checkout")
def test_in_one_as_in_two_on_real_captures(tmp_path: Path) -> None:
    for raw in sorted(CORPORA.rglob("*.pcap")):
        two, one = both_ways(raw, tmp_path, Policy(frozenset()))
        assert one == two, raw


def test_plain_frames_are_no_others() -> None:
    def others(frame: bytes) -> int:
        sizes: U32 = np.array([len(frame)], np.uint32)
        data, first = np.frombuffer(frame, np.uint8), np.zeros(1, np.int64)
        rows, owner, odd = packet_rows(1), np.zeros(1, np.int32), np.zeros(1, np.uint32)
        mark_plain(data, first, sizes, 1, rows)
        count = other_frames(rows, owner, odd, np.empty(1, np.int64))
        assert odd[0] == count
        return count

    assert [others(frame) for _, frame in Talk().whole().frames] == [0] * 14
    assert others(bytes(ETHER / IP() / UDP(sport=4000, dport=4001) / Raw(b"x"))) == 0
    assert others(bytes(ETHER / IP() / UDP(sport=4000, dport=4789) / Raw(b"x"))) == 1
    assert others(bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / IP() / UDP(sport=1, dport=2))) == 1


def test_a_udp_checksum_is_never_sent_as_none(tmp_path: Path) -> None:
    """A sum that comes out as 0 is sent as 0xffff (RFC 768): found by completing it."""
    policy, raw, out = Policy(frozenset()), tmp_path / "raw.pcap", tmp_path / "out.pcap"

    def checksum(payload: bytes) -> int:
        frame = (
            ETHER / IP(src="10.0.0.9", dst="198.51.100.9") / UDP(sport=7, dport=8) / Raw(payload)
        )
        write_pcap(raw, [(T0, bytes(frame))])
        clean([raw], out, policy, fresh=FreshAddresses("key"))
        return int.from_bytes(out.read_bytes()[-len(payload) - 2 : -len(payload)])

    assert checksum(checksum(bytes(2)).to_bytes(2)) == 0xFFFF
