"""Packets of a capture scattered over many files, in windows, without a Python call a file.

A window is a run of packets whose records fit a buffer. Sizes and owners are known beforehand, so
every file's records get their place in the window by counting, each packet is copied there once,
and then every file touched costs one open, one write and one close. A file whose packets lie in
several windows is appended to. At most one file is open at any time.

Files are created by one thread, in parallel with filling the next window: the kernel holds the
directory's lock while it creates, so that more threads only wait for each other.
"""

from __future__ import annotations

import errno
import os
import struct
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numba import types

from pcap_tools.capture import Batch
from pcap_tools.kernels import I32, I64, U8, copy_bytes, kernel, store32
from pcap_tools.walk import MAX_PACKET, U32, Word

__all__ = ["FileNames", "Scatter"]

WINDOW = 1 << 26
"""Bytes of a window; two are in memory. Smaller ones cut more files into pieces."""

_HEADER = 24
_RECORD = 16

# creat(2) and open(2) with two arguments are no variadic calls, whose convention differs on some
# machines; the symbols are found in the process, so the compiled kernel can be cached.
_creat: Any = types.ExternalFunction("creat", types.int32(types.int64, types.int32))
_open: Any = types.ExternalFunction("open", types.int32(types.int64, types.int32))
_write: Any = types.ExternalFunction("write", types.int64(types.int32, types.int64, types.int64))
_close: Any = types.ExternalFunction("close", types.int32(types.int32))


@dataclass(frozen=True)
class FileNames:
    """Names of n files: file i is text[at[i] : at[i + 1]], which ends with a zero byte."""

    text: U8
    at: I64

    def __len__(self) -> int:
        return len(self.at) - 1

    def name(self, number: int) -> str:
        """The name of file `number`."""
        return self.text[self.at[number] : self.at[number + 1] - 1].tobytes().decode()


class Scatter:
    """Writes each packet to the pcap file of its number, in `directory`.

    `owner` (int32, one a packet of the capture) and `caplen` (uint32, one a packet) say beforehand
    what will come; packets with owner −1 are left out. As a context manager; `write` takes the
    batches in order. Afterwards `packets` and `bytes` (of frames) count what was written, and
    `files` what was created. Raises OSError.
    """

    def __init__(
        self,
        directory: Path,
        names: FileNames,
        owner: I32,
        caplen: U32,
        header: bytes,
        window: int = WINDOW,
    ) -> None:
        self._directory = directory
        self._prefix = np.frombuffer(os.fsencode(directory) + b"/", np.uint8)
        self._names = names
        self._owner = owner
        self._caplen = caplen
        self._header = np.frombuffer(header, np.uint8)
        self._nanoseconds = struct.unpack_from("=I", header)[0] == 0xA1B23C4D
        every = len(caplen) * _RECORD + int(caplen.sum(dtype=np.int64)) + len(names) * _HEADER
        self._limit = max(min(window, every), _HEADER + _RECORD + MAX_PACKET)
        self._cursor = np.zeros(len(names), np.int64)
        self._made = np.zeros(len(names), np.bool_)
        self._windows = [_Window(self._limit, len(names)) for _ in range(1 + (every > self._limit))]
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self._at = self._stop = 0  # the packet that comes next, and the window's end
        self.packets = 0
        self.bytes = 0

    @property
    def files(self) -> int:
        """Files created so far."""
        return int(self._made.sum())

    def write(self, batch: Batch) -> None:
        """Take the next batch of the capture."""
        if batch.first != self._at:
            raise ValueError(f"batch of packet {batch.first} where {self._at} was due")
        done = 0
        while done < len(batch):
            if self._at == self._stop:
                self._next_window()
            count = min(len(batch) - done, self._stop - self._at)
            packets, octets = _gather(
                batch.data,
                batch.offset[done : done + count],
                batch.caplen[done : done + count],
                batch.wirelen[done : done + count],
                batch.time_ns[done : done + count],
                self._owner[self._at : self._at + count],
                self._nanoseconds,
                self._cursor,
                self._windows[0].data,
            )
            self.packets += packets
            self.bytes += octets
            done += count
            self._at += count

    def flush(self) -> None:
        """Begin to write the last window, when all batches were given."""
        self._hand_over()

    def close(self) -> None:
        """Write what is left, and wait for it."""
        try:
            self._hand_over()
            self._wait()
        finally:
            self._pool.shutdown()

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
            self._pool.shutdown()

    def _next_window(self) -> None:
        self._hand_over()
        if len(self._windows) == 1:
            self._wait()
        window = self._windows[0]
        self._stop, window.count = _lay_out(
            self._owner,
            self._caplen,
            self._at,
            self._limit,
            self._header,
            self._made,
            self._cursor,
            window.data,
            window.files,
            window.begin,
            window.end,
            window.fresh,
        )

    def _hand_over(self) -> None:
        """Let the other thread write the current window, when it is done with the one before."""
        self._wait()
        window = self._windows[0]
        self._cursor[window.files[: window.count]] = 0
        if window.count:
            self._pending = self._pool.submit(self._write_files, window)
            self._windows.reverse()

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _write_files(self, window: _Window) -> None:
        path = np.zeros(len(self._prefix) + 256, np.uint8)
        path[: len(self._prefix)] = self._prefix
        done = 0
        while done < window.count:
            done, written = _write_segments(
                path,
                len(self._prefix),
                self._names.text,
                self._names.at,
                window.data,
                window.files[: window.count],
                window.begin,
                window.end,
                window.fresh,
                done,
                os.O_WRONLY | os.O_APPEND,
            )
            if done < window.count:
                self._write_slowly(window, done, written)
                done += 1
        window.count = 0

    def _write_slowly(self, window: _Window, which: int, written: int) -> None:
        """Finish the file at which the kernel stopped, or raise what it could not tell."""
        name = self._names.name(int(window.files[which]))
        octets = window.data[window.begin[which] + written : window.end[which]].data
        flags = os.O_WRONLY | os.O_APPEND | (os.O_CREAT if window.fresh[which] else 0)
        descriptor = os.open(self._directory / name, flags, 0o666)
        try:
            while octets:
                got = os.write(descriptor, octets)
                if not got:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                octets = octets[got:]
        finally:
            os.close(descriptor)


class _Window:
    """Where the records of some files lie: file k = files[i] has data[begin[i] : end[i]]."""

    def __init__(self, size: int, files: int) -> None:
        self.data = np.empty(size, np.uint8)
        self.files = np.empty(files, np.int32)
        self.begin = np.empty(files, np.int64)
        self.end = np.empty(files, np.int64)
        self.fresh = np.empty(files, np.bool_)
        self.count = 0


@kernel
def _lay_out(
    owner: I32,
    caplen: U32,
    start: int,
    limit: int,
    header: U8,
    made: Any,
    cursor: I64,
    data: U8,
    files: I32,
    begin: I64,
    end: I64,
    fresh: Any,
) -> tuple[Word, Word]:
    """Give packets from `start` on their places, until `limit` bytes: next packet, files touched.

    `cursor` (one a file, zero between calls) becomes the place of each file's next record; the
    headers of files that are not `made` yet are written.
    """
    touched = 0
    total = np.int64(0)
    stop = start
    while stop < len(owner):
        number = owner[stop]
        if number >= 0:
            size = _RECORD + np.int64(caplen[stop])
            if cursor[number] == 0 and not made[number]:
                size += _HEADER
            if total + size > limit:
                break
            if cursor[number] == 0:
                files[touched] = number
                touched += 1
            cursor[number] += size
            total += size
        stop += 1
    place = np.int64(0)
    for i in range(touched):
        number = files[i]
        begin[i] = place
        end[i] = place + cursor[number]
        fresh[i] = not made[number]
        cursor[number] = place
        if fresh[i]:
            made[number] = True
            copy_bytes(np.int64(data.ctypes.data) + place, np.int64(header.ctypes.data), _HEADER)
            cursor[number] += _HEADER
        place = end[i]
    return stop, touched


@kernel
def _gather(
    data: U8,
    offset: I64,
    caplen: U32,
    wirelen: U32,
    time_ns: I64,
    owner: I32,
    nanoseconds: bool,
    cursor: I64,
    out: U8,
) -> tuple[Word, Word]:
    """Copy each packet, as a record, to its file's cursor: packets, bytes."""
    source = np.int64(data.ctypes.data)
    target = np.int64(out.ctypes.data)
    unit = 1 if nanoseconds else 1000
    packets = 0
    octets = np.int64(0)
    for i in range(len(offset)):
        if owner[i] < 0:
            continue
        size = np.int64(caplen[i])
        seconds = time_ns[i] // 1_000_000_000
        record = target + cursor[owner[i]]
        store32(record, np.uint64(seconds))
        store32(record + 4, np.uint64((time_ns[i] - seconds * 1_000_000_000) // unit))
        store32(record + 8, np.uint64(size))
        store32(record + 12, np.uint64(wirelen[i]))
        copy_bytes(record + 16, source + offset[i], size)
        cursor[owner[i]] += 16 + size
        packets += 1
        octets += size
    return packets, octets


@kernel
def _write_segments(
    path: U8,
    prefix: int,
    text: U8,
    at: I64,
    data: U8,
    files: I32,
    begin: I64,
    end: I64,
    fresh: Any,
    start: int,
    append: int,
) -> tuple[Word, Word]:
    """Create or append to the files from `start` on: how far it went, bytes of the one it left."""
    name = np.int64(path.ctypes.data)
    base = np.int64(data.ctypes.data)
    for i in range(start, len(files)):
        number = files[i]
        for j in range(at[number], at[number + 1]):
            path[prefix + j - at[number]] = text[j]
        descriptor = _creat(name, 0o666) if fresh[i] else _open(name, append)
        if descriptor < 0:
            return i, 0
        done = np.int64(0)
        size = end[i] - begin[i]
        while done < size:
            got = _write(descriptor, base + begin[i] + done, size - done)
            if got <= 0:
                break
            done += got
        if _close(descriptor) < 0 or done < size:
            return i, done
    return len(files), 0
