"""Captures out: a classic pcap file that appears under its name only when it is whole."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Batch, link_name
from pcap_tools.errors import OutputError
from pcap_tools.kernels import U8
from pcap_tools.parts import HEADER, RECORD
from pcap_tools.records import put_records
from pcap_tools.sink import DEPTH, open_sink
from pcap_tools.walk import MAX_PACKET

__all__ = [
    "Buffered",
    "PcapWriter",
    "plain_pcap_only",
    "refuse_inputs",
]

_BUFFER = 1 << 20  # with less, handing buffers to the writing thread costs more than it brings
_ALL = np.ones(0, np.bool_)


class Buffered:
    """Buffers before a sink: one is filled while others are written, compressed or hashed."""

    def __init__(self, path: Path | str, digest: bool) -> None:
        self.path = Path(path)
        self.packets = 0
        self.bytes = 0
        # One is filled; the others are being written.
        self._buffers: deque[U8] = deque([np.empty(_BUFFER, np.uint8)])
        self._fill = 0
        self._sink = open_sink(path, digest=digest)

    @property
    def digest(self) -> str:
        """SHA-256 of what was written, after `close`, when it was asked for."""
        return self._sink.digest

    def close(self) -> None:
        """Write what is left and give the file its name."""
        try:
            self._flush()
        except BaseException:
            self.abandon()
            raise
        self._sink.commit()

    def abandon(self) -> None:
        """Remove the unfinished file."""
        self._sink.abandon()

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
        if self._fill + len(octets) > len(self._buffers[0]):
            self._flush()
            self._reserve(len(octets))
        self._buffers[0][self._fill : self._fill + len(octets)] = np.frombuffer(octets, np.uint8)
        self._fill += len(octets)

    def _reserve(self, size: int) -> None:
        """Make the next buffer hold `size` bytes; the other may still be in use."""
        if size > len(self._buffers[0]):
            self._flush()
            self._buffers[0] = np.empty(size, np.uint8)

    def _flush(self) -> None:
        if self._fill:
            self._sink.write(self._buffers[0][: self._fill].data)
            if len(self._buffers) <= DEPTH:
                self._buffers.appendleft(np.empty(_BUFFER, np.uint8))
            else:
                self._buffers.rotate(1)
            self._fill = 0


class PcapWriter(Buffered):
    """Writes pcap in the machine's byte order, of one link type.

    As a context manager: on success the file is renamed to `path` (a compressed one when that ends
    in .gz, .zst or .lz4; standard output is "-"), on an error nothing is left. Afterwards `packets`
    and `bytes` (of frames) count what was written, and `digest` is the SHA-256 of the file in
    hexadecimal, when `digest=True` was asked for.
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
        super().__init__(path, digest)
        self._link = link
        self._unit = 1 if nanoseconds else 1000
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
            start, self._fill, packets, octets = put_records(
                batch.data,
                batch.offset,
                batch.caplen,
                batch.wirelen,
                batch.time_ns,
                _ALL if keep is None else keep,
                start,
                self._unit,
                self._buffers[0],
                self._fill,
            )
            self.packets += packets
            self.bytes += octets
            if start < len(batch):
                self._flush()

    def place_records(self, packets: int, octets: int) -> int | None:
        """Room behind what was written for the records of so many packets and bytes of frames.

        They count as written. Returns the file's descriptor, None where an output has no places
        (see `Sink.place`). Raises OutputError.
        """
        self._flush()
        descriptor = self._sink.place(HEADER + RECORD * packets + octets)
        if descriptor is not None:
            self.packets += packets
            self.bytes += octets
        return descriptor

    def write_records(self, records: U8, packets: int) -> None:
        """Append whole records in this file's own format, as they are."""
        start = 0
        while start < len(records):
            piece = records[start : start + len(self._buffers[0]) - self._fill]
            self._buffers[0][self._fill : self._fill + len(piece)] = piece
            self._fill += len(piece)
            start += len(piece)
            if start < len(records):
                self._flush()
        self.packets += packets
        self.bytes += len(records) - RECORD * packets


def refuse_inputs(output: Path | str, inputs: Sequence[Path | str]) -> None:
    """Raise OutputError when the output is one of the inputs, by whatever name, or no file."""
    output = Path(output)
    if not output.exists():
        return
    if not output.is_file():
        raise OutputError(f"{output}: is not a regular file; give a file name")
    for path in inputs:
        if str(path) != "-" and Path(path).exists() and output.samefile(path):
            raise OutputError(f"{output}: is also an input; give another output")


def plain_pcap_only(output: Path | str) -> None:
    """Raise OutputError when the name promises what its writer does not make."""
    suffix = Path(output).suffix.lower()
    if suffix in (".gz", ".zst", ".lz4", ".bz2", ".xz", ".pcapng", ".ntar"):
        raise OutputError(
            f"{output}: only pcap is written here, uncompressed; give OUT.pcap, then `corpus "
            "convert` makes the other"
        )
