"""Is a trial sound? Every gate is asked; those that have something to say are recorded.

A gate looks at a trial that was measured and says nothing, or one sentence with its numbers.
"invalid" takes the trial out of the verdict (it is kept, marked and drawn as such), "warning" needs
a reader's judgement, "info" explains. `docs/gates.md` has a section for each code.
"""

from __future__ import annotations

from harness import (
    gates_host,
    gates_intake,
    gates_ledger,
    gates_preflight,
    gates_sensor,
    gates_wire,
)
from harness.gate import GATES, Context, Gate
from harness.model import GateResult, Severity
from harness.results import Trial

__all__ = ["CHECKED_IN", "GATES", "Context", "Gate", "evaluate"]

CHECKED_IN = (
    gates_wire,
    gates_sensor,
    gates_intake,
    gates_ledger,
    gates_host,
    gates_preflight,
)
"""The modules whose import registers the gates."""


def evaluate(trial: Trial, context: Context) -> tuple[GateResult, ...]:
    """Every gate that fires, most severe first; none for a trial that failed."""
    if trial.failure is not None:
        return ()
    order: tuple[Severity, ...] = ("invalid", "warning", "info")
    found = [
        GateResult(g.code, g.severity, g.title, finding.message, g.advice, finding.numbers)
        for g in GATES.values()
        if (finding := g.check(trial, context)) is not None
    ]
    return tuple(sorted(found, key=lambda result: order.index(result.severity)))
