"""Make flows fit TRex's STF loader: time that only goes forward, TTL ≤ 128, replies late enough.

What is changed is what the loader would refuse (time) or change by itself (TTL, and the lowest bit
of the TOS byte, which TRex uses as a mark). Packets keep their order, lengths and payload.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pcap_tools.capture import Batch
from pcap_tools.checksum import fold
from pcap_tools.kernels import I32, I64, U8, inner, kernel, load16, load_u8, store16, swap16
from pcap_tools.packet import Row
from pcap_tools.walk import Word

__all__ = ["Adapter"]

_COUNTS = ("time-backwards", "reply-gap", "ttl-rewritten", "tos-rewritten")

_STATE = np.dtype(
    [("seen", np.uint8), ("side", np.uint8), ("last_ns", np.int64), ("shift", np.int64)],
    align=True,
)

_HIGHEST_TTL = 128


class Adapter:
    """Adapts packets batch by batch, in place; 24 bytes a flow.

    `reply_gap_ns` is the least time from a packet to one of the other end behind it: when less
    passed, the rest of the flow comes later by the difference. A packet earlier than the one
    before gets that one's time.
    """

    def __init__(self, flows: int, reply_gap_ns: int = 0) -> None:
        self._state = np.zeros(flows, _STATE)
        self._gap = reply_gap_ns
        self._counts = np.zeros(len(_COUNTS), np.int64)

    @property
    def counts(self) -> Mapping[str, int]:
        """Packets changed, by what was changed."""
        return dict(zip(_COUNTS, self._counts.tolist(), strict=True))

    def update(self, batch: Batch, owner: I32, direction: U8) -> None:
        """Change the batch's `data` and `time_ns`, packets with owner −1 excepted.

        Frames must be Ethernet with IP behind at most one tag, as FitSurvey's verdict requires.
        """
        _adapt(
            batch.data,
            batch.offset,
            batch.time_ns,
            owner,
            direction,
            self._gap,
            self._state,
            self._counts,
        )


@kernel
def _adapt(
    data: U8,
    offset: I64,
    time_ns: I64,
    owner: I32,
    direction: U8,
    gap: int,
    state: Row,
    counts: I64,
) -> None:
    base = np.int64(data.ctypes.data)
    for i in range(len(offset)):
        if owner[i] < 0:
            continue
        flow = state[owner[i]]
        time = time_ns[i] + flow.shift
        if flow.seen:
            if time < flow.last_ns:
                time = flow.last_ns
                counts[0] += 1
            if direction[i] != flow.side and time - flow.last_ns < gap:
                flow.shift += gap - (time - flow.last_ns)
                time = flow.last_ns + gap
                counts[1] += 1
        flow.seen = 1
        flow.side = direction[i]
        flow.last_ns = time
        time_ns[i] = time
        frame = base + offset[i]
        tagged = np.int64(swap16(load16(frame + 12))) == 0x8100
        ip = frame + (18 if tagged else 14)
        if np.int64(load_u8(ip)) >> 4 == 4:
            _adapt_v4(ip, counts)
        else:
            _adapt_v6(ip, counts)


@inner
def _adapt_v4(ip: Word, counts: I64) -> None:
    # Bytes 0 and 1 of the header are one word of its checksum, TTL and protocol another.
    first = np.int64(swap16(load16(ip)))
    if first & 1:
        _replace(ip, first, first & 0xFFFE, ip + 10)
        counts[3] += 1
    fifth = np.int64(swap16(load16(ip + 8)))
    if fifth >> 8 > _HIGHEST_TTL:
        _replace(ip + 8, fifth, (_HIGHEST_TTL << 8) | (fifth & 255), ip + 10)
        counts[2] += 1


@inner
def _replace(place: Word, old: Word, new: Word, checksum: Word) -> None:
    """Store a word and carry the checksum along (RFC 1624, equation 3)."""
    store16(place, swap16(np.uint64(new)))
    total = (0xFFFF ^ np.int64(swap16(load16(checksum)))) + (0xFFFF ^ old) + new
    store16(checksum, swap16(np.uint64(0xFFFF) ^ np.uint64(fold(np.uint64(total)))))


@inner
def _adapt_v6(ip: Word, counts: I64) -> None:
    first = np.int64(swap16(load16(ip)))
    if first & 0x10:
        store16(ip, swap16(np.uint64(first & 0xFFEF)))
        counts[3] += 1
    hops = np.int64(swap16(load16(ip + 6)))
    if hops & 255 > _HIGHEST_TTL:
        store16(ip + 6, swap16(np.uint64((hops & 0xFF00) | _HIGHEST_TTL)))
        counts[2] += 1
