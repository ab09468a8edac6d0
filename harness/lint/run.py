"""Ask every check."""

from __future__ import annotations

from harness.lint import checks_capture, checks_loads
from harness.lint.check import CHECKS, Result, Severity
from harness.lint.subject import Subject

__all__ = ["CHECKED_IN", "lint"]

CHECKED_IN = (checks_capture, checks_loads)
"""The modules whose import registers the checks."""


def lint(subject: Subject) -> tuple[Result, ...]:
    """Every finding, the gravest first."""
    order: tuple[Severity, ...] = ("error", "warning", "info")
    found = [
        Result(c.code, f.severity, c.title, f.message, f.numbers, c.remedy)
        for c in CHECKS.values()
        if (f := c.function(subject)) is not None
    ]
    return tuple(sorted(found, key=lambda result: order.index(result.severity)))
