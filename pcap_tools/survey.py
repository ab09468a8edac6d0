"""What is wrong with a capture's packets, counted in one pass: snapping, clocks, sizes, copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pcap_tools.capture import Batch, Capture
from pcap_tools.dedup import Duplicates, Window
from pcap_tools.kernels import I64, U8, inner, kernel, load16, swap16
from pcap_tools.savefile import Savefile
from pcap_tools.walk import U32, Word

__all__ = ["Finding", "Survey", "Surveyor", "survey"]

_SNAPPED, _ZERO, _BACK, _LARGE = 0, 1, 2, 3
_HOW_FAR, _LAST, _LARGEST = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Finding:
    """How many packets, and the first of them, counted from 1 (0: none)."""

    packets: int
    first: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found in `packets` packets.

    `snapped`: cut by the snapshot length. `zero_time`: without a timestamp. `backwards`: earlier
    than the packet before, by `back_ns` at most. `oversized`: IP packets (other frames: what is
    behind the link header) larger than `mtu` bytes, the largest being `largest`: segmentation
    offload, or an MTU that is larger. `duplicates`: equal to one of the 4 packets before, as
    editcap -d tells.
    """

    packets: int
    snapped: Finding
    zero_time: Finding
    backwards: Finding
    oversized: Finding
    duplicates: Finding
    back_ns: int
    largest: int
    mtu: int

    def lines(self) -> list[str]:
        """A line for each kind that was found, with its remedy."""
        texts = {
            "snapped": (self.snapped, "cut by the snapshot length (--snapped drop)"),
            "no time": (self.zero_time, "have timestamp 0 (--zero-time drop)"),
            "backwards": (
                self.backwards,
                f"are earlier than the one before, by {self.back_ns / 1e9:g} s at most (--sort)",
            ),
            "oversized": (
                self.oversized,
                f"are larger than {self.mtu} bytes, up to {self.largest:,}: offloading at the "
                f"capturing host (--resegment {self.mtu}), or a larger MTU",
            ),
            "duplicates": (
                self.duplicates,
                "repeat one of the 4 before, as a mirror port makes them (--dedup exact)",
            ),
        }
        return [
            f"{found.packets:,} packets {text}; the first is number {found.first:,}"
            for found, text in texts.values()
            if found.packets
        ]

    def as_json(self) -> dict[str, Any]:
        """The JSON form: the attributes by their names."""
        return asdict(self)


class Surveyor:
    """Counts over consecutive batches; `window` and `equal` as for `Duplicates`."""

    def __init__(self, mtu: int = 1500, window: Window | None = None, equal: str = "exact") -> None:
        self._mtu = mtu
        self._duplicates = Duplicates(window, equal)
        self._found: I64 = np.zeros((5, 2), np.int64)
        # The furthest step back, the last packet's time, the largest packet.
        self._state: I64 = np.array([0, np.iinfo(np.int64).min, 0], np.int64)
        self._packets = 0

    def update(self, batch: Batch) -> None:
        """Account a batch."""
        _survey(
            batch.data,
            batch.offset,
            batch.caplen,
            batch.wirelen,
            batch.time_ns,
            batch.link,
            self._mtu,
            self._packets,
            self._found,
            self._state,
        )
        repeated = self._duplicates(batch)
        count = int(np.count_nonzero(repeated))
        if count:
            if not self._found[4, 0]:
                self._found[4, 1] = self._packets + int(np.argmax(repeated)) + 1
            self._found[4, 0] += count
        self._packets += len(batch)

    def finish(self) -> Survey:
        """What was found so far."""
        findings = [Finding(*row) for row in self._found.tolist()]
        return Survey(
            packets=self._packets,
            snapped=findings[0],
            zero_time=findings[1],
            backwards=findings[2],
            oversized=findings[3],
            duplicates=findings[4],
            back_ns=int(self._state[0]),
            largest=int(self._state[2]),
            mtu=self._mtu,
        )

    def watch(self, capture: Capture) -> Capture:
        """A capture whose next whole pass is surveyed by the way."""
        return _Watched(capture, self)


class _Watched(Capture):
    """Hands on another capture's batches; the first pass is surveyed."""

    def __init__(self, capture: Capture, surveyor: Surveyor) -> None:
        self.__dict__.update(capture.__dict__)
        self._capture = capture
        self._surveyor: Surveyor | None = surveyor

    @property
    def plain(self) -> Savefile | None:
        """None: every packet has to come by."""
        return None

    def batches(self, keep: int = 1) -> Iterator[Batch]:
        """The other capture's batches."""
        surveyor, self._surveyor = self._surveyor, None
        for batch in self._capture.batches(keep):
            self.packets, self.bytes = self._capture.packets, self._capture.bytes
            if surveyor is not None:
                surveyor.update(batch)
            yield batch


def survey(capture: Capture, mtu: int = 1500) -> Survey:
    """Read a whole capture and tell what is wrong with its packets. Raises CaptureError."""
    surveyor = Surveyor(mtu)
    for batch in capture.batches():
        surveyor.update(batch)
    return surveyor.finish()


@inner
def _be16(address: Word) -> Word:
    return np.int64(swap16(load16(address)))


@inner
def _ip_size(frame: Word, caplen: Word, wirelen: Word, link: Word) -> Word:
    """Bytes of the IP packet by its own header; of other frames, those behind the link header."""
    at, kind = 0, 0
    if link == 1:
        at = 14
    elif link == 113:
        at = 16
    elif link == 276:
        at = 20
    elif link in (0, 108):
        at = 4
    if at >= 14 and caplen >= at:
        kind = _be16(frame if link == 276 else frame + at - 2)
        while kind in (0x8100, 0x88A8, 0x9100) and caplen >= at + 4:
            kind = _be16(frame + at + 2)
            at += 4
    size = np.int64(0)
    if kind == 0x0800 and caplen >= at + 4:
        size = _be16(frame + at + 2)
    elif kind == 0x86DD and caplen >= at + 6:
        size = _be16(frame + at + 4)
        size += 40 if size else 0
    return size if size else wirelen - at


@kernel
def _survey(
    data: U8,
    offset: I64,
    caplen: U32,
    wirelen: U32,
    time_ns: I64,
    link: int,
    mtu: int,
    before: int,
    found: I64,
    state: I64,
) -> None:
    """Count into `found` (packets and first number by kind) what needs no memory of packets."""
    base = np.int64(data.ctypes.data)
    for i in range(len(offset)):
        size, wire, now = np.int64(caplen[i]), np.int64(wirelen[i]), time_ns[i]
        if size < wire:
            _count(found, _SNAPPED, before + i)
        if now == 0:
            _count(found, _ZERO, before + i)
        if now < state[_LAST]:
            _count(found, _BACK, before + i)
            state[_HOW_FAR] = max(state[_HOW_FAR], state[_LAST] - now)
        state[_LAST] = now
        if wire > mtu or wire > state[_LARGEST]:
            packet = _ip_size(base + offset[i], size, wire, link)
            state[_LARGEST] = max(state[_LARGEST], packet)
            if packet > mtu:
                _count(found, _LARGE, before + i)


@inner
def _count(found: I64, kind: int, packet: Word) -> None:
    if found[kind, 0] == 0:
        found[kind, 1] = packet + 1
    found[kind, 0] += 1
