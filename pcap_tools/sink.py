"""Where an output's bytes go: a file that gets its name when it is whole, or standard output.

A file is written, and compressed and hashed on the way, in a thread of its own: all of that
releases the interpreter's lock for as long as it works on a buffer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from pcap_tools.compression import codec_of_name, compressor
from pcap_tools.errors import OutputError

__all__ = ["DEPTH", "FileSink", "Sink", "StdoutSink", "open_sink"]

DEPTH = 3
"""Buffers that may wait to be written: they even out what filling and writing take."""


class Sink(Protocol):
    """Takes an output's bytes. A buffer may be used again after DEPTH further `write`s."""

    digest: str

    def write(self, octets: memoryview) -> None: ...

    def place(self, size: int) -> int | None: ...

    def commit(self) -> None: ...

    def abandon(self) -> None: ...


def open_sink(path: Path | str, *, digest: bool = False) -> Sink:
    """Standard output for "-", else a file, compressed when its name ends in .gz, .zst or .lz4.

    `digest` asks for the SHA-256 of what is written, in hexadecimal. Raises OutputError.
    """
    return StdoutSink() if str(path) == "-" else FileSink(Path(path), digest=digest)


class FileSink:
    """A file under a temporary name, renamed by `commit`; on an error nothing is left of it."""

    def __init__(self, path: Path, *, digest: bool = False) -> None:
        self.digest = ""
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        codec = codec_of_name(path)
        self._packer = compressor(codec) if codec else None
        self._hash = hashlib.sha256() if digest else None
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()
        try:
            self._fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        except OSError as error:
            raise self._failure(error) from None

    def write(self, octets: memoryview) -> None:
        """Take bytes, which must stay as they are until DEPTH further calls have returned."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "writer")
        if len(self._pending) == DEPTH:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._work, octets))

    def place(self, size: int) -> int | None:
        """Descriptor of the whole file, of `size` bytes, to be written in parts at any place.

        None for what is compressed or hashed. What was written so far stays at its beginning.
        Raises OutputError.
        """
        if self._packer is not None or self._hash is not None:
            return None
        self._wait()
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise self._failure(error) from None
        return self._fd

    def commit(self) -> None:
        """Write what is left and give the file its name. Raises OutputError."""
        try:
            self._wait()
            if self._packer is not None:
                self._store(self._packer.flush())
            if self._hash is not None:
                self.digest = self._hash.hexdigest()
            try:
                os.close(self._fd)
                self._fd = -1
                self._temporary.replace(self._path)
            except OSError as error:
                raise self._failure(error) from None
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
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1
        with contextlib.suppress(FileNotFoundError):
            self._temporary.unlink()

    def _wait(self) -> None:
        while self._pending:
            self._pending.popleft().result()

    def _work(self, octets: memoryview) -> None:
        self._store(octets if self._packer is None else self._packer.compress(octets))

    def _store(self, octets: bytes | memoryview) -> None:
        if self._hash is not None:
            self._hash.update(octets)
        self._put(memoryview(octets))

    def _put(self, octets: memoryview) -> None:
        at = 0
        try:
            while at < len(octets):
                at += os.write(self._fd, octets[at:])
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"{self._path}: cannot be written: {error.strerror}")


class StdoutSink:
    """Standard output; what was written before an error stays written. Refuses a terminal."""

    def __init__(self) -> None:
        self.digest = ""
        if sys.stdout.isatty():
            raise OutputError("standard output is a terminal; redirect it, or give -o FILE")
        self._stream = sys.stdout.buffer

    def write(self, octets: memoryview) -> None:
        """Take bytes. Raises OutputError when the reader has gone."""
        try:
            self._stream.write(octets)
        except OSError as error:
            raise OutputError(f"standard output: cannot be written: {error.strerror}") from None

    def place(self, size: int) -> None:
        """A stream has no places."""

    def commit(self) -> None:
        """Hand on what is buffered. Raises OutputError."""
        try:
            self._stream.flush()
        except OSError as error:
            raise OutputError(f"standard output: cannot be written: {error.strerror}") from None

    def abandon(self) -> None:
        """Nothing can be taken back."""
