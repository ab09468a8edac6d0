"""Which reader a file needs: told by its first bytes, whatever its name."""

from __future__ import annotations

import os
import struct
from typing import IO

from pcap_tools.errors import CaptureError, EmptyCapture, UnknownFormat
from pcap_tools.savefile import PCAP_MAGICS, PcapFile, Savefile

__all__ = ["open_savefile"]

_COMPRESSED = {
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
    b"\x02\x21\x4c\x18": "lz4's legacy format",
}


def open_savefile(stream: IO[bytes], name: str, buffer: int) -> Savefile:
    """The reader of an open file by its magic number; `buffer` is the read size in bytes.

    Raises UnknownFormat, EmptyCapture for an empty file, and CaptureError.
    """
    head = os.pread(stream.fileno(), 24, 0)
    if not head:
        raise EmptyCapture(f"{name}: the file is empty (0 bytes)")
    if head[:4] == b"\x0a\x0d\x0d\x0a":
        from pcap_tools.pcapng import PcapngFile

        return PcapngFile(stream, name, buffer)
    if len(head) >= 4 and {*struct.unpack("<I", head[:4]), *struct.unpack(">I", head[:4])} & {
        *PCAP_MAGICS
    }:
        return _pcap(stream, name, buffer, head)
    for prefix, packer in _COMPRESSED.items():
        if head.startswith(prefix):
            raise UnknownFormat(f"{name}: compressed with {packer}; decompress it first")
    from pcap_tools.erf import ErfFile, looks_like_erf

    if looks_like_erf(stream.fileno()):
        return ErfFile(stream, name, buffer)
    raise UnknownFormat(
        f"{name}: neither pcap nor pcapng nor ERF (it begins with 0x{head[:4].hex()}); "
        "convert it, e.g. with editcap -F pcap"
    )


def _pcap(stream: IO[bytes], name: str, buffer: int, head: bytes) -> Savefile:
    if len(head) < 24:
        raise CaptureError(f"{name}: cut inside the file header ({len(head)} of 24 bytes)")
    from pcap_tools.patched import PatchedFile, record_size

    size = record_size(stream, head)
    return (
        PatchedFile(stream, name, buffer, head, size)
        if size
        else PcapFile(stream, name, buffer, head)
    )
