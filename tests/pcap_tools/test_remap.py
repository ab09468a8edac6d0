"""A remapped capture: right checksums everywhere, and nothing else but addresses changed."""

from __future__ import annotations

import csv
import ipaddress
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewrite_frames import HOME, OUTSIDE, eth, frames, read_capture, rebuilt, write_capture
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from pcap_tools.errors import OutputError, PlanError
from pcap_tools.plan import AddressPlan
from pcap_tools.remap import remap, write_mapping

FRAMES = frames()
START = 1_700_000_000_123_456_789


def remapped(
    tmp_path: Path, packets: list[bytes], **options: object
) -> tuple[list[bytes], AddressPlan]:
    timed = [(START + n * 1000, frame) for n, frame in enumerate(packets)]
    source = write_capture(tmp_path / "in.pcap", timed)
    _, plan = remap([source], tmp_path / "out.pcap", "key", **options)  # type: ignore[arg-type]
    written = read_capture(tmp_path / "out.pcap")
    assert [time for time, _ in written] == [time for time, _ in timed]
    return [frame for _, frame in written], plan


@pytest.mark.parametrize("name", FRAMES)
def test_checksums_are_those_scapy_computes(tmp_path: Path, name: str) -> None:
    (frame,), _ = remapped(tmp_path, [FRAMES[name]], iteration=3)
    if "fragment" in name:  # a checksum over bytes that are elsewhere: see the reassembly test
        frame, expected = frame[:34], rebuilt(frame)[:34]
    else:
        expected = rebuilt(frame)
    assert frame.hex() == expected.hex()


@pytest.mark.parametrize("name", FRAMES)
def test_only_addresses_and_checksums_change(tmp_path: Path, name: str) -> None:
    (frame,), plan = remapped(tmp_path, [FRAMES[name]], iteration=3)
    mapping = plan.mapped(3)
    expected = FRAMES[name]
    back = {packed(new): packed(old) for old, new in mapping.items()}
    restored = restore(frame, back)
    # Put back, the frame's checksums are the original's again.
    if "fragment" in name or name == "icmp-error-udp":  # checksums over bytes not in the frame
        assert restored[:24] == expected[:24]
        assert len(restored) == len(expected)
    else:
        assert rebuilt(restored).hex() == rebuilt(expected).hex()


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def restore(frame: bytes, back: dict[bytes, bytes]) -> bytes:
    """Undo the mapping by plain replacement of every mapped address in the frame's bytes."""
    for new, old in back.items():
        frame = frame.replace(new, old)
    return frame


def test_every_address_is_mapped_by_class(tmp_path: Path) -> None:
    written, plan = remapped(tmp_path, list(FRAMES.values()))
    mapping = plan.mapped(0)
    assert ipaddress.ip_address(mapping[HOME]).is_private
    assert ipaddress.ip_address(mapping[OUTSIDE]).is_global
    for name, frame in zip(FRAMES, written, strict=True):
        before, after = Ether(FRAMES[name]), Ether(frame)
        for layer in (IP, IPv6):
            if layer in before:
                assert after[layer].src == mapping[before[layer].src], name
                assert after[layer].dst == mapping[before[layer].dst], name


def test_multicast_link_local_and_broadcast_stay(tmp_path: Path) -> None:
    names = ("multicast", "link-local", "directed-broadcast")
    written, plan = remapped(tmp_path, [FRAMES[name] for name in names])
    assert Ether(written[0])[IP].dst == "224.0.0.251"
    assert written[1] == FRAMES["link-local"]
    assert Ether(written[2])[IP].dst == "10.1.2.255"
    assert set(plan.kept) == {"224.0.0.251", "10.1.2.255", "fe80::1", "ff02::fb"}
    assert plan.invert("10.1.2.255") is None


def test_a_cut_quote_carries_its_checksum_along(tmp_path: Path) -> None:
    (frame,), plan = remapped(tmp_path, [FRAMES["icmp-error-udp"]])
    mapping = plan.mapped(0)
    quoted = IP(src=mapping[HOME], dst=mapping[OUTSIDE]) / UDP(sport=5353, dport=53)
    assert frame[42:] == bytes(quoted / Raw(b"quoted!"))[:28]


@pytest.mark.parametrize("version", ["", "6"])
def test_fragments_reassemble_to_a_right_checksum(tmp_path: Path, version: str) -> None:
    names = (f"fragment{version}-first", f"fragment{version}-later")
    written, _ = remapped(tmp_path, [FRAMES[name] for name in names])
    first, later = (Ether(frame) for frame in written)
    layer = IPv6 if version else IP
    skip = 8 if version else 0
    data = bytes(first[layer].payload)[skip:] + bytes(later[layer].payload)[skip:]
    packet = layer(src=first[layer].src, dst=first[layer].dst) / UDP(data)
    said = packet[UDP].chksum
    del packet[UDP].chksum
    assert layer(bytes(packet))[UDP].chksum == said


def test_wrong_checksums_of_whole_packets_are_put_right(tmp_path: Path) -> None:
    wrong = bytearray(FRAMES["tcp"])
    wrong[24:26] = b"\x12\x34"  # IP
    wrong[50:52] = b"\x56\x78"  # TCP
    source = write_capture(tmp_path / "in.pcap", [(START, bytes(wrong))])
    report, _ = remap([source], tmp_path / "out.pcap", "key")
    ((_, frame),) = read_capture(tmp_path / "out.pcap")
    assert frame == rebuilt(frame)
    assert report.counts["fixed_ip_checksums"] == report.counts["fixed_l4_checksums"] == 1


def test_a_snapped_packet_carries_its_checksum_along(tmp_path: Path) -> None:
    frame = bytes(eth() / IP(src=HOME, dst=OUTSIDE) / TCP() / Raw(bytes(range(200))))
    source = write_capture(tmp_path / "in.pcap", [(START, frame)], snap=64)
    _, plan = remap([source], tmp_path / "out.pcap", "key")
    ((_, snapped),) = read_capture(tmp_path / "out.pcap")
    assert len(snapped) == 64
    mapping = plan.mapped(0)
    whole = rebuilt(restore(frame, {packed(old): packed(new) for old, new in mapping.items()}))
    assert snapped == whole[:64]


def test_a_udp_checksum_that_comes_to_zero_is_sent_as_ffff(tmp_path: Path) -> None:
    # The mapped pair's checksum decides: choose the payload word that makes it zero.
    base = eth() / IP(src=HOME, dst=OUTSIDE) / UDP(sport=1, dport=2) / Raw(b"\0\0")
    (frame,), _ = remapped(tmp_path, [bytes(base)])
    word = Ether(frame)[UDP].chksum
    exact = eth() / IP(src=HOME, dst=OUTSIDE) / UDP(sport=1, dport=2) / Raw(struct.pack(">H", word))
    (frame,), _ = remapped(tmp_path, [bytes(exact)])
    assert Ether(frame)[UDP].chksum == 0xFFFF
    assert frame == rebuilt(frame)


@settings(max_examples=60, deadline=None)
@given(
    payload=st.binary(max_size=40),
    source=st.ip_addresses(v=4),
    target=st.ip_addresses(v=4),
    iteration=st.integers(0, 50_000),
    layer=st.sampled_from([TCP, UDP]),
)
def test_any_addresses_and_payload(
    tmp_path_factory: pytest.TempPathFactory,
    payload: bytes,
    source: ipaddress.IPv4Address,
    target: ipaddress.IPv4Address,
    iteration: int,
    layer: type[TCP] | type[UDP],
) -> None:
    frame = bytes(eth() / IP(src=str(source), dst=str(target)) / layer() / Raw(payload))
    (written,), _ = remapped(tmp_path_factory.mktemp("any"), [frame], iteration=iteration)
    assert written.hex() == rebuilt(written).hex()


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(FRAMES)),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 200),
)
def test_damaged_frames_are_survived(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    changes: list[tuple[int, int]],
    cut: int,
) -> None:
    frame = bytearray(FRAMES[name])
    for place, value in changes:
        frame[place % len(frame)] = value
    guard = FRAMES["tcp"]
    damaged = bytes(frame[: max(1, cut)])
    written, _ = remapped(tmp_path_factory.mktemp("damaged"), [damaged, guard])
    assert len(written[0]) == len(damaged)
    assert written[1] == rebuilt(written[1])  # the neighbour is untouched


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is the oracle")
def test_tshark_finds_every_checksum_right(tmp_path: Path) -> None:
    remapped(tmp_path, list(FRAMES.values()), iteration=11)
    fields = ("ip", "tcp", "udp", "icmp", "icmpv6")
    command = ["tshark", "-r", str(tmp_path / "out.pcap"), "-T", "fields", "-E", "occurrence=a"]
    for protocol in ("ip", "tcp", "udp"):
        command += ["-o", f"{protocol}.check_checksum:TRUE"]
    for protocol in fields:
        command += ["-e", f"{protocol}.checksum.status"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == len(FRAMES)
    statuses = [status for line in lines for cell in line.split("\t") for status in cell.split(",")]
    assert statuses.count("1") > len(FRAMES)  # 1: good
    assert "0" not in statuses  # 0: bad


def test_the_mapping_table_and_the_inverse_agree(tmp_path: Path) -> None:
    _, plan = remapped(tmp_path, list(FRAMES.values()), iteration=5)
    write_mapping(plan, 5, tmp_path / "mapping.csv")
    with (tmp_path / "mapping.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    loaded = AddressPlan.load(tmp_path / "out.pcap.plan.json")
    assert rows
    for row in rows:
        origin = None if row["class"] == "kept" else (5, row["original"])
        assert loaded.invert(row["mapped"]) == origin


def test_input_is_never_the_output(tmp_path: Path) -> None:
    source = write_capture(tmp_path / "in.pcap", [(START, FRAMES["tcp"])])
    before = source.read_bytes()
    with pytest.raises(OutputError, match=r"in\.pcap"):
        remap([source], source, "key")
    assert source.read_bytes() == before


def test_a_wrong_network_is_named(tmp_path: Path) -> None:
    source = write_capture(tmp_path / "in.pcap", [(START, FRAMES["tcp"])])
    with pytest.raises(PlanError, match=r"--home: '10\.0\.0\.1/8'"):
        remap([source], tmp_path / "out.pcap", "key", home=["10.0.0.1/8"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pcap"]
