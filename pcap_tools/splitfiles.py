"""The files of a split beside the flows' own: names, split.csv, split.order, file headers.

split.order tells merging the packets' order: 16 bytes of magic, then two uint32 (little-endian) a
packet: the number of its file (a flow's, or the number of flows for other.pcap) and its length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Capture
from pcap_tools.connstate import STATES
from pcap_tools.flowrow import FlowRows
from pcap_tools.flows import FlowTable
from pcap_tools.kernels import I32, I64, U8
from pcap_tools.scatter import FileNames
from pcap_tools.table import COLUMNS, PROTOCOLS
from pcap_tools.text import ADDRESS, NAME, NUMBER, VLAN, Column, format_rows
from pcap_tools.trexfit import ADAPTABLE, ASTF_REASONS, REPLY_GAP, STF_REASONS, Fit
from pcap_tools.walk import MAX_PACKET, U32

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "ORDER",
    "ORDER_MAGIC",
    "ORDER_NAME",
    "OTHER_NAME",
    "REPORT_NAME",
    "SPLIT_COLUMNS",
    "TABLE_NAME",
    "Verdicts",
    "capture_header",
    "file_names",
    "original_header",
    "write_order",
    "write_split_table",
]

FORMAT = "probebench-split"
FORMAT_VERSION = 1

TABLE_NAME = "split.csv"
ORDER_NAME = "split.order"
REPORT_NAME = "split.json"
OTHER_NAME = "other.pcap"

ORDER_MAGIC = b"probebench-order"
ORDER = np.dtype([("file", "<u4"), ("caplen", "<u4")])

SPLIT_COLUMNS = (
    *COLUMNS[: COLUMNS.index("vlan") + 1],
    "file",
    "packets_out",
    "packets_in",
    "bytes_out",
    "bytes_in",
    "first_ns",
    "duration_ns",
    "state",
    "reply_gap_ns",
    "stf",
    "stf_reason",
    "astf",
    "astf_reason",
)
"""split.csv, one row a flow. Times and bytes are those of the capture. `file` is empty when the
flow was not written. `reply_gap_ns` is the shortest time from a packet to one of the other end
behind it, −1 when one end sent all. `stf` and `astf` are yes, no, or adapted (the file was changed
to fit); the reasons are codes of pcap_tools.trexfit, or reply-gap."""

_MAGIC_US, _MAGIC_NS = 0xA1B2C3D4, 0xA1B23C4D
_ANSWERS = ("no", "yes", "adapted")
_NO, _YES, _ADAPTED = range(3)
_STF_NAMES = ("", *STF_REASONS, REPLY_GAP)
_ASTF_NAMES = ("", *ASTF_REASONS)
_PROTOCOL_NAMES = tuple(PROTOCOLS.get(number, str(number)) for number in range(256))
_ROWS_AT_ONCE = 1 << 15
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Verdicts:
    """What is written, and what does not fit.

    One a flow: `written`, `stf` and `astf` (indices into no, yes, adapted), `stf_reason` and
    `astf_reason` (indices into their names), `reply_gap_ns`. `dropped`, `stf_counts` and
    `astf_counts` are flows by reason.
    """

    written: npt.NDArray[np.bool_]
    stf: U8
    stf_reason: U8
    astf: U8
    astf_reason: U8
    reply_gap_ns: I64
    dropped: dict[str, int]
    stf_counts: dict[str, int]
    astf_counts: dict[str, int]

    @classmethod
    def of(cls, fit: Fit, target: str, reply_gap_s: float = 0.0) -> Self:
        """Decide for a target of pcap_tools.split.TARGETS."""
        stf_reason = fit.stf.copy()
        # TRex loads such flows and changes them itself; only time that goes back is refused.
        loaded = np.isin(stf_reason, [0, *map(_STF_NAMES.index, ADAPTABLE[1:])])
        stf = np.where(loaded, _YES, _NO).astype(np.uint8)
        if target == "stf":
            fits = fit.stf_adapted == 0
            early = (fit.reply_gap_ns >= 0) & (fit.reply_gap_ns < reply_gap_s * 1e9)
            stf_reason[early & (stf_reason == 0)] = _STF_NAMES.index(REPLY_GAP)
            stf = np.where(fits, np.where(stf_reason == 0, _YES, _ADAPTED), _NO).astype(np.uint8)
        astf = np.where(fit.astf == 0, _YES, _NO).astype(np.uint8)
        written = {"stf": stf != _NO, "astf": astf != _NO}.get(target, np.ones(len(stf), np.bool_))
        names, reason = (
            (_ASTF_NAMES, fit.astf) if target == "astf" else (_STF_NAMES, fit.stf_adapted)
        )
        return cls(
            written,
            stf,
            stf_reason,
            astf,
            fit.astf,
            fit.reply_gap_ns,
            _counts(reason[~written], names),
            _counts(stf_reason, _STF_NAMES),
            _counts(fit.astf, _ASTF_NAMES),
        )


def file_names(table: FlowTable) -> FileNames:
    """<flow>-<protocol>-<server port>.pcap for every flow, and other.pcap behind them."""
    pieces = []
    for part in _parts(table):
        columns = _name_columns(table.rows[part], part.start, b"")
        pieces += [bytes(piece) for piece in format_rows(columns, b".pcap\0")]
    pieces.append(OTHER_NAME.encode() + b"\0")
    text = np.frombuffer(b"".join(pieces), np.uint8)
    return FileNames(text, np.concatenate([[0], np.flatnonzero(text == 0) + 1]))


def write_split_table(path: Path, table: FlowTable, verdicts: Verdicts, names: FileNames) -> None:
    """Write split.csv: SPLIT_COLUMNS, one row a flow. Raises OSError."""
    with path.open("wb") as stream:
        stream.write(",".join(SPLIT_COLUMNS).encode() + b"\n")
        for part in _parts(table):
            rows = format_rows(_columns(table, verdicts, part), b"\n")
            for piece in _without_files(rows, verdicts.written[part], names, part.start):
                stream.write(piece)


def _parts(table: FlowTable) -> list[slice]:
    """The flows in parts, so that their columns take no memory to speak of."""
    starts = range(0, len(table), _ROWS_AT_ONCE)
    return [slice(start, min(start + _ROWS_AT_ONCE, len(table))) for start in starts]


def _columns(table: FlowTable, verdicts: Verdicts, part: slice) -> list[Column]:
    rows = table.rows[part]

    def number(values: npt.NDArray[np.int64], before: bytes = b",") -> Column:
        return Column(NUMBER, before, values)

    def name(values: U8, texts: tuple[str, ...]) -> Column:
        return Column(NAME, b",", values, texts)

    def address(end: int) -> Column:
        low = np.ascontiguousarray(rows["lo"][:, end])
        return Column(ADDRESS, b",", low, (), rows["hi"][:, end], rows["version"])

    return [
        number(np.arange(part.start, part.stop), b""),
        name(rows["proto"], _PROTOCOL_NAMES),
        address(0),
        number(_ports(rows, 0)),
        address(1),
        number(_ports(rows, 1)),
        Column(VLAN, b",", rows["vlan"]),
        *_name_columns(rows, part.start, b","),
        number(rows["packets"][:, 0], b".pcap,"),
        number(rows["packets"][:, 1]),
        number(rows["bytes"][:, 0]),
        number(rows["bytes"][:, 1]),
        number(rows["first_ns"]),
        number(rows["last_ns"] - rows["first_ns"]),
        name(table.state[part], STATES),
        number(verdicts.reply_gap_ns[part]),
        name(verdicts.stf[part], _ANSWERS),
        name(verdicts.stf_reason[part], _STF_NAMES),
        name(verdicts.astf[part], _ANSWERS),
        name(verdicts.astf_reason[part], _ASTF_NAMES),
    ]


def _name_columns(rows: FlowRows, first: int, before: bytes) -> list[Column]:
    return [
        Column(NUMBER, before, np.arange(first, first + len(rows))),
        Column(NAME, b"-", rows["proto"], _PROTOCOL_NAMES),
        Column(NUMBER, b"-", _ports(rows, 1)),
    ]


def _ports(rows: FlowRows, end: int) -> npt.NDArray[np.int64]:
    """The table's ports: of ICMP, type and code of the first message."""
    icmp = (rows["proto"] == 1) | (rows["proto"] == 58)
    return np.where(icmp, rows["start"][:, end], rows["port"][:, end]).astype(np.int64)


def _without_files(
    pieces: Iterator[memoryview], written: npt.NDArray[np.bool_], names: FileNames, first: int
) -> Iterator[memoryview | bytes]:
    """The rows, with the file's name taken out where there is no file."""
    row = 0
    for piece in pieces:
        lines = bytes(piece).count(b"\n")
        missing = np.flatnonzero(~written[row : row + lines]).tolist()
        if missing:
            text = bytes(piece).split(b"\n")
            for at in missing:
                name = names.name(first + row + at).encode()
                text[at] = text[at].replace(b"," + name + b",", b",,", 1)
            yield b"\n".join(text)
        else:
            yield piece
        row += lines


def write_order(path: Path, owner: I32, caplen: U32) -> None:
    """Write split.order for packets with a file (owner ≥ 0). Raises OSError."""
    with path.open("wb") as stream:
        stream.write(ORDER_MAGIC)
        for start in range(0, len(owner), _CHUNK):
            part = owner[start : start + _CHUNK]
            rows = np.empty(len(part), ORDER)
            rows["file"] = part
            rows["caplen"] = caplen[start : start + _CHUNK]
            stream.write(rows[part >= 0].tobytes())


def capture_header(capture: Capture) -> bytes:
    """The file header of pcap files with packets of the capture, in native byte order."""
    magic = _MAGIC_NS if capture.nanoseconds else _MAGIC_US
    snaplen = capture.snaplen or MAX_PACKET
    return struct.pack("=IHHiIII", magic, 2, 4, 0, 0, snaplen, capture.link)


def original_header(capture: Capture) -> bytes | None:
    """The file header of the input, when putting it before its records gives the input back."""
    if len(capture.paths) != 1 or not capture.paths[0].is_file():
        return None
    with capture.paths[0].open("rb") as stream:
        header = stream.read(24)
    wanted = _MAGIC_NS if capture.nanoseconds else _MAGIC_US
    return header if header[:4] == struct.pack("=I", wanted) else None


def _counts(reason: U8, names: tuple[str, ...]) -> dict[str, int]:
    counts = np.bincount(reason, minlength=len(names)).tolist()
    return {name: count for name, count in zip(names, counts, strict=True) if name and count}
