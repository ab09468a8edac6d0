"""Kernels that decide which packets an impairment touches, and that damage their bytes.

A packet's `what` is a set of bits, one a kind. Damage is written into the batch's own buffer, and
a row of `DAMAGE` tells which bytes became what, so that it can be repeated from a manifest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pcap_tools.chance import draw, happens
from pcap_tools.kernels import I32, U8, U64, as_int, inner, kernel, load16, load_u8, store16, swap16
from pcap_tools.packet import PacketRows, Row
from pcap_tools.walk import U32, Word

__all__ = [
    "CORRUPT",
    "DAMAGE",
    "DUPLICATE",
    "HEADER",
    "JITTER",
    "KINDS",
    "LOSS",
    "PAYLOAD",
    "REORDER",
    "TRUNCATE",
    "checksum_at",
    "damage",
    "mark",
]

KINDS = ("loss", "duplicate", "reorder", "jitter", "truncate", "corrupt", "corrupt-ip", "payload")
"""Kind number k is bit 1 << k of `what`."""

LOSS, DUPLICATE, REORDER, JITTER, TRUNCATE, CORRUPT, HEADER, PAYLOAD = (1 << k for k in range(8))

DAMAGE = np.dtype(
    [
        # Offsets in the frame (-1: untouched) and what stands there now, in network byte order.
        ("sum_at", np.int32),  # transport checksum (16 bits; of SCTP's CRC32c the first 16)
        ("sum", np.int32),
        ("header_at", np.int32),  # IPv4 header checksum (16 bits)
        ("header", np.int32),
        ("payload_at", np.int32),  # one byte of payload
        ("payload", np.int32),
    ],
    align=True,
)

_TCP, _UDP, _ICMP, _ICMPV6, _DCCP, _SCTP, _UDPLITE = 6, 17, 1, 58, 33, 132, 136
# The flag bits of pcap_tools.packet: kernels freeze plain integers of their own module.
_PORTS, _FOLLOWER, _MALFORMED = 2, 8, 32


@kernel
def mark(
    first: int, owner: I32, keys: U64, limits: U64, flow_keys: U64, flow_limits: U64, what: U8
) -> None:
    """Set what[i] for packet first + i of flow owner[i]: bit k where kind k's draws say so.

    `limits` are thresholds per packet (0: the kind is off), `flow_limits` per flow; with one below
    certainty, packets outside flows are left alone. A lost packet suffers nothing else.
    """
    certain = np.uint64(1 << 53)
    for i in range(len(owner)):
        bits = 0
        for kind in range(len(keys)):
            if limits[kind] == 0 or not happens(keys[kind], first + i, limits[kind]):
                continue
            if flow_limits[kind] < certain and (
                owner[i] < 0 or not happens(flow_keys[kind], as_int(owner[i]), flow_limits[kind])
            ):
                continue
            bits |= 1 << kind
        what[i] = np.uint8(LOSS if bits & LOSS else bits)


@kernel
def damage(
    data: U8,
    offset: npt.NDArray[np.int64],
    caplen: U32,
    first: int,
    rows: PacketRows,
    keys: U64,
    cut: int,
    what: U8,
    found: npt.NDArray[np.void],
) -> None:
    """Carry out TRUNCATE, PAYLOAD, CORRUPT and HEADER on a batch's frames (data, offset, caplen).

    Changes frames and `caplen` (cut to `cut`) in place and fills `found` (DAMAGE rows). A bit of
    `what` is cleared where there is nothing to damage. `keys` draw positions and bits, by kind.
    """
    base = np.int64(data.ctypes.data)
    for i in range(len(offset)):
        note = found[i]
        note.sum_at = note.header_at = note.payload_at = np.int32(-1)
        bits = as_int(what[i])
        if not bits & (TRUNCATE | PAYLOAD | CORRUPT | HEADER):
            continue
        frame = base + offset[i]
        if bits & TRUNCATE:
            if as_int(caplen[i]) > cut:
                caplen[i] = np.uint32(cut)
            else:
                bits &= ~TRUNCATE
        end = as_int(caplen[i])
        place = checksum_at(frame, end, rows[i])
        # The payload first: its checksum is kept right before another draw makes it wrong.
        if bits & PAYLOAD:
            at = _flip_payload(frame, end, place, rows[i], draw(keys[7], first + i), note)
            if at < 0:
                bits &= ~PAYLOAD
            else:
                data[offset[i] + at] = note.payload
        if bits & CORRUPT:
            if place >= 0:
                never_zero = as_int(rows[i].proto) == _UDP
                note.sum_at = np.int32(place)
                note.sum = _flip16(frame + place, draw(keys[5], first + i), never_zero)
            elif not _flip_header(frame, end, rows[i], draw(keys[5], first + i), note):
                bits &= ~CORRUPT
        if bits & HEADER and (
            note.header_at >= 0
            or not _flip_header(frame, end, rows[i], draw(keys[6], first + i), note)
        ):
            bits &= ~HEADER
        what[i] = np.uint8(bits)


@inner
def checksum_at(frame: Word, end: Word, row: Row) -> Word:
    """Offset of a transport checksum that is in use and captured, else -1."""
    flags = as_int(row.flags)
    if not flags & _PORTS or flags & _FOLLOWER:
        return -1
    proto = as_int(row.proto)
    place = as_int(row.l4)
    if proto == _TCP:
        place += 16
    elif proto in (_UDP, _UDPLITE, _DCCP):
        place += 6
    elif proto in (_ICMP, _ICMPV6):
        place += 2
    elif proto == _SCTP:
        place += 8
    else:
        return -1
    if place + 2 > end or (proto == _UDP and load16(frame + place) == 0):
        return -1
    return place


@inner
def _flip16(address: Word, random: Word, never_zero: bool) -> Word:
    """Flip one bit of a big-endian checksum: ±2^k is never 0 modulo 2^16 − 1, so right turns wrong.

    For UDP not into 0, which would mean "no checksum" (RFC 768). Returns the new value.
    """
    bit = as_int(random & np.uint64(15))
    old = as_int(swap16(load16(address)))
    new = old ^ (1 << bit)
    if never_zero and new == 0:
        new = old ^ (1 << ((bit + 1) & 15))
    store16(address, swap16(np.uint64(new)))
    return np.int32(new)


@inner
def _flip_header(frame: Word, end: Word, row: Row, random: Word, note: Row) -> bool:
    place = as_int(row.l3) + 10
    if as_int(row.version) != 4 or as_int(row.l3) < 0 or place + 2 > end:
        return False
    note.header_at = np.int32(place)
    note.header = _flip16(frame + place, random, False)
    return True


@inner
def _flip_payload(frame: Word, end: Word, place: Word, row: Row, random: Word, note: Row) -> Word:
    """Choose one bit of TCP, UDP or ICMP payload to flip; returns its byte's offset, or -1.

    The byte's new value goes into `note`; the checksum is carried along (RFC 1624, equation 3).
    """
    flags = as_int(row.flags)
    proto = as_int(row.proto)
    if not flags & _PORTS or flags & (_FOLLOWER | _MALFORMED):
        return -1
    l4 = as_int(row.l4)
    stop = as_int(row.l3) + as_int(row.ip_len)
    begin = stop - as_int(row.payload)
    if proto == _UDP:
        said = as_int(swap16(load16(frame + l4 + 4)))
        if said >= 8:
            stop = min(stop, l4 + said)
    elif proto in (_ICMP, _ICMPV6):
        begin = l4 + 8
    elif proto != _TCP:
        return -1
    stop = min(stop, end)
    if begin >= stop:
        return -1
    at = begin + as_int((random >> np.uint64(8)) % np.uint64(stop - begin))
    old = as_int(load_u8(frame + at))
    new = old ^ (1 << as_int(random & np.uint64(7)))
    note.payload_at = np.int32(at)
    note.payload = np.int32(new)
    if place >= 0:
        shift = 8 if (at - l4) % 2 == 0 else 0
        total = (0xFFFF ^ as_int(swap16(load16(frame + place)))) + (0xFFFF ^ (old << shift))
        total += new << shift
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        value = 0xFFFF ^ total
        if value == 0 and proto == _UDP:
            value = 0xFFFF
        store16(frame + place, swap16(np.uint64(value)))
        note.sum_at = np.int32(place)
        note.sum = np.int32(value)
    return at
