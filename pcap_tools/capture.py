"""Captures in: pcap and pcapng as a stream of column batches over one reused buffer.

`open_capture` checks every file's beginning at once (format, link type); `Capture.batches` then
walks the packets as often as wanted. A batch is valid until the next one is asked for: its arrays
are views of buffers that are filled again.

Formats: libpcap savefiles (draft-ietf-opsawg-pcap: microseconds and nanoseconds, both byte orders)
and pcapng (draft-ietf-opsawg-pcapng: SHB, IDB, EPB, SPB, obsolete PB; if_tsresol, if_tsoffset;
several sections and interfaces; both byte orders). "-" is standard input, spooled to a temporary
file because cleaning reads twice.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from pcap_tools.errors import CaptureError, EmptyCapture, UnsupportedLink
from pcap_tools.kernels import I64, U8
from pcap_tools.savefile import Columns, Savefile, open_savefile
from pcap_tools.walk import MAX_PACKET, U32

__all__ = [
    "LINK_NAMES",
    "MAX_PACKET",
    "Batch",
    "Capture",
    "link_name",
    "open_capture",
]

LINK_NAMES = {
    0: "BSD loopback",
    1: "Ethernet",
    12: "raw IP",
    101: "raw IP",
    108: "OpenBSD loopback",
    113: "Linux cooked (SLL)",
    228: "raw IPv4",
    229: "raw IPv6",
    276: "Linux cooked v2 (SLL2)",
}
"""Link types (tcpdump.org/linktypes.html) with a reading here."""

_BUFFER = 1 << 19  # measured: larger leaves the cache and costs page faults, smaller costs calls


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive packets of a capture; n = len(batch).

    `data` (uint8) holds the bytes; frame i is data[offset[i] : offset[i] + caplen[i]].
    `wirelen` is the frame's length on the wire, `time_ns` its time since the epoch in ns,
    `link` its link type and `first` the number of its first packet in the whole capture, from 0.
    """

    data: U8
    offset: I64
    caplen: U32
    wirelen: U32
    time_ns: I64
    link: int
    first: int

    def __len__(self) -> int:
        return len(self.offset)


class Capture:
    """One or several captures of one link type, read as one, in order of their first packets.

    Known from the beginning: `paths`, `link`, `format` ("pcap", "pcapng" or "mixed"),
    `nanoseconds` (finer than microseconds), `snaplen` (largest declared; 0 = not declared), `size`
    (bytes of all files). Known when `batches` has ended: `packets`, `bytes` (of frames as
    captured) and `ignored_bytes` (of a truncated tail).
    """

    def __init__(self, paths: Sequence[Path], files: Sequence[Savefile]) -> None:
        self.paths = tuple(paths)
        self._files = sorted(files, key=lambda file: file.first_ns)
        self.link = self._only_link()
        formats = {file.format for file in files}
        self.format = formats.pop() if len(formats) == 1 else "mixed"
        self.size = sum(file.size for file in files)
        self.packets = 0
        self.bytes = 0

    @property
    def nanoseconds(self) -> bool:
        """True when a file's timestamps are finer than microseconds."""
        return any(file.nanoseconds for file in self._files)

    @property
    def snaplen(self) -> int:
        """The largest snapshot length that a file declares; 0 when none does."""
        return max(file.snaplen for file in self._files)

    @property
    def ignored_bytes(self) -> int:
        """Bytes of truncated tails, in all files, after `batches` has ended."""
        return sum(file.ignored_bytes for file in self._files)

    def batches(self, keep: int = 1) -> Iterator[Batch]:
        """All packets from the beginning, in batches of views: the last `keep` of them are valid.

        Several files that overlap in time are merged by time. Raises CaptureError at a corrupt
        record and EmptyCapture when there is no packet at all.
        """
        self.packets = self.bytes = 0
        for columns in _merged(self._files, keep):
            batch = Batch(*columns, self.link, self.packets)
            self.packets += len(batch)
            self.bytes += int(batch.caplen.sum(dtype=np.int64))
            yield batch
        if self.packets == 0:
            raise EmptyCapture(f"{self._names()}: the capture has no packet")

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _names(self) -> str:
        return ", ".join(file.name for file in self._files)

    def _only_link(self) -> int:
        links = {file.link: file.name for file in self._files if file.link is not None}
        if not links:
            raise EmptyCapture(f"{self._names()}: the capture has no packet")
        if len(links) > 1:
            listed = ", ".join(f"{name}: {link_name(link)}" for link, name in links.items())
            raise UnsupportedLink(f"link types differ ({listed}); give captures of one link type")
        link, name = links.popitem()
        if link not in LINK_NAMES:
            raise UnsupportedLink(
                f"{name}: link type {link} cannot be read here; "
                f"wanted: Ethernet, raw IP, Linux cooked or BSD loopback"
            )
        return link


def open_capture(paths: Sequence[Path | str] | Path | str) -> Capture:
    """Open captures for reading, as a context manager; "-" is standard input.

    Raises CaptureError (unreadable file), UnknownFormat, UnsupportedLink (also for link types that
    differ between files) and EmptyCapture (empty file, or no packet).
    """
    wanted = [paths] if isinstance(paths, str | Path) else list(paths)
    if not wanted:
        raise CaptureError("no capture was given")
    files: list[Savefile] = []
    with contextlib.ExitStack() as undo:
        for path in wanted:
            stream, name = _open(path)
            undo.callback(stream.close)
            files.append(open_savefile(stream, name, _BUFFER))
        capture = Capture([Path(path) for path in wanted], files)
        undo.pop_all()
    return capture


def link_name(link: int) -> str:
    """A link type for people, e.g. "Ethernet" or "link type 105"."""
    return LINK_NAMES.get(link, f"link type {link}")


def _open(path: Path | str) -> tuple[IO[bytes], str]:
    if str(path) == "-":
        spool = tempfile.TemporaryFile(prefix="capture-")  # noqa: SIM115 -- the Capture closes it
        shutil.copyfileobj(sys.stdin.buffer, spool, 1 << 20)
        spool.flush()
        return spool, "standard input"
    try:
        stream = Path(path).open("rb", buffering=0)  # noqa: SIM115 -- as above
    except OSError as error:
        raise CaptureError(f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise CaptureError(
            f"{path}: not a regular file; use - to read a stream from standard input"
        )
    return stream, str(path)


def _merged(files: Sequence[Savefile], keep: int) -> Iterator[Columns]:
    """Columns of all files in time order across files (the order inside a file is kept).

    Emits the file with the earliest next packet up to the point where another file's next packet
    is due, so files that follow each other cost nothing.
    """
    if len(files) == 1:
        yield from files[0].columns(keep)
        return
    # Heads: the rest of each file's current columns.
    walks = [file.columns(keep) for file in files]
    heads: dict[int, Columns] = {}
    waiting = list(range(len(files)))
    while heads or waiting:
        # A file is opened only when its first packet may be next: rotated captures come by the
        # hundred, and each open walk holds a buffer.
        while waiting and (
            not heads
            or files[waiting[0]].first_ns <= min(int(head.time_ns[0]) for head in heads.values())
        ):
            number = waiting.pop(0)
            first = next(walks[number], None)
            if first is not None:
                heads[number] = first
        if not heads:
            break
        number = min(heads, key=lambda n: (int(heads[n].time_ns[0]), n))
        head = heads[number]
        limits = [int(other.time_ns[0]) for n, other in heads.items() if n != number]
        if waiting:
            limits.append(files[waiting[0]].first_ns)
        cut = len(head.offset)
        if limits:
            later = np.flatnonzero(head.time_ns > min(limits))
            cut = int(later[0]) if len(later) else cut
        yield head.part(0, cut)
        if cut < len(head.offset):
            heads[number] = head.part(cut, len(head.offset))
            continue
        following = next(walks[number], None)
        if following is None:
            del heads[number]
        else:
            heads[number] = following
