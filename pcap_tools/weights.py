"""How many times to take each flow so that sums over flows meet targets, close to a given mix.

The weights are those closest to the base weights in Kullback-Leibler divergence among all that
meet the targets (I. Csiszár, "I-divergence geometry of probability distributions and minimization
problems", Annals of Probability 3(1), 1975): base × exp(λ·g), "exponential tilting", of which
iterative proportional fitting is the special case of shares. λ minimises a convex dual, by damped
Newton steps; a small quadratic term makes the optimum of targets that contradict each other, or
that no mix meets, the nearest achievable one.

Whole numbers of copies come from systematic sampling (W. G. Madow, L. H. Madow, Annals of
Mathematical Statistics 15(1), 1944) in order of class and size: each flow is taken the weight
rounded down or up, each class to within one flow, and sizes in proportion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcap_tools.chance import draws
from pcap_tools.errors import MixError
from pcap_tools.kernels import I64

__all__ = ["Target", "copies_of", "tilt"]

Floats = npt.NDArray[np.float64]

_STEPS = 200
_SOFT = 1e-9  # weight of the quadratic term: feasible targets are met to about this
_TRIES = 32


@dataclass(frozen=True, eq=False)
class Target:
    """Σ above·m / Σ below·m = value, where m are the times each flow is taken."""

    name: str
    value: float
    above: Floats
    below: Floats

    def achieved(self, times: npt.NDArray[np.number]) -> float:
        """The ratio with these times."""
        below = float((self.below * times).sum())
        return float((self.above * times).sum()) / below if below else 0.0

    def met(self, times: npt.NDArray[np.number], tolerance: float) -> bool:
        """Whether the ratio is the value, within a relative tolerance (and 1e-6, for shares of 0,
        which weights only approach)."""
        return abs(self.achieved(times) - self.value) <= max(tolerance * self.value, 1e-6)

    def bounds(self, taken: npt.NDArray[np.bool_]) -> tuple[float, float]:
        """The least and the largest ratio that any mix of these flows has."""
        there = taken & (self.below > 0)
        each = self.above[there] / self.below[there]
        return (float(each.min()), float(each.max())) if len(each) else (0.0, 0.0)


def tilt(base: Floats, targets: list[Target], most: Floats) -> Floats:
    """Weights near `base` with its sum that meet the targets, or come as near as possible.

    `most` bounds each weight (inf: not at all). Raises MixError when the bounds leave less than
    the sum.
    """
    total = float(base.sum())
    room = float(np.where(base > 0, most, 0.0).sum())
    if room < total * (1 - 1e-12):
        raise MixError(
            f"{total:,.0f} flows are wanted, but only {room:,.0f} can be made: these flows cannot "
            "be copied (only TCP and UDP, unfragmented, outside tunnels); ask for fewer with "
            "--flows"
        )
    columns = []
    for target in targets:
        column = target.above - target.value * target.below
        spread = float(np.sqrt((base * column**2).sum() / total))
        columns.append(column / (spread or 1.0))
    dual = _Dual(base, np.array(columns).reshape(len(targets), len(base)), most, total)
    point = np.zeros(len(targets))
    value, weights, slope, curve = dual.at(point)
    for _ in range(_STEPS):
        if not len(point) or np.abs(slope).max() < 1e-10 * total:
            break
        step = -np.linalg.lstsq(curve, slope, rcond=None)[0]
        size = 1.0
        while size > 1e-12:
            there = dual.at(point + size * step)
            if there[0] <= value + 1e-4 * size * float(slope @ step):
                break
            size /= 2
        else:
            break
        point = point + size * step
        value, weights, slope, curve = there
    return weights


class _Dual:
    """The dual of: minimise KL(m ‖ base) subject to Σ m = total, columns·m = 0, m ≤ most."""

    def __init__(self, base: Floats, columns: Floats, most: Floats, total: float) -> None:
        self._used = np.flatnonzero(base > 0)
        self._log = np.log(base[self._used])
        self._columns, self._most = columns[:, self._used], most[self._used]
        self._total, self._size = total, len(base)

    def at(self, point: Floats) -> tuple[float, Floats, Floats, Floats]:
        """Value, weights, gradient and Hessian at λ = point."""
        exponent = self._log + point @ self._columns
        capped = np.zeros(len(exponent), np.bool_)
        while True:
            # The common factor that makes the sum right, given which weights are at their bound.
            rest = self._total - float(self._most[capped].sum())
            free = exponent[~capped]
            if not len(free) or rest <= 0:
                shift = 0.0
                break
            peak = float(free.max())
            shift = np.log(rest) - peak - np.log(np.exp(free - peak).sum())
            over = ~capped & (exponent + shift > np.log(self._most))
            if not over.any():
                break
            capped |= over
        raised = exponent + shift
        weights = np.where(capped, self._most, np.exp(np.minimum(raised, 700.0)))
        bound = self._most[capped]
        value = float(weights[~capped].sum() - shift * self._total)
        value += float((bound * (raised[capped] - np.log(bound) + 1)).sum())
        soft = _SOFT * self._total
        value += soft * float(point @ point) / 2
        slope = self._columns @ weights + soft * point
        loose = np.where(capped, 0.0, weights)
        mean = self._columns @ loose
        curve = (self._columns * loose) @ self._columns.T + soft * np.eye(len(point))
        if loose.sum() > 0:
            curve -= np.outer(mean, mean) / loose.sum()
        full = np.zeros(self._size)
        full[self._used] = weights
        return value, full, slope, curve


def copies_of(
    weights: Floats, order: I64, most: Floats, targets: list[Target], seed: int
) -> npt.NDArray[np.int64]:
    """Whole numbers of copies: systematic sampling of flows in `order`, from a random start.

    Of several starts that the seed selects, the one is taken that comes nearest to the targets.
    """
    reached = np.cumsum(weights[order])
    best, least = np.zeros(len(weights), np.int64), np.inf
    for word in draws(seed, "mix start", _TRIES if targets else 1).tolist():
        start = (word / 2.0**64) * 0.999_998 + 1e-6  # never so close to 0 that rounding decides
        steps = np.floor(reached + start).astype(np.int64)
        copies = np.zeros(len(weights), np.int64)
        copies[order] = np.diff(steps, prepend=0)
        copies = np.minimum(copies, most).astype(np.int64)
        error = max(
            (abs(t.achieved(copies) - t.value) / max(abs(t.value), 1e-9) for t in targets),
            default=0.0,
        )
        if error < least:
            best, least = copies, error
    return best
