"""The flow table as columns, and as CSV, JSON lines or Parquet."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pcap_tools.ahead import KEEP, ahead
from pcap_tools.connstate import STATES
from pcap_tools.errors import OutputError, PcapError
from pcap_tools.flows import FlowTable
from pcap_tools.kernels import I64, U8
from pcap_tools.policy import Policy, judge
from pcap_tools.text import ADDRESS, NAME, NUMBER, VLAN, Buffers, Column, address_texts, format_rows

__all__ = [
    "COLUMNS",
    "JSON_BEFORE",
    "JSON_END",
    "PROTOCOLS",
    "check_suffix",
    "flow_columns",
    "row_texts",
    "text_columns",
    "write_atomically",
    "write_flows",
]

COLUMNS = (
    "flow",
    "proto",
    "client",
    "client_port",
    "server",
    "server_port",
    "vlan",
    "first_ns",
    "last_ns",
    "packets_out",
    "packets_in",
    "bytes_out",
    "bytes_in",
    "state",
    "starts",
    "ends",
    "missing_bytes",
    "truncated",
    "verdict",
    "reason",
)
"""`flow` counts from 0. Ports of ICMP are type and code of the first message (Zeek's convention),
those of protocols without ports 0. `vlan` is "" without a tag, "7", or "7.9" for an outer and an
inner tag. `bytes` are frames on the wire. `out` is client to server."""

PROTOCOLS = {
    1: "icmp",
    2: "igmp",
    4: "ipip",
    6: "tcp",
    17: "udp",
    41: "ipv6",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "icmpv6",
    89: "ospf",
    103: "pim",
    112: "vrrp",
    132: "sctp",
    136: "udplite",
}
_PROTOCOL_NAMES = tuple(PROTOCOLS.get(number, str(number)) for number in range(256))
_QUOTED = frozenset(
    ("proto", "client", "server", "vlan", "state", "starts", "ends", "verdict", "reason")
)
_TCP = 6
_ROWS_AT_ONCE = 1 << 15  # so that the columns take no memory to speak of


def flow_columns(
    table: FlowTable, policy: Policy | None = None, flows: I64 | None = None
) -> dict[str, list[Any]]:
    """The documented COLUMNS as lists, of all flows or of those numbered in `flows`."""
    numbers = np.arange(len(table)) if flows is None else flows
    columns = text_columns(table, judge(table, policy or Policy()), numbers)
    return dict(zip(COLUMNS, map(_as_list, columns), strict=True))


def row_texts(
    table: FlowTable, policy: Policy, flows: I64 | None, before: Sequence[bytes], end: bytes
) -> Iterator[memoryview]:
    """The rows of all flows, or of those numbered in `flows`, as text: pieces that do not last.

    `before` are the fixed texts in front of the values, one a column of COLUMNS; `end` follows
    each row. JSON_BEFORE and JSON_END make JSON objects.
    """
    judged = judge(table, policy)
    count = len(table) if flows is None else len(flows)

    def columns() -> Iterator[list[Column]]:
        for start in range(0, count, _ROWS_AT_ONCE):
            part = slice(start, min(start + _ROWS_AT_ONCE, count))
            yield text_columns(table, judged, part if flows is None else flows[part], before)

    def pieces() -> Iterator[memoryview]:
        buffers = Buffers(KEEP)
        for part in ahead(columns()):
            yield from format_rows(part, end, buffers)

    # Three threads: one makes columns, one their text, and the caller writes.
    yield from ahead(pieces())


def text_columns(
    table: FlowTable,
    judged: tuple[list[str], U8],
    which: slice | I64,
    before: Sequence[bytes] = (),
) -> list[Column]:
    """COLUMNS of flows as their text is made from; `judged` is what `judge` found."""
    names, reason = judged[0], judged[1][which]
    rows, state, missing = table.rows[which], table.state[which], table.missing[which]
    numbers = np.arange(which.start, which.stop) if isinstance(which, slice) else which
    proto = rows["proto"]
    tcp = proto == _TCP
    icmp = (proto == 1) | (proto == 58)
    client, server = (np.where(icmp, rows["start"][:, e], rows["port"][:, e]) for e in (0, 1))
    ends = np.where(rows["fin"].all(axis=1), 1, np.where(rows["rst"].any(axis=1), 2, 3))
    texts = iter(before or [b""] * len(COLUMNS))

    def number(values: npt.NDArray[Any]) -> Column:
        return Column(NUMBER, next(texts), values)

    def name(values: npt.NDArray[Any], names: Sequence[str]) -> Column:
        return Column(NAME, next(texts), values, names)

    def address(end: int) -> Column:
        low = np.ascontiguousarray(rows["lo"][:, end])
        return Column(ADDRESS, next(texts), low, (), rows["hi"][:, end], rows["version"])

    return [
        number(numbers),
        name(proto, _PROTOCOL_NAMES),
        address(0),
        number(client),
        address(1),
        number(server),
        Column(VLAN, next(texts), rows["vlan"] & 0xFFFFFF),
        number(rows["first_ns"]),
        number(rows["last_ns"]),
        number(rows["packets"][:, 0]),
        number(rows["packets"][:, 1]),
        number(rows["bytes"][:, 0]),
        number(rows["bytes"][:, 1]),
        name(state, STATES),
        name(np.where(tcp, np.where(rows["syn"] == 1, 1, 2), 0), ("-", "syn", "midstream")),
        name(np.where(tcp, ends, 0), ("-", "fin", "rst", "none")),
        number(missing),
        number(rows["truncated"]),
        name(reason != 0, ("keep", "drop")),
        name(reason, names),
    ]


def write_flows(table: FlowTable, output: Path, policy: Policy | None = None) -> None:
    """Write the flow table as .csv, .jsonl or .parquet, by the suffix of `output`.

    Raises OutputError when it cannot be written, PcapError for another suffix.
    """
    check_suffix(output)
    write = _WRITERS[output.suffix]
    write_atomically(output, lambda stream: write(table, policy or Policy(), stream))


def check_suffix(output: Path) -> None:
    """Raise PcapError unless `write_flows` knows the format."""
    if output.suffix not in _WRITERS:
        raise PcapError(f"{output}: a flow table ends in {', '.join(_WRITERS)}")


def write_atomically(output: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` with a temporary file beside `output`, then give it its name."""
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as stream:
                write(stream)
            temporary.replace(output)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}") from None


def _before() -> Iterator[bytes]:
    """What stands in front of each column's value in a JSON object, quotes included."""
    opened = "{"
    for column in COLUMNS:
        quote = '"' if column in _QUOTED else ""
        yield f'{opened}"{column}": {quote}'.encode()
        opened = f"{quote}, "


JSON_BEFORE = tuple(_before())
"""`before` of `row_texts` for rows that are JSON objects; JSON_END closes them."""

JSON_END = b'"}'


def _write_csv(table: FlowTable, policy: Policy, stream: IO[bytes]) -> None:
    stream.write(",".join(COLUMNS).encode() + b"\n")
    before = [b"", *[b","] * (len(COLUMNS) - 1)]
    for piece in row_texts(table, policy, None, before, b"\n"):
        stream.write(piece)


def _write_jsonl(table: FlowTable, policy: Policy, stream: IO[bytes]) -> None:
    for piece in row_texts(table, policy, None, JSON_BEFORE, JSON_END + b"\n"):
        stream.write(piece)


def _write_parquet(table: FlowTable, policy: Policy, stream: IO[bytes]) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise PcapError(
            "Parquet needs pyarrow (pip install 'probebench[parquet]'); or write .csv or .jsonl"
        ) from None

    def arrow(column: Column) -> Any:
        if column.kind == NUMBER:
            return pyarrow.array(column.values.astype(np.int64))
        if column.kind == ADDRESS:
            assert column.high is not None and column.version is not None
            low = column.values.view(np.uint64)
            data, bounds = address_texts(column.high, low, column.version)
            buffers = [None, pyarrow.py_buffer(bounds), pyarrow.py_buffer(data)]
            return pyarrow.LargeStringArray.from_buffers(len(low), *buffers[1:]).cast("string")
        return pyarrow.array(_as_list(column), pyarrow.string())

    columns = text_columns(table, judge(table, policy), slice(0, len(table)))
    arrays = [arrow(column) for column in columns]
    parquet.write_table(pyarrow.table(dict(zip(COLUMNS, arrays, strict=True))), stream)


_WRITERS: dict[str, Callable[[FlowTable, Policy, IO[bytes]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}


def _as_list(column: Column) -> list[Any]:
    if column.kind == NUMBER:
        numbers: list[Any] = column.values.tolist()
        return numbers
    if column.kind == ADDRESS:
        assert column.high is not None and column.version is not None
        high, low = column.high, column.values.view(np.uint64)
        data, bounds = address_texts(high, low, column.version)
        text, places = data.tobytes().decode(), bounds.tolist()
        return [text[a:b] for a, b in itertools.pairwise(places)]
    if column.kind == VLAN:
        return [_vlan(number) for number in column.values.tolist()]
    return [column.names[number] for number in column.values.tolist()]


def _vlan(number: int) -> str:
    number &= 0xFFFFFF  # above: how many tunnels the flow is in
    if number == 0:
        return ""
    return f"{number >> 12}.{number & 4095}" if number >> 12 else str(number)
