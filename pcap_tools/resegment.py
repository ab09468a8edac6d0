"""TCP segments larger than the MTU, as offloading hosts record them, cut to what the wire carried.

Segmentation offload (TSO, GSO) and receive offload (GRO, LRO) show a capturing host up to 64 KB of
a stream as one packet. It is cut as Linux does it (net/ipv4/tcp_offload.c tcp_gso_segment,
af_inet.c inet_gso_segment): the headers before each piece, sequence numbers and IP identification
counted on, FIN and PSH on the last piece only, CWR on the first only, lengths and checksums right.
Pieces are as large as the MTU allows; where the sender really cut is not in the capture.

Left whole, and counted: UDP (where its datagrams ended is not in the capture), fragments, packets
inside tunnels, snapped packets, IP options and extension headers, SYN, RST and urgent data.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pcap_tools.batches import taken
from pcap_tools.capture import Batch
from pcap_tools.checksum import fold, pseudo_sum, sum_words
from pcap_tools.decode import Decoder
from pcap_tools.errors import PcapError
from pcap_tools.kernels import (
    I64,
    U8,
    copy_bytes,
    inner,
    kernel,
    load16,
    load32,
    load_u8,
    store16,
    store32,
    swap16,
    swap32,
)
from pcap_tools.packet import PacketRows, Row
from pcap_tools.walk import MAX_PACKET, U32, Word

__all__ = ["Resegmenter"]

_LEAST_MTU = 576  # RFC 791: what every host must accept
_BUFFER = 1 << 21
_ROWS = 1 << 14
# The flag bits of pcap_tools.packet.
_IP_AND_PORTS = 3
_UNFIT = 4 | 8 | 16 | 32  # fragment, follower, snapped, malformed
_TCP = 6
_SYN_RST_URG = 0x26


class Resegmenter:
    """Cuts the super-segments of batches. `split` packets became `segments`; `kept` are larger
    than the MTU and were left."""

    def __init__(self, mtu: int) -> None:
        if mtu < _LEAST_MTU or mtu > 65_535:
            raise PcapError(f"an MTU of {mtu} bytes; give {_LEAST_MTU} to 65535, mostly 1500")
        self._mtu = mtu
        self._decode = Decoder()
        self._counts: I64 = np.zeros(3, np.int64)
        self._data: U8 = np.empty(0, np.uint8)
        self._columns = np.empty((4, 0), np.int64)

    @property
    def split(self) -> int:
        """Packets that were cut."""
        return int(self._counts[0])

    @property
    def segments(self) -> int:
        """What they were cut into."""
        return int(self._counts[1])

    @property
    def kept(self) -> int:
        """Packets larger than the MTU that were left whole."""
        return int(self._counts[2])

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """The batch's packets, cut where needed; the batch itself when nothing is."""
        if not len(batch) or int(batch.wirelen.max()) <= self._mtu:
            yield batch
            return
        rows = self._decode(batch)
        if int(rows["ip_len"].max()) <= self._mtu:
            yield batch
            return
        if not len(self._data):
            self._data = np.empty(_BUFFER + MAX_PACKET, np.uint8)
            self._columns = np.empty((4, _ROWS), np.int64)
        done = np.zeros(2, np.int64)  # packet, byte of its payload
        while done[0] < len(batch):
            offset, size, wire, origin = self._columns
            count = _cut(
                batch.data,
                batch.offset,
                batch.caplen,
                batch.wirelen,
                rows,
                self._mtu,
                done,
                self._data,
                self._columns,
                self._counts,
            )
            yield taken(
                batch,
                origin[:count],
                data=self._data,
                offset=offset[:count],
                caplen=size[:count].astype(np.uint32),
                wirelen=wire[:count].astype(np.uint32),
            )


@inner
def _header(frame: Word, caplen: Word, row: Row, mtu: int) -> Word:
    """Bytes before the payload of a segment that is to be cut; 0 when it stays whole."""
    if row.flags & _IP_AND_PORTS != _IP_AND_PORTS or row.flags & _UNFIT or row.proto != _TCP:
        return 0
    l3, l4 = np.int64(row.l3), np.int64(row.l4)
    plain = 20 if row.version == 4 else 40
    next_header = load_u8(frame + l3 + (9 if row.version == 4 else 6))
    if l4 - l3 != plain or np.int64(next_header) != _TCP or caplen < l3 + row.ip_len:
        return 0
    header = l4 + (np.int64(load_u8(frame + l4 + 12)) >> 4) * 4
    flags = np.int64(load_u8(frame + l4 + 13))
    room = mtu - (header - l3)
    if header < l4 + 20 or header > l3 + row.ip_len or flags & _SYN_RST_URG or room < 1:
        return 0
    return header


@kernel
def _cut(
    data: U8,
    offset: I64,
    caplen: U32,
    wirelen: U32,
    rows: PacketRows,
    mtu: int,
    done: I64,
    out: U8,
    columns: I64,
    counts: I64,
) -> int:
    """Copy packets from done[0] on into `out`, cut, until it is full: the rows filled.

    `columns` takes offset, captured length, length on the wire and the packet's row of each.
    """
    base, target = np.int64(data.ctypes.data), np.int64(out.ctypes.data)
    count = 0
    fill = np.int64(0)
    for i in range(done[0], len(offset)):
        done[0] = i
        row = rows[i]
        frame = base + offset[i]
        size = np.int64(caplen[i])
        header = np.int64(0)
        if row.ip_len > mtu:
            header = np.int64(_header(frame, size, row, mtu))
        if header == 0:
            if count == columns.shape[1] or fill + size > len(out):
                return count
            copy_bytes(target + fill, frame, size)
            columns[0, count] = fill
            columns[1, count] = size
            columns[2, count] = wirelen[i]
            columns[3, count] = i
            fill += size
            count += 1
            counts[2] += row.ip_len > mtu
            continue
        l3 = np.int64(row.l3)
        payload = l3 + np.int64(row.ip_len) - header
        most = mtu - (header - l3)
        while done[1] < payload:
            piece = min(most, payload - done[1])
            if count == columns.shape[1] or fill + header + piece > len(out):
                return count
            copy_bytes(target + fill, frame, header)
            copy_bytes(target + fill + header, frame + header + done[1], piece)
            last = done[1] + piece == payload
            _finish(target + fill, row, header, piece, done[1], done[1] // most, last)
            columns[0, count] = fill
            columns[1, count] = header + piece
            columns[2, count] = header + piece
            columns[3, count] = i
            counts[1] += 1
            fill += header + piece
            count += 1
            done[1] += piece
        done[1] = 0
        counts[0] += 1
    done[0] = len(offset)
    return count


@inner
def _finish(
    frame: Word, row: Row, header: Word, piece: Word, before: Word, number: Word, last: bool
) -> None:
    """Make a copied header right for `piece` bytes that follow `before` earlier ones."""
    ip, tcp = frame + np.int64(row.l3), frame + np.int64(row.l4)
    segment = frame + header + piece - tcp
    total = segment + (tcp - ip)
    if row.version == 4:
        store16(ip + 2, swap16(np.uint64(total)))
        identification = (np.int64(swap16(load16(ip + 4))) + number) & 0xFFFF
        store16(ip + 4, swap16(np.uint64(identification)))
        store16(ip + 10, np.uint64(0))
        store16(ip + 10, np.uint64(0xFFFF) ^ sum_words(ip, 20))
        addresses = sum_words(ip + 12, 8)
    else:
        store16(ip + 4, swap16(np.uint64(segment)))
        addresses = sum_words(ip + 8, 32)
    sequence = (np.int64(swap32(load32(tcp + 4))) + before) & 0xFFFFFFFF
    store32(tcp + 4, swap32(np.uint64(sequence)))
    flags = np.int64(load16(tcp + 12))
    high = np.int64(swap16(np.uint64(flags)))
    if number > 0:
        high &= ~0x80  # CWR
    if not last:
        high &= ~0x09  # PSH, FIN
    store16(tcp + 12, swap16(np.uint64(high)))
    store16(tcp + 16, np.uint64(0))
    summed = addresses + pseudo_sum(6, segment) + sum_words(tcp, segment)
    store16(tcp + 16, np.uint64(0xFFFF) ^ fold(summed))
