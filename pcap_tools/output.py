"""Captures out, in the format that the output's name asks for.

| name | written |
| --- | --- |
| `-` | pcap on standard output |
| `*.pcapng`, `*.ntar` | pcapng: an interface for each of the input, or for each link type |
| any other | pcap, of one link type |

and compressed when `.gz`, `.zst` or `.lz4` follows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Batch, Capture
from pcap_tools.compression import codec_of_name
from pcap_tools.errors import OutputError
from pcap_tools.kernels import I32, I64
from pcap_tools.records import put_blocks
from pcap_tools.savefile import Interface, Options
from pcap_tools.walk import MAX_PACKET
from pcap_tools.write import Buffered, PcapWriter

__all__ = ["CaptureWriter", "PcapngWriter", "is_pcapng", "open_output"]

_ALL = np.ones(0, np.bool_)
_NO_NOTES = np.empty((0, 4), np.int64)
_COMMENT = 1
_FCS_LENGTH = 13


class CaptureWriter(Protocol):
    """What every output has in common; a context manager that abandons on an error.

    `packets` and `bytes` (of frames) count what was written. `digest` is the SHA-256 of the file in
    hexadecimal after `close`, when it was asked for.
    """

    packets: int
    bytes: int

    @property
    def digest(self) -> str: ...

    def write(self, batch: Batch, keep: npt.NDArray[np.bool_] | None = None) -> None: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def is_pcapng(path: Path | str) -> bool:
    """Whether an output of this name is written as pcapng."""
    path = Path(path)
    stem = path.with_suffix("") if codec_of_name(path) else path
    return stem.suffix.lower() in (".pcapng", ".ntar")


def open_output(
    path: Path | str, capture: Capture, *, comments: bool = True, digest: bool = False
) -> CaptureWriter:
    """The writer for packets of `capture` to `path`, by its name (see the module).

    `comments` keeps what pcapng tells beside the packets: comments, names and descriptions of
    sections, interfaces and packets. Only pcapng can hold them. Raises UnsupportedLink when pcap
    should hold several link types, and OutputError.
    """
    if is_pcapng(path):
        return PcapngWriter(path, capture, comments=comments, digest=digest)
    _refuse_suffix(Path(path))
    return PcapWriter(
        path,
        capture.link,
        nanoseconds=capture.nanoseconds,
        snaplen=capture.snaplen,
        digest=digest,
    )


def _refuse_suffix(path: Path) -> None:
    for suffix in path.suffixes[-2:]:
        if suffix.lower() in (".erf", ".bz2", ".xz", ".zip"):
            raise OutputError(
                f"{path}: {suffix} is not written here; give .pcap or .pcapng, and .gz, .zst or "
                ".lz4 behind it to compress"
            )


class PcapngWriter(Buffered):
    """Writes pcapng: a section, then an interface before its first packet, then its packets.

    Packets of a pcapng input keep their interface with its name, comment, hardware and so on;
    others get one for each link type. Timestamps have nanoseconds where the input has, else
    microseconds, so that pcap made of it again is the same. `commented` counts packets that were
    written with options, `lost_sections` the section headers with comments that came too late.
    """

    def __init__(
        self,
        path: Path | str,
        capture: Capture,
        *,
        comments: bool = True,
        digest: bool = False,
    ) -> None:
        super().__init__(path, digest)
        self._capture = capture
        self._comments = comments
        # Numbers in the output: by interface of the input (-1 = not yet), and by link type.
        self._numbers: I32 = np.empty(0, np.int32)
        self._by_link: dict[int, int] = {}
        self._units: list[int] = []
        self._sections = len(capture.sections)
        self.commented = 0
        body = struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1)
        self._append(_block(0x0A0D0D0A, body + _options(self._section_options())))

    @property
    def lost_sections(self) -> int:
        """Later sections of the input whose comments are not in the output."""
        later = self._capture.sections[self._sections :]
        return sum(bool(options) for options in later) if self._comments else 0

    def write(self, batch: Batch, keep: npt.NDArray[np.bool_] | None = None) -> None:
        """Append the batch's packets, or those where `keep` (n booleans) is true."""
        if not len(batch):
            return
        if int(batch.time_ns.min()) < 0:
            raise OutputError(f"{self.path}: a packet from before 1970 cannot be written as pcapng")
        interface = self._interfaces(batch)
        meta = batch.meta if self._comments else None
        noted = _NO_NOTES if meta is None else meta.noted
        if len(noted):
            self._reserve(int(noted[:, 2].max()) + MAX_PACKET + 64)
        units = np.array(self._units, np.int64)
        start = 0
        while start < len(batch):
            start, self._fill, packets, octets, commented = put_blocks(
                batch.data,
                batch.offset,
                batch.caplen,
                batch.wirelen,
                batch.time_ns,
                _ALL if keep is None else keep,
                interface,
                units,
                noted,
                batch.data if meta is None else meta.octets,
                start,
                self._buffers[0],
                self._fill,
            )
            self.packets += packets
            self.bytes += octets
            self.commented += commented
            if start < len(batch):
                self._flush()
                if len(noted):
                    self._reserve(int(noted[:, 2].max()) + MAX_PACKET + 64)

    def _interfaces(self, batch: Batch) -> I32:
        """The output's interface of each packet; describes those that are new."""
        if batch.meta is None:
            if batch.link not in self._by_link:
                plain = Interface(batch.link, self._capture.snaplen, self._capture.nanoseconds)
                self._by_link[batch.link] = self._describe(plain)
            return np.array([self._by_link[batch.link]], np.int32)
        known = self._capture.interfaces
        if len(self._numbers) < len(known):
            fresh = np.full(len(known) - len(self._numbers), -1, np.int32)
            self._numbers = np.concatenate([self._numbers, fresh])
        used: I64 = np.flatnonzero(np.bincount(batch.meta.interface, minlength=1))
        for number in used[self._numbers[used] < 0].tolist():
            self._numbers[number] = self._describe(known[number])
        return self._numbers[batch.meta.interface]

    def _describe(self, interface: Interface) -> int:
        resolution = 9 if interface.nanoseconds else 6
        kept = tuple(o for o in interface.options if self._comments or o[0] == _FCS_LENGTH)
        body = struct.pack("=HHI", interface.link, 0, interface.snaplen)
        self._append(_block(1, body + _options((*kept, (9, bytes([resolution]))))))
        self._units.append(1 if interface.nanoseconds else 1000)
        return len(self._units) - 1

    def _section_options(self) -> Options:
        """Comments of all sections met so far, once each; the rest from the first that has it."""
        merged: list[tuple[int, bytes]] = []
        if self._comments:
            for options in self._capture.sections:
                taken = {code for code, _ in merged if code != _COMMENT}
                merged += [o for o in options if o[0] not in taken and o not in merged]
        return tuple(merged)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("=I", len(body) + 12)
    return struct.pack("=I", kind) + length + body + length


def _options(options: Sequence[tuple[int, bytes]]) -> bytes:
    parts = [
        struct.pack("=HH", code, len(value)) + value + bytes(-len(value) % 4)
        for code, value in options
    ]
    return b"".join([*parts, bytes(4)]) if parts else b""
