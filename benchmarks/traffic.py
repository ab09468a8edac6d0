"""Captures for the benchmarks, made fast; the same bytes in every run.

    python benchmarks/traffic.py mix|small MEGABYTES OUT.pcap

mix: mean frame 530 B, 107,500 flows a gigabyte (10^9 bytes), a fifth of them UDP.
small: mean frame 110 B, 1.3 million flows a gigabyte, half of them UDP.
TCP flows have their handshake, requests, answers, acknowledgments and both FINs with right sequence
numbers; every twentieth lacks its beginning and every twentieth its end. Flow lengths are
heavy-tailed, flows begin all over the capture and are interleaved by time. Checksums are right,
short frames padded to 60 B. Standard pcap in microseconds, Ethernet, IPv4.

Nothing of pcap_tools is used, so that what it reads was not written by it.
"""

from __future__ import annotations

import argparse
import struct
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["MIX", "SMALL", "Made", "Profile", "make"]

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

SEED = 20240607
_START_US = 1_700_000_000_000_000
_CHUNK = 1 << 24  # bytes formed at once
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Profile:
    """What a capture is made of.

    `mean` is the mean frame in bytes, `flows` their number in 10^9 bytes of file, `udp` the share
    of flows that are UDP, `full` the largest payload, `gap_ms` the mean silence inside a flow.
    """

    name: str
    mean: int
    flows: int
    udp: float
    full: int
    gap_ms: float


MIX = Profile("mix", 530, 107_500, 0.2, 1460, 200.0)
SMALL = Profile("small", 110, 1_300_000, 0.5, 300, 100.0)


@dataclass(frozen=True)
class Made:
    """The file: bytes, packets and flows."""

    path: Path
    bytes: int
    packets: int
    flows: int

    def __str__(self) -> str:
        return (
            f"{self.bytes / 1e6:,.0f} MB, {self.packets:,} packets (mean frame "
            f"{(self.bytes - 24) / self.packets - 16:.0f} B), {self.flows:,} flows"
        )


def make(path: Path, profile: Profile, megabytes: int) -> Made:
    """Write about so many 10^6 bytes to `path`."""
    random = np.random.default_rng(SEED)
    packets = round(megabytes * 1e6 / (profile.mean + 16))
    flows = max(20, round(megabytes / 1000 * profile.flows))
    udp = random.random(flows) < profile.udp
    counts = _lengths(random, udp, packets)
    order, times = _timeline(random, counts, profile.gap_ms)
    block = random.integers(32, 127, 1 << 16, dtype=np.uint8)
    sums = np.zeros(len(block) // 2 + 1, np.int64)
    np.cumsum(block.view(">u2").astype(np.int64), out=sums[1:])
    share = _share_of_full(profile, order, counts, udp)
    state = np.zeros((flows, 3), np.int64)  # packets so far, next sequence numbers
    state[:, 1:] = random.integers(0, 1 << 32, (flows, 2))
    out = np.empty(_CHUNK + (1 << 12), np.uint8)
    written, done = 24, 0
    with path.open("wb", buffering=0) as stream:
        stream.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        while done < len(order):
            done, used = _form(
                order,
                times,
                done,
                counts,
                udp,
                state,
                block,
                sums,
                share,
                profile.full,
                out,
                _CHUNK,
            )
            stream.write(out[:used].data)
            written += used
    return Made(path, written, len(order), flows)


def _lengths(random: np.random.Generator, udp: npt.NDArray[np.bool_], packets: int) -> I64:
    """Packets of each flow: heavy-tailed, at least 2 (UDP) or 8 (TCP; 7 where it must)."""
    least = np.where(udp, 2, 8)
    spare = packets - int(least.sum())
    weight = random.pareto(1.4, len(udp)) * np.where(udp, 0.3, 1.0)
    weight = np.minimum(weight, 2000)
    return least + np.floor(weight * (max(spare, 0) / weight.sum())).astype(np.int64)


def _timeline(random: np.random.Generator, counts: I64, gap_ms: float) -> tuple[I64, I64]:
    """Flow of each packet in order of time, and the times in µs since the epoch."""
    first = np.cumsum(counts) - counts
    flow = np.repeat(np.arange(len(counts)), counts)
    gaps = random.exponential(gap_ms * 1e3, len(flow))
    # A long flow is a fast one, or it would outlast the capture.
    gaps /= np.repeat(np.maximum(1.0, counts / 50), counts)
    gaps[first] = 0.0
    times = np.cumsum(gaps)
    times += np.repeat(random.uniform(0, 60e6, len(counts)) - times[first], counts)
    order = np.argsort(times, kind="stable")
    return flow[order], times[order].astype(np.int64) + _START_US


def _share_of_full(profile: Profile, order: I64, counts: I64, udp: npt.NDArray[np.bool_]) -> float:
    """The share of full-sized segments in data packets that gives the mean frame size."""
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        mean = _mean_frame(order, counts, udp, middle, profile.full)
        low, high = (middle, high) if mean < profile.mean else (low, middle)
    return (low + high) / 2


@numba.njit(cache=True)
def _mix(value: int) -> np.uint64:
    """splitmix64's finaliser: a number for (flow, packet), the same in every run."""
    word = np.uint64(value) * np.uint64(_GOLDEN)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@numba.njit(cache=True)
def _role(flow: int, position: int, count: int, udp: bool, share: float, full: int):  # type: ignore[no-untyped-def]
    """(sender, TCP flags, payload) of a flow's packet; flags 0 for UDP."""
    draw = _mix(flow * 1_000_003 + position)
    size = np.int64((draw >> np.uint64(8)) & np.uint64(0xFFFFFF))
    large = np.float64(draw >> np.uint64(40)) / 16777216.0 < share
    payload = full if large else 20 + size % (full // 4)
    if udp:
        return position & 1, 0, payload if position > 1 or large else 20 + size % 60
    half = flow % 20
    if half == 0:
        position += 3  # begun before the capture
        count += 3
    elif half == 1:
        count += 3  # cut off
    if position == 0:
        return 0, 2, 0
    if position == 1:
        return 1, 18, 0
    if position == 2:
        return 0, 16, 0
    if position == count - 3:
        return flow & 1, 17, 0
    if position == count - 2:
        return 1 - (flow & 1), 17, 0
    if position == count - 1:
        return flow & 1, 16, 0
    if position == 3:
        return 0, 24, 20 + size % min(400, full)
    kind = draw & np.uint64(7)
    if kind < 2:
        return 0, 16, 0
    return 1 if kind < 7 else 0, 24, payload


@numba.njit(cache=True)
def _mean_frame(order, counts, udp, share, full):  # type: ignore[no-untyped-def]
    """Mean over the flows, whatever their order in time."""
    total = 0
    packets = 0
    for flow in range(len(counts)):
        if packets > 2_000_000:
            break
        for position in range(counts[flow]):
            _, _, payload = _role(flow, position, counts[flow], udp[flow], share, full)
            total += max(60, payload + (42 if udp[flow] else 54))
        packets += counts[flow]
    return total / packets


@numba.njit(cache=True)
def _put16(out, at, value):  # type: ignore[no-untyped-def]
    out[at] = (value >> 8) & 255
    out[at + 1] = value & 255


@numba.njit(cache=True)
def _put32(out, at, value):  # type: ignore[no-untyped-def]
    _put16(out, at, (value >> 16) & 0xFFFF)
    _put16(out, at + 2, value & 0xFFFF)


@numba.njit(cache=True)
def _little32(out, at, value):  # type: ignore[no-untyped-def]
    for byte in range(4):
        out[at + byte] = (value >> (8 * byte)) & 255


@numba.njit(cache=True)
def _folded(total):  # type: ignore[no-untyped-def]
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@numba.njit(cache=True)
def _ends(flow, udp):  # type: ignore[no-untyped-def]
    """Client and server address and port; no two flows share client address and port."""
    host = flow % 50_000
    client = 0x0A000000 | ((host // 250) << 8) | (1 + host % 250)
    client_port = 1024 + (flow // 50_000 * 7919 + host) % 64_000
    draw = np.int64(_mix(flow + 77) >> np.uint64(33))
    server = 0x17000000 + draw % 20_000 * 769
    pick = draw // 20_000 % 10
    if udp:
        return client, client_port, server, 40_000 + pick  # nobody's: a parser would only see junk
    return client, client_port, server, 443 if pick < 7 else 80 if pick < 9 else 25


@numba.njit(cache=True)
def _form(order, times, start, counts, udp, state, block, sums, share, full, out, limit):  # type: ignore[no-untyped-def]
    """Records of packets from `start` on until `limit` bytes: next packet, bytes."""
    at = 0
    for packet in range(start, len(order)):
        if at >= limit:
            return packet, at
        flow = order[packet]
        datagram = udp[flow]
        position = state[flow, 0]
        state[flow, 0] = position + 1
        sender, flags, payload = _role(flow, position, counts[flow], datagram, share, full)
        header = 8 if datagram else 20
        size = 34 + header + payload
        length = max(60, size)
        _little32(out, at, times[packet] // 1_000_000)
        _little32(out, at + 4, times[packet] % 1_000_000)
        _little32(out, at + 8, length)
        _little32(out, at + 12, length)
        frame = at + 16
        at = frame + length
        for byte in range(12):
            out[frame + byte] = 0
        out[frame] = out[frame + 6] = 2
        out[frame + 5] = 2 - sender
        out[frame + 11] = 1 + sender
        _put16(out, frame + 12, 0x0800)
        ip = frame + 14
        client, client_port, server, server_port = _ends(flow, datagram)
        source, target, sport, dport = client, server, client_port, server_port
        if sender == 1:
            source, target, sport, dport = server, client, server_port, client_port
        protocol = 17 if datagram else 6
        number = (packet * 31 + 7) & 0xFFFF
        _put16(out, ip, 0x4500)
        _put16(out, ip + 2, size - 14)
        _put16(out, ip + 4, number)
        _put16(out, ip + 6, 0x4000)
        _put16(out, ip + 8, (64 << 8) | protocol)
        _put32(out, ip + 12, source)
        _put32(out, ip + 16, target)
        addresses = (source >> 16) + (source & 0xFFFF) + (target >> 16) + (target & 0xFFFF)
        total = 0x4500 + size - 14 + number + 0x4000 + ((64 << 8) | protocol) + addresses
        _put16(out, ip + 10, _folded(total))
        l4 = ip + 20
        _put16(out, l4, sport)
        _put16(out, l4 + 2, dport)
        total = addresses + protocol + header + payload + sport + dport
        if datagram:
            _put16(out, l4 + 4, 8 + payload)
            total += 8 + payload
            field = l4 + 6
        else:
            mine = state[flow, 1 + sender] & 0xFFFFFFFF
            other = state[flow, 2 - sender] & 0xFFFFFFFF if flags & 16 else 0
            state[flow, 1 + sender] = mine + payload + (1 if flags & 3 else 0)
            _put32(out, l4 + 4, mine)
            _put32(out, l4 + 8, other)
            _put16(out, l4 + 12, 0x5000 | flags)
            _put16(out, l4 + 14, 0xFAF0)
            _put16(out, l4 + 18, 0)
            total += (mine >> 16) + (mine & 0xFFFF) + (other >> 16) + (other & 0xFFFF)
            total += (0x5000 | flags) + 0xFAF0
            field = l4 + 16
        begin = np.int64(_mix(packet) >> np.uint64(34)) % ((len(block) - 2048) // 2) * 2
        body = l4 + header
        out[body : body + payload] = block[begin : begin + payload]
        total += sums[(begin + payload) // 2] - sums[begin // 2]
        if payload & 1:
            total += np.int64(block[begin + payload - 1]) << 8
        value = _folded(total)
        _put16(out, field, 0xFFFF if datagram and value == 0 else value)
        for byte in range(body + payload, frame + length):
            out[byte] = 0
    return len(order), at


def main() -> int:
    """Write one capture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("profile", choices=[MIX.name, SMALL.name])
    parser.add_argument("megabytes", type=int)
    parser.add_argument("path", type=Path)
    arguments = parser.parse_args()
    profile = MIX if arguments.profile == MIX.name else SMALL
    print(make(arguments.path, profile, arguments.megabytes))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
