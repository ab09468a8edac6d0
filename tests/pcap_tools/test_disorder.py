"""The stage that holds packets: how packets come in batches changes nothing of what goes out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from pcap_tools.damage import JITTER
from pcap_tools.disorder import PENDING, Queue, delay

Rows = npt.NDArray[np.void]


def packets(count: int, seed: int) -> tuple[Rows, npt.NDArray[np.uint8]]:
    """Rows of four flows, and a buffer of frames whose first bytes are the packet's number."""
    chance = np.random.default_rng(seed)
    rows = np.zeros(count, PENDING)
    rows["number"] = rows["anchor"] = np.arange(count)
    rows["time_ns"] = np.cumsum(chance.integers(0, 2000, count))
    rows["caplen"] = rows["wirelen"] = chance.integers(2, 30, count)
    rows["offset"] = 32 * np.arange(count)
    rows["owner"] = chance.integers(0, 4, count)
    data = np.zeros(32 * count, np.uint8)
    data[::32], data[1::32] = np.arange(count) >> 8, np.arange(count) & 255
    return rows, data


def passed(
    rows: Rows, data: npt.NDArray[np.uint8], late: list[tuple[int, int]], jitter: int, size: int
) -> list[tuple[int, int, int]]:
    """(number, time, number read back from the bytes) in order of the output."""
    queue = Queue(np.array(late, np.int64).reshape(-1, 2), jitter > 0)
    clock, last = np.full(1, -1), np.full(4, -1)
    out: list[tuple[int, int, int]] = []

    def note(gone: Rows, octets: npt.NDArray[np.uint8]) -> None:
        for row in gone:
            at = int(row["offset"])
            written = int(octets[at]) * 256 + int(octets[at + 1])
            out.append((int(row["number"]), int(row["time_ns"]), written))

    for start in range(0, len(rows), size):
        part = rows[start : start + size].copy()
        if jitter:
            part["what"] = JITTER
            delay(part, jitter, 1, np.uint64(7), last, clock)
        note(*queue.push(part, data, int(clock[0])))
    note(*queue.finish())
    return out


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 300),
    size=st.integers(1, 300),
    jitter=st.sampled_from([0, 1, 5000, 10**6]),
    seed=st.integers(0, 9),
    distances=st.lists(st.integers(1, 40), max_size=6),
)
def test_batches_do_not_matter(
    count: int, size: int, jitter: int, seed: int, distances: list[int]
) -> None:
    late, at = [], 0
    for distance in distances:
        if at + distance < count:
            late.append((at, at + distance))
            at += distance + 1
    rows, data = packets(count, seed)
    whole = passed(rows, data, late, jitter, count)
    assert passed(rows, data, late, jitter, size) == whole
    assert sorted(number for number, _, _ in whole) == list(range(count))
    assert all(number == written for number, _, written in whole)
    times = [time for _, time, _ in whole]
    assert times == sorted(times)
    place = {number: i for i, (number, _, _) in enumerate(whole)}
    for number, anchor in late:
        assert place[number] == place[anchor] + 1
        assert times[place[number]] == times[place[anchor]]


def test_a_long_queue_is_not_sorted_again_for_every_batch() -> None:
    """Everything is held by a jitter longer than the capture, and let go a few times only."""
    rows, data = packets(20_000, 1)
    queue, released = Queue(np.empty((0, 2), np.int64), True), []
    clock, last = np.full(1, -1), np.full(4, -1)
    rows["what"] = JITTER
    for start in range(0, len(rows), 100):
        part = rows[start : start + 100].copy()
        delay(part, 10**9, 1, np.uint64(7), last, clock)
        gone, _ = queue.push(part, data, int(clock[0]))
        released.append(len(gone))
    gone, _ = queue.finish()
    assert sum(released) + len(gone) == 20_000
    assert sum(n > 0 for n in released) < 10
