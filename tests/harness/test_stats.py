"""Intervals against published values and against simulation."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stats import design_effect, rate_interval, t_quantile, wilson

# Newcombe, R. G. (1998), "Two-sided confidence intervals for the single proportion: comparison of
# seven methods", Statistics in Medicine 17: 857-872, table I, method 3 (Wilson score).
NEWCOMBE = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("hits", "n", "low", "high"), NEWCOMBE)
def test_wilson_against_newcombe(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


# Student's t, two-sided 95 %: any table.
@pytest.mark.parametrize(
    ("freedom", "value", "within"),
    [(4, 2.776, 4e-3), (10, 2.2281, 2e-4), (19, 2.0930, 1e-4), (100, 1.9840, 1e-4)],
)
def test_t_quantile_against_tables(freedom: int, value: float, within: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(value, abs=within)


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_stays_in_the_unit_interval_and_holds_the_rate(hits: int, n: int) -> None:
    hits = min(hits, n)
    low, high = wilson(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    mirrored = wilson(n - hits, n)
    assert mirrored == pytest.approx((1 - high, 1 - low))


def test_nothing_due_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    interval = rate_interval([0, 0], 0)
    assert (interval.rate, interval.low, interval.high) == (0.0, 0.0, 1.0)


def test_independent_events_have_no_design_effect() -> None:
    rng = random.Random(1)
    counts = [sum(rng.random() < 0.8 for _ in range(5)) for _ in range(2000)]
    deff, _ = design_effect(counts, 5)
    assert 1.0 <= deff < 2.0


def test_all_or_nothing_iterations_count_once() -> None:
    """When an iteration is lost whole, its events are one observation: deff is their number."""
    rng = random.Random(2)
    counts = [6 * (rng.random() < 0.7) for _ in range(1000)]
    deff, _ = design_effect(counts, 6)
    assert 5 < deff < 9


def test_a_burst_of_loss_widens_the_interval() -> None:
    spread = [3] * 1000
    for i in range(0, 1000, 5):
        spread[i] = 0
    burst = [0] * 200 + [3] * 800
    even, clustered = rate_interval(spread, 3), rate_interval(burst, 3)
    assert even.rate == clustered.rate == pytest.approx(0.8)
    assert clustered.high - clustered.low > 3 * (even.high - even.low)


def test_a_perfect_rate_is_bounded_by_iterations_not_events() -> None:
    few, many = rate_interval([1] * 500, 1), rate_interval([40] * 500, 40)
    assert few.low == pytest.approx(many.low)
    assert few.high == many.high == 1.0
    assert few.low == pytest.approx(wilson(500, 500)[0], abs=2e-4)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_any_counts_give_an_interval_around_the_rate(counts: list[int]) -> None:
    interval = rate_interval(counts, 4)
    assert interval.deff >= 1.0
    assert 0 <= interval.low <= interval.rate + 1e-9
    assert interval.rate - 1e-9 <= interval.high <= 1


def test_coverage_with_correlated_neighbours() -> None:
    """95 % intervals hold the true rate in at least nine of ten simulated overloads."""
    rng = random.Random(3)
    held = 0
    for _ in range(200):
        counts, lossy = [], rng.random() < 0.5
        for _ in range(400):
            if rng.random() < 0.2:  # states last about five iterations; half of the time is lossy
                lossy = rng.random() < 0.5
            rate = 0.7 if lossy else 0.95
            counts.append(sum(rng.random() < rate for _ in range(4)))
        interval = rate_interval(counts, 4)
        held += interval.low <= 0.825 <= interval.high
    assert held >= 180
