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
    print("compiling kernels, once on this machine: about 10 s", file=sys.stderr, flush=True)


def warm() -> None:
    """Expand a capture of two packets in every way, which compiles every kernel into the cache.

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
    record = struct.pack("<IIII", 1, 0, len(frame), len(frame)) + frame
    later = struct.pack("<IIII", 2, 0, len(frame), len(frame)) + frame
    with tempfile.TemporaryDirectory(prefix="warm-") as directory:
        source = Path(directory) / "in.pcap"
        source.write_bytes(file_header(1, 65535, nanoseconds=False) + later + record)
        for every in (0.5, 0.001):  # cycles, heap
            options = ExpandOptions(key="warm", iterations=2, every=every, max_gap=5.0)
            expand([source], str(Path(directory) / "out.pcap"), options)
