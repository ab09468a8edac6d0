"""Tilted weights: known optima, the optimum's form, bounds, and what cannot be met."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcap_tools.errors import MixError
from pcap_tools.weights import Target, copies_of, tilt

ONES = np.ones(6)
FREE = np.full(6, np.inf)
SIZES = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])


def share(picked: list[int], value: float) -> Target:
    column = np.zeros(6)
    column[picked] = 1.0
    return Target("share", value, column, ONES)


def mean(value: float) -> Target:
    return Target("mean", value, SIZES, ONES)


def test_nothing_asked_changes_nothing() -> None:
    base = np.array([1.0, 2.0, 0.0, 0.5, 0.5, 1.0])
    assert np.allclose(tilt(base, [], FREE), base)
    assert np.allclose(tilt(base, [mean(float((SIZES * base).sum() / 5))], FREE), base)


def test_a_share_scales_a_class_as_proportional_fitting_does() -> None:
    weights = tilt(ONES, [share([0, 1], 0.5), share([2], 0.25)], FREE)
    assert np.allclose(weights, [1.5, 1.5, 1.5, 0.5, 0.5, 0.5], atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    wanted=st.floats(1.5, 28.0),
    part=st.floats(0.05, 0.95),
    seed=st.integers(0, 99),
    count=st.integers(8, 60),
)
def test_the_optimum_meets_targets_and_has_the_exponential_form(
    wanted: float, part: float, seed: int, count: int
) -> None:
    chance = np.random.default_rng(seed)
    sizes = np.concatenate([[1.0, 1.0, 32.0, 32.0], chance.uniform(1, 32, count - 4)])
    marked = np.concatenate([[0.0, 1.0, 0.0, 1.0], chance.integers(0, 2, count - 4)])
    base = chance.uniform(0.1, 3, count)
    targets = [
        Target("mean", wanted, sizes, np.ones(count)),
        Target("share", part, marked * sizes, sizes),
    ]
    weights = tilt(base, targets, np.full(count, np.inf))
    assert weights.sum() == pytest.approx(base.sum())
    assert all(target.met(weights, 1e-3) for target in targets)
    # Optimality (Karush, Kuhn, Tucker): log(m / base) is an affine function of the columns.
    columns = np.stack([np.ones(count), sizes - wanted, marked * sizes - part * sizes], axis=1)
    logs = np.log(weights / base)
    solved = columns @ np.linalg.lstsq(columns, logs, rcond=None)[0]
    assert np.abs(logs - solved).max() < 1e-6 * max(1, np.abs(logs).max())


def test_bounds_are_kept_and_the_rest_makes_up_for_them() -> None:
    most = np.array([1.0, np.inf, np.inf, np.inf, np.inf, 1.0])
    weights = tilt(2 * ONES, [mean(8.0)], most)
    assert weights[0] <= 1 + 1e-9 and weights[5] <= 1 + 1e-9
    assert weights.sum() == pytest.approx(12)
    assert mean(8.0).met(weights, 1e-3)
    with pytest.raises(MixError, match="12 flows are wanted, but only 6"):
        tilt(2 * ONES, [], ONES)


@pytest.mark.parametrize(("wanted", "got"), [(100.0, 32.0), (0.5, 1.0)])
def test_what_no_mix_has_comes_to_the_nearest(wanted: float, got: float) -> None:
    target = mean(wanted)
    weights = tilt(ONES, [target], FREE)
    assert target.achieved(weights) == pytest.approx(got, rel=1e-3)
    assert not target.met(weights, 1e-3) and target.bounds(ONES > 0) == (1.0, 32.0)


def test_targets_that_contradict_each_other_meet_in_the_middle() -> None:
    one, other = share([0, 1, 2], 0.2), share([0, 1, 2], 0.6)
    weights = tilt(ONES, [one, other], FREE)
    assert 0.2 < one.achieved(weights) < 0.6 and weights.sum() == pytest.approx(6)


@settings(max_examples=100, deadline=None)
@given(
    weights=st.lists(st.floats(0, 5), min_size=1, max_size=60),
    groups=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_whole_copies_are_the_weights_rounded(weights: list[float], groups: int, seed: int) -> None:
    times = np.array(weights)
    group = np.arange(len(times)) % groups
    order = np.lexsort((times, group))
    copies = copies_of(times, order, np.full(len(times), np.inf), [], seed)
    assert (np.abs(copies - times) < 1 + 1e-6).all()
    for number in range(groups):
        assert abs(copies[group == number].sum() - times[group == number].sum()) < 1 + 1e-6


def test_of_several_samples_the_nearest_is_taken() -> None:
    chance = np.random.default_rng(1)
    sizes = chance.pareto(1.2, 300) + 1
    target = Target("mean", 3.0, sizes, np.ones(300))
    weights = tilt(np.full(300, 0.3), [target], np.full(300, np.inf))
    order = np.argsort(sizes)
    for seed in range(5):
        copies = copies_of(weights, order, np.full(300, np.inf), [target], seed)
        assert target.met(copies, 0.02)
