"""The seam to a sensor under test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from harness.model import Alert, Capabilities, Counters
from harness.model_flows import FlowRecords

__all__ = ["Footprint", "KeepsFlows", "Live", "Sensor"]


@dataclass(frozen=True, slots=True)
class Live:
    """A cheap reading for the live line (None: not observable); not used in any result."""

    received: int | None
    dropped: int | None
    alerts: int | None


@dataclass(frozen=True, slots=True)
class Footprint:
    """What of a host is the sensor's: process ids (children included), and where it writes logs."""

    pids: tuple[int, ...] = ()
    logs: str | None = None


class Sensor(Protocol):
    """A sensor: brought to a known state, read before and after a trial."""

    name: str
    version: str
    state: str  # "restarted" or "observed": how a trial's initial state is made known
    capabilities: Capabilities

    def check(self) -> None:
        """Verify that the sensor can run on its host; fill `version`. Raises SensorFailed."""
        ...

    def prepare(self) -> None:
        """Bring it to the known state and wait until it is ready. Raises SensorFailed."""
        ...

    def footprint(self) -> Footprint:
        """What the sampler on its host shall look at; empty where that is not known."""
        ...

    def snapshot(self) -> Counters:
        """Counters now (may be a little stale, see `Counters.exact`)."""
        ...

    def live(self) -> Live:
        """A cheap reading for the live line."""
        ...

    def settle(self, timeout: float) -> bool:
        """Wait until everything received was worked off; False when `timeout` passed first."""
        ...

    def finish(self) -> Counters:
        """End the trial: final counters (exact where the sensor is ours to stop)."""
        ...

    def alerts(self) -> Iterator[Alert]:
        """Alerts raised since `prepare`, in order. Call after `finish`."""
        ...

    def collect(self, into: Path) -> None:
        """Fetch the trial's logs (small ones) into a local directory."""
        ...

    def stop(self) -> None:
        """End it and leave nothing behind; idempotent."""
        ...


@runtime_checkable
class KeepsFlows(Protocol):
    """A sensor that may have flow records: `isinstance(sensor, KeepsFlows)` tells."""

    def flow_records(self) -> FlowRecords | None:
        """What its flow records say of the trial; None: it wrote none. Call after `finish`."""
        ...
