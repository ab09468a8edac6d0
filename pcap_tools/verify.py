"""Are a packet's checksums right, and put right those that are not.

IPv4 headers (RFC 791), TCP, UDP (RFC 768; 0 is "none" over IPv4, and over IPv6 for tunnels,
RFC 6935), UDP-Lite with its coverage (RFC 3828), ICMP, ICMPv6 and SCTP's CRC32c (RFC 9260,
appendix A). Only what was captured whole can be told: a packet that was cut, or a fragment, is
judged by its IP header alone, and other protocols have nothing to verify.

A sensor that verifies does not analyse a packet with a wrong checksum (Suricata, Zeek and Snort by
default), so the flow it belongs to is not what the probe sees. Wrong checksums in captures come
from segmentation and checksum offload of the capturing host more often than from the wire.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Batch
from pcap_tools.checksum import fold, pseudo_sum, sum_words
from pcap_tools.decode import Decoder
from pcap_tools.kernels import (
    I32,
    I64,
    U8,
    U32,
    as_int,
    inner,
    kernel,
    load32,
    load_u8,
    store16,
    store32,
)
from pcap_tools.linklayer import be16, byte_at
from pcap_tools.packet import PacketRows, Row
from pcap_tools.walk import Word

__all__ = ["BadChecksums", "bad_checksums", "repair"]

_TCP = 6
_UDP = 17
_ICMP = 1
_ICMPV6 = 58
_SCTP = 132
_UDPLITE = 136
_TUNNEL_PORTS = (4789, 8472, 6081, 2152, 3544, 4754)

_IP = 1
_MALFORMED = 32
_VERIFIABLE = 64


def _crc32c_table() -> U32:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table.astype(np.uint32)


_CRC32C = _crc32c_table()


class BadChecksums:
    """Collects which packets of a capture have a wrong checksum, a byte a packet."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.bool_]] = []

    def update(self, batch: Batch, rows: PacketRows) -> None:
        """Verify a batch and its decoded rows."""
        self._parts.append(bad_checksums(batch, rows))

    def flows(self, owner: I32, flows: int) -> I64:
        """Packets with a wrong checksum of each flow, by the owners that the flow table gives."""
        bad = np.concatenate(self._parts) if self._parts else np.zeros(0, np.bool_)
        owners = owner[bad]
        return np.bincount(owners[owners >= 0], minlength=flows)


def bad_checksums(batch: Batch, rows: PacketRows) -> npt.NDArray[np.bool_]:
    """Whether each packet of the batch has a wrong checksum, at the headers its row describes."""
    bad = np.zeros(len(batch), np.bool_)
    _verify_rows(batch.data, batch.offset, rows, bad, False)
    return bad


def repair(batch: Batch, decode: Decoder) -> tuple[Batch, npt.NDArray[np.bool_]]:
    """The batch with right checksums, and which packets had a wrong one.

    The packets are copied when there is something to repair. `decode` must read outer headers: a
    checksum inside a tunnel may be covered by the tunnel's own.
    """
    rows = decode(batch)
    bad = bad_checksums(batch, rows)
    if not bad.any():
        return batch, bad
    begin = int(batch.offset.min())
    end = int((batch.offset + batch.caplen).max())
    changed = replace(batch, data=batch.data[begin:end].copy(), offset=batch.offset - begin)
    _verify_rows(changed.data, changed.offset, rows, np.zeros_like(bad), True)
    return changed, bad


@kernel
def _verify_rows(
    data: U8, offset: I64, rows: PacketRows, bad: npt.NDArray[np.bool_], mend: bool
) -> None:
    base = np.int64(data.ctypes.data)
    for i in range(len(rows)):
        row = rows[i]
        flags = np.int64(row.flags)
        if flags & (_IP | _MALFORMED) != _IP or row.l4 < 0:
            continue
        frame = base + offset[i]
        if row.version == 4 and not _header_right(frame + row.l3, mend):
            bad[i] = True
        if flags & _VERIFIABLE and not _transport_right(frame, row, mend):
            bad[i] = True


@inner
def _header_right(header: Word, mend: bool) -> bool:
    size = as_int(byte_at(header) & 15) * 4
    if fold(sum_words(header, size)) == np.uint64(0xFFFF):
        return True
    if mend:
        store16(header + 10, np.uint64(0))
        store16(header + 10, np.uint64(0xFFFF) ^ sum_words(header, size))
    return False


@inner
def _transport_right(frame: Word, row: Row, mend: bool) -> bool:
    proto = row.proto
    l3 = frame + np.int64(row.l3)
    at = frame + np.int64(row.l4)
    size = as_int(row.l3) + as_int(row.ip_len) - as_int(row.l4)
    covered = size
    place = as_int(0)
    if proto == _TCP:
        place = 16
    elif proto == _UDP:
        place = 6
        length = be16(at + 4)
        if length >= 8:
            size = covered = min(size, length)  # bytes behind a UDP datagram are not its
        if be16(at + 6) == 0 and (
            row.version == 4 or row.dport in _TUNNEL_PORTS or row.sport in _TUNNEL_PORTS
        ):
            return True
    elif proto == _UDPLITE:
        place = 6
        length = be16(at + 4)
        if length != 0:
            covered = min(size, length)
    elif proto in (_ICMP, _ICMPV6):
        place = 2
    elif proto == _SCTP:
        return _sctp_right(at, size, mend)
    else:
        return True
    pseudo = np.uint64(0)
    if proto != _ICMP:
        pseudo = pseudo_sum(as_int(proto), size)
        if row.version == 4:
            pseudo += sum_words(l3 + 12, 8)
        else:
            # A routing header names the final destination elsewhere (RFC 8200, 8.1): not judged.
            if np.int64(row.l4) - row.l3 > 40 and _has_routing(l3, at):
                return True
            pseudo += sum_words(l3 + 8, 32)
    if fold(pseudo + sum_words(at, covered)) == np.uint64(0xFFFF):
        return True
    if mend:
        store16(at + place, np.uint64(0))
        right = np.uint64(0xFFFF) ^ fold(pseudo + sum_words(at, covered))
        if right == 0 and place == 6:
            right = np.uint64(0xFFFF)  # UDP: 0 would say that there is none
        store16(at + place, right)
    return False


@inner
def _has_routing(header: Word, transport: Word) -> bool:
    """Whether a routing header with segments left is between an IPv6 header and its transport."""
    kind = byte_at(header + 6)
    here = header + 40
    while here < transport:
        if kind == 43 and byte_at(here + 3) != 0:
            return True
        length = (byte_at(here + 1) + 2) * 4 if kind == 51 else (byte_at(here + 1) + 1) * 8
        kind = byte_at(here)
        here += length
    return False


@inner
def _sctp_right(at: Word, size: Word, mend: bool) -> bool:
    zero = np.uint32(0)
    crc = np.uint32(0xFFFFFFFF)
    for i in range(size):
        octet = zero if 8 <= i < 12 else np.uint32(load_u8(at + i))
        crc = np.uint32(_CRC32C[(crc ^ octet) & np.uint32(0xFF)] ^ (crc >> np.uint32(8)))
    crc ^= np.uint32(0xFFFFFFFF)
    # Appendix A: transmitted with the least significant byte first.
    if np.uint32(load32(at + 8)) == crc:
        return True
    if mend:
        store32(at + 8, np.uint64(crc))
    return False
