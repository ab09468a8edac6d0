"""gzip, zstd and lz4 around captures: told by magic on input, by suffix on output.

Input is decompressed once, into an unlinked temporary file. Every capture is read twice or more,
and at random places to sort it. To write the spool and read it back costs 0.3 to 0.7 ns of CPU
time a byte; to decompress again costs 3.3 (gzip), 1.0 (zstd) or 0.6 (lz4), and cannot be
positioned. Memory is bounded: pieces of input are small enough that even the most compressible
data fills 64 MB at most.
"""

from __future__ import annotations

import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from pcap_tools.errors import CaptureError, OutputError

__all__ = ["Compressor", "codec_of_magic", "codec_of_name", "compressor", "decompressor", "spooled"]

MAGICS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
_SKIPPABLE = tuple(bytes([0x50 + i, 0x2A, 0x4D, 0x18]) for i in range(16))
SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".lz4": "lz4"}
_CHUNK = 1 << 20
_ZSTD_PIECE = 1 << 10  # a block of 4 bytes may stand for 128 KB
_ZSTD_WINDOW = 1 << 27  # what the zstd program accepts without --long


class Compressor(Protocol):
    """What zlib, zstandard and lz4 have in common here."""

    def compress(self, data: memoryview) -> bytes: ...

    def flush(self) -> bytes: ...


def codec_of_name(path: Path | str) -> str | None:
    """The compression that a file name asks for by its last suffix, or None."""
    return SUFFIXES.get(Path(path).suffix.lower())


def codec_of_magic(head: bytes) -> str | None:
    """The compression that the first bytes show, or None."""
    if head[:4] in _SKIPPABLE:
        return "zstd"  # pzstd begins with one; lz4 captures are not known to
    return next((codec for magic, codec in MAGICS.items() if head.startswith(magic)), None)


def compressor(codec: str) -> Compressor:
    """A compressor of one stream at the usual level. Raises OutputError without its package."""
    if codec == "gzip":
        return zlib.compressobj(wbits=31)
    if codec == "zstd":
        zstandard = _package("zstandard", OutputError)
        made: Compressor = zstandard.ZstdCompressor().compressobj()
        return made
    return _Lz4(_package("lz4.frame", OutputError))


class _Lz4:
    def __init__(self, frame: Any) -> None:
        self._frame = frame.LZ4FrameCompressor(block_size=frame.BLOCKSIZE_MAX4MB)
        self._begun = False

    def compress(self, data: memoryview) -> bytes:
        head: bytes = b"" if self._begun else self._frame.begin()
        self._begun = True
        return head + bytes(self._frame.compress(data))

    def flush(self) -> bytes:
        return bytes((b"" if self._begun else self._frame.begin()) + self._frame.flush())


def spooled(stream: IO[bytes], name: str, head: bytes = b"") -> IO[bytes]:
    """`head` and the rest of `stream`, decompressed when compressed, as a temporary file.

    Raises CaptureError for damaged or cut streams, and when the temporary directory is full.
    """
    head = head or stream.read(_CHUNK)
    spool = tempfile.TemporaryFile(prefix="capture-")  # noqa: SIM115 -- the reader closes it
    try:
        codec = codec_of_magic(head)
        if codec is None:
            spool.write(head)
            shutil.copyfileobj(stream, spool, _CHUNK)
        else:
            for piece in decompressor(codec)(_chunks(stream, head), name):
                spool.write(piece)
        spool.flush()
    except OSError as error:
        spool.close()
        raise CaptureError(
            f"{name}: no temporary copy in {tempfile.gettempdir()}: {error.strerror}; "
            "point TMPDIR to a directory with more room"
        ) from None
    except BaseException:
        spool.close()
        raise
    return spool


def _chunks(stream: IO[bytes], head: bytes) -> Iterator[bytes]:
    while head:
        yield head
        head = stream.read(_CHUNK)


def decompressor(codec: str) -> Callable[[Iterator[bytes], str], Iterator[bytes]]:
    """A function from chunks of a compressed stream (and its name) to chunks of its content."""
    return {"gzip": _gunzip, "zstd": _unzstd, "lz4": _unlz4}[codec]


def _gunzip(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """All members of a gzip file, one after the other."""
    member = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        rest = chunk
        while rest:
            if member.eof:
                rest = rest.lstrip(b"\0")  # tapes and block devices pad with zeros
                if not rest:
                    break
                member = zlib.decompressobj(wbits=31)
            try:
                yield member.decompress(rest, _CHUNK)
            except zlib.error as error:
                raise _damaged(name, "gzip", str(error)) from None
            rest = member.unused_data if member.eof else member.unconsumed_tail
    while not member.eof:
        piece = member.decompress(member.unconsumed_tail, _CHUNK)
        if not piece:
            raise _cut(name, "gzip")
        yield piece


def _unzstd(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """All frames of a zstd file."""
    zstandard = _package("zstandard", CaptureError)
    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    frame = context.decompressobj()
    started = False
    for chunk in chunks:
        view = memoryview(chunk)
        for at in range(0, len(view), _ZSTD_PIECE):
            piece = bytes(view[at : at + _ZSTD_PIECE])
            while piece:
                if frame.eof:
                    frame = context.decompressobj()
                started = True
                try:
                    yield frame.decompress(piece)
                except zstandard.ZstdError as error:
                    raise _damaged(name, "zstd", str(error)) from None
                piece = frame.unused_data if frame.eof else b""
    if started and not frame.eof:
        raise _cut(name, "zstd")


def _unlz4(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """All frames of an lz4 file."""
    lz4 = _package("lz4.frame", CaptureError)
    frame = lz4.LZ4FrameDecompressor()
    for chunk in chunks:
        rest = chunk
        while rest or not (frame.eof or frame.needs_input):
            if frame.eof:
                frame = lz4.LZ4FrameDecompressor()
            try:
                yield frame.decompress(rest, max_length=_CHUNK)
            except (RuntimeError, EOFError) as error:
                raise _damaged(name, "lz4", str(error)) from None
            rest = (frame.unused_data or b"") if frame.eof else b""
    if not frame.eof:
        raise _cut(name, "lz4")


def _package(module: str, error: type[CaptureError] | type[OutputError]) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.split(".")[0]
        raise error(f"{package} is not installed; pip install {package}, or use gzip") from None


def _damaged(name: str, codec: str, what: str) -> CaptureError:
    return CaptureError(f"{name}: damaged {codec} data ({what}); test the file with {codec} -t")


def _cut(name: str, codec: str) -> CaptureError:
    return CaptureError(
        f"{name}: the {codec} data end too soon; decompress what there is with {codec} -dc, "
        "and give that"
    )
