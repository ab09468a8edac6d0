"""Compile the kernels ahead of a measurement: a trial must not wait for a compiler."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

from pcap_tools.expand import ExpandOptions, expand, file_header

__all__ = ["warm"]


def warm() -> None:
    """Expand a capture of one packet in every way, which compiles every kernel into the cache."""
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
