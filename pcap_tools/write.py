"""Captures out: a classic pcap file that appears under its name only when it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Batch, link_name
from pcap_tools.errors import OutputError
from pcap_tools.kernels import I64, U8, U16, copy_bytes, kernel, store32
from pcap_tools.walk import MAX_PACKET, U32, Word

__all__ = ["RECORD", "Edit", "PcapWriter", "refuse_inputs"]

_BUFFER = 1 << 20  # with less, handing buffers to the writing thread costs more than it brings
_BUFFERS = 4  # one is filled, one is written, the others even out
_ALL = np.ones(0, np.bool_)
RECORD = 16
"""Bytes of a packet's header in a pcap file."""

Edit = Callable[[U8, I64, I64], None]
"""Changes frames in place: memory, the frames' places in it, and their packets' numbers."""


class PcapWriter:
    """Writes a pcap file (native byte order) through a temporary name beside it.

    As a context manager: on success the file is renamed to `path`, on an error nothing is left.
    Afterwards `packets` and `bytes` (of frames) count what was written, and `digest` is the
    SHA-256 of the file in hexadecimal, when `digest=True` was asked for.
    """

    def __init__(
        self,
        path: Path | str,
        link: int = 1,
        *,
        nanoseconds: bool = False,
        snaplen: int = MAX_PACKET,
        digest: bool = False,
    ) -> None:
        self.path = Path(path)
        self.packets = 0
        self.bytes = 0
        self.digest = ""
        self._link = link
        self._nanoseconds = nanoseconds
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._hash = hashlib.sha256() if digest else None
        # A thread writes (and hashes) while the next buffer is filled; small files need none.
        self._pool: ThreadPoolExecutor | None = None
        self._writing: deque[tuple[U8, Future[None]]] = deque()
        self._buffer = np.empty(_BUFFER, np.uint8)
        self._fill = 0
        try:
            self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None
        magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
        self._append(struct.pack("=IHHiIII", magic, 2, 4, 0, 0, snaplen or MAX_PACKET, link))

    def write(self, batch: Batch, keep: npt.NDArray[np.bool_] | None = None) -> None:
        """Append the batch's packets, or those where `keep` (n booleans) is true."""
        if batch.link != self._link:
            raise OutputError(
                f"{self.path}: pcap holds one link type, and this capture has "
                f"{link_name(self._link)} and {link_name(batch.link)}; write pcapng (OUT.pcapng)"
            )
        start = 0
        while start < len(batch):
            start, self._fill, packets, octets = _gather(
                batch.data,
                batch.offset,
                batch.caplen,
                batch.wirelen,
                batch.time_ns,
                _ALL if keep is None else keep,
                start,
                self._nanoseconds,
                self._buffer,
                self._fill,
            )
            self.packets += packets
            self.bytes += octets
            if start < len(batch):
                self._hand_over()

    def write_records(
        self,
        source: U8,
        sizes: U16,
        keep: npt.NDArray[np.bool_],
        edit: Edit | None = None,
    ) -> None:
        """Append records as they lie in `source`: the header and `sizes[i]` bytes of each packet.

        `source` begins with a record in this file's own format, and has them all. `edit` gets
        those where `keep` is true, in the writer's memory, and their numbers.
        """
        rows, places = np.empty(len(sizes), np.int64), np.empty(len(sizes), np.int64)
        start, at = 0, 0
        while start < len(sizes):
            start, at, self._fill, packets, octets = _gather_records(
                source, at, sizes, keep, start, self._buffer, self._fill, rows, places
            )
            self.packets += packets
            self.bytes += octets
            if edit is not None and packets:
                edit(self._buffer, places[:packets], rows[:packets])
            if start < len(sizes):
                self._hand_over()

    def close(self) -> None:
        """Write what is left and give the file its name."""
        try:
            while self._writing:
                self._writing.popleft()[1].result()
            self._put(self._buffer[: self._fill])
            if self._hash is not None:
                self.digest = self._hash.hexdigest()
            os.close(self._fd)
            self._fd = -1
            self._temporary.replace(self.path)
        except OSError as error:
            self.abandon()
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None
        except BaseException:
            self.abandon()
            raise
        if self._pool is not None:
            self._pool.shutdown()

    def abandon(self) -> None:
        """Remove the unfinished file."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        with contextlib.suppress(FileNotFoundError):
            self._temporary.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def _append(self, octets: bytes) -> None:
        self._buffer[self._fill : self._fill + len(octets)] = np.frombuffer(octets, np.uint8)
        self._fill += len(octets)

    def _hand_over(self) -> None:
        """Have the full buffer written, and go on in another."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "writer")
        job = self._pool.submit(self._put, self._buffer[: self._fill])
        self._writing.append((self._buffer, job))
        if len(self._writing) < _BUFFERS:
            self._buffer = np.empty(_BUFFER, np.uint8)
        else:
            self._buffer, written = self._writing.popleft()
            written.result()
        self._fill = 0

    def _put(self, octets: U8) -> None:
        if self._hash is not None:
            self._hash.update(octets.data)
        rest = octets.data
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None


def refuse_inputs(output: Path | str, inputs: Sequence[Path | str]) -> None:
    """Raise OutputError when the output is one of the inputs, by whatever name."""
    output = Path(output)
    if not output.exists():
        return
    for path in inputs:
        if str(path) != "-" and Path(path).exists() and output.samefile(path):
            raise OutputError(f"{output}: is also an input; give another output")


@kernel
def _gather(
    data: U8,
    offset: I64,
    caplen: U32,
    wirelen: U32,
    time_ns: I64,
    keep: npt.NDArray[np.bool_],
    start: int,
    nanoseconds: bool,
    out: U8,
    fill: Word,
) -> tuple[int, int, int, int]:
    """Append records to out[fill:] until it is full: next packet, fill, packets, bytes."""
    source = np.int64(data.ctypes.data)
    target = np.int64(out.ctypes.data)
    unit = 1 if nanoseconds else 1000
    every = len(keep) == 0
    packets = 0
    octets: Word = 0
    for i in range(start, len(offset)):
        if not every and not keep[i]:
            continue
        size = np.int64(caplen[i])
        if fill + 16 + size > len(out):
            return i, fill, packets, octets
        seconds = time_ns[i] // 1_000_000_000
        record = target + fill
        store32(record, np.uint64(seconds))
        store32(record + 4, np.uint64((time_ns[i] - seconds * 1_000_000_000) // unit))
        store32(record + 8, np.uint64(size))
        store32(record + 12, np.uint64(wirelen[i]))
        copy_bytes(record + 16, source + offset[i], size)
        fill += 16 + size
        packets += 1
        octets += size
    return len(offset), fill, packets, octets


@kernel
def _gather_records(
    source: U8,
    at: Word,
    sizes: U16,
    keep: npt.NDArray[np.bool_],
    start: int,
    out: U8,
    fill: Word,
    rows: I64,
    places: I64,
) -> tuple[int, int, int, int, int]:
    """Append whole records to out[fill:] until it is full, from source[at:] on.

    Next packet and its place in `source`, fill, packets, bytes; `rows` and `places` get the
    packets' numbers and their frames' places in `out`.
    """
    origin = np.int64(source.ctypes.data)
    target = np.int64(out.ctypes.data)
    packets = 0
    octets: Word = 0
    for i in range(start, len(sizes)):
        size = np.int64(sizes[i])
        if keep[i]:
            if fill + 16 + size > len(out):
                return i, at, fill, packets, octets
            copy_bytes(target + fill, origin + at, 16 + size)
            rows[packets] = i
            places[packets] = fill + 16
            fill += 16 + size
            packets += 1
            octets += size
        at += 16 + size
    return len(sizes), at, fill, packets, octets
