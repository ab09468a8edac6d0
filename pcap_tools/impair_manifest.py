"""The list of packets an impairment touched: a CSV from which the output can be made again.

One line a touched packet, in order of the output; a lost packet stands where it would have been.
Packets that are not listed are in the output as they were, in their order, at the frame numbers
that are left. The lines are formatted by a kernel, since jitter touches every packet.
"""

from __future__ import annotations

from typing import IO

import numpy as np
import numpy.typing as npt

from pcap_tools.damage import DUPLICATE, KINDS, LOSS
from pcap_tools.disorder import copies
from pcap_tools.kernels import I64, U8, kernel

__all__ = ["MANIFEST_COLUMNS", "PacketList"]

MANIFEST_COLUMNS = (
    "frame",
    "out_frame",
    "copy_frame",
    "flow",
    "direction",
    "time_ns",
    "caplen",
    "checksum_at",
    "checksum",
    "header_checksum_at",
    "header_checksum",
    "payload_at",
    "payload",
    "what",
)
"""Frames are numbered from 1, as Wireshark does; `flow` is the flow table's number, from 0, empty
outside flows; `direction` 0 is client to server. `time_ns` and `caplen` are the output's. Where an
offset (`…_at`, bytes from the frame's first) is given, the number after it stands there in the
output: 16 bits big-endian, for `payload` 8 bits. `what` names the kinds, joined by +."""

_INTEGERS = len(MANIFEST_COLUMNS) - 1
_WIDEST = 21 * _INTEGERS + 1  # a 64-bit integer and a comma each


class PacketList:
    """Writes the list to a binary stream; `out_frames` counts the frames of the output so far."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.out_frames = 0
        names = [
            "+".join(name for k, name in enumerate(KINDS) if bits >> k & 1).encode()
            for bits in range(256)
        ]
        self._size = np.array([len(name) for name in names], np.int64)
        self._names = np.zeros((256, int(self._size.max())), np.uint8)
        for row, name in zip(self._names, names, strict=True):
            row[: len(name)] = np.frombuffer(name, np.uint8)
        stream.write(",".join(MANIFEST_COLUMNS).encode() + b"\n")

    def add(self, rows: npt.NDArray[np.void]) -> None:
        """Account rows (PENDING) that go out in this order, and list those that were touched."""
        counted = copies(rows["what"])
        frame = self.out_frames + np.cumsum(counted) - counted + 1
        self.out_frames += int(counted.sum())
        touched = np.flatnonzero(rows["what"])
        if not len(touched):
            return
        rows, frame = rows[touched], frame[touched]
        lost = (rows["what"] & LOSS) > 0
        hurt = rows["damage"]
        table = np.stack(
            [
                rows["number"] + 1,
                np.where(lost, -1, frame),
                np.where(rows["what"] & DUPLICATE, frame + 1, -1),
                np.maximum(rows["owner"], -1),
                np.where(rows["owner"] >= 0, rows["direction"].astype(np.int64), -1),
                np.where(lost, -1, rows["time_ns"]),
                np.where(lost, -1, rows["caplen"].astype(np.int64)),
                hurt["sum_at"],
                np.where(hurt["sum_at"] >= 0, hurt["sum"], -1),
                hurt["header_at"],
                np.where(hurt["header_at"] >= 0, hurt["header"], -1),
                hurt["payload_at"],
                np.where(hurt["payload_at"] >= 0, hurt["payload"], -1),
            ],
            axis=1,
        ).astype(np.int64)
        text = np.empty(len(table) * (_WIDEST + self._names.shape[1]), np.uint8)
        used = _format(table, rows["what"].copy(), self._names, self._size, text)
        self._stream.write(text[:used].data)


@kernel
def _format(table: I64, what: U8, names: U8, sizes: I64, text: U8) -> int:
    """Lines of CSV: the integers of `table` (negative: empty), and the name of what happened."""
    digits = np.empty(20, np.uint8)
    fill = 0
    for i in range(table.shape[0]):
        for column in range(table.shape[1]):
            value = table[i, column]
            if value >= 0:
                count = 0
                while True:
                    digits[count] = 48 + value % 10
                    count += 1
                    value //= 10
                    if value == 0:
                        break
                while count:
                    count -= 1
                    text[fill] = digits[count]
                    fill += 1
            text[fill] = 44
            fill += 1
        for k in range(sizes[what[i]]):
            text[fill] = names[what[i], k]
            fill += 1
        text[fill] = 10
        fill += 1
    return fill
