"""tcpprep's cache files: which packets tcpreplay and tcprewrite send, and on which interface.

Format: tcpreplay 4.4.3, src/common/cache.h and cache.c, version "04". A packed header in network
order (magic "tcpprep\\0", version "04\\0\\0", uint64 packets, uint16 packets a byte = 4, uint16
length of the comment), the comment, then two bits a packet, the first packet in the lowest: bit 0
is the interface (1: primary, client to server), bit 1 whether the packet is sent at all.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

import numpy as np

from pcap_tools.errors import CaptureError, PcapError
from pcap_tools.kernels import U8
from pcap_tools.table import write_atomically

__all__ = ["CLIENT", "NOT_SENT", "SERVER", "read_cache", "write_cache"]

CLIENT = 3
"""Sent on the primary interface: client to server."""

SERVER = 2
"""Sent on the secondary interface: server to client."""

NOT_SENT = 0

_MAGIC = b"tcpprep\0"
_VERSION = b"04\0\0"
_HEADER = struct.Struct(">8s4sQHH")
_PER_BYTE = 4
_LONGEST_COMMENT = 65_534
_CHUNK = 1 << 22  # packets; a multiple of _PER_BYTE


def write_cache(path: Path | str, codes: U8, comment: str = "") -> None:
    """Write `codes` (uint8, one a packet: CLIENT, SERVER or NOT_SENT). Raises OutputError."""
    text = comment.encode()[:_LONGEST_COMMENT]
    header = _HEADER.pack(_MAGIC, _VERSION, len(codes), _PER_BYTE, len(text))

    def write(stream: IO[bytes]) -> None:
        stream.write(header + text)
        for start in range(0, len(codes), _CHUNK):
            part = codes[start : start + _CHUNK]
            four = np.zeros(-(-len(part) // _PER_BYTE) * _PER_BYTE, np.uint8)
            four[: len(part)] = part
            packed = four[0::4] | four[1::4] << 2 | four[2::4] << 4 | four[3::4] << 6
            stream.write(packed.tobytes())

    write_atomically(Path(path), write)


def read_cache(path: Path | str) -> tuple[U8, str]:
    """The codes, one a packet, and the comment. Raises CaptureError for other files."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CaptureError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) < _HEADER.size or data[:8] != _MAGIC:
        raise CaptureError(f"{path}: is no tcpprep cache file")
    _, version, packets, per_byte, comment = _HEADER.unpack_from(data)
    if version != _VERSION or per_byte != _PER_BYTE:
        raise PcapError(
            f"{path}: a tcpprep cache of version {version[:2].decode('latin-1')}; "
            "only version 04 is known"
        )
    packed = np.frombuffer(data, np.uint8, offset=min(_HEADER.size + comment, len(data)))
    if len(packed) != -(-packets // _PER_BYTE):
        raise CaptureError(f"{path}: has {len(packed)} bytes for {packets} packets; it is cut")
    codes = np.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], axis=1).ravel()[:packets]
    return codes, data[_HEADER.size : _HEADER.size + comment].decode(errors="replace")
