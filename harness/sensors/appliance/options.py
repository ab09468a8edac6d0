"""`[sensor.options]` of a sensor that is read from outside: what all such drivers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import ConfigError
from harness.sensors.intake.options import IntakeOptions
from lab.tomlfile import first_problem

__all__ = ["COUNTERS", "ApplianceOptions", "CounterSpec", "Strict", "read"]

Known = Literal["received", "dropped", "decoded", "decoded_bytes", "invalid", "flows", "alerts"]
COUNTERS: tuple[Known, ...] = (
    *("received", "dropped", "decoded", "decoded_bytes", "invalid", "flows", "alerts"),
)


class Strict(BaseModel):
    """A table of the inventory: unknown keys are refused, and inputs are not repeated."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class CounterSpec(Strict):
    """Where a counter is found; subclasses say how. Where several places match, it is their sum.

    `bits` is the width at which it wraps. `absent = "zero"` takes a counter that is not there for
    0, for sensors that leave out what never moved.
    """

    bits: Literal[32, 64] = 64
    absent: Literal["error", "zero"] = "error"


C = TypeVar("C", bound=CounterSpec)


class ApplianceOptions(Strict, Generic[C]):
    """Counters and their meaning, settling, alerts.

    `counters` are those that the harness knows (`COUNTERS`); `raw` are kept with each trial under
    their own names. `workers` has one place per worker, counting packets that it decoded. `uptime`
    is something that only goes back when the sensor restarts. `refresh` is how often (s) the sensor
    brings its counters up to date: they count as settled when they stood still for longer.
    `live_interval` (s) is how often they are read during a trial, for the live line and so that a
    32-bit counter cannot wrap unseen; 0 reads them never. `restart` is a command that brings the
    sensor to a known state before each trial, run on `sensor.host`. `flow_timeout` is how long (s)
    it remembers a closed flow, as its manual says: addresses that come back sooner mark a trial.
    """

    name: str | None = None
    version: str | None = None
    counters: dict[Known, C] = Field(default_factory=dict)
    raw: dict[str, C] = Field(default_factory=dict)
    workers: C | None = None
    uptime: C | None = None
    received_includes_drops: bool | None = None
    refresh: float = Field(default=5.0, ge=0)
    live_interval: float = Field(default=2.0, ge=0)
    restart: tuple[str, ...] = ()
    ready_timeout: float = Field(default=60.0, gt=0)
    flow_timeout: float | None = Field(default=None, gt=0)
    intake: IntakeOptions | None = None

    @model_validator(mode="after")
    def _meaningful(self) -> ApplianceOptions[C]:
        if not self.counters and self.intake is None:
            raise ValueError(
                "neither counters nor an intake for alerts: there is nothing to read; give "
                "[sensor.options.counters] or [sensor.options.intake]"
            )
        both = {"received", "dropped"} <= self.counters.keys()
        if both and self.received_includes_drops is None:
            raise ValueError(
                "received_includes_drops = true or false is needed with received and dropped: "
                "sensors differ in it, and the loss is wrong by a factor otherwise"
            )
        clash = self.raw.keys() & {*COUNTERS, "workers", "uptime"}
        if clash:
            raise ValueError(f"raw.{min(clash)}: that name has a meaning: give it its own place")
        return self

    def everything(self) -> dict[str, C]:
        """Every counter to read, by name; "workers" and "uptime" among them where given."""
        wanted: dict[str, C] = dict(self.raw)
        for name, spec in self.counters.items():
            wanted[name] = spec
        if self.workers is not None:
            wanted["workers"] = self.workers
        if self.uptime is not None:
            wanted["uptime"] = self.uptime
        return wanted


T = TypeVar("T", bound=Strict)


def read(kind: type[T], values: Mapping[str, Any]) -> T:
    """Check `[sensor.options]`. Raises ConfigError naming the key, and no value."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        problem = first_problem(error)
        dot = "" if error.errors()[0]["loc"] == () else "."
        raise ConfigError(f"inventory: sensor.options{dot or ': '}{problem}") from None
