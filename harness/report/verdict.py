"""The verdict in words. Each sentence is computed; what the data do not say is not said."""

from __future__ import annotations

import pandas as pd

from harness.report import words
from harness.report.frames import Frames
from harness.report.tables import LEDGER_PARTS
from harness.report.titles import (
    bias_sentence,
    clean_load,
    loss_sentence,
    part_total,
    signature_sentence,
    workers_sentence,
)

__all__ = ["verdict"]


def verdict(frames: Frames) -> list[str]:
    """Sentences in order of weight, from a run's frames."""
    curves, signatures, workers = frames.curves, frames.signatures, frames.workers
    said = [_trials_sentence(frames.trials)]
    for axis in sorted(curves["axis"].unique()):
        own = curves[curves["axis"] == axis]
        said += _load_sentences(own)
        if (own["valid"] > 0).any():
            said.append(loss_sentence(own) + ".")
        part = signatures[signatures["axis"] == axis]
        if part["detection_rate"].notna().any():
            said.append(signature_sentence(part) + ".")
        part = workers[workers["axis"] == axis]
        if len(part):
            said.append(workers_sentence(part) + ".")
    if len(frames.bias):
        said.append(f"Replay methods: {bias_sentence(frames.bias)}.")
    return [*said, _ledger_sentence(frames.trials), _gates_sentence(frames.gates)]


def _trials_sentence(trials: pd.DataFrame) -> str:
    wrong = {
        status: list(trials.loc[trials["status"] == status, "trial"])
        for status in ("generator-limited", "invalid", "failed")
    }
    valid = int(trials["valid"].sum())
    head = (
        f"{valid:,} of {words.plural(len(trials), 'trial')} {'is' if valid == 1 else 'are'} valid"
    )
    rest = [f"{status}: {', '.join(names)}" for status, names in wrong.items() if names]
    return f"{head}{' (' + '; '.join(rest) + ')' if rest else ''}."


_NO_LOSS = {
    "Drop rate": "no packet lost",
    "Capture loss": "no packet lost before or in the capture",
}


def _load_sentences(curves: pd.DataFrame) -> list[str]:
    """What the sweep of one axis says of loss and detection."""
    axis = str(curves["axis"].iloc[0])
    known = curves[curves["offered"].notna()].sort_values("offered")
    if known.empty:
        return [f"No load in {words.axis_unit(axis)} has a valid trial: there is no curve."]
    said = []
    low, high = float(known["offered"].min()), float(known["offered"].max())
    span = words.load(high, axis)
    if len(known) > 1:
        span = f"{words.amount(low)} to {span}"
    said.append(f"The curve covers {words.plural(len(known), 'offered load')}, {span}.")
    said.append(_highest(known, axis, "drop_rate_max", 0.0, _NO_LOSS[words.loss_name(known)]))
    said.append(_highest(known, axis, "detection_rate", 1.0, "every alert due raised"))
    scored = known[known["detection_rate"].notna()]
    if len(scored):
        top = scored.iloc[-1]
        at = words.load(float(top["offered"]), axis)
        said.append(
            f"At the highest load offered, {at}, {int(top['detected']):,} of {int(top['due']):,} "
            f"alerts due were raised: {words.percent(float(top['detection_rate']))}, 95 % interval "
            f"{words.percent(float(top['detection_low']))} to "
            f"{words.percent(float(top['detection_high']))}; {words.loss_name(known).lower()} "
            f"{words.percent(top['drop_rate_median'])}."
        )
    return said


def _highest(known: pd.DataFrame, axis: str, column: str, good: float, what: str) -> str:
    if known[column].isna().all():
        name = "Packet loss" if column.startswith("drop") else "Detection"
        return f"{name} is {words.NOT_OBSERVABLE} in this run."
    best = clean_load(known, column, good)
    if best is None:
        first = known.iloc[0]
        at = words.load(float(first["offered"]), axis)
        if words.missing(first[column]):
            return f"Whether there was {what} at the lowest load, {at}, is {words.NOT_OBSERVABLE}."
        begun = "Packets were lost" if column.startswith("drop") else "Alerts due were missing"
        return f"{begun} already at the lowest load tested, {at}."
    sentence = f"Highest load tested with {what} at it and at every lower one: "
    sentence += words.load(best, axis)
    row = known[known["offered"] == best].iloc[0]
    if column == "detection_rate":
        sentence += (
            f" ({int(row['due']):,} due there; the lower bound of the 95 % interval is "
            f"{words.percent(float(row['detection_low']))})"
        )
    above = known[known["offered"] > best]
    if above.empty:
        return f"{sentence}, the highest load of the sweep."
    return (
        f"{sentence}; the next load tested was {words.load(float(above['offered'].iloc[0]), axis)}."
    )


def _ledger_sentence(trials: pd.DataFrame) -> str:
    kept = trials[trials["unexplained"].notna()]
    if kept.empty:
        return "No trial has a ledger."
    torn = kept[kept["unexplained"].abs() > kept["tolerance"]]
    blind = [part for part in LEDGER_PARTS if part_total(kept, part) is None]
    note = f" ({words.series(blind)} {words.NOT_OBSERVABLE})" if blind else ""
    if torn.empty:
        return (
            f"The ledger adds up within its tolerance in {_all(len(kept))} with one{note}; the "
            f"largest unexplained part is {_signed(kept)}."
        )
    return (
        f"The ledger does not add up in {_named(torn, len(kept))}{note}; the largest "
        f"unexplained part is {_signed(kept)}."
    )


def _named(torn: pd.DataFrame, n: int) -> str:
    names = list(torn["trial"])
    if len(names) <= 6:
        return words.series(names)
    return f"{len(names):,} of {words.plural(n, 'trial')} (see their ledgers below)"


def _all(n: int) -> str:
    return "the only trial" if n == 1 else f"all {n:,} trials"


def _signed(kept: pd.DataFrame) -> str:
    values = [int(v) for v in kept["unexplained"]]
    worst = max(values, key=abs)
    return f"{worst:,}".replace("-", "−") + (" packet" if abs(worst) == 1 else " packets")


def _gates_sentence(gates: pd.DataFrame) -> str:
    if gates.empty:
        return "No gate fired in any trial."
    parts = []
    for severity, noun in (("invalid", "invalidating"), ("warning", "warning"), ("info", "note")):
        codes = gates.loc[gates["severity"] == severity, "code"]
        if len(codes):
            found = [f"{code} ×{n}" for code, n in codes.value_counts().sort_index().items()]
            parts.append(f"{noun}: {', '.join(found)}")
    return f"Gates that fired: {'; '.join(parts)}."
