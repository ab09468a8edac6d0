"""One savefile as columns: what every format shares, and libpcap's format.

The record walk is a kernel over a reused buffer; Python sees a file once per half megabyte. The
other formats are in `pcapng` and `erf`; `formats` tells them apart.
"""

from __future__ import annotations

import os
import struct
import sys
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, NamedTuple, Protocol

import numpy as np

from pcap_tools.errors import CaptureError, GrowingInput, UnknownFormat
from pcap_tools.kernels import I32, I64, U8
from pcap_tools.walk import (
    BAD_BLOCK,
    BAD_INTERFACE,
    BAD_LENGTH,
    BAD_TIME,
    CONTROL,
    MAX_PACKET,
    MORE,
    U32,
    walk_pcap,
)

__all__ = [
    "PCAP_MAGICS",
    "Columns",
    "Interface",
    "Meta",
    "Options",
    "PcapFile",
    "Reader",
    "Savefile",
    "Table",
]

Options = tuple[tuple[int, bytes], ...]
"""pcapng options as (code, value), values in the machine's byte order."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What a pcapng interface description says; `options` without resolution and offset."""

    link: int
    snaplen: int = 0
    nanoseconds: bool = False
    options: Options = ()


@dataclass(frozen=True, slots=True)
class Meta:
    """What pcapng tells about packets beyond their columns; n packets, k of them with options.

    `interface` (n) numbers the interfaces of the file, or of the Capture. `noted` (k × 4) has a
    row for each packet with options: its row among the n, the offset of the options in `octets`,
    their length in bytes, and 1 when their byte order is not the machine's.
    """

    interface: I32
    noted: I64
    octets: U8

    def part(self, start: int, stop: int) -> Meta:
        """That of the packets from `start` up to `stop`."""
        first, last = np.searchsorted(self.noted[:, 0], (start, stop))
        noted = self.noted[first:last]
        if start and len(noted):
            noted = noted - np.array([start, 0, 0, 0])
        return Meta(self.interface[start:stop], noted, self.octets)


class Columns(NamedTuple):
    """Consecutive packets of one link type: bytes, and one row a packet in each other column.

    `position` is the file offset of data[0], so that packet i is at `position` + offset[i] of its
    file. `meta` is given by pcapng only.
    """

    data: U8
    offset: I64
    caplen: U32
    wirelen: U32
    time_ns: I64
    link: int
    position: int
    meta: Meta | None = None

    def part(self, start: int, stop: int) -> Columns:
        """The packets from `start` up to `stop`."""
        return Columns(
            self.data,
            self.offset[start:stop],
            self.caplen[start:stop],
            self.wirelen[start:stop],
            self.time_ns[start:stop],
            self.link,
            self.position,
            self.meta and self.meta.part(start, stop),
        )


class Savefile(Protocol):
    """What a Capture needs of a file, whatever its format.

    `links` and `interfaces` are those met so far: all of them after `columns` has ended. `record`
    is the size in bytes of the header before each packet of a format whose records stand alone
    (classic pcap), else 0.
    """

    name: str
    format: str
    size: int
    links: list[int]
    nanoseconds: bool
    snaplen: int
    first_ns: int
    ignored_bytes: int
    interfaces: list[Interface]
    sections: list[Options]
    passed_over: dict[str, int]
    record: int

    @property
    def plain(self) -> bool: ...

    def fileno(self) -> int: ...

    def columns(
        self, start_offset: int | None = None, stop_offset: int | None = None, *, keep: int = 1
    ) -> Generator[Columns, None, None]: ...

    def check_unchanged(self) -> None: ...

    def close(self) -> None: ...


PCAP_MAGICS = {
    0xA1B2C3D4: False,
    0xA1B23C4D: True,
    0xA1B2CD34: False,  # libpcap with Alexey Kuznetsov's patches
    0x1C0001AC: True,  # Ixia lcap, hardware capture
    0x1C0001AB: False,  # Ixia lcap, software capture
}
"""Magic numbers of libpcap's format and its variants: whether timestamps are in nanoseconds."""


class Table:
    """The columns that a walk fills: as many rows as `size` bytes of capture may need."""

    def __init__(self, size: int, *, extra: bool = False, noted: int = 0) -> None:
        # The shortest record decides how many rows a buffer can hold; frames are never so short
        # in practice, and a full column just ends the batch early.
        rows = size // 32
        self.data: U8 = np.empty(size, np.uint8)
        self.offset: I64 = np.empty(rows, np.int64)
        self.caplen: U32 = np.empty(rows, np.uint32)
        self.wirelen: U32 = np.empty(rows, np.uint32)
        self.time_ns: I64 = np.empty(rows, np.int64)
        # pcapng: the interface of each packet, and packets with options; ERF: the link type.
        self.extra: I32 = np.empty(rows if extra else 0, np.int32)
        self.noted: I64 = np.empty((noted, 4), np.int64)


class Reader:
    """Filling the buffer, and what all formats keep about a file."""

    format = ""
    record = 0

    def __init__(self, stream: IO[bytes], name: str, buffer: int) -> None:
        self._stream = stream
        self.name = name
        self.size = os.fstat(stream.fileno()).st_size
        self.links: list[int] = []
        self.nanoseconds = False
        self.snaplen = 0
        self.first_ns = np.iinfo(np.int64).max
        self.ignored_bytes = 0
        self.interfaces: list[Interface] = []
        self.sections: list[Options] = []
        self.passed_over: dict[str, int] = {}
        self._buffer_size = buffer
        self.start = 0
        self._seen = _state(stream)

    @property
    def plain(self) -> bool:
        """True for classic pcap in the machine's byte order: records need no other context."""
        return False

    def fileno(self) -> int:
        """Of the file, or of the temporary file with its decompressed content."""
        return self._stream.fileno()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def check_unchanged(self) -> None:
        """Raise GrowingInput when size or modification time are not those at opening."""
        size, changed = _state(self._stream)
        if (size, changed) != self._seen:
            what = f"{self._seen[0]:,} bytes at first, {size:,} now"
            raise GrowingInput(
                f"{self.name}: changed while it was read ({what}); "
                "stop the capture first, or work on a copy"
            )

    def walk(self, table: Table, have: int, at: int) -> tuple[int, int, int]:
        """Walk table.data[:have], of file offset `at`: rows, bytes consumed, status."""
        raise NotImplementedError

    def parts(self, table: Table, rows: int, at: int) -> Iterator[Columns]:
        """The rows that a walk filled, in parts of one link type each."""
        yield self._columns(table, rows, at, self.links[0])

    def _columns(self, table: Table, rows: int, at: int, link: int) -> Columns:
        return Columns(
            table.data,
            table.offset[:rows],
            table.caplen[:rows],
            table.wirelen[:rows],
            table.time_ns[:rows],
            link,
            at,
        )

    def _by_link(self, found: Columns, links: I32) -> Iterator[Columns]:
        """Parts of one link type each, told to `self.links`; `links` has a row a packet."""
        edges = np.flatnonzero(links[1:] != links[:-1]) + 1
        bounds = [0, *edges.tolist(), len(links)]
        for start, stop in pairwise(bounds):
            link = int(links[start])
            if link not in self.links:
                self.links.append(link)
            yield found.part(start, stop)._replace(link=link)

    def _table(self, size: int) -> Table:
        return Table(size)

    def columns(
        self, start_offset: int | None = None, stop_offset: int | None = None, *, keep: int = 1
    ) -> Generator[Columns, None, None]:
        """The file's packets: all, or those of the records in [start_offset, stop_offset).

        The last `keep` columns stay valid; those before are overwritten.
        Both offsets must be record boundaries of a format whose records stand alone (`record` > 0):
        for packet i of columns c, c.position + c.offset[i] - record. Generators of one file do not
        disturb each other, in one thread or several. Raises CaptureError at a corrupt record.
        """
        whole = start_offset is None and stop_offset is None
        if not whole and not self.record:
            raise ValueError(f"{self.format} can only be read from the beginning")
        table = self._table(self._buffer_size)
        used_tables: deque[Table] = deque()
        at, have, ended = self.start if start_offset is None else start_offset, 0, False
        while True:
            if not ended:
                got = self._read(table.data, have, at + have, stop_offset)
                ended = got == 0
                have += got
            rows, used, status = self.walk(table, have, at)
            if rows:
                yield from self.parts(table, rows, at)
            if status > CONTROL:
                self.ignored_bytes = self.fail(status, table.data, used, have, at + used)
                return
            at += used
            have -= used
            rest = table.data[used : used + have]
            if rows and keep > 1:
                used_tables.append(table)
                table = self._another(used_tables, keep)
            table.data[:have] = rest
            if status == MORE and ended and not rows:
                if whole:
                    self.ignored_bytes = have
                return
            if not used and have == len(table.data):
                larger = self._table(2 * have)
                larger.data[:have] = table.data
                table = larger

    def _another(self, used: deque[Table], keep: int) -> Table:
        """A table to fill next: the oldest of those that were yielded, or a new one."""
        size = len(used[-1].data)
        oldest = used.popleft() if len(used) >= keep else None
        return oldest if oldest is not None and len(oldest.data) == size else self._table(size)

    def _read(self, data: U8, have: int, offset: int, stop: int | None) -> int:
        room = data[have:] if stop is None else data[have : have + max(stop - offset, 0)]
        if have == len(data):
            return 1 if stop is None or offset < stop else 0
        try:
            return os.preadv(self._stream.fileno(), [room.data], offset) if len(room) else 0
        except OSError as error:
            raise CaptureError(
                f"{self.name}: read error at offset {offset}: {error.strerror}"
            ) from None

    def fail(self, status: int, data: U8, used: int, have: int, offset: int) -> int:
        """Raise for a corrupt record at file offset `offset`, or accept it as a zeroed tail."""
        if not data[used:have].any() and self._rest_is_zero(offset):
            # What a file system leaves of an unfinished write after a crash.
            return self.size - offset
        self.check_unchanged()  # a file that is being written looks corrupt at its end
        raise CaptureError(
            f"{self.name}: corrupt at offset {offset}: {self._problem(status, data[used:have])}; "
            f"cut it there (head -c {offset}) to keep what precedes"
        )

    def _problem(self, status: int, record: U8) -> str:
        return {
            BAD_LENGTH: f"a packet length above {MAX_PACKET} bytes",
            BAD_TIME: "a fraction of a second of one second or more",
            BAD_BLOCK: "a block length that is wrong",
            BAD_INTERFACE: "a packet of an interface that is not described",
        }[status]

    def _rest_is_zero(self, offset: int) -> bool:
        while chunk := os.pread(self._stream.fileno(), 1 << 20, offset):
            if chunk.count(0) != len(chunk):
                return False
            offset += len(chunk)
        return True

    def _probe_first(self) -> None:
        """Learn the first packet's time (and, in pcapng, the interfaces before it)."""
        whole, self._buffer_size = self._buffer_size, 1 << 16
        walk = self.columns()
        first = next(walk, None)
        walk.close()
        self._buffer_size = whole
        if first is not None:
            self.first_ns = int(first.time_ns[0])


def _state(stream: IO[bytes]) -> tuple[int, int]:
    found = os.fstat(stream.fileno())
    return found.st_size, found.st_mtime_ns


class PcapFile(Reader):
    """A libpcap savefile, in the format that libpcap itself writes."""

    format = "pcap"
    record = 16

    def __init__(self, stream: IO[bytes], name: str, buffer: int, header: bytes) -> None:
        super().__init__(stream, name, buffer)
        self._header(header)
        self._probe_first()

    @property
    def plain(self) -> bool:
        return not self._swapped

    def _header(self, header: bytes) -> None:
        if len(header) < 24:
            raise CaptureError(
                f"{self.name}: cut inside the file header ({len(header)} of 24 bytes)"
            )
        native: int = struct.unpack("=I", header[:4])[0]
        self._swapped = native not in PCAP_MAGICS
        order = _OTHER_ORDER if self._swapped else "="
        magic, self._major, self._minor, _zone, _sigfigs, self.snaplen, link = struct.unpack(
            order + "IHHiIII", header[:24]
        )
        self.nanoseconds = PCAP_MAGICS[magic]
        if self._major not in (2, 543):
            raise UnknownFormat(f"{self.name}: pcap version {self._major}; only version 2 is known")
        # The upper 16 bits hold the frame check sequence's length (draft-ietf-opsawg-pcap).
        self.links = [link & 0xFFFF]
        self.start = 24

    def walk(self, table: Table, have: int, at: int) -> tuple[int, int, int]:
        return walk_pcap(
            table.data,
            have,
            self._swapped,
            self.nanoseconds,
            table.offset,
            table.caplen,
            table.wirelen,
            table.time_ns,
        )


_OTHER_ORDER = ">" if sys.byteorder == "little" else "<"
