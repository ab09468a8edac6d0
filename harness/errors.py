"""Every error harness raises on purpose.

HarnessError
 ├─ ConfigError                exit status 2: profile, command line or run directory is wrong
 │   └─ ResultsError           exit status 2: a run directory that cannot be read
 ├─ GateFailed                 exit status 1: done, but a gate or verdict failed
 ├─ GeneratorFailed            exit status 3: the generator is missing, crashed or was killed
 ├─ SensorFailed               exit status 3: the sensor is missing, crashed or was killed
 │   └─ SensorRestarted        exit status 3: it restarted in mid-trial, its counters began anew
 └─ Interrupted                exit status 130: the user stopped it; cleaning up was done

A message says what was wrong, where, and what to do, in one line.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ConfigError",
    "GateFailed",
    "GeneratorFailed",
    "HarnessError",
    "Interrupted",
    "ResultsError",
    "SensorFailed",
    "SensorRestarted",
]


class HarnessError(Exception):
    """Base of the package's errors; `exit_status` is what the command line returns."""

    exit_status: ClassVar[int] = 3


class ConfigError(HarnessError):
    """Profile, command line or run directory is wrong."""

    exit_status = 2


class ResultsError(ConfigError):
    """A run directory cannot be read."""


class GateFailed(HarnessError):
    """The work was done, but a gate or a verdict failed."""

    exit_status = 1


class GeneratorFailed(HarnessError):
    """The generator is missing, crashed or was killed."""


class SensorFailed(HarnessError):
    """The sensor is missing, crashed or was killed."""


class SensorRestarted(SensorFailed):
    """The sensor restarted, or its counters were reset, in mid-trial: there is no number."""


class Interrupted(HarnessError):
    """The user interrupted the work; cleaning up was done."""

    exit_status = 130
