"""Flows of a capture: who talked to whom, from when to when, how it began and how it ended.

A flow is a pair of endpoints (address and port) with a protocol and a VLAN, followed until it is
over: a SYN with another initial sequence number, or after the end of the connection, opens the
next one; without TCP, a pause longer than `idle_s` does. Fragments belong to the flow of their
first fragment. Ends are told apart by the handshake; without one, see `_sender_is_server` in
pcap_tools.track.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pcap_tools.ahead import KEEP, ahead
from pcap_tools.capture import Batch, Capture, open_capture
from pcap_tools.connstate import STATES, conn_states
from pcap_tools.decode import Decoder
from pcap_tools.flowrow import FLOW, GROUP, HOLE, PENDING, FlowRows
from pcap_tools.kernels import I32, I64, U8, U16, U64
from pcap_tools.memory import Presence, doubled, reserve
from pcap_tools.packet import PacketRows
from pcap_tools.sizes import Sizes
from pcap_tools.tcp import missing_bytes
from pcap_tools.track import (
    AHEAD,
    count_frames,
    rehash_flows,
    rehash_groups,
    track_rows,
)

__all__ = ["IDLE_S", "ORPHAN_FRAGMENT", "FlowTable", "FlowTracker", "decoded", "flow_table"]

# Room to begin with, in rows: address space, not memory.
_FLOWS = 1 << 21
_PACKETS = 1 << 25

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
    `sizes` (one a packet) are the bytes captured of each, None when one has 65,536 or more.
    `first_ns` and `last_ns` bound the capture; `frames` counts packets and bytes by owner code
    −4 … −1 and, last, of flows: shape (5, 2).
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
    sizes: U16 | None = None
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `judge` found, by policy."""

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
    """Builds a FlowTable from batches; memory grows with flows, plus 7 bytes a packet."""

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self._idle_ns = int(idle_s * 1e9)
        self._flows: FlowRows = reserve(_FLOWS, FLOW)
        self._slots: U64 = reserve(1 << 16, np.uint64)
        self._groups = np.zeros(1 << 6, GROUP)
        self._group_slots = np.zeros(1 << 8, np.uint64)
        self._holes = np.zeros(1 << 8, HOLE)
        self._pool = np.array([-1, 0], np.int32)
        self._fill = np.zeros(2, np.int64)
        self._owner: I32 = reserve(_PACKETS, np.int32)
        self._direction: U8 = reserve(_PACKETS, np.uint8)
        self._presence = Presence()
        self._sizes = Sizes(self._presence)
        self._next_slots: U64 | None = None
        # Made here: a kernel that allocates costs 25 ms of every start.
        self._values, self._keys = np.empty(AHEAD, np.uint64), np.empty(AHEAD, np.int64)
        self._packets = 0
        self._bounds = np.array([np.iinfo(np.int64).max, np.iinfo(np.int64).min])
        self._frames = np.zeros((5, 2), np.int64)

    def update(self, batch: Batch, rows: PacketRows) -> I32:
        """Account a batch and its decoded rows; the packets' owners, as far as they are known."""
        count = len(batch)
        while len(self._owner) < self._packets + count:
            self._owner, self._direction = doubled(self._owner), doubled(self._direction)
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
                self._values,
                self._keys,
            )
            if done == count:
                break
            self._grow()
        self._sizes.add(batch)
        self._packets += count
        count_frames(owner, batch.wirelen, batch.time_ns, self._frames, self._bounds)
        self._be_present()
        return owner

    def _be_present(self) -> None:
        """Have the memory of what comes next made present meanwhile."""
        flows = int(self._fill[0])
        self._presence.follow(self._flows, flows)
        for column in (self._owner, self._direction):
            self._presence.follow(column, self._packets)
        if self._next_slots is None and flows > len(self._slots) // 16 * 7:
            self._next_slots = reserve(4 * len(self._slots), np.uint64)
            self._presence.whole(self._next_slots)

    def finish(self) -> FlowTable:
        """The table of everything accounted so far; the tracker is used up."""
        self._presence.close()
        used = int(self._fill[0])
        rows = self._flows[:used]
        owner = self._owner[: self._packets]
        direction = self._direction[: self._packets]
        self._resolve_fragments(owner, direction)
        state = np.empty(used, np.uint8)
        conn_states(rows, state)
        missing = np.empty(used, np.int64)
        missing_bytes(rows, self._holes, missing)
        bounds = int(self._bounds[0]), int(self._bounds[1])
        return FlowTable(
            rows,
            state,
            missing,
            owner,
            direction,
            *bounds,
            self._frames,
            sizes=self._sizes.all,
        )

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
            if self._fill[0] >= len(self._flows):
                self._flows = doubled(self._flows)
            slots, self._next_slots = self._next_slots, None
            self._slots = reserve(4 * len(self._slots), np.uint64) if slots is None else slots
            rehash_flows(self._flows, int(self._fill[0]), self._slots)
        if self._fill[1] >= min(len(self._groups), len(self._group_slots) // 2):
            self._groups = doubled(self._groups)
            self._group_slots = np.zeros(4 * len(self._groups), np.uint64)
            rehash_groups(self._groups, int(self._fill[1]), self._group_slots)
        if self._pool[1] + 4 >= len(self._holes):
            self._holes = doubled(self._holes)


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
    tracker = FlowTracker(idle_s)
    for batch, rows in decoded(paths, inner):
        tracker.update(batch, rows)
    return tracker.finish()


def decoded(
    capture: Capture, inner: bool = False, *, marked: bool = False
) -> Iterator[tuple[Batch, PacketRows]]:
    """Every batch with its decoded rows, both made ahead by a thread of its own.

    With `marked`, the rows of plain packets have the flag PLAIN.
    """
    return ahead(_decoded(capture, inner, marked))


def _decoded(capture: Capture, inner: bool, marked: bool) -> Iterator[tuple[Batch, PacketRows]]:
    decoders = itertools.cycle([Decoder(inner) for _ in range(KEEP)])
    for batch, decode in zip(capture.batches(KEEP), decoders, strict=False):
        rows = decode(batch)
        if marked:
            from pcap_tools.plain import mark_plain  # a kernel that only who asks must load

            mark_plain(batch.data, batch.offset, batch.caplen, batch.link, rows)
        yield batch, rows
