"""Choosing the loads of a sweep from a short look at this sensor, on this machine.

One trial overloads the sensor. The capacity is what it still analysed per second while the
generator was sending; the loads are multiples of it. If the generator cannot overload the sensor,
the loads end at what the generator can send, and the run says so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import GeneratorFailed, SensorFailed
from harness.model import Axis, Corpus, LossOf
from harness.profile import AutoLoads, LoadSpec
from harness.results import Trial

__all__ = [
    "MOST_FURTHER",
    "Calibration",
    "choose_loads",
    "further_load",
    "load_between",
    "per_packet",
]

# The generator's top rate was seen once, for a few seconds: stay below it.
HEADROOM = 0.9
# A sweep goes on until this share of the packets was lost, by this factor, this many times.
BENT, GROWTH, MOST_FURTHER = 0.10, 1.4, 3
_DID: dict[LossOf, str] = {"analysed": " analysed", "capture": "'s capture took"}


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the calibration found: packets/s analysed when overloaded, and the generator's top.

    Where the sensor does not tell what it analysed (`loss_of` "capture"), those that its capture
    took.

    `loads` and `ceiling` are in the unit of the profile's axis. `ceiling` is the highest load that
    this generator can be asked for, infinite when it kept up with the probe.
    """

    capacity_pps: float
    generator_pps: float
    overloaded: bool
    loads: tuple[float, ...]
    ceiling: float = math.inf
    loss_of: LossOf = "analysed"

    def sentence(self) -> str:
        """One line for the log and the report."""
        text = (
            f"calibration: the sensor{_DID[self.loss_of]} {self.capacity_pps:,.0f} packets/s "
            f"while {self.generator_pps:,.0f} were offered"
        )
        if not self.overloaded:
            text += "; it was not overloaded, so the loads end at what this generator can send"
        return text


def choose_loads(trial: Trial, spec: LoadSpec, corpus: Corpus) -> Calibration:
    """Turn a calibration trial into loads, in the unit of the profile's axis.

    Raises GeneratorFailed or SensorFailed when the calibration trial itself failed.
    """
    if trial.failure is not None:
        kind = SensorFailed if trial.failure.what.startswith("sensor") else GeneratorFailed
        raise kind(f"calibration: {trial.failure.message}")
    if trial.sent is None or trial.drop_rate is None:
        raise SensorFailed(
            "calibration: the sensor's counters did not tell what it lost; give load.values in the "
            "profile instead"
        )
    offered = trial.sent.packets / trial.sent.seconds
    analysed = offered * (1 - trial.drop_rate)
    overloaded = trial.drop_rate > 0.05
    top = HEADROOM * offered
    loads = _spread(spec.auto, analysed if overloaded else top / spec.auto.highest, top)
    ceiling = top if offered < 0.99 * trial.schedule.pps else math.inf
    unit = per_packet(corpus, spec.axis)
    return Calibration(
        analysed,
        offered,
        overloaded,
        tuple(_round(load * unit) for load in loads),
        ceiling * unit,
        trial.loss_of,
    )


def per_packet(corpus: Corpus, axis: Axis) -> float:
    """What a packet of the corpus is worth on a load axis."""
    return corpus.amount(axis) / corpus.packets


def further_load(last: Trial, ceiling: float) -> float | None:
    """The load to add to a sweep whose curve has not bent yet, or None.

    `last` is the trial at the highest load so far. None when it lost `BENT` of its packets, when
    it is not sound (a generator at its limit included), or when `ceiling` leaves no room.
    """
    if not last.valid or last.drop_rate is None or last.drop_rate >= BENT:
        return None
    load = _round(min(GROWTH * last.load.value, ceiling))
    return load if load > 1.05 * last.load.value else None


def load_between(trials: Sequence[Trial]) -> float | None:
    """The load to add where the drop rate jumps most from one load to the next, or None.

    Halfway between the two. None when no step is larger than `BENT`, or when the two loads with the
    largest step are within 5 % of each other.
    """
    measured = sorted(
        (t.load.value, t.drop_rate) for t in trials if t.valid and t.drop_rate is not None
    )
    steps = [(b[1] - a[1], a[0], b[0]) for a, b in itertools.pairwise(measured)]
    step, low, high = max(steps, default=(0.0, 0.0, 0.0))
    if step <= BENT or high < 1.05 * low:
        return None
    return _round((low + high) / 2)


def _spread(auto: AutoLoads, capacity: float, top: float) -> tuple[float, ...]:
    """Evenly spaced multiples of the capacity, none above `top`."""
    low, high = auto.lowest * capacity, min(auto.highest * capacity, top)
    step = (high - low) / (auto.points - 1)
    return tuple(low + i * step for i in range(auto.points))


def _round(value: float) -> float:
    """Two or three significant digits, so that a load is a number one can say."""
    digits = 2 - len(str(int(value))) if value >= 100 else 1
    return float(round(value, digits + 1 if value >= 100 else 1))
