"""One savefile (pcap or pcapng): its header, and its records as columns.

The record walk is a kernel over a reused buffer; Python sees a file once per half megabyte.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Generator
from typing import IO, NamedTuple, Protocol

import numpy as np

from pcap_tools.errors import CaptureError, EmptyCapture, UnknownFormat, UnsupportedLink
from pcap_tools.kernels import I64, U8
from pcap_tools.walk import (
    BAD_BLOCK,
    BAD_INTERFACE,
    BAD_LENGTH,
    BAD_TIME,
    CONTROL,
    MAX_PACKET,
    MIXED,
    MORE,
    U32,
    walk_pcap,
    walk_pcapng,
)

__all__ = ["Columns", "Savefile", "open_savefile"]

_MAX_BLOCK = 1 << 24  # libpcap's limit for pcapng blocks
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


class Columns(NamedTuple):
    """Consecutive packets: bytes, and one row a packet in each of the other columns."""

    data: U8
    offset: I64
    caplen: U32
    wirelen: U32
    time_ns: I64

    def part(self, start: int, stop: int) -> Columns:
        """The packets from `start` up to `stop`."""
        return Columns(
            self.data,
            self.offset[start:stop],
            self.caplen[start:stop],
            self.wirelen[start:stop],
            self.time_ns[start:stop],
        )


class Savefile(Protocol):
    """What a Capture needs of a file, whatever its format."""

    name: str
    format: str
    size: int
    link: int | None
    nanoseconds: bool
    snaplen: int
    first_ns: int
    ignored_bytes: int

    def columns(self) -> Generator[Columns, None, None]: ...

    def close(self) -> None: ...


def open_savefile(stream: IO[bytes], name: str, buffer: int) -> Savefile:
    """The reader of an open file by its magic number; `buffer` is the read size in bytes."""
    magic = os.pread(stream.fileno(), 24, 0)
    if not magic:
        raise EmptyCapture(f"{name}: the file is empty (0 bytes)")
    if magic[:4] == b"\x0a\x0d\x0d\x0a":
        return _Pcapng(stream, name, buffer)
    if magic[:4] in _PCAP_MAGICS:
        return _Pcap(stream, name, buffer, magic)
    for prefix, packer in _COMPRESSED.items():
        if magic.startswith(prefix):
            raise UnknownFormat(f"{name}: compressed with {packer}; decompress it first")
    raise UnknownFormat(
        f"{name}: neither pcap nor pcapng (it begins with 0x{magic[:4].hex()}); "
        "convert it, e.g. with editcap -F pcap"
    )


_PCAP_MAGICS = {
    b"\xa1\xb2\xc3\xd4": (">", False),
    b"\xd4\xc3\xb2\xa1": ("<", False),
    b"\xa1\xb2\x3c\x4d": (">", True),
    b"\x4d\x3c\xb2\xa1": ("<", True),
}


class _Base:
    """Filling the buffer, and what both formats keep about a file."""

    format = ""

    def __init__(self, stream: IO[bytes], name: str, buffer: int) -> None:
        self._stream = stream
        self.name = name
        self.size = os.fstat(stream.fileno()).st_size
        self.link: int | None = None
        self.nanoseconds = False
        self.snaplen = 0
        self.first_ns = np.iinfo(np.int64).max
        self.ignored_bytes = 0
        self._buffer_size = buffer
        self._start = 0
        self._rows = 0

    def close(self) -> None:
        self._stream.close()

    def _walk(self, data: U8, have: int, at: int) -> tuple[int, int, int]:
        """Walk data[:have], which starts at file offset `at`: rows, bytes consumed, status."""
        raise NotImplementedError

    def _allocate(self, size: int) -> U8:
        # The shortest record decides how many rows a buffer can hold; frames are never so short
        # in practice, and a full column just ends the batch early.
        rows = size // 32
        self._offset = np.empty(rows, np.int64)
        self._caplen = np.empty(rows, np.uint32)
        self._wirelen = np.empty(rows, np.uint32)
        self._time = np.empty(rows, np.int64)
        return np.empty(size, np.uint8)

    def columns(self) -> Generator[Columns, None, None]:
        """The file's packets from the beginning."""
        self.ignored_bytes = 0
        data = self._allocate(self._buffer_size)
        fd, at, have, ended = self._stream.fileno(), self._start, 0, False
        while True:
            if not ended:
                got = self._read(fd, data, have, at + have)
                ended = got == 0
                have += got
            rows, used, status = self._walk(data, have, at)
            if rows:
                yield Columns(
                    data,
                    self._offset[:rows],
                    self._caplen[:rows],
                    self._wirelen[:rows],
                    self._time[:rows],
                )
            if status > CONTROL:
                self._fail(status, data, used, have, at + used)
                return
            at += used
            have -= used
            data[:have] = data[used : used + have]
            if status == MORE and ended and not rows:
                self.ignored_bytes = have
                return
            if not used and have == len(data):
                data = self._grow(data, have, at)

    def _read(self, fd: int, data: U8, have: int, offset: int) -> int:
        try:
            return os.preadv(fd, [data[have:].data], offset) if have < len(data) else 1
        except OSError as error:
            raise CaptureError(
                f"{self.name}: read error at offset {offset}: {error.strerror}"
            ) from None

    def _grow(self, data: U8, have: int, at: int) -> U8:
        larger = self._allocate(2 * len(data))
        larger[:have] = data[:have]
        return larger

    def _fail(self, status: int, data: U8, used: int, have: int, offset: int) -> None:
        """Raise for a corrupt record at file offset `offset`, or accept it as a zeroed tail."""
        if not data[used:have].any() and self._rest_is_zero(offset):
            # What a file system leaves of an unfinished write after a crash.
            self.ignored_bytes = self.size - offset
            return
        what = {
            BAD_LENGTH: f"a packet length above {MAX_PACKET} bytes",
            BAD_TIME: "a fraction of a second of one second or more",
            BAD_BLOCK: "a block length that is wrong",
            BAD_INTERFACE: "a packet of an interface that is not described",
        }
        if status == MIXED:
            raise UnsupportedLink(
                f"{self.name}: offset {offset}: a packet of another link type than before; "
                "split the capture by interface first"
            )
        raise CaptureError(
            f"{self.name}: corrupt at offset {offset}: {what[status]}; "
            f"cut it there (head -c {offset}) to keep what precedes"
        )

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


class _Pcap(_Base):
    """A libpcap savefile."""

    format = "pcap"

    def __init__(self, stream: IO[bytes], name: str, buffer: int, header: bytes) -> None:
        super().__init__(stream, name, buffer)
        if len(header) < 24:
            raise CaptureError(f"{name}: cut inside the file header ({len(header)} of 24 bytes)")
        order, self.nanoseconds = _PCAP_MAGICS[header[:4]]
        major, _minor, _zone, _sigfigs, self.snaplen, link = struct.unpack(
            order + "HHiIII", header[4:]
        )
        if major != 2:
            raise UnknownFormat(f"{name}: pcap version {major}; only version 2 is known")
        self._swapped = order == ">"
        # The upper 16 bits hold the frame check sequence's length (draft-ietf-opsawg-pcap).
        self.link = link & 0xFFFF
        self._start = 24
        self._probe_first()

    def _walk(self, data: U8, have: int, at: int) -> tuple[int, int, int]:
        return walk_pcap(
            data,
            have,
            self._swapped,
            self.nanoseconds,
            self._offset,
            self._caplen,
            self._wirelen,
            self._time,
        )


class _Pcapng(_Base):
    """A pcapng file: blocks of sections; interfaces are described before their packets."""

    format = "pcapng"

    def __init__(self, stream: IO[bytes], name: str, buffer: int) -> None:
        super().__init__(stream, name, buffer)
        self._reset()
        self._probe_first()

    def _reset(self) -> None:
        self._swapped = False
        # One row an interface: link type, tsresol (as in the option), tsoffset in s, snaplen.
        self._interfaces = np.zeros((0, 4), np.int64)
        self._state = np.array([-1, 0], np.int64)  # link type so far, time of the last packet

    def columns(self) -> Generator[Columns, None, None]:
        self._reset()
        return super().columns()

    def _walk(self, data: U8, have: int, at: int) -> tuple[int, int, int]:
        rows, used, status = walk_pcapng(
            data,
            have,
            self._swapped,
            self._interfaces,
            self._state,
            self._offset,
            self._caplen,
            self._wirelen,
            self._time,
        )
        if rows:
            self.link = int(self._state[0])
        if status == CONTROL and rows == 0:
            used = self._control(data, used, have, at + used)
            return 0, used, CONTROL if used else MORE
        return rows, used, status

    def _control(self, data: U8, begin: int, have: int, offset: int) -> int:
        """Read a section or interface block; its end in `data`, or `begin` if cut."""
        head = data[begin : begin + 12].tobytes()
        kind = head[:4]
        if kind == b"\x0a\x0d\x0d\x0a":
            orders = {b"\x1a\x2b\x3c\x4d": True, b"\x4d\x3c\x2b\x1a": False}
            if len(head) < 12:
                return begin
            if head[8:12] not in orders:
                raise CaptureError(
                    f"{self.name}: corrupt at offset {offset}: a section header without its "
                    "byte-order magic"
                )
            self._swapped = orders[head[8:12]]
            self._interfaces = np.zeros((0, 4), np.int64)
        order = ">" if self._swapped else "<"
        length: int = struct.unpack(order + "I", head[4:8])[0]
        minimum = 28 if kind == b"\x0a\x0d\x0d\x0a" else 20
        if length % 4 or not minimum <= length <= _MAX_BLOCK:
            raise CaptureError(f"{self.name}: corrupt at offset {offset}: block length {length}")
        if begin + length > have:
            return begin
        if minimum == 20:
            self._add_interface(data[begin + 8 : begin + length - 4].tobytes(), order)
        return begin + length

    def _add_interface(self, body: bytes, order: str) -> None:
        link, _reserved, snaplen = struct.unpack_from(order + "HHI", body)
        resolution, zone, at = 6, 0, 8
        while at + 4 <= len(body):
            code, length = struct.unpack_from(order + "HH", body, at)
            value = body[at + 4 : at + 4 + length]
            if code == 0:
                break
            if code == 9 and len(value) == length == 1:
                resolution = value[0]
            elif code == 14 and len(value) == length == 8:
                (zone,) = struct.unpack(order + "q", value)
            at += 4 + (length + 3) // 4 * 4
        if resolution & 0x7F > (63 if resolution & 0x80 else 18):
            raise CaptureError(f"{self.name}: if_tsresol {resolution} is beyond a 64-bit clock")
        row = np.array([[link, resolution, zone, snaplen]], np.int64)
        self._interfaces = np.concatenate([self._interfaces, row])
        self.snaplen = max(self.snaplen, snaplen)
        finer = resolution & 0x7F > (19 if resolution & 0x80 else 6)
        self.nanoseconds = self.nanoseconds or finer
