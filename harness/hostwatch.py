"""The seam to the sampler on the sensor's host."""

from __future__ import annotations

from typing import Protocol

from harness.model_host import HostTrial
from harness.sensors.base import Footprint

__all__ = ["HostWatch"]


class HostWatch(Protocol):
    """Reads the host under the sensor around and during a trial; never fails one."""

    def begin(self, footprint: Footprint, trial: str) -> None:
        """First reading, then samples until `end`. The sensor is ready, nothing was sent yet.

        `trial` is the trial's name, under which samples are stored.
        """
        ...

    def end(self) -> HostTrial:
        """Last reading; call when the sensor has settled and before it is stopped."""
        ...

    def close(self) -> None:
        """Leave nothing behind; idempotent."""
        ...
