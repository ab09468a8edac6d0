"""What a flow table does not keep of a capture: frame sizes, order in time, repeated frames, and
which flows carry encrypted payload. One more pass; 1 byte a packet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Capture
from pcap_tools.decode import Decoder
from pcap_tools.flows import FlowTable
from pcap_tools.kernels import I64, U8, U32, U64, as_int, kernel
from pcap_tools.packet import PacketRows

__all__ = ["DUPLICATE_WINDOW", "Survey", "survey"]

DUPLICATE_WINDOW = 4
"""A frame is a duplicate of one of so many before it (as `editcap -d` has it)."""

_TCP, _UDP, _ESP = 6, 17, 50
_LARGEST = 1 << 16
_NO_L3 = 14  # without an IP header, what precedes the payload is taken for Ethernet's header


@dataclass(frozen=True)
class Survey:
    """`sizes[n]` counts packets with n bytes behind the link header and VLAN tags (what the MTU
    limits; the last entry takes all that are larger). `backwards` counts packets that are earlier
    than the one before, `worst_ns` is the largest such step. `duplicates` counts frames equal to
    one of the DUPLICATE_WINDOW before. `encrypted[f]`: flow f carries TLS, SSH, QUIC, ESP, IKE,
    OpenVPN or WireGuard.
    """

    sizes: I64
    backwards: int
    worst_ns: int
    duplicates: int
    encrypted: npt.NDArray[np.bool_]

    def larger_than(self, mtu: int) -> int:
        """Packets that do not fit into an MTU."""
        return int(self.sizes[min(mtu, _LARGEST - 1) + 1 :].sum())

    @property
    def largest(self) -> int:
        """Bytes of the largest packet behind the link header; 0 without packets."""
        used = np.flatnonzero(self.sizes)
        return int(used[-1]) if len(used) else 0


def survey(capture: Capture, table: FlowTable) -> Survey:
    """Read an open capture again, after its flow table. Raises CaptureError."""
    decode = Decoder()
    sizes = np.zeros(_LARGEST + 1, np.int64)
    marks = np.zeros(len(table.owner), np.uint8)
    recent = np.zeros(DUPLICATE_WINDOW, np.uint64)
    duplicates, backwards, worst = 0, 0, 0
    last: int | None = None
    done = 0
    for batch in capture.batches():
        rows = decode(batch)
        count = len(batch)
        lead = np.where(rows["l3"][:count] >= 0, rows["l3"][:count], _NO_L3)
        behind = np.clip(batch.wirelen.astype(np.int64) - lead, 0, _LARGEST)
        sizes += np.bincount(behind, minlength=_LARGEST + 1)
        times = batch.time_ns
        steps = np.diff(times, prepend=times[0] if last is None else last)
        backwards += int((steps < 0).sum())
        worst = max(worst, -int(steps.min()))
        last = int(times[-1])
        duplicates += _repeats(batch.data, batch.offset, batch.caplen, batch.wirelen, recent, done)
        _mark(batch.data, batch.offset, batch.caplen, rows, marks[done : done + count])
        done += count
    encrypted = np.zeros(len(table), np.bool_)
    owners = table.owner[marks[: len(table.owner)] > 0]
    encrypted[owners[owners >= 0]] = True
    return Survey(sizes, backwards, worst, duplicates, encrypted)


@kernel
def _digest(data: U8, begin: int, size: int, seed: np.uint64) -> np.uint64:
    """64-bit FNV-1a of a frame (G. Fowler, L. C. Noll, K.-P. Vo, 1991)."""
    value = np.uint64(0xCBF29CE484222325) ^ seed
    for at in range(begin, begin + size):
        value = (value ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
    return value | np.uint64(1)  # 0 is an empty place in the window


@kernel
def _repeats(data: U8, offset: I64, caplen: U32, wirelen: U32, recent: U64, done: int) -> int:
    """Frames equal to one of the window's; `recent` is a ring over all batches."""
    found = 0
    for index in range(offset.size):
        value = _digest(data, offset[index], as_int(caplen[index]), np.uint64(wirelen[index]))
        for place in range(recent.size):
            if recent[place] == value:
                found += 1
                break
        recent[(done + index) % recent.size] = value
    return found


@kernel
def _mark(data: U8, offset: I64, caplen: U32, rows: PacketRows, marks: U8) -> None:
    """1 for packets whose payload shows that their flow is encrypted."""
    for index in range(offset.size):
        row = rows[index]
        proto = row.proto
        if proto == _ESP:
            marks[index] = 1
            continue
        if row.l4 < 0 or row.payload < 4 or not row.flags & 2:
            continue
        end = offset[index] + np.int64(caplen[index])
        at = offset[index] + np.int64(row.l4)
        if proto == _TCP:
            if at + 13 > end:
                continue
            at += np.int64(data[at + 12] >> 4) * 4
            if at + 4 > end:
                continue
            tls = 20 <= data[at] <= 23 and data[at + 1] == 3 and data[at + 2] <= 4
            ssh = data[at] == 83 and data[at + 1] == 83 and data[at + 2] == 72  # "SSH-"
            if tls or (ssh and data[at + 3] == 45):
                marks[index] = 1
        elif proto == _UDP:
            at += 8
            if at + 5 > end:
                continue
            low = min(row.sport, row.dport)
            if (row.sport == 443 or row.dport == 443) and data[at] & 0xC0 == 0xC0:
                marks[index] = 1  # QUIC's long header (RFC 9000, 17.2)
            elif low == 500 or low == 4500 or low == 1194 or max(row.sport, row.dport) == 51820:
                marks[index] = 1
