"""What a gate is, and the register of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.model import Capabilities, Severity
from harness.results import Trial
from lab.preflight.check import Finding as Noticed

__all__ = ["GATES", "Check", "Context", "Finding", "Gate", "gate"]


@dataclass(frozen=True, slots=True)
class Context:
    """What a gate needs beside the trial. `earlier` are the run's previous trials, if known.

    `reference_flows` is how many flows this sensor counts in one iteration at zero load.
    `preflight` is what the run's last preflight found; `flow_timeout` is how long the sensor
    remembers a closed flow, in s (None: not known). `limited` are the signatures due whose rules
    count or limit (0: a line that is for all of them).
    """

    capabilities: Capabilities
    co_located: bool = False
    earlier: tuple[Trial, ...] = ()
    reference_flows: int | None = None
    preflight: tuple[Noticed, ...] = ()
    flow_timeout: float | None = None
    limited: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A gate's sentence and the numbers in it."""

    message: str
    numbers: dict[str, float]


Check = Callable[[Trial, Context], Finding | None]


@dataclass(frozen=True, slots=True)
class Gate:
    """A registered gate."""

    code: str
    severity: Severity
    title: str
    advice: str
    check: Check


GATES: dict[str, Gate] = {}


def gate(code: str, severity: Severity, title: str, advice: str) -> Callable[[Check], Check]:
    """Register a check under its code; the checks are in the modules `gates_*`."""

    def register(check: Check) -> Check:
        GATES[code] = Gate(code, severity, title, advice, check)
        return check

    return register
