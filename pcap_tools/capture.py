"""Captures in: savefiles as a stream of column batches over one reused buffer.

`open_capture` checks every file's beginning at once (format, link type); `Capture.batches` then
walks the packets as often as wanted. A batch is valid until the next one is asked for: its arrays
are views of buffers that are filled again.

Formats: libpcap savefiles (draft-ietf-opsawg-pcap: microseconds and nanoseconds, both byte orders;
patched variants: `patched`), pcapng (`pcapng`) and ERF (`erf`); any of them compressed with gzip,
zstd or lz4 (`compression`). "-" is standard input, spooled to a temporary file because cleaning
reads twice.
"""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from pcap_tools.compression import codec_of_magic, spooled
from pcap_tools.errors import CaptureError, EmptyCapture, GrowingInput, UnsupportedLink
from pcap_tools.formats import open_savefile
from pcap_tools.kernels import I64, U8
from pcap_tools.savefile import Columns, Interface, Meta, Options, Savefile
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
    14: "raw IP (OpenBSD)",
    101: "raw IP",
    108: "OpenBSD loopback",
    113: "Linux cooked (SLL)",
    228: "raw IPv4",
    229: "raw IPv6",
    276: "Linux cooked v2 (SLL2)",
}
"""Link types (tcpdump.org/linktypes.html) with a reading here."""

_BUFFER = 1 << 20  # measured: larger leaves the cache and costs page faults, smaller costs calls


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive packets of one link type of a capture; n = len(batch).

    `data` (uint8) holds the bytes; frame i is data[offset[i] : offset[i] + caplen[i]].
    `wirelen` is the frame's length on the wire, `time_ns` its time since the epoch in ns,
    `link` its link type and `first` the number of its first packet in the whole capture, from 0.
    `file` numbers Capture.files, and `position` is data[0]'s offset in that file, or -1 when the
    bytes are in no file as they are. `meta` is what pcapng tells beyond that, with the interfaces
    numbered as in Capture.interfaces.
    """

    data: U8
    offset: I64
    caplen: U32
    wirelen: U32
    time_ns: I64
    link: int
    first: int
    file: int = 0
    position: int = -1
    meta: Meta | None = None

    def __len__(self) -> int:
        return len(self.offset)


class Capture:
    """One or several captures read as one, in order of their first packets.

    Known from the beginning: `paths`, `files` (in that order), `format` ("pcap", "pcapng", "erf" or
    "mixed"), `snaplen` (largest declared; 0 = not declared), `size` (bytes of all files,
    decompressed). Known when `batches` has ended: `packets`, `bytes` (of frames as captured),
    `ignored_bytes` (of a truncated tail) and `passed_over` (pcapng blocks without packets, by
    kind). In between, pcapng adds to `links`, `nanoseconds` (finer than microseconds), `interfaces`
    and `sections` as it describes them.
    """

    def __init__(self, paths: Sequence[Path], files: Sequence[Savefile]) -> None:
        self.paths = tuple(paths)
        self.files = sorted(files, key=lambda file: file.first_ns)
        formats = {file.format for file in files}
        self.format = formats.pop() if len(formats) == 1 else "mixed"
        self.size = sum(file.size for file in files)
        self.packets = 0
        self.bytes = 0
        self.interfaces: list[Interface] = []
        # By file: its interfaces' numbers among all of them.
        self._numbers = [np.empty(0, np.int32) for _ in files]
        for file in files:
            for link in file.links:
                _check_link(link, file.name)
        if not self.links:
            raise EmptyCapture(f"{self._names()}: the capture has no packet")

    @property
    def links(self) -> tuple[int, ...]:
        """The link types met so far, in order of the files."""
        return tuple(dict.fromkeys(link for file in self.files for link in file.links))

    @property
    def link(self) -> int:
        """The capture's only link type. Raises UnsupportedLink when there are several."""
        links = self.links
        if len(links) > 1:
            raise UnsupportedLink(
                f"{self._names()}: several link types ({self.link_text}), which needs an output "
                "that can hold them: write pcapng (OUT.pcapng), or give captures of one link type"
            )
        return links[0]

    def require_one_link(self, batch: Batch) -> None:
        """Refuse a batch of another link type than the first. Raises UnsupportedLink."""
        if batch.link != self.links[0]:
            raise UnsupportedLink(
                f"{self.paths[0]}: several link types ({self.link_text}); give captures of one"
            )

    @property
    def link_text(self) -> str:
        """The link types for people, e.g. "Ethernet" or "Ethernet, raw IP"."""
        return ", ".join(link_name(link) for link in self.links)

    @property
    def nanoseconds(self) -> bool:
        """True when a file's timestamps are finer than microseconds."""
        return any(file.nanoseconds for file in self.files)

    @property
    def snaplen(self) -> int:
        """The largest snapshot length that a file declares; 0 when none does."""
        return max(file.snaplen for file in self.files)

    @property
    def ignored_bytes(self) -> int:
        """Bytes of truncated tails, in all files, after `batches` has ended."""
        return sum(file.ignored_bytes for file in self.files)

    @property
    def sections(self) -> list[Options]:
        """The options of each pcapng section header met so far."""
        return [options for file in self.files for options in file.sections]

    @property
    def passed_over(self) -> dict[str, int]:
        """pcapng blocks that hold no packet, by kind: they are in no output."""
        total: dict[str, int] = {}
        for file in self.files:
            for kind, count in file.passed_over.items():
                total[kind] = total.get(kind, 0) + count
        return total

    @property
    def plain(self) -> Savefile | None:
        """The file behind the capture, when there is one and its bytes are classic pcap in the
        machine's byte order: then `Savefile.columns(start_offset, stop_offset)` reads any part."""
        return self.files[0] if len(self.files) == 1 and self.files[0].plain else None

    def batches(self, keep: int = 1) -> Iterator[Batch]:
        """All packets from the beginning, in batches of views: the last `keep` of them are valid.

        Several files that overlap in time are merged by time. Raises CaptureError at a corrupt
        record, UnsupportedLink at a packet of a link type without a reading here, GrowingInput
        when a file has changed, and EmptyCapture when there is no packet at all.
        """
        self.packets = self.bytes = 0
        link = -1
        for file, columns in _merged(self.files, keep):
            if columns.link != link:
                link = columns.link
                _check_link(link, self.files[file].name)
            batch = Batch(
                *columns[:5],
                link,
                self.packets,
                file,
                columns.position,
                columns.meta and self._renumbered(columns.meta, file),
            )
            self.packets += len(batch)
            self.bytes += int(batch.caplen.sum(dtype=np.int64))
            yield batch
        self.check_unchanged()
        if self.packets == 0:
            raise EmptyCapture(f"{self._names()}: the capture has no packet")

    def check_unchanged(self) -> None:
        """Raise GrowingInput when a file is not as it was at opening."""
        for file in self.files:
            file.check_unchanged()

    def _renumbered(self, meta: Meta, file: int) -> Meta:
        known = self.files[file].interfaces
        numbers = self._numbers[file]
        if len(numbers) < len(known):
            fresh = np.arange(len(known) - len(numbers), dtype=np.int32) + len(self.interfaces)
            self.interfaces.extend(known[len(numbers) :])
            numbers = self._numbers[file] = np.concatenate([numbers, fresh])
        if len(self.files) == 1:
            return meta
        return Meta(numbers[meta.interface], meta.noted, meta.octets)

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
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
        return ", ".join(file.name for file in self.files)


def _check_link(link: int, name: str) -> None:
    if link not in LINK_NAMES:
        raise UnsupportedLink(
            f"{name}: link type {link} cannot be read here; "
            "wanted: Ethernet, raw IP, Linux cooked or BSD loopback"
        )


def open_capture(paths: Sequence[Path | str] | Path | str) -> Capture:
    """Open captures for reading, as a context manager; "-" is standard input.

    Raises CaptureError (unreadable file), UnknownFormat, UnsupportedLink and EmptyCapture (empty
    file, or no packet).
    """
    wanted = [paths] if isinstance(paths, str | Path) else list(paths)
    if not wanted:
        raise CaptureError("no capture was given")
    _allow_files(len(wanted))
    files: list[Savefile] = []
    with contextlib.ExitStack() as undo:
        for path in wanted:
            stream, name = _open(path)
            undo.callback(stream.close)
            files.append(open_savefile(stream, name, _BUFFER))
        capture = Capture([Path(path) for path in wanted], files)
        undo.pop_all()
    return capture


def _allow_files(count: int) -> None:
    """Raise the soft limit of open files for a long series of rotated captures."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 128
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def link_name(link: int) -> str:
    """A link type for people, e.g. "Ethernet" or "link type 105"."""
    return LINK_NAMES.get(link, f"link type {link}")


def _open(path: Path | str) -> tuple[IO[bytes], str]:
    if str(path) == "-":
        return spooled(sys.stdin.buffer, "standard input"), "standard input"
    name = str(path)
    try:
        stream = Path(path).open("rb", buffering=0)  # noqa: SIM115 -- the Capture closes it
    except OSError as error:
        raise CaptureError(f"{path}: cannot be read: {error.strerror}") from None
    with contextlib.ExitStack() as undo:
        undo.callback(stream.close)
        before = os.fstat(stream.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise CaptureError(
                f"{path}: not a regular file; use - to read a stream from standard input"
            )
        if codec_of_magic(os.pread(stream.fileno(), 4, 0)) is None:
            undo.pop_all()
            return stream, name
        spool = spooled(stream, name)
        after = os.fstat(stream.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            spool.close()
            raise GrowingInput(f"{name}: changed while it was read; wait for its writer to end")
        return spool, name


def _merged(files: Sequence[Savefile], keep: int) -> Iterator[tuple[int, Columns]]:
    """File number and columns, in time order across files (the order inside a file is kept).

    Emits the file with the earliest next packet up to the point where another file's next packet
    is due, so files that follow each other cost nothing.
    """
    if len(files) == 1:
        for columns in files[0].columns(keep=keep):
            yield 0, columns
        return
    # Heads: the rest of each file's current columns.
    walks = [file.columns(keep=keep) for file in files]
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
        yield number, head.part(0, cut)
        if cut < len(head.offset):
            heads[number] = head.part(cut, len(head.offset))
            continue
        following = next(walks[number], None)
        if following is None:
            del heads[number]
        else:
            heads[number] = following
