"""libpcap savefiles of the wild: patched libpcaps, Ixia, AIX, and versions before 2.4.

The patches of 1999 add to each record header: interface index, protocol and packet type (ss990417,
standard magic, Red Hat 6.1; ss991029, magic a1b2cd34: 8 bytes), and a CPU as well (ss990915, magic
a1b2cd34, SuSE 6.3: 12 bytes). Nokia's adds 4 bytes under the standard magic. The magic does not
tell them apart, so the first records do: the reading wins that makes sense (cf. wiretap/libpcap.c).
"""

from __future__ import annotations

import os
import struct
from typing import IO

from pcap_tools.savefile import PcapFile, Table
from pcap_tools.walk import MAX_PACKET
from pcap_tools.walk_odd import walk_patched

__all__ = ["PatchedFile", "record_size"]

_STANDARD = (16, 24, 20)
_MODIFIED = (24, 28)
_IXIA = (0x1C0001AC, 0x1C0001AB)
_LOOK = 20  # records
_YEAR = 366 * 86_400
_AIX_LINKS = {6: 1, 9: 6, 15: 10, 24: 0}  # RFC 1573 ifType to link type


def record_size(stream: IO[bytes], header: bytes) -> int:
    """Bytes of a record header in a file that begins with `header` (24 bytes); 0 for the format
    that libpcap itself writes."""
    for order in "<>":
        magic, major, minor, *_ = struct.unpack(order + "IHHiIII", header)
        if magic in (0xA1B2C3D4, 0xA1B23C4D):
            if (major, minor) < (2, 4) or major == 543:
                return 16
            size = _fitting(stream, order, _STANDARD) if magic == 0xA1B2C3D4 else 16
            return 0 if size == 16 else size
        if magic == 0xA1B2CD34:
            return _fitting(stream, order, _MODIFIED)
    return 16


def _fitting(stream: IO[bytes], order: str, sizes: tuple[int, ...]) -> int:
    """The first size that the first records do not contradict; failing all, the first."""
    return next((size for size in sizes if _fits(stream, order, size)), sizes[0])


def _fits(stream: IO[bytes], order: str, size: int) -> bool:
    at, before = 24, -1
    for _ in range(_LOOK):
        raw = os.pread(stream.fileno(), size, at)
        if len(raw) < size:
            break  # the end, or a truncated tail
        seconds, fraction, captured, wire = struct.unpack_from(order + "IIII", raw)
        jump = before >= 0 and abs(seconds - before) > _YEAR
        if captured > min(wire, MAX_PACKET) or fraction >= 1_000_000 or jump:
            return False
        before = seconds
        at += size + captured
    return True


class PatchedFile(PcapFile):
    """A savefile whose records are not read as libpcap's own."""

    def __init__(
        self, stream: IO[bytes], name: str, buffer: int, header: bytes, record: int
    ) -> None:
        self.record = record
        super().__init__(stream, name, buffer, header)

    @property
    def plain(self) -> bool:
        return False

    def _header(self, header: bytes) -> None:
        super()._header(header)
        if int.from_bytes(header[:4], "little") in _IXIA or int.from_bytes(header[:4]) in _IXIA:
            self.start = 28  # the size of all records follows the header
        old = (self._major, self._minor) <= (2, 2) or self._major == 543
        self._lengths = 1 if old else 2 if (self._major, self._minor) == (2, 3) else 0
        if (self._major, self._minor) == (2, 2) and self.links[0] in _AIX_LINKS:
            self.links = [_AIX_LINKS[self.links[0]]]
            self.nanoseconds, self._lengths = True, 0

    def walk(self, table: Table, have: int, at: int) -> tuple[int, int, int]:
        return walk_patched(
            table.data,
            have,
            self._swapped,
            self.nanoseconds,
            self.record,
            self._lengths,
            table.offset,
            table.caplen,
            table.wirelen,
            table.time_ns,
        )
