"""Compile the kernels ahead of a measurement: a trial must not wait for a compiler."""

from __future__ import annotations

import struct
import sys
import tempfile
import threading
from pathlib import Path

from pcap_tools.expand import ExpandOptions, expand, file_header

__all__ = ["warm"]


_SILENCE = 1.5  # s: from the cache everything is there by then


def _announce() -> None:
    print("compiling kernels, once on this machine: about 20 s", file=sys.stderr, flush=True)


def warm() -> None:
    """Expand captures of two and three packets in every way: all kernels come into the cache.

    Says so on standard error when that is a terminal and the cache was empty.
    """
    notice = threading.Timer(_SILENCE, _announce)
    notice.daemon = True
    if sys.stderr.isatty():
        notice.start()
    try:
        _expand_both_ways()
    finally:
        notice.cancel()


def _expand_both_ways() -> None:
    udp = struct.pack(">HHHH", 1, 2, 8, 0)
    packet = struct.pack(
        ">BBHHHBBH4s4s", 69, 0, 28, 0, 0, 64, 17, 0, b"\n\0\0\1", b"\x08\x08\x08\x08"
    )
    frame = bytes(12) + b"\x08\0" + packet + udp
    arp = bytes(12) + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + bytes(20)
    record, later, other = (
        struct.pack("<IIII", second, 0, len(octets), len(octets)) + octets
        for second, octets in ((1, frame), (2, frame), (3, arp))
    )
    with tempfile.TemporaryDirectory(prefix="warm-") as directory:
        source = Path(directory) / "in.pcap"
        for more in (b"", other):  # plain frames, and edits beyond the IP header
            header = file_header(1, 65535, nanoseconds=False)
            source.write_bytes(header + later + record + more)
            for every in (0.5, 0.001):  # cycles, heap
                options = ExpandOptions(key="warm", iterations=2, every=every, max_gap=5.0)
                expand([source], str(Path(directory) / "out.pcap"), options)
