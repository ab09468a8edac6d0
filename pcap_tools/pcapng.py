"""Reading pcapng (draft-ietf-opsawg-pcapng): sections, interfaces, their packets and options.

Read are SHB, IDB, EPB, SPB and the obsolete PB, with if_tsresol and if_tsoffset; sections may
differ in byte order and interfaces in link type. Blocks without packets (names, statistics,
decryption secrets, custom blocks) are passed over and counted.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from typing import IO

import numpy as np

from pcap_tools.errors import CaptureError
from pcap_tools.kernels import I64, U8
from pcap_tools.savefile import Columns, Interface, Meta, Options, Reader, Table
from pcap_tools.walk import CONTROL, MORE, walk_pcapng

__all__ = ["SECTION_MAGIC", "PcapngFile", "parse_options"]

SECTION_MAGIC = b"\x0a\x0d\x0d\x0a"
_MAX_BLOCK = 1 << 24  # libpcap's limit for pcapng blocks
_NOTES = 1 << 14  # packets with options in one batch
_PASSED_OVER = (
    "name resolution",
    "interface statistics",
    "decryption secrets",
    "custom",
    "other",
)
# Options of an interface whose value is one integer.
_INTEGERS = {8: "Q", 10: "i", 16: "Q", 17: "Q"}
_CUSTOM = (2988, 2989, 19372, 19373)


class PcapngFile(Reader):
    """A pcapng file: blocks of sections; interfaces are described before their packets.

    Interfaces are numbered through all sections.
    """

    format = "pcapng"

    def __init__(self, stream: IO[bytes], name: str, buffer: int) -> None:
        super().__init__(stream, name, buffer)
        self._reset()
        self._probe_first()

    def _reset(self) -> None:
        self._swapped = False
        # One row an interface: link type, tsresol (as in the option), tsoffset in s, snaplen.
        self._clocks: I64 = np.zeros((0, 4), np.int64)
        self._section = 0  # the first interface of the section
        self._sections = 0
        self._state: I64 = np.zeros(2 + len(_PASSED_OVER), np.int64)

    def columns(
        self, start_offset: int | None = None, stop_offset: int | None = None, *, keep: int = 1
    ) -> Generator[Columns, None, None]:
        """The file's packets from the beginning, one pass at a time."""
        self._reset()
        return super().columns(start_offset, stop_offset, keep=keep)

    def _table(self, size: int) -> Table:
        return Table(size, extra=True, noted=_NOTES)

    def walk(self, table: Table, have: int, at: int) -> tuple[int, int, int]:
        rows, used, status = walk_pcapng(
            table.data,
            have,
            self._swapped,
            self._clocks,
            self._section,
            self._state,
            table.offset,
            table.caplen,
            table.wirelen,
            table.time_ns,
            table.extra,
            table.noted,
        )
        if status == CONTROL and rows == 0 and used == 0:
            used = self._control(table.data, have, at)
            return 0, used, CONTROL if used else MORE
        counts = zip(_PASSED_OVER, self._state[2:].tolist(), strict=True)
        self.passed_over = {name: n for name, n in counts if n}
        return rows, used, status

    def parts(self, table: Table, rows: int, at: int) -> Iterator[Columns]:
        interface = table.extra[:rows]
        links = self._clocks[:, 0].astype(np.int32)[interface]
        meta = Meta(interface, table.noted[: self._state[1]], table.data)
        return self._by_link(self._columns(table, rows, at, -1)._replace(meta=meta), links)

    def _control(self, data: U8, have: int, offset: int) -> int:
        """Read the section or interface block at the start of `data`: its length, 0 if cut."""
        head = data[:12].tobytes()
        kind = head[:4]
        if kind == SECTION_MAGIC:
            orders = {b"\x1a\x2b\x3c\x4d": True, b"\x4d\x3c\x2b\x1a": False}
            if len(head) < 12 or have < 12:
                return 0
            if head[8:12] not in orders:
                raise CaptureError(
                    f"{self.name}: corrupt at offset {offset}: a section header without its "
                    "byte-order magic"
                )
            self._swapped = orders[head[8:12]]
            self._section = len(self._clocks)
        order = ">" if self._swapped else "<"
        length: int = struct.unpack(order + "I", head[4:8])[0]
        minimum = 28 if kind == SECTION_MAGIC else 20
        if length % 4 or not minimum <= length <= _MAX_BLOCK:
            raise CaptureError(f"{self.name}: corrupt at offset {offset}: block length {length}")
        if length > have:
            return 0
        body = data[8 : length - 4].tobytes()
        if kind == SECTION_MAGIC:
            self._sections += 1
            if self._sections > len(self.sections):
                self.sections.append(parse_options(body[16:], order))
        else:
            self._add_interface(body, order)
        return length

    def _add_interface(self, body: bytes, order: str) -> None:
        link, _reserved, snaplen = struct.unpack_from(order + "HHI", body)
        options = parse_options(body[8:], order)
        resolution, zone = 6, 0
        for code, value in options:
            if code == 9 and len(value) == 1:
                resolution = value[0]
            elif code == 14 and len(value) == 8:
                (zone,) = struct.unpack("=q", value)
        if resolution & 0x7F > (63 if resolution & 0x80 else 18):
            raise CaptureError(f"{self.name}: if_tsresol {resolution} is beyond a 64-bit clock")
        row = np.array([[link, resolution, zone, snaplen]], np.int64)
        self._clocks = np.concatenate([self._clocks, row])
        self.snaplen = max(self.snaplen, snaplen)
        finer = resolution & 0x7F > (19 if resolution & 0x80 else 6)
        self.nanoseconds = self.nanoseconds or finer
        if len(self._clocks) > len(self.interfaces):
            kept = tuple(option for option in options if option[0] not in (9, 14))
            self.interfaces.append(Interface(link, snaplen, finer, kept))


def parse_options(body: bytes, order: str) -> Options:
    """The options in `body` (of a block in byte order "<" or ">"), up to the end or a flaw."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == 0 or len(value) < length:
            break
        if code in _CUSTOM and length >= 4:
            value = struct.pack("=I", *struct.unpack(order + "I", value[:4])) + value[4:]
        elif code == 14 and length == 8:
            value = struct.pack("=q", *struct.unpack(order + "q", value))
        elif code in _INTEGERS and length == struct.calcsize("=" + _INTEGERS[code]):
            form = _INTEGERS[code]
            value = struct.pack("=" + form, *struct.unpack(order + form, value))
        found.append((code, value))
        at += 4 + (length + 3) // 4 * 4
    return tuple(found)
