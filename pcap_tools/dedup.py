"""Packets that were captured twice: mirror ports deliver a packet at its entry and at its exit.

A packet is a duplicate when an equal one is among the packets before it, within a window of packets
or of time: exactly what editcap -D N and -w S drop (wireshark/editcap.c). Duplicates count as
packets before, too. Equal is: all captured bytes ("exact"), or the IP packet without what a router
changes on the way ("ip": link layer, TTL or hop limit, and header checksum left out).

Frames are compared by a 64-bit digest where editcap uses MD5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Batch
from pcap_tools.decode import Decoder
from pcap_tools.errors import PcapError
from pcap_tools.kernels import I64, U8, U64, inner, kernel, load64, load_u8
from pcap_tools.packet import PacketRows
from pcap_tools.walk import U32, Word

__all__ = ["Duplicates", "Window", "parse_window"]

_DEPTH = 999_999
"""How many packets back a window of time looks at most (editcap's MAX_DUP_DEPTH, less itself)."""

_P1 = np.uint64(0x9E3779B185EBCA87)  # the primes of xxHash
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_IP = 1
_SNAPPED_OR_MALFORMED = 48


@dataclass(frozen=True, slots=True)
class Window:
    """How far back an equal packet makes a duplicate: `packets` (itself included, as editcap -D
    counts them), or, where `time_ns` is 0 or more, so long ago at most (as editcap -w)."""

    packets: int = 5
    time_ns: int = -1

    def __post_init__(self) -> None:
        if self.time_ns < 0 and not 2 <= self.packets <= _DEPTH + 1:
            raise PcapError(
                f"a window of {self.packets} packets; give 2 (the packet before) to {_DEPTH + 1:,}"
            )

    def __str__(self) -> str:
        return f"{self.time_ns / 1e9:g} s" if self.time_ns >= 0 else f"{self.packets} packets"


def parse_window(text: str) -> Window:
    """A window from "5" (packets) or "0.001s", "1ms", "20us", "500ns". Raises PcapError."""
    if text.isdecimal():
        return Window(int(text))
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|ms|us|µs|ns)", text)
    if not found:
        raise PcapError(f"{text!r} is no window; give packets, as 5, or a time, as 1ms or 0.5s")
    unit = {"s": 10**9, "ms": 10**6, "us": 1000, "µs": 1000, "ns": 1}[found[2]]
    return Window(time_ns=round(float(found[1]) * unit))


class Duplicates:
    """Tells which packets of consecutive batches repeat an earlier one."""

    def __init__(self, window: Window | None = None, equal: str = "exact") -> None:
        window = window or Window()
        self._by_ip = equal == "ip"
        self._decode = Decoder()
        self._window_ns = window.time_ns
        depth = window.packets - 1 if window.time_ns < 0 else _DEPTH
        self._digests: U64 = np.zeros(depth, np.uint64)  # of the packets before, a ring
        self._times: I64 = np.zeros(depth, np.int64)
        self._slots: I64 = np.zeros(1 << max(10, (4 * depth).bit_length()), np.int64)
        # Packets so far, slots used, the last packet that was earlier than the one before it.
        self._state: I64 = np.zeros(3, np.int64)

    def __call__(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Whether each packet is a duplicate."""
        digests: U64 = np.empty(len(batch), np.uint64)
        if self._by_ip:
            rows = self._decode(batch)
            _digest_packets(batch.data, batch.offset, batch.caplen, rows, digests)
        else:
            _digest_frames(batch.data, batch.offset, batch.caplen, digests)
        found = np.empty(len(batch), np.bool_)
        _find(
            digests,
            batch.time_ns,
            self._window_ns,
            self._digests,
            self._times,
            self._slots,
            self._state,
            found,
        )
        return found


@inner
def _mix(digest: np.uint64, word: np.uint64, factor: np.uint64) -> np.uint64:
    mixed = (digest ^ word) * factor
    return np.uint64((mixed << np.uint64(31)) | (mixed >> np.uint64(33)))


@inner
def _digest(address: Word, size: Word, seed: np.uint64) -> np.uint64:
    """64 bits of `size` bytes at an address; two chains, which the processor runs in parallel."""
    one = seed ^ (np.uint64(size) * _P3)
    two = _P2
    at = 0
    while at + 16 <= size:
        one = _mix(one, load64(address + at), _P1)
        two = _mix(two, load64(address + at + 8), _P2)
        at += 16
    if at + 8 <= size:
        one = _mix(one, load64(address + at), _P1)
        at += 8
    while at < size:
        two = _mix(two, load_u8(address + at), _P1)
        at += 1
    total = _mix(one, two, _P3)
    total ^= total >> np.uint64(29)
    total *= _P1
    return np.uint64(total ^ (total >> np.uint64(32)))


@kernel
def _digest_frames(data: U8, offset: I64, caplen: U32, digests: U64) -> None:
    base = np.int64(data.ctypes.data)
    for i in range(len(digests)):
        digests[i] = _digest(base + offset[i], np.int64(caplen[i]), np.uint64(0))


@kernel
def _digest_packets(data: U8, offset: I64, caplen: U32, rows: PacketRows, digests: U64) -> None:
    """Digests of IP packets without TTL (hop limit) and header checksum; of other frames, whole."""
    base = np.int64(data.ctypes.data)
    for i in range(len(digests)):
        row = rows[i]
        frame = base + offset[i]
        size = np.int64(caplen[i])
        l3 = np.int64(row.l3)
        if not row.flags & _IP or l3 < 0 or row.flags & _SNAPPED_OR_MALFORMED:
            digests[i] = _digest(frame, size, np.uint64(0))
            continue
        packet = frame + l3
        total = min(size - l3, np.int64(row.ip_len))
        if row.version == 4:
            head = _digest(packet, 8, np.uint64(4))
            head = _mix(head, load_u8(packet + 9), _P1)
            digests[i] = _digest(packet + 12, total - 12, head)
        else:
            head = _digest(packet, 7, np.uint64(6))
            digests[i] = _digest(packet + 8, total - 8, head)


@kernel
def _find(
    digests: U64,
    time_ns: I64,
    window_ns: int,
    ring: U64,
    times: I64,
    slots: I64,
    state: I64,
    found: npt.NDArray[np.bool_],
) -> None:
    """Look every digest up among the last len(ring); `window_ns` < 0 asks for no time.

    `slots` is a hash table of packet numbers + 1 with linear probing; numbers that have left the
    ring are overwritten, and swept out when half the table is used.
    """
    depth = len(ring)
    mask = len(slots) - 1
    for i in range(len(digests)):
        digest, now = digests[i], time_ns[i]
        number = state[0]
        if number > 0 and now < times[(number - 1) % depth]:
            state[2] = number
        at = np.int64(digest & np.uint64(mask))
        spare = np.int64(-1)
        match = np.int64(-1)
        while slots[at] != 0:
            other = slots[at] - 1
            if other < number - depth:
                spare = at if spare < 0 else spare
            elif ring[other % depth] == digest:
                match = other
                break
            at = (at + 1) & mask
        found[i] = match >= 0
        if match >= 0 and window_ns >= 0:
            if state[2] <= match:  # in order since: nothing nearer, nothing too old in between
                found[i] = now - times[match % depth] <= window_ns
            else:
                found[i] = _look_back(digest, now, window_ns, ring, times, number)
        if match < 0 and spare >= 0:
            at = spare
        elif match < 0:
            state[1] += 1
        slots[at] = number + 1
        ring[number % depth] = digest
        times[number % depth] = now
        state[0] = number + 1
        if 2 * state[1] > len(slots):
            _sweep(ring, slots, state)


@inner
def _look_back(
    digest: np.uint64, now: Word, window_ns: int, ring: U64, times: I64, number: Word
) -> bool:
    """As editcap does it: back to the first packet before the window; later ones are no match."""
    depth = len(ring)
    for other in range(number - 1, max(number - depth, 0) - 1, -1):
        age = now - times[other % depth]
        if age < 0:
            continue
        if age > window_ns:
            return False
        if ring[other % depth] == digest:
            return True
    return False


@inner
def _sweep(ring: U64, slots: I64, state: I64) -> None:
    """Fill the table anew with the packets of the ring, the latest of equal ones."""
    depth = len(ring)
    mask = len(slots) - 1
    slots[:] = 0
    used = 0
    for number in range(max(state[0] - depth, 0), state[0]):
        digest = ring[number % depth]
        at = np.int64(digest & np.uint64(mask))
        while slots[at] != 0 and ring[(slots[at] - 1) % depth] != digest:
            at = (at + 1) & mask
        used += slots[at] == 0
        slots[at] = number + 1
    state[1] = used
