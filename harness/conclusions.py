"""What follows from a trial: ledgers of flows and alerts, time budget, balance, verdict."""

from __future__ import annotations

from dataclasses import replace

from harness.balancing import Predict, measured_balance
from harness.bottleneck import judge
from harness.budget import time_budget
from harness.ledger_software import alert_ledger, flow_ledger
from harness.model import Counters
from harness.results import Trial

__all__ = ["conclude"]

_NOTHING = Counters(None, None, None, None, None, None, None)


def conclude(
    trial: Trial, reference_flows: int | None = None, predict: Predict | None = None
) -> Trial:
    """The trial with what follows from it; unchanged when it failed or was not measured.

    `reference_flows` is how many flows the sensor counts in one iteration at zero load. Fields that
    are there already are kept: a record is not rewritten.
    """
    if trial.failure is not None or trial.sent is None or trial.after is None:
        return trial
    before = _begin(trial)
    offered = trial.schedule.flows
    if reference_flows is not None and trial.method != "raw-loop":
        offered = reference_flows * trial.schedule.iterations
    flows = trial.flow_ledger or flow_ledger(before, trial.after, offered, trial.flow_records)
    alerts = trial.alert_ledger
    if alerts is None and trial.detection is not None and trial.method == "fresh":
        alerts = alert_ledger(trial.detection, before, trial.after)
    budget = trial.budget or time_budget(trial)
    balance = trial.balance or measured_balance(trial, predict)
    trial = replace(trial, flow_ledger=flows, alert_ledger=alerts, budget=budget, balance=balance)
    return trial if trial.bottleneck is not None else replace(trial, bottleneck=judge(trial))


def _begin(trial: Trial) -> Counters:
    """The first counts. A sensor started for the trial began at zero, whether it said so or not."""
    before = trial.before or _NOTHING
    if trial.state == "observed":
        return before
    return replace(before, flows=before.flows or 0, alerts=before.alerts or 0)
