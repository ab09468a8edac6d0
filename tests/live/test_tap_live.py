"""The virtual lab's tap is a wire: every frame comes out as it went in, whatever is in it."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dpkt
import pytest

from harness.trial import Port, interface_counters
from lab import netns_tools as net
from lab import virtual
from lab.fake import FakeHost, Reply
from lab.virtual_layout import Namespaces, layout

pytestmark = pytest.mark.live

MACS = bytes.fromhex("020000000002020000000001")
HEADER = struct.pack(">BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0)  # the checksum is wrong
ENDS = bytes([10, 0, 0, 1, 203, 0, 113, 1])
SEGMENT = struct.pack(">HHIIBBHHH", 1000, 80, 1, 1, 0x50, 0x10, 1000, 0, 0)


def fragment(offset: int, more: bool, data: bytes) -> bytes:
    flags = (offset // 8) | (0x2000 if more else 0)
    header = bytearray(
        struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(data), 7, flags, 64, 17, 0) + ENDS
    )
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = (~(total + (total >> 16)) & 0xFFFF).to_bytes(2)
    return MACS + b"\x08\x00" + bytes(header) + data


# What a bridge drops, cuts, puts together or keeps for itself; and what it would let through.
FRAMES = {
    "wrong IP checksum": MACS + b"\x08\x00" + HEADER + ENDS + SEGMENT,
    "padding": MACS + b"\x08\x00" + HEADER + ENDS + SEGMENT + b"PADDED",
    "no source address": bytes(12) + b"\x08\x00" + HEADER + ENDS + SEGMENT + bytes(6),
    "a group's source address": b"\x02" * 6 + b"\x03" * 6 + b"\x08\x00" + HEADER + ENDS + SEGMENT,
    "LLDP": bytes.fromhex("0180c200000e02000000000188cc0207") + bytes(44),
    "pause": bytes.fromhex("0180c2000001020000000001880800010010") + bytes(42),
    "first fragment": fragment(0, True, struct.pack(">HHHH", 53, 53, 40, 0) + bytes(24)),
    "last fragment": fragment(32, False, bytes(8)),
    "VLAN": MACS + bytes.fromhex("81000064") + b"\x08\x00" + HEADER + ENDS + SEGMENT,
    "ARP": b"\xff" * 6 + MACS[6:] + bytes.fromhex("0806000108000604") + bytes(40),
    "largest": MACS + b"\x86\xdd" + bytes(1500),
    "not known": MACS + b"\x12\x34" + bytes(range(50)),
}


@pytest.fixture(scope="module")
def spaces() -> Iterator[Namespaces]:
    name = f"tap{os.getpid()}"
    try:
        virtual.up(name, virtual.Options(tap=True))
        yield layout(name).namespaces
    finally:
        virtual.down(name)


def port(space: str, interface: str) -> Port:
    """An interface in a namespace, to read its counters."""
    return Port(
        FakeHost(lambda call: Reply(net.run(net.in_namespace(space, call.argv)).stdout)), interface
    )


@pytest.mark.parametrize(("sender", "listener"), [("tx0", "tx1"), ("tx1", "tx0")])
def test_every_frame_comes_out_as_it_went_in(
    spaces: Namespaces, tmp_path: Path, sender: str, listener: str
) -> None:
    sent = tmp_path / "sent.pcap"
    with sent.open("wb") as stream:
        writer = dpkt.pcap.Writer(stream, snaplen=65535)
        for number, octets in enumerate(FRAMES.values()):
            writer.writepkt(octets, ts=number / 1000)
    ends = {"sensor": (spaces.sensor, "rx0"), "opposite": (spaces.generator, listener)}
    watchers = {}
    for role, (space, interface) in ends.items():
        argv = ["tcpdump", "--immediate-mode", "-i", interface, "-Q", "in", "-U"]
        argv += ["-c", str(len(FRAMES)), "-w", str(tmp_path / f"{role}.pcap")]
        watchers[role] = subprocess.Popen(
            net.in_namespace(space, argv), stderr=subprocess.PIPE, text=True
        )
    for watcher in watchers.values():
        assert watcher.stderr is not None
        assert "listening" in watcher.stderr.readline()
    ports = {role: port(*end) for role, end in ends.items()}
    out = port(spaces.generator, sender)
    before = {role: interface_counters(one) for role, one in ports.items()}
    out_before = interface_counters(out)
    net.run(net.in_namespace(spaces.generator, ["tcpreplay", "-q", "-i", sender, str(sent)]))
    for role, watcher in watchers.items():
        try:
            watcher.wait(5)
        except subprocess.TimeoutExpired:  # something is missing: what is there will tell
            watcher.terminate()
            watcher.wait(5)
        with (tmp_path / f"{role}.pcap").open("rb") as stream:
            found = [bytes(octets) for _, octets in dpkt.pcap.Reader(stream)]
        names = {octets: name for name, octets in FRAMES.items()}
        assert [names.get(octets, octets.hex()) for octets in found] == list(FRAMES), role
    transmitted = interface_counters(out).since(out_before)
    assert transmitted.tx_packets == len(FRAMES)
    for role, one in ports.items():
        received = interface_counters(one).since(before[role])
        assert received.rx_packets == len(FRAMES)
        assert received.rx_bytes == transmitted.tx_bytes == sum(map(len, FRAMES.values()))
