"""Counters of a sensor that is read from outside: unwrapped, and counted from a trial's beginning.

A counter that went back has wrapped (32 bits, and less than half its range later) or was reset.
The first is put right; the second ends the trial, since what was counted before is gone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import SensorRestarted
from harness.model import Counters

__all__ = ["Reading", "Tally", "number", "reading", "to_counters"]

_NUMBER = re.compile(r"[+-]?\d[\d,_' ]*(\.\d+)?([eE][+-]?\d+)?")


def number(value: object) -> float:
    """A counter's value as a number; text may have separators (1,234). Raises ValueError."""
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is not a number")
    if isinstance(value, int | float):
        return value
    text = str(value).strip()
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is not a number")
    plain = re.sub(r"[,_' ]", "", text)
    return float(plain) if re.search(r"[.eE]", plain) else int(plain)


@dataclass(frozen=True, slots=True)
class Reading:
    """All counters at one time: by name, then by the place each was found at.

    `bits` gives the width of a counter where it is not 64. `uptime` only goes back when the sensor
    restarted; None where nothing tells. `seconds` is what the reading took.
    """

    values: Mapping[str, Mapping[str, float]]
    bits: Mapping[str, int] = field(default_factory=dict)
    uptime: float | None = None
    seconds: float = 0.0


def reading(
    values: Mapping[str, Mapping[str, float]], bits: Mapping[str, int], begun: float
) -> Reading:
    """A reading begun at `begun` (monotonic) out of counters among which "uptime" may be."""
    counters = {name: places for name, places in values.items() if name != "uptime"}
    up = values.get("uptime")
    return Reading(counters, bits, sum(up.values()) if up else None, time.monotonic() - begun)


class Tally:
    """Sums of increases since `begin`, by counter and place."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._last: Reading | None = None
        self._grown: dict[str, dict[str, float]] = {}
        self.readings = 0
        self.seconds = 0.0

    def begin(self, first: Reading) -> None:
        """Count from here."""
        self._last = first
        self._grown = {name: dict.fromkeys(places, 0) for name, places in first.values.items()}
        self.readings, self.seconds = 1, first.seconds

    def add(self, now: Reading) -> None:
        """Take in a later reading. Raises SensorRestarted when counters were reset."""
        last = self._last
        assert last is not None
        if now.uptime is not None and last.uptime is not None and now.uptime < last.uptime:
            raise SensorRestarted(
                f"{self._where}: the sensor restarted in mid-trial (its uptime fell from "
                f"{last.uptime:,.0f} to {now.uptime:,.0f}): its counters began anew"
            )
        for name, places in now.values.items():
            grown = self._grown.setdefault(name, {})
            before = last.values.get(name, {})
            for place, value in places.items():
                # A place that was not there began to count in the meantime.
                step = self._step(name, before.get(place, 0), value, now.bits.get(name, 64))
                grown[place] = grown.get(place, 0) + step
            if gone := [place for place in before if place not in places]:
                raise SensorRestarted(
                    f"{self._where}: counter {name} is no longer at {gone[0]}: the sensor was "
                    "reconfigured or restarted in mid-trial"
                )
        self._last = now
        self.readings += 1
        self.seconds += now.seconds

    def _step(self, name: str, before: float, now: float, bits: int) -> float:
        if now >= before:
            return now - before
        wrapped = now - before + 2**32
        if bits == 32 and wrapped < 2**31:
            return wrapped
        raise SensorRestarted(
            f"{self._where}: counter {name} fell from {before:,.0f} to {now:,.0f} in mid-trial: "
            "it was reset, or it has 32 bits (say so: bits = 32)"
        )

    def totals(self) -> dict[str, float]:
        """Increase of each counter."""
        return {name: sum(places.values()) for name, places in self._grown.items()}

    def places(self, name: str) -> dict[str, float]:
        """Increase of a counter by place."""
        return dict(self._grown.get(name, {}))


def to_counters(tally: Tally, includes_drops: bool | None) -> Counters:
    """`harness.model.Counters` since `Tally.begin`; what is not configured is None.

    `received` is made to include drops, whatever the sensor's own does.
    """
    totals = tally.totals()

    def count(name: str) -> int | None:
        return round(totals[name]) if name in totals else None

    received, dropped = count("received"), count("dropped")
    if received is not None and dropped is not None and includes_drops is False:
        received += dropped
    return Counters(
        received=received,
        dropped=dropped,
        decoded=count("decoded"),
        decoded_bytes=count("decoded_bytes"),
        invalid=count("invalid"),
        flows=count("flows"),
        alerts=count("alerts"),
        workers={place: round(value) for place, value in tally.places("workers").items()},
        raw={name: value for name, value in totals.items() if name != "workers"},
    )
