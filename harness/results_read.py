"""Ledgers and verdicts back from plain data; what a newer version added is ignored."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from harness.model import Ledger
from harness.model_ledger import (
    AlertLedger,
    Balance,
    Bottleneck,
    ByteLedger,
    Evidence,
    FlowLedger,
    Stage,
    StageEvent,
    TimeBudget,
    Verdict,
    WorkerBudget,
)

__all__ = ["alert_ledger", "balance", "flow_ledger", "ledger", "time_budget", "verdict"]


def _known(kind: Any, data: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(kind)}
    return {key: value for key, value in data.items() if key in names}


def ledger(data: dict[str, Any]) -> Ledger:
    """A packet ledger; those of version 0.1 have no stages."""
    kw = _known(Ledger, data)
    kw["stages"] = tuple(Stage(**_known(Stage, s)) for s in kw.get("stages") or ())
    kw["events"] = tuple(StageEvent(**_known(StageEvent, e)) for e in kw.get("events") or ())
    if kw.get("bytes") is not None:
        kw["bytes"] = ByteLedger(**_known(ByteLedger, kw["bytes"]))
    return Ledger(**kw)


def flow_ledger(data: dict[str, Any]) -> FlowLedger:
    """A flow ledger."""
    return FlowLedger(**_known(FlowLedger, data))


def alert_ledger(data: dict[str, Any]) -> AlertLedger:
    """An alert ledger."""
    return AlertLedger(**_known(AlertLedger, data))


def verdict(data: dict[str, Any]) -> Verdict:
    """A verdict with its evidence."""
    return Verdict(
        tuple(
            Bottleneck(
                one["kind"],
                one["detail"],
                one["packets"],
                tuple(Evidence(**_known(Evidence, e)) for e in one["evidence"]),
            )
            for one in data["found"]
        )
    )


def time_budget(data: dict[str, Any]) -> TimeBudget:
    """A time budget with those of its workers."""
    kw = _known(TimeBudget, data)
    kw["workers"] = tuple(WorkerBudget(**_known(WorkerBudget, w)) for w in kw.get("workers") or ())
    return TimeBudget(**kw)


def balance(data: dict[str, Any]) -> Balance:
    """A measured balance with its prediction."""
    return Balance(**_known(Balance, data))
