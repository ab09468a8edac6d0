"""Gates on how alerts reach us: what is lost there looks like a sensor that detects less."""

from __future__ import annotations

from harness.gate import Context, Finding, gate
from harness.ledger_software import increase
from harness.results import Trial

__all__: list[str] = []


def _raw(trial: Trial, name: str) -> float:
    return trial.after.raw.get(name, 0.0) if trial.after is not None else 0.0


@gate(
    "intake-lost",
    "invalid",
    "Alert messages were lost at the intake",
    "Raise sensor.options.intake.buffer (and net.core.rmem_max), or receive over TCP.",
)
def _intake_lost(trial: Trial, context: Context) -> Finding | None:
    dropped, torn = _raw(trial, "intake.dropped"), _raw(trial, "intake.torn")
    if dropped <= 0 and torn <= 0:
        return None
    return Finding(
        f"{dropped:,.0f} datagrams found no room in the socket, {torn:,.0f} streams could not be "
        f"taken apart (of {_raw(trial, 'intake.messages'):,.0f} messages that arrived)",
        {"dropped": dropped, "torn": torn, "messages": _raw(trial, "intake.messages")},
    )


@gate(
    "alerts-missing",
    "warning",
    "Fewer alerts arrived than the sensor says it raised",
    "Alerts were limited by the sensor, or lost on their way: send them over TCP, turn rate limits "
    "and aggregation off, and compare with the sensor's own log.",
)
def _alerts_missing(trial: Trial, context: Context) -> Finding | None:
    after, before = trial.after, trial.before
    if after is None or before is None or "intake.alerts" not in after.raw:
        return None
    raised = increase(before.alerts, after.alerts)
    if raised is None:
        return None
    arrived = after.raw["intake.alerts"]
    if arrived >= raised:
        return None
    return Finding(
        f"the sensor counts {raised:,} alerts, {arrived:,.0f} arrived",
        {"raised": raised, "arrived": arrived},
    )
