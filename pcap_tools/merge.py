"""A split back to one capture: the files of pcap_tools.split in the order that split.order keeps.

Example:
    report = merge("flows/", "again.pcap")
    assert report.exact  # the split changed nothing: the input's bytes

Files may have been rewritten in between (tcprewrite, corpus remap), as long as every packet keeps
its place in its file and its length; the capture then has the rewritten packets.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pcap_tools.errors import CaptureError, OutputError
from pcap_tools.kernels import I64, U8, copy_bytes, kernel, load32
from pcap_tools.splitfiles import (
    FORMAT,
    FORMAT_VERSION,
    ORDER,
    ORDER_MAGIC,
    ORDER_NAME,
    OTHER_NAME,
    REPORT_NAME,
    TABLE_NAME,
)
from pcap_tools.walk import U32, Word
from pcap_tools.write import plain_pcap_only

__all__ = ["MergeReport", "merge"]

_WINDOW = 1 << 26
_HEADER = 24
_RECORD = 16
_ROWS = 1 << 20  # of the order, read at once


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What was merged: `files`, `packets` and `bytes` (of frames).

    `exact`: the split that is merged dropped and changed nothing, so that the output is its input
    byte for byte, unless its files were edited since.
    """

    directory: str
    output: str
    files: int
    packets: int
    bytes: int
    exact: bool

    def as_json(self) -> dict[str, Any]:
        """The report's JSON form."""
        return asdict(self)


def merge(directory: Path | str, output: Path | str, window: int = _WINDOW) -> MergeReport:
    """Write the packets of a split's files to `output` in their old order.

    Memory: two buffers of `window` bytes, and 20 bytes a file. Raises CaptureError when the
    directory is no split or a file of it is missing or does not have the packets it had, and
    OutputError.
    """
    directory, output = Path(directory), Path(output)
    report = _report(directory)
    plain_pcap_only(output)
    if output.parent.resolve() == directory.resolve():
        raise OutputError(f"{output}: is inside the split itself; give an output elsewhere")
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with (directory / ORDER_NAME).open("rb") as order, temporary.open("wb", 0) as stream:
            if order.read(len(ORDER_MAGIC)) != ORDER_MAGIC:
                raise CaptureError(f"{directory}/{ORDER_NAME}: is not what `corpus split` wrote")
            stream.write(bytes.fromhex(report["header"]))
            gather = _Gather(directory, report["flows"], window)
            while rows := order.read(_ROWS * ORDER.itemsize):
                whole = len(rows) // ORDER.itemsize
                gather.copy(np.frombuffer(rows, ORDER, whole), stream)
        if gather.packets != report["packets"]:
            raise CaptureError(f"{directory / ORDER_NAME}: is cut; split again")
        gather.check_ends()
        temporary.replace(output)
    except OSError as error:
        raise _explained(error, directory, output) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return MergeReport(
        directory=str(directory),
        output=str(output),
        files=gather.files,
        packets=gather.packets,
        bytes=gather.bytes,
        exact=report["exact"],
    )


def _report(directory: Path) -> dict[str, Any]:
    path = directory / REPORT_NAME
    try:
        report: dict[str, Any] = json.loads(path.read_text())
        known = (report["format"], report["version"]) == (FORMAT, FORMAT_VERSION)
        usable = (
            known
            and len(bytes.fromhex(report["header"])) == _HEADER
            and all(type(report[name]) is int for name in ("flows", "packets"))
            and type(report["exact"]) is bool
        )
    except OSError as error:
        raise CaptureError(
            f"{path}: cannot be read: {error.strerror}; give a directory of `corpus split`"
        ) from None
    except (ValueError, KeyError, TypeError):
        usable = False
    if not usable:
        raise CaptureError(f"{path}: is not a report of `corpus split`, version {FORMAT_VERSION}")
    return report


def _explained(error: OSError, directory: Path, output: Path) -> CaptureError | OutputError:
    if error.filename is not None and Path(error.filename).parent == directory:
        return CaptureError(f"{error.filename}: cannot be read: {error.strerror}")
    return OutputError(f"{output}: cannot be written: {error.strerror}")


class _Gather:
    """Reads each file's next records as they are due; at most one file is open at a time."""

    def __init__(self, directory: Path, flows: int, window: int) -> None:
        self._directory = directory
        self._names = _names(directory, flows)
        self._at = np.zeros(len(self._names), np.int64)  # bytes of each file that were copied
        self._cursor = np.zeros(len(self._names), np.int64)
        self._limit = max(window, 1 << 20)
        self._records = np.empty(self._limit, np.uint8)
        self._out = np.empty(self._limit, np.uint8)
        self.packets = 0
        self.bytes = 0

    @property
    def files(self) -> int:
        """Files read so far."""
        return int((self._at > 0).sum())

    def copy(self, rows: np.ndarray[Any, np.dtype[np.void]], stream: IO[bytes]) -> None:
        """Append the packets of `rows` (ORDER) to `stream`."""
        numbers, caplen = np.ascontiguousarray(rows["file"]), np.ascontiguousarray(rows["caplen"])
        if len(numbers) and int(numbers.max()) >= len(self._names):
            raise CaptureError(f"{self._directory}/{ORDER_NAME}: names a flow that is not there")
        if not all(self._names[number] for number in np.unique(numbers).tolist()):
            raise CaptureError(f"{self._directory}/{ORDER_NAME}: names a flow without a file")
        sizes = np.cumsum(caplen.astype(np.int64) + _RECORD)
        start, before = 0, 0
        while start < len(rows):
            stop = int(np.searchsorted(sizes, before + self._limit, "right"))
            if stop == start:
                raise CaptureError(f"{self._directory}/{ORDER_NAME}: a packet of impossible length")
            self._window(numbers[start:stop], caplen[start:stop], stream)
            start, before = stop, int(sizes[stop - 1])

    def _window(self, numbers: U32, caplen: U32, stream: IO[bytes]) -> None:
        touched, index = np.unique(numbers, return_inverse=True)
        wanted = np.bincount(index, weights=caplen.astype(np.float64) + _RECORD).astype(np.int64)
        begin = np.cumsum(wanted) - wanted
        view = self._records.data
        for number, place, size in zip(
            touched.tolist(), begin.tolist(), wanted.tolist(), strict=True
        ):
            self._read(number, view[place : place + size])
        self._cursor[touched] = begin
        used, bad = _interleave(self._records, numbers, caplen, self._cursor, self._out)
        if bad >= 0:
            raise self._changed(int(numbers[bad]))
        self.packets += len(numbers)
        self.bytes += used - _RECORD * len(numbers)
        octets = self._out[:used].data
        while octets:
            octets = octets[stream.write(octets) :]

    def _read(self, number: int, into: memoryview) -> None:
        at = int(self._at[number]) or _HEADER
        descriptor = os.open(self._directory / self._names[number], os.O_RDONLY)
        try:
            got = os.preadv(descriptor, [into], at)
        finally:
            os.close(descriptor)
        if got != len(into):
            raise self._changed(number)
        self._at[number] = at + got

    def check_ends(self) -> None:
        """Raise CaptureError when a file has more packets than it had."""
        for number in np.flatnonzero(self._at).tolist():
            if (self._directory / self._names[number]).stat().st_size != self._at[number]:
                raise self._changed(number)

    def _changed(self, number: int) -> CaptureError:
        return CaptureError(
            f"{self._directory / self._names[number]}: has not the packets that the split wrote "
            "(their number and lengths must stay); split again"
        )


def _names(directory: Path, flows: int) -> list[str]:
    """The names of the flows' files and, last, of other.pcap."""
    import csv

    try:
        with (directory / TABLE_NAME).open(newline="") as stream:
            names = [row["file"] for row in csv.DictReader(stream)]
    except (KeyError, ValueError, csv.Error):
        raise CaptureError(f"{directory / TABLE_NAME}: is not what `corpus split` wrote") from None
    if len(names) != flows:
        raise CaptureError(f"{directory / TABLE_NAME}: {len(names)} flows where {flows} were split")
    return [*names, OTHER_NAME]


@kernel
def _interleave(records: U8, numbers: U32, caplen: U32, cursor: I64, out: U8) -> tuple[Word, Word]:
    """Copy packet by packet from the file's cursor: bytes, and the first packet that is not as
    long as it was, or −1."""
    source = np.int64(records.ctypes.data)
    target = np.int64(out.ctypes.data)
    used = np.int64(0)
    for i in range(len(numbers)):
        at = cursor[numbers[i]]
        if np.int64(load32(source + at + 8)) != caplen[i]:
            return used, i
        size = 16 + np.int64(caplen[i])
        copy_bytes(target + used, source + at, size)
        cursor[numbers[i]] = at + size
        used += size
    return used, -1
