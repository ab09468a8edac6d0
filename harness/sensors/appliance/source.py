"""The seam to whatever a sensor's counters are read from."""

from __future__ import annotations

from typing import Protocol

from harness.sensors.appliance.readings import Reading

__all__ = ["Source"]


class Source(Protocol):
    """Reads every configured counter at once."""

    where: str  # for messages: the host and how it is asked

    def describe(self) -> str:
        """What the sensor says it is; empty where it says nothing. Raises SensorFailed."""
        ...

    def read(self) -> Reading:
        """All counters now. Raises SensorFailed when one cannot be read."""
        ...

    def close(self) -> None:
        """Leave nothing open; idempotent."""
        ...
