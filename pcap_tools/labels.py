"""Labels of flows from outside: a CSV keyed by flow number, or the events that a sensor raised."""

from __future__ import annotations

import csv
import ipaddress
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pcap_tools.errors import MixError
from pcap_tools.flows import FlowTable
from pcap_tools.kernels import I64, U64
from pcap_tools.table import PROTOCOLS

__all__ = ["Event", "flows_of_events", "read_labels"]

Event = tuple[str, str, int, str, int]
"""(protocol's name or number, address, port, address, port), the ends in either order."""

_NUMBERS = {name: number for number, name in PROTOCOLS.items()} | {"ipv6-icmp": 58}
_WITH_PORTS = (6, 17, 132, 136)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def read_labels(path: Path, flows: int) -> tuple[dict[int, str], dict[int, float]]:
    """Labels and weights by flow number, from a CSV with a column `flow` and `label` or `weight`.

    A table of `corpus flows` with one such column added will do; other columns and empty fields are
    passed over. Raises MixError for anything else, with file and line.
    """
    labels: dict[int, str] = {}
    weights: dict[int, float] = {}
    line = 1
    try:
        with path.open(newline="") as stream:
            reader = csv.DictReader(stream)
            names = set(reader.fieldnames or ())
            if "flow" not in names or not names & {"label", "weight"}:
                raise MixError(f"{path}: wanted are a column flow, and label or weight or both")
            for row in reader:
                line = reader.line_num
                flow = int(row["flow"])
                if not 0 <= flow < flows:
                    raise MixError(
                        f"{path}:{line}: there is no flow {flow}; the capture has 0 … {flows - 1}"
                    )
                if row.get("label"):
                    labels[flow] = row["label"]
                if row.get("weight"):
                    weights[flow] = _weight(row["weight"])
    except OSError as error:
        raise MixError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise MixError(f"{path}:{line}: {error}; flow is a number, weight 0 or above") from None
    return labels, weights


def _weight(text: str) -> float:
    weight = float(text)
    if not 0 <= weight < 1e9:
        raise ValueError(f"weight {text}")
    return weight


def flows_of_events(table: FlowTable, events: Iterable[Event]) -> I64:
    """Numbers of the flows that events name; flows with the same endpoints are all named.

    Ports count where the protocol has them. Raises MixError for a protocol or address that is none.
    """
    wanted = {_key(event) for event in events}
    if not wanted:
        return np.empty(0, np.int64)
    rows = table.rows
    ports = np.where(np.isin(rows["proto"], _WITH_PORTS)[:, None], rows["port"], 0)
    sums = _sums(rows["proto"], rows["hi"], rows["lo"], ports)
    keys = list(wanted)
    halves = np.array([[[a >> 64, b >> 64] for _, (a, _), (b, _) in keys]], np.uint64)[0]
    lower = np.array([[a & (2**64 - 1), b & (2**64 - 1)] for _, (a, _), (b, _) in keys], np.uint64)
    numbers = np.array([proto for proto, _, _ in keys])
    asked = _sums(numbers, halves, lower, np.array([[a[1], b[1]] for _, a, b in keys]))
    likely = np.flatnonzero(np.isin(sums, asked))
    sure = []
    for flow in likely.tolist():
        ends = [
            ((int(rows["hi"][flow, end]) << 64) | int(rows["lo"][flow, end]), int(ports[flow, end]))
            for end in (0, 1)
        ]
        if (int(rows["proto"][flow]), *sorted(ends)) in wanted:
            sure.append(flow)
    return np.array(sure, np.int64)


_Key = tuple[int, tuple[int, int], tuple[int, int]]


def _key(event: Event) -> _Key:
    name, a, a_port, b, b_port = event
    try:
        proto = _NUMBERS[name.lower()] if name.lower() in _NUMBERS else int(name)
        first, second = int(ipaddress.ip_address(a)), int(ipaddress.ip_address(b))
    except ValueError as error:
        raise MixError(f"an event of {name} {a} {b}: {error}") from None
    if proto not in _WITH_PORTS:
        a_port = b_port = 0
    low, high = sorted([(first, a_port), (second, b_port)])
    return proto, low, high


def _sums(proto: np.ndarray, hi: U64, lo: U64, port: np.ndarray) -> U64:
    """A hash that does not depend on the ends' order."""
    with np.errstate(over="ignore"):
        word = (hi * _GOLDEN + lo) * _GOLDEN + port.astype(np.uint64)
        word = (word ^ (word >> np.uint64(29))) * _GOLDEN
        mixed: U64 = (word ^ (word >> np.uint64(32))).sum(axis=1, dtype=np.uint64)
        return mixed + proto.astype(np.uint64)
