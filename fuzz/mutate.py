"""Mutated frames in bulk: a kernel that fills slots from seeds, the same for the same number."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["Pool", "fill"]

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

# 16-bit values that decoders branch on: ethertypes, protocols with a neighbour, lengths, ports.
WORDS = np.array(
    [
        *(0x0800, 0x86DD, 0x8100, 0x88A8, 0x9100, 0x8847, 0x8848, 0x8863, 0x8864, 0x0806, 0x6558),
        *(0x88BE, 0x22EB, 0x0021, 0x0057, 0x880B, 0x894F, 0x4500, 0x6000, 0x4F00, 0x4011, 0x4006),
        *(0, 1, 2, 7, 8, 19, 20, 21, 39, 40, 41, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x1FFF, 0x2000),
        *(
            0xFFF8,
            53,
            80,
            443,
            1701,
            2152,
            3544,
            4789,
            6081,
            8472,
            5060,
            21,
            0x3000,
            0x2001,
            0x2F00,
        ),
    ],
    np.int64,
)
BYTES = np.array(
    [
        *(0, 1, 4, 5, 6, 15, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 94, 132, 135, 136, 255),
        *(0x45, 0x46, 0x4F, 0x60, 0x80, 0xF0, 128, 129, 133, 135, 137),
    ],
    np.int64,
)


class Pool:
    """Seeds one after the other, grown by what turned out to be new."""

    def __init__(self, frames: list[bytes], room: int) -> None:
        self._room = room
        self._frames = [frame[:room] for frame in frames if frame]
        self._pack()

    def _pack(self) -> None:
        self.data: U8 = np.frombuffer(b"".join(self._frames), np.uint8)
        sizes = [len(frame) for frame in self._frames]
        self.starts: I64 = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def __len__(self) -> int:
        return len(self._frames)

    def extend(self, frames: list[bytes]) -> None:
        """Take more seeds."""
        self._frames += [frame[: self._room] for frame in frames if frame]
        self._pack()


def fill(
    pool: Pool, data: U8, starts: I64, room: int, at_end: bool, number: int
) -> tuple[I64, npt.NDArray[np.uint32]]:
    """A mutated frame in every slot, ending (or beginning) at its edge: offsets and sizes."""
    offsets = np.empty(len(starts), np.int64)
    sizes = np.empty(len(starts), np.uint32)
    _fill(pool.data, pool.starts, data, starts, room, at_end, number, WORDS, BYTES, offsets, sizes)
    return offsets, sizes


@numba.njit(cache=True)
def _next(state: npt.NDArray[np.uint64]) -> int:
    """xorshift64*, 31 bits of it."""
    word = state[0]
    word ^= word >> np.uint64(12)
    word ^= word << np.uint64(25)
    word ^= word >> np.uint64(27)
    state[0] = word
    return np.int64((word * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(33))


@numba.njit(cache=True)
def _place(state, size):  # type: ignore[no-untyped-def]
    """An offset; headers are more likely than payload."""
    limit = size
    pick = _next(state) & 7
    if pick < 4:
        limit = min(size, 48)
    elif pick < 7:
        limit = min(size, 128)
    return _next(state) % max(limit, 1)


@numba.njit(cache=True)
def _fill(seeds, bounds, data, starts, room, at_end, number, words, values, offsets, sizes):  # type: ignore[no-untyped-def]
    state = np.empty(1, np.uint64)
    state[0] = np.uint64(number) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    frame = np.zeros(room, np.uint8)
    count = len(bounds) - 1
    for slot in range(len(starts)):
        seed = _next(state) % count
        size = bounds[seed + 1] - bounds[seed]
        frame[:size] = seeds[bounds[seed] : bounds[seed + 1]]
        for _ in range(_next(state) % 6):
            kind = _next(state) % 12
            at = _place(state, size)
            if kind < 2:
                frame[at] ^= 1 << (_next(state) & 7)
            elif kind == 2:
                frame[at] = _next(state) & 255
            elif kind == 3:
                frame[at] = values[_next(state) % len(values)]
            elif kind < 6 and at + 2 <= size:
                word = words[_next(state) % len(words)]
                if kind == 5:  # lengths that are right, or off by little
                    word = (size - at + _next(state) % 9 - 4) & 0xFFFF
                frame[at] = word >> 8
                frame[at + 1] = word & 255
            elif kind == 6:  # cut
                size = 1 + _next(state) % size
            elif kind == 7:  # longer, by noise
                more = min(room - size, _next(state) % 64)
                for byte in range(more):
                    frame[size + byte] = _next(state) & 255
                size += more
            elif kind == 8:  # a piece of another seed over it
                other = _next(state) % count
                length = bounds[other + 1] - bounds[other]
                begin = _next(state) % length
                length = min(length - begin, size - at, _next(state) % 80)
                for byte in range(length):
                    frame[at + byte] = seeds[bounds[other] + begin + byte]
            elif kind == 9:  # the tail of another seed behind it: headers inside headers
                other = _next(state) % count
                length = bounds[other + 1] - bounds[other]
                begin = _next(state) % length
                length = min(length - begin, room - at)
                for byte in range(length):
                    frame[at + byte] = seeds[bounds[other] + begin + byte]
                size = max(at + length, 1)
            elif kind == 10:  # bytes taken out
                length = min(size - at - 1, 1 + _next(state) % 20)
                for byte in range(at, size - length):
                    frame[byte] = frame[byte + length]
                size -= max(length, 0)
            elif kind == 11:  # bytes doubled: tags in tags, options again
                length = min(room - size, size - at, 1 + _next(state) % 40)
                for byte in range(size - 1, at - 1, -1):
                    frame[byte + length] = frame[byte]
                size += length
        begin = starts[slot] + (room - size if at_end else 0)
        data[begin : begin + size] = frame[:size]
        offsets[slot] = begin
        sizes[slot] = size
