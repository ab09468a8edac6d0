"""Captures made by the tests: conversations packet by packet, with their truth."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

T0 = 1_700_000_000_000_000_000
MS = 1_000_000

Frame = tuple[int, bytes]
"""Time in ns since the epoch, and the frame."""


@dataclass
class Talk:
    """One TCP or UDP conversation; each method appends packets, `ms` apart."""

    client: str = "10.0.0.1"
    server: str = "198.51.100.7"
    sport: int = 40000
    dport: int = 80
    start: int = T0
    ms: int = 10
    vlan: int = 0
    isn: tuple[int, int] = (1000, 5000)
    frames: list[Frame] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seq = list(self.isn)
        self.time = self.start

    def _base(self, end: int) -> Packet:
        src, dst = (self.client, self.server) if end == 0 else (self.server, self.client)
        frame: Packet = Ether(src=f"02:00:00:00:00:0{end}", dst=f"02:00:00:00:00:0{1 - end}")
        if self.vlan:
            frame /= Dot1Q(vlan=self.vlan)
        return frame / (IPv6(src=src, dst=dst) if ":" in src else IP(src=src, dst=dst))

    def add(self, frame: bytes) -> Talk:
        self.frames.append((self.time, frame))
        self.time += self.ms * MS
        return self

    def tcp(
        self,
        end: int,
        flags: str,
        data: bytes = b"",
        *,
        seq: int | None = None,
        ack: int | None = None,
    ) -> Talk:
        ports = (self.sport, self.dport) if end == 0 else (self.dport, self.sport)
        number = self.seq[end] if seq is None else seq
        segment = TCP(
            sport=ports[0],
            dport=ports[1],
            flags=flags,
            seq=number & 0xFFFFFFFF,
            ack=(self.seq[1 - end] if ack is None else ack) & 0xFFFFFFFF if "A" in flags else 0,
        )
        frame = self._base(end) / segment
        if seq is None:
            self.seq[end] += len(data) + ("S" in flags) + ("F" in flags)
        return self.add(bytes(frame / Raw(data) if data else frame))

    def udp(self, end: int, data: bytes = b"x") -> Talk:
        ports = (self.sport, self.dport) if end == 0 else (self.dport, self.sport)
        return self.add(bytes(self._base(end) / UDP(sport=ports[0], dport=ports[1]) / Raw(data)))

    def open(self) -> Talk:
        return self.tcp(0, "S").tcp(1, "SA").tcp(0, "A")

    def talk(self, rounds: int = 2) -> Talk:
        for _ in range(rounds):
            self.tcp(0, "PA", b"q" * 100).tcp(1, "A", b"r" * 1000).tcp(1, "PA", b"r" * 500)
            self.tcp(0, "A")
        return self

    def close(self) -> Talk:
        return self.tcp(0, "FA").tcp(1, "FA").tcp(0, "A")

    def whole(self, rounds: int = 2) -> Talk:
        return self.open().talk(rounds).close()


def merged(*talks: Talk) -> list[Frame]:
    """The frames of all conversations in time order."""
    return sorted((f for talk in talks for f in talk.frames), key=lambda f: f[0])


def write_pcap(
    path: Path,
    frames: list[Frame],
    *,
    link: int = 1,
    order: str = "<",
    nanoseconds: bool = False,
    snaplen: int = 262144,
) -> Path:
    """A pcap file, by the savefile format's description alone."""
    magic, unit = (0xA1B23C4D, 1) if nanoseconds else (0xA1B2C3D4, 1000)
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link)]
    for time, frame in frames:
        seconds, rest = divmod(time, 10**9)
        kept = frame[:snaplen]
        parts.append(struct.pack(order + "IIII", seconds, rest // unit, len(kept), len(frame)))
        parts.append(kept)
    path.write_bytes(b"".join(parts))
    return path


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A pcapng block."""
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    """A section header block."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link: int = 1, snaplen: int = 0, options: bytes = b"", order: str = "<") -> bytes:
    """An interface description block."""
    return block(1, struct.pack(order + "HHI", link, 0, snaplen) + options, order)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    """A pcapng option."""
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def enhanced(ticks: int, frame: bytes, number: int = 0, order: str = "<", wire: int = 0) -> bytes:
    """An enhanced packet block."""
    lengths = (len(frame), wire or len(frame))
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, *lengths)
    return block(6, head + frame, order)


def tshark(path: Path, *fields: str, options: tuple[str, ...] = ("-2",)) -> list[list[str]]:
    """tshark's reading of some fields, one row a packet."""
    command = ["tshark", "-n", *options, "-r", str(path), "-T", "fields", "-E", "occurrence=f"]
    for name in fields:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]
