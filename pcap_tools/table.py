"""The flow table as columns, and as CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from pcap_tools.connstate import STATES
from pcap_tools.errors import OutputError, PcapError
from pcap_tools.flowrow import FlowRows
from pcap_tools.flows import FlowTable
from pcap_tools.kernels import I64
from pcap_tools.policy import Policy, judge

__all__ = [
    "COLUMNS",
    "PROTOCOLS",
    "check_suffix",
    "flow_columns",
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
_TCP = 6
_ROWS_AT_ONCE = 1 << 14


def flow_columns(
    table: FlowTable, policy: Policy | None = None, flows: I64 | None = None
) -> dict[str, list[Any]]:
    """The documented COLUMNS as lists, of all flows or of those numbered in `flows`."""
    names, reasons = judge(table, policy or Policy())
    picked = np.arange(len(table)) if flows is None else flows
    rows, reason = table.rows[picked], reasons[picked]
    tcp = rows["proto"] == _TCP
    icmp = np.isin(rows["proto"], [1, 58])
    ports = np.where(icmp[:, None], rows["start"], rows["port"])
    starts = np.where(tcp, np.where(rows["syn"] == 1, "syn", "midstream"), "-")
    return {
        "flow": picked.tolist(),
        "proto": [PROTOCOLS.get(number, str(number)) for number in rows["proto"].tolist()],
        "client": _addresses(rows, 0),
        "client_port": ports[:, 0].tolist(),
        "server": _addresses(rows, 1),
        "server_port": ports[:, 1].tolist(),
        "vlan": [_vlan(number) for number in rows["vlan"].tolist()],
        "first_ns": rows["first_ns"].tolist(),
        "last_ns": rows["last_ns"].tolist(),
        "packets_out": rows["packets"][:, 0].tolist(),
        "packets_in": rows["packets"][:, 1].tolist(),
        "bytes_out": rows["bytes"][:, 0].tolist(),
        "bytes_in": rows["bytes"][:, 1].tolist(),
        "state": [STATES[code] for code in table.state[picked].tolist()],
        "starts": starts.tolist(),
        "ends": _ends(rows),
        "missing_bytes": table.missing[picked].tolist(),
        "truncated": rows["truncated"].tolist(),
        "verdict": np.where(reason == 0, "keep", "drop").tolist(),
        "reason": [names[code] for code in reason.tolist()],
    }


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


def _chunks(table: FlowTable, policy: Policy) -> Iterator[dict[str, list[Any]]]:
    for start in range(0, max(len(table), 1), _ROWS_AT_ONCE):
        numbers = np.arange(start, min(start + _ROWS_AT_ONCE, len(table)))
        yield flow_columns(table, policy, numbers)


def _write_csv(table: FlowTable, policy: Policy, stream: IO[bytes]) -> None:
    import io

    with io.TextIOWrapper(stream, "utf-8", newline="", write_through=True) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for columns in _chunks(table, policy):
            writer.writerows(zip(*columns.values(), strict=True))


def _write_jsonl(table: FlowTable, policy: Policy, stream: IO[bytes]) -> None:
    for columns in _chunks(table, policy):
        for row in zip(*columns.values(), strict=True):
            stream.write(json.dumps(dict(zip(COLUMNS, row, strict=True))).encode() + b"\n")


def _write_parquet(table: FlowTable, policy: Policy, stream: IO[bytes]) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise PcapError(
            "Parquet needs pyarrow (pip install 'probebench[parquet]'); or write .csv or .jsonl"
        ) from None
    parquet.write_table(pyarrow.table(flow_columns(table, policy)), stream)


_WRITERS: dict[str, Callable[[FlowTable, Policy, IO[bytes]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}


def _ends(rows: FlowRows) -> list[str]:
    tcp = rows["proto"] == _TCP
    fin = rows["fin"].all(axis=1)
    rst = rows["rst"].any(axis=1)
    ends = np.where(fin, "fin", np.where(rst, "rst", "none"))
    return np.where(tcp, ends, "-").tolist()  # type: ignore[no-any-return]


def _vlan(number: int) -> str:
    if number == 0:
        return ""
    return f"{number >> 12}.{number & 4095}" if number >> 12 else str(number)


def _addresses(rows: FlowRows, end: int) -> list[str]:
    key = np.stack([rows["hi"][:, end], rows["lo"][:, end], rows["version"]], axis=1)
    unique, index = np.unique(key, axis=0, return_inverse=True)
    texts = [_address(*triple) for triple in unique.tolist()]
    return [texts[i] for i in index.ravel().tolist()]


def _address(hi: int, lo: int, version: int) -> str:
    if version == 4:
        return socket.inet_ntop(socket.AF_INET, lo.to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, ((hi << 64) | lo).to_bytes(16, "big"))
