"""Flows of a capture: who talked to whom, from when to when, how it began and how it ended.

A flow is a pair of endpoints (address and port) with a protocol and a VLAN, followed until it is
over: a SYN with another initial sequence number, or after the end of the connection, opens the
next one; without TCP, a pause longer than `idle_s` does. Fragments belong to the flow of their
first fragment. Ends are told apart by the handshake; without one, see `_sender_is_server` in
pcap_tools.track.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcap_tools.capture import Batch, Capture, open_capture
from pcap_tools.connstate import STATES, conn_states
from pcap_tools.decode import Decoder
from pcap_tools.flowrow import FLOW, GROUP, HOLE, NON_IP, PENDING, FlowRows
from pcap_tools.kernels import I32, I64, U8
from pcap_tools.packet import PacketRows
from pcap_tools.tcp import missing_bytes
from pcap_tools.track import rehash_flows, rehash_groups, track_rows

__all__ = ["IDLE_S", "ORPHAN_FRAGMENT", "FlowTable", "FlowTracker", "flow_table"]

IDLE_S = 60.0
"""Seconds of silence after which UDP, ICMP and other packets are another flow."""

ORPHAN_FRAGMENT = -4
"""Owner of a fragment whose first fragment was never captured."""


@dataclass(frozen=True)
class FlowTable:
    """All flows of a capture, in order of their first packets, and the owner of each packet.

    `rows` (FLOW records) hold the trackers' knowledge, `state` indices into STATES, `missing` the
    bytes sent but never captured. `owner` (one a packet) is the flow's number, or NON_IP,
    MALFORMED_PACKET, UNREADABLE (headers cut off by the snapshot length) or ORPHAN_FRAGMENT, and
    `direction` (one a packet) is 0 from client to server (and without a flow), 1 from the server.
    `first_ns` and `last_ns` bound the capture; `frames` counts packets and bytes by owner code
    −4 … −1 and, last, of flows: shape (5, 2).

    When they were looked for: `bad_checksums`, packets with a wrong checksum of each flow;
    `closed`, how each flow is ended by packets of our own, an index into pcap_tools.policy.CLOSE.
    """

    rows: FlowRows
    state: U8
    missing: I64
    owner: I32
    direction: U8
    first_ns: int
    last_ns: int
    frames: I64
    bad_checksums: I64 | None = None
    closed: U8 | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def packets(self) -> int:
        """Packets of the capture."""
        return int(self.frames[:, 0].sum())

    @property
    def bytes(self) -> int:
        """Bytes of the capture's frames on the wire."""
        return int(self.frames[:, 1].sum())

    def states(self) -> dict[str, int]:
        """Flows by conn_state, without the states that do not occur."""
        counts = np.bincount(self.state, minlength=len(STATES))
        return {name: int(n) for name, n in zip(STATES, counts, strict=True) if n}


class FlowTracker:
    """Builds a FlowTable from batches; memory grows with flows, plus 5 bytes a packet."""

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self._idle_ns = int(idle_s * 1e9)
        self._flows = np.zeros(1 << 10, FLOW)
        self._slots = np.zeros(1 << 12, np.uint64)
        self._groups = np.zeros(1 << 6, GROUP)
        self._group_slots = np.zeros(1 << 8, np.uint64)
        self._holes = np.zeros(1 << 8, HOLE)
        self._pool = np.array([-1, 0], np.int32)
        self._fill = np.zeros(2, np.int64)
        self._owner = np.empty(1 << 14, np.int32)
        self._direction = np.empty(1 << 14, np.uint8)
        self._packets = 0
        self._first_ns = np.iinfo(np.int64).max
        self._last_ns = np.iinfo(np.int64).min
        self._frames = np.zeros((5, 2), np.int64)

    def update(self, batch: Batch, rows: PacketRows) -> None:
        """Account a batch and its decoded rows."""
        count = len(batch)
        while len(self._owner) < self._packets + count:
            self._owner = np.concatenate([self._owner, np.empty_like(self._owner)])
            self._direction = np.concatenate([self._direction, np.empty_like(self._direction)])
        owner = self._owner[self._packets : self._packets + count]
        direction = self._direction[self._packets : self._packets + count]
        done = 0
        while True:
            done = track_rows(
                rows,
                batch.wirelen,
                batch.time_ns,
                done,
                self._flows,
                self._slots,
                self._holes,
                self._pool,
                self._groups,
                self._group_slots,
                self._fill,
                self._idle_ns,
                owner,
                direction,
            )
            if done == count:
                break
            self._grow()
        self._packets += count
        self._first_ns = min(self._first_ns, int(batch.time_ns.min()))
        self._last_ns = max(self._last_ns, int(batch.time_ns.max()))
        self._count_frames(owner, batch)

    def finish(self) -> FlowTable:
        """The table of everything accounted so far; the tracker is used up."""
        used = int(self._fill[0])
        rows = self._flows[:used]
        owner = self._owner[: self._packets]
        direction = self._direction[: self._packets]
        self._resolve_fragments(owner, direction)
        state = np.empty(used, np.uint8)
        conn_states(rows, state)
        missing = np.empty(used, np.int64)
        missing_bytes(rows, self._holes, missing)
        bounds = self._first_ns, self._last_ns
        return FlowTable(rows, state, missing, owner, direction, *bounds, self._frames)

    def _count_frames(self, owner: I32, batch: Batch) -> None:
        # Column 4 takes flows, 0 … 3 the codes −4 … −1; fragments that wait are counted as flows
        # and moved if nobody claims them.
        kind = np.where((owner >= 0) | (owner <= PENDING), 4, owner + 4)
        self._frames[:, 0] += np.bincount(kind, minlength=5)
        lengths = np.bincount(kind, weights=batch.wirelen, minlength=5)
        self._frames[:, 1] += lengths.astype(np.int64)

    def _resolve_fragments(self, owner: I32, direction: U8) -> None:
        waiting = np.flatnonzero(owner <= PENDING)
        if not len(waiting):
            return
        group = self._groups[PENDING - owner[waiting]]
        flow = group["flow"]
        direction[waiting] = np.where(flow >= 0, group["direction"], 0)
        owner[waiting] = np.where(flow >= 0, flow, ORPHAN_FRAGMENT)
        orphans = self._groups[: self._fill[1]]
        orphans = orphans[orphans["flow"] < 0]
        moved = np.array([orphans["packets"].sum(), orphans["bytes"].sum()])
        self._frames[4] -= moved
        self._frames[0] += moved

    def _grow(self) -> None:
        if self._fill[0] >= min(len(self._flows), len(self._slots) // 2):
            self._flows = _doubled(self._flows)
            self._slots = np.zeros(4 * len(self._flows), np.uint64)
            rehash_flows(self._flows, int(self._fill[0]), self._slots)
        if self._fill[1] >= min(len(self._groups), len(self._group_slots) // 2):
            self._groups = _doubled(self._groups)
            self._group_slots = np.zeros(4 * len(self._groups), np.uint64)
            rehash_groups(self._groups, int(self._fill[1]), self._group_slots)
        if self._pool[1] + 4 >= len(self._holes):
            self._holes = _doubled(self._holes)


def flow_table(
    paths: Sequence[Path | str] | Path | str | Capture,
    idle_s: float = IDLE_S,
    *,
    inner: bool = False,
) -> FlowTable:
    """The flow table of captures (or of an open Capture), of what tunnels carry with `inner`.

    Raises CaptureError.
    """
    if not isinstance(paths, Capture):
        with open_capture(paths) as capture:
            return flow_table(capture, idle_s, inner=inner)
    decode = Decoder(inner)
    tracker = FlowTracker(idle_s)
    for batch in paths.batches():
        tracker.update(batch, decode(batch))
    return tracker.finish()


def _doubled(rows: FlowRows) -> FlowRows:
    larger = np.zeros(2 * len(rows), rows.dtype)
    larger[: len(rows)] = rows
    return larger


assert NON_IP == -1  # `_count_frames` relies on the codes −4 … −1
