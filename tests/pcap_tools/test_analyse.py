"""Addresses wherever a frame has them: found, mapped, every checksum right; tshark is the judge."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layered_frames import layered
from rewrite_frames import HOME, HOME6, OUTSIDE, frames, read_capture, write_capture
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from pcap_tools.plan import AddressPlan
from pcap_tools.remap import RemapOptions, RemapReport, restore, rewrite

FRAMES = {name: bytes(frame) for name, frame in layered().items()}
START = 1_700_000_000_000_000_000
TSHARK = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is the oracle")
ADDRESSES = (
    *("ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "arp.src.proto_ipv4", "arp.dst.proto_ipv4"),
    *("icmp.redir_gw", "icmpv6.nd.ns.target_address", "icmpv6.nd.na.target_address"),
    *(
        "icmpv6.rd.na.target_address",
        "icmpv6.rd.target_address",
        "icmpv6.rd.na.destination_address",
    ),
)
MACS = (
    *("eth.src", "eth.dst", "arp.src.hw_mac", "arp.dst.hw_mac"),
    *("icmpv6.opt.src_linkaddr", "icmpv6.opt.target_linkaddr"),
)


def capture(tmp_path: Path, packets: list[bytes], link: int = 1) -> Path:
    timed = [(START + n * 1000, frame) for n, frame in enumerate(packets)]
    return write_capture(tmp_path / "in.pcap", timed, link)


def rewritten(
    tmp_path: Path, packets: list[bytes], link: int = 1, **options: object
) -> tuple[list[bytes], RemapReport, AddressPlan]:
    source = capture(tmp_path, packets, link)
    asked = RemapOptions(key="key", **options)  # type: ignore[arg-type]
    report, plan = rewrite([source], tmp_path / "out.pcap", asked)
    return [frame for _, frame in read_capture(tmp_path / "out.pcap")], report, plan


def fields(path: Path, wanted: tuple[str, ...]) -> list[dict[str, list[str]]]:
    """Every occurrence of some fields in each packet, as tshark reads them."""
    known = subprocess.run(["tshark", "-G", "fields"], capture_output=True, text=True, check=True)
    names = {line.split("\t")[2] for line in known.stdout.splitlines() if line.startswith("F")}
    command = ["tshark", "-n", "-r", str(path), "-T", "json"]
    for protocol in ("ip", "tcp", "udp"):
        command += ["-o", f"{protocol}.check_checksum:TRUE"]
    for name in names & set(wanted):
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [packet["_source"].get("layers", {}) for packet in json.loads(done.stdout)]


@TSHARK
def test_tshark_reads_the_mapped_addresses_everywhere(tmp_path: Path) -> None:
    _, report, plan = rewritten(tmp_path, list(FRAMES.values()), iteration=3)
    mapping = plan.mapped(3)
    before = fields(tmp_path / "in.pcap", ADDRESSES)
    after = fields(tmp_path / "out.pcap", ADDRESSES)
    assert len(before) == len(after) == len(FRAMES)
    compared = 0
    for name, old, new in zip(FRAMES, before, after, strict=True):
        assert old.keys() == new.keys(), name
        for field, values in old.items():
            expected = [mapping[str(ipaddress.ip_address(value))] for value in values]
            assert new[field] == expected, (name, field)
            compared += len(values)
    assert compared > 90
    assert report.counts["inner"] == 16
    assert report.counts["arp"] == 4
    assert report.counts["neighbours"] == report.counts["redirects"] == 2


@TSHARK
def test_tshark_finds_every_checksum_right(tmp_path: Path) -> None:
    names = ("ip", "tcp", "udp", "icmp", "icmpv6", "gre")
    wanted = tuple(f"{name}.checksum.status" for name in names)
    source = capture(tmp_path, list(FRAMES.values()))
    asked = RemapOptions(key="key", iteration=5, macs="map")
    rewrite([source], tmp_path / "out.pcap", asked)
    before, after = fields(source, wanted), fields(tmp_path / "out.pcap", wanted)
    good = 0
    for name, old, new in zip(FRAMES, before, after, strict=True):
        assert new == old, name
        statuses = [status for values in new.values() for status in values]
        assert "0" not in statuses, name  # 0: bad
        good += statuses.count("1")
    assert good > 60


@TSHARK
def test_mac_addresses_are_mapped_alike_everywhere(tmp_path: Path) -> None:
    rewritten(tmp_path, list(FRAMES.values()), macs="map")
    seen: dict[str, str] = {}
    before, after = fields(tmp_path / "in.pcap", MACS), fields(tmp_path / "out.pcap", MACS)
    for name, old, new in zip(FRAMES, before, after, strict=True):
        for field in old:
            for mine, theirs in zip(old[field], new[field], strict=True):
                assert seen.setdefault(mine, theirs) == theirs, (name, field)
    assert len(seen) >= 5
    assert len(set(seen.values())) == len(seen)
    for mine, theirs in seen.items():
        first = int(theirs[:2], 16)
        if mine in ("ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00") or mine.startswith("33:33"):
            assert mine == theirs
        else:
            assert first & 3 == 2  # locally administered, unicast
            assert mine != theirs


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("macs", ["keep", "map"])
def test_what_is_not_an_address_or_checksum_stays(tmp_path: Path, name: str, macs: str) -> None:
    """Back through the plan, the frame is the original to the byte."""
    written, _, plan = rewritten(tmp_path, [FRAMES[name]], iteration=9, macs=macs)
    assert written[0] != FRAMES[name] or (name, macs) == ("router", "keep")
    restore([tmp_path / "out.pcap"], tmp_path / "back.pcap", plan)
    assert (tmp_path / "back.pcap").read_bytes() == (tmp_path / "in.pcap").read_bytes()


@pytest.mark.parametrize(
    ("link", "header"),
    [
        (0, b"\x02\0\0\0"),  # BSD loopback, little-endian family
        (108, b"\0\0\0\x02"),  # OpenBSD loopback
        (12, b""),
        (101, b""),
        (228, b""),
        (113, bytes.fromhex("0000000100060200000000010000") + b"\x08\0"),
        (276, b"\x08\0" + bytes.fromhex("000000000001000100060200000000010000")),
    ],
)
def test_link_layers(tmp_path: Path, link: int, header: bytes) -> None:
    packet = IP(src=HOME, dst=OUTSIDE) / TCP(sport=1, dport=2) / Raw(b"body")
    (frame,), report, plan = rewritten(tmp_path, [header + bytes(packet)], link)
    mapping = plan.mapped(0)
    expected = IP(src=mapping[HOME], dst=mapping[OUTSIDE]) / TCP(sport=1, dport=2) / Raw(b"body")
    assert frame == header + bytes(expected)
    assert report.counts["mapped"] == 1


def test_cooked_mac_addresses_are_mapped(tmp_path: Path) -> None:
    packet = bytes(IP(src=HOME, dst=OUTSIDE) / TCP())
    header = bytes.fromhex("00000001000600112233445500000800")
    (frame,), _, plan = rewritten(tmp_path, [header + packet], 113, macs="map")
    assert plan.macs == (0x001122334455,)
    assert frame[:6] == header[:6]
    assert frame[6:12] != header[6:12]
    restore([tmp_path / "out.pcap"], tmp_path / "back.pcap", plan)
    assert (tmp_path / "back.pcap").read_bytes() == (tmp_path / "in.pcap").read_bytes()


def test_a_port_alone_makes_no_tunnel(tmp_path: Path) -> None:
    """VXLAN's port, and a body that is no VXLAN: the body stays."""
    from rewrite_frames import eth
    from scapy.layers.inet import UDP

    body = bytes(range(1, 90))
    for port in (4789, 6081, 2152, 3544):
        frame = bytes(eth() / IP(src=HOME, dst=OUTSIDE) / UDP(sport=port, dport=port) / Raw(body))
        (written,), report, _ = rewritten(tmp_path, [frame], macs="map")
        assert written.endswith(body)
        assert report.counts["inner"] == 0


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(FRAMES) + sorted(frames())),
    changes=st.lists(st.tuples(st.integers(12, 120), st.integers(0, 255)), max_size=4),
    cut=st.integers(14, 200),
)
def test_damaged_frames_go_and_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    changes: list[tuple[int, int]],
    cut: int,
) -> None:
    """Whatever the frame says it is, only its own bytes change, and the neighbour is right."""
    frame = bytearray({**FRAMES, **frames()}[name])
    for place, value in changes:
        frame[place % len(frame)] = value
    guard = bytes(IP(src=HOME, dst=OUTSIDE) / TCP())
    tmp_path = tmp_path_factory.mktemp("damaged")
    packets = [bytes(frame[:cut]), bytes(12) + b"\x08\0" + guard]
    written, _, plan = rewritten(tmp_path, packets, macs="map")
    assert [len(f) for f in written] == [len(f) for f in packets]
    mapping = plan.mapped(0)
    assert written[1][14:] == bytes(IP(src=mapping[HOME], dst=mapping[OUTSIDE]) / TCP())


def test_home_and_outside_keep_their_sides_in_every_layer(tmp_path: Path) -> None:
    _, _, plan = rewritten(tmp_path, list(FRAMES.values()))
    assert HOME in plan.originals["home4"]
    assert HOME6 in plan.originals["home6"]
    assert set(plan.originals["external6"]) == {"2001:db8::77", "2001:470::9"}
    assert IPv6 is not None
