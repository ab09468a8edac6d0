"""What a check is, and the register of all of them.

A check looks at a capture with a profile and a sensor in mind, and says nothing or one sentence
with its numbers. "error": what is measured with it says nothing about the sensor. "warning": the
reader must know. "info" explains. `docs/linting.md` has a section for each code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.lint.subject import Subject

__all__ = ["CHECKS", "Check", "Finding", "Result", "Severity", "check", "share"]

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's sentence, how bad it is, and the numbers in it."""

    severity: Severity
    message: str
    numbers: dict[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    """A finding with what the register knows of its check."""

    code: str
    severity: Severity
    title: str
    message: str
    numbers: dict[str, float]
    remedy: str

    def as_json(self) -> dict[str, Any]:
        """The JSON form: the attributes by their names."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Check:
    """A registered check."""

    code: str
    title: str
    remedy: str
    function: Callable[[Subject], Finding | None]


CHECKS: dict[str, Check] = {}


def check(
    code: str, title: str, remedy: str
) -> Callable[[Callable[[Subject], Finding | None]], Callable[[Subject], Finding | None]]:
    """Register a function under its code."""

    def register(
        function: Callable[[Subject], Finding | None],
    ) -> Callable[[Subject], Finding | None]:
        CHECKS[code] = Check(code, title, remedy, function)
        return function

    return register


def share(part: float, whole: float) -> float:
    """part / whole; 0 of nothing."""
    return part / whole if whole else 0.0
