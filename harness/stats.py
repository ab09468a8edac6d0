"""Intervals for a rate of detected events.

The events of one iteration of a corpus share their fate (they are close in time, so a burst of loss
takes several), and neighbouring iterations do too. The plain binomial interval would be too
narrow. So the number of events is divided by a design effect before Wilson's interval is taken:

    n* = n / deff · (z / t)²          p ∈ (p + z²/2n* ± z·√(p(1−p)/n* + z²/4n*²)) / (1 + z²/n*)

- Wilson, E. B. (1927), "Probable inference, the law of succession, and statistical inference",
  JASA 22: 209-212: the interval. It never leaves [0, 1] and behaves at rates near 1.
- Kish, L. (1965), "Survey Sampling": deff = variance of the estimate as sampled, in clusters, over
  the variance of a simple random sample of the same size.
- Korn, E. L. & Graubard, B. I. (1998), "Confidence intervals for proportions with small expected
  number of positive counts estimated from survey data", Survey Methodology 24: 193-201: the
  effective sample size n / deff in an interval for proportions, and (z / t)², with t of as many
  degrees of freedom as the variance estimate has.

deff is the largest of 1, the estimate with iterations as clusters, and the estimate with blocks of
consecutive iterations as clusters (batch means, which see what neighbours share).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

__all__ = ["Interval", "design_effect", "rate_interval", "t_quantile", "wilson"]

# Consecutive iterations are put into this many blocks: enough for a variance, few enough for each
# to be longer than what neighbours share.
_BLOCKS = 20
# With fewer than this many events of the rarer kind, clustering cannot be seen in the data.
_FEW = 10


@dataclass(frozen=True, slots=True)
class Interval:
    """A rate with its bounds; `deff` is the design effect and `n_effective` what is left of n."""

    rate: float
    low: float
    high: float
    deff: float
    n_effective: float


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for `successes` of `n`; (0, 1) when n is 0. n may be fractional."""
    if n <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / n
    scale = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(max(0.0, p * (1 - p)) / n + z * z / (4 * n * n))
    low = 0.0 if p <= 0 else max(0.0, centre - half)
    high = 1.0 if p >= 1 else min(1.0, centre + half)
    return low, high


def t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t, by the expansion 26.7.5 of Abramowitz & Stegun (1964).

    Good to 0.003 for 4 degrees of freedom at 0.975 and to 1e-4 from 10 on.
    """
    x = NormalDist().inv_cdf(probability)
    g1 = (x**3 + x) / 4
    g2 = (5 * x**5 + 16 * x**3 + 3 * x) / 96
    g3 = (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384
    g4 = (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160
    v = freedom
    return x + g1 / v + g2 / v**2 + g3 / v**3 + g4 / v**4


def _clustered(counts: Sequence[float], sizes: Sequence[float], rate: float) -> float:
    """Kish's deff of a rate estimated from clusters (ratio estimator, clusters as drawn)."""
    k, n = len(counts), sum(sizes)
    if k < 2:
        return 1.0
    spread = sum((c - rate * m) ** 2 for c, m in zip(counts, sizes, strict=True))
    variance = k / (k - 1) * spread / n**2
    return variance / (rate * (1 - rate) / n)


def design_effect(detected: Sequence[int], per_iteration: int) -> tuple[float, int]:
    """deff and its degrees of freedom, from the events detected in each iteration, in order.

    Where fewer than 10 events were missed (or detected), the data cannot show clustering; then an
    iteration counts as one observation (deff = events per iteration), the worst case short of
    correlation between iterations. That is why a rate of exactly 1 still has a lower bound that
    more events per iteration do not improve.
    """
    k = len(detected)
    n, hits = k * per_iteration, sum(detected)
    if k == 0 or n == 0:
        return 1.0, 0
    if min(hits, n - hits) < _FEW:
        return float(per_iteration), max(1, k - 1)
    rate = hits / n
    single = _clustered(detected, [per_iteration] * k, rate)
    blocks = min(_BLOCKS, k)
    if blocks < 5 or blocks == k:
        return max(1.0, single), max(1, k - 1)
    edges = [round(i * k / blocks) for i in range(blocks + 1)]
    sums = [sum(detected[a:b]) for a, b in itertools.pairwise(edges)]
    sizes = [(b - a) * per_iteration for a, b in itertools.pairwise(edges)]
    batched = _clustered(sums, sizes, rate)
    if batched > max(1.0, single):
        return batched, blocks - 1
    return max(1.0, single), k - 1


def rate_interval(
    detected: Sequence[int], per_iteration: int, confidence: float = 0.95
) -> Interval:
    """Rate of detected events and its interval, from the count of each iteration in order.

    `per_iteration` events are due in every iteration. Nothing due gives rate 0 within (0, 1).
    """
    n, hits = len(detected) * per_iteration, sum(detected)
    if n == 0:
        return Interval(0.0, 0.0, 1.0, 1.0, 0.0)
    deff, freedom = design_effect(detected, per_iteration)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    # Below 4 degrees of freedom the expansion of t is off; so few clusters carry no more anyway.
    t = t_quantile((1 + confidence) / 2, max(4, freedom))
    effective = n / deff * (z / t) ** 2
    low, high = wilson(hits / n * effective, effective, confidence)
    return Interval(hits / n, low, high, deff, effective)
