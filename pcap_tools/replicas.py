"""Copies of flows: when each starts, and a client port that makes its five-tuple fresh.

The first copy of a flow is the flow itself, at its time and with its port. Further ones start
evenly spread over the capture's span (copy k of c starts k/c of the span later, around the end to
the beginning), so that the rate of new flows rises evenly. Their client ports come from 32768 to
65535 (Linux's ephemeral range and IANA's dynamic ports, RFC 6335), where sensors expect no service,
and are used by no other flow between the same client and server port.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pcap_tools.chance import draw, stream_key
from pcap_tools.errors import MixError
from pcap_tools.flows import FlowTable
from pcap_tools.kernels import I32, I64, U8, as_int, kernel

__all__ = ["REPLICA", "place"]

REPLICA = np.dtype(
    [
        ("flow", np.int32),  # in the input
        ("copy", np.int32),  # 0: the flow itself
        ("start_ns", np.int64),
        ("shift_ns", np.int64),  # added to all times
        ("port", np.int32),  # the client port; 0: its own
    ],
    align=True,
)
"""One flow of the output."""

_LOW, _COUNT, _STRIDE = 32768, 32768, 20251  # an odd stride visits all of a power of two


def place(
    table: FlowTable, copies: npt.NDArray[np.int64], seed: int, unit_ns: int = 1
) -> npt.NDArray[np.void]:
    """REPLICA rows, copies[f] of flow f, in order of their starts.

    Times are shifted by multiples of `unit_ns` (the output's clock). Raises MixError when a client
    and a server port have no client port left between them.
    """
    flow = np.repeat(np.arange(len(table)), copies)
    ends = np.cumsum(copies)
    number = np.arange(len(flow)) - np.repeat(ends - copies, copies)
    rows = np.zeros(len(flow), REPLICA)
    rows["flow"], rows["copy"] = flow, number
    # Rounded up to the clock, so that going around keeps shifts on it.
    span = -(-(table.last_ns - table.first_ns + 1) // unit_ns) * unit_ns
    since = table.rows["first_ns"][flow] - table.first_ns
    # By parts: span × number may not fit 64 bits.
    share = span // copies[flow] * number + span % copies[flow] * number // copies[flow]
    moved = (since + share // unit_ns * unit_ns) % span
    rows["shift_ns"] = np.where(number == 0, 0, moved - since)
    rows["start_ns"] = table.rows["first_ns"][flow] + rows["shift_ns"]
    _fresh_ports(table, rows, seed)
    return rows[np.argsort(rows["start_ns"], kind="stable")]


def _fresh_ports(table: FlowTable, rows: npt.NDArray[np.void], seed: int) -> None:
    if not (rows["copy"] > 0).any():
        return
    order, group = _groups(table)
    further = np.flatnonzero(rows["copy"] > 0)
    further = further[np.argsort(group[rows["flow"][further]], kind="stable")]
    ports = np.zeros(len(further), np.int32)
    failed = _choose(
        order.astype(np.int64),
        group[order].astype(np.int64),
        table.rows["port"][order, 0].astype(np.int64),
        group[rows["flow"][further]].astype(np.int64),
        stream_key(seed, "mix ports"),
        np.zeros(1 << 16, np.uint8),
        ports,
    )
    if failed >= 0:
        flow = int(rows["flow"][further[failed]])
        raise MixError(
            f"flow {flow}: its client and server have no free client port left (of {_COUNT:,}) for "
            "another copy; ask for fewer flows, or expand the mix with fresh addresses"
        )
    rows["port"][further] = ports


def _groups(table: FlowTable) -> tuple[I64, I64]:
    """Flows sorted so that those alike but for the client port are together; and their groups."""
    rows = table.rows
    keys = [rows["proto"].astype(np.int64), rows["vlan"], rows["port"][:, 1]]
    keys += [rows[half][:, end] for half in ("hi", "lo") for end in (0, 1)]
    order = np.lexsort(keys)
    changed = np.zeros(len(rows), np.bool_)
    for key in keys:
        changed[1:] |= key[order][1:] != key[order][:-1]
    group = np.empty(len(rows), np.int64)
    group[order] = np.cumsum(changed)
    return order, group


@kernel
def _choose(
    flows: I64, flow_group: I64, flow_port: I64, group: I64, key: np.uint64, used: U8, ports: I32
) -> int:
    """Ports for copies (by `group`, ascending); returns the first copy without one, or -1."""
    at = 0
    first = 0
    while first < len(group):
        here = group[first]
        while flow_group[at] < here:
            at += 1
        stop = at
        while stop < len(flows) and flow_group[stop] == here:
            used[flow_port[stop]] = 1
            stop += 1
        begin = as_int(draw(key, here) >> np.uint64(49))
        turn = 0
        last = first
        while last < len(group) and group[last] == here:
            port = 0
            while turn < _COUNT and port == 0:
                candidate = _LOW + (begin + turn * _STRIDE) % _COUNT
                turn += 1
                if not used[candidate]:
                    port = candidate
            if port == 0:
                return last
            ports[last] = port
            last += 1
        while at < stop:
            used[flow_port[at]] = 0
            at += 1
        first = last
    return -1
