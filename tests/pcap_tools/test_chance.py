"""Counter-based draws: published outputs, the numpy and the kernel reading, and rates."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pcap_tools.chance import draw, draws, happens, stream_key, threshold

# SplitMix64 with seed 1234567, as published with the Java and C references (Rosetta Code,
# "Pseudo-random numbers/Splitmix64").
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_published_outputs() -> None:
    assert [int(draw(np.uint64(1234567), n)) for n in range(5)] == PUBLISHED


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(), purpose=st.text("abc -", max_size=16))
def test_numpy_and_the_kernel_draw_alike(seed: int, purpose: str) -> None:
    key = stream_key(seed, purpose)
    assert draws(seed, purpose, 5).tolist() == [int(draw(key, n)) for n in range(5)]


def test_purposes_and_seeds_select_other_streams() -> None:
    keys = {int(stream_key(seed, kind)) for seed in range(50) for kind in ("loss", "loss flows")}
    assert len(keys) == 100


def test_never_always_and_in_between() -> None:
    key, count = stream_key(1, "loss"), 20_000
    for probability in (0.0, 0.01, 0.5, 1.0):
        hits = sum(happens(key, n, threshold(probability)) for n in range(count))
        spread = 5 * (count * probability * (1 - probability)) ** 0.5
        assert abs(hits - count * probability) <= spread
