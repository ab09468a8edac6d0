"""Sentences about a run, each computed from its frames: figure titles and the verdict use them.

Every function says only what its frame holds, and what is missing is said to be missing.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.report import words
from harness.report.tables import LEDGER_PARTS

__all__ = [
    "METHOD_NAMES",
    "PART_NAMES",
    "bias_sentence",
    "clean_load",
    "detection_sentence",
    "loss_sentence",
    "part_total",
    "signature_sentence",
    "workers_sentence",
]

PART_NAMES = {
    "analysed": "analysed",
    "software": "software",
    "kernel": "kernel ring",
    "nic": "NIC",
    "before_nic": "before the NIC",
    "unexplained": "unexplained",
}
METHOD_NAMES = {
    "raw-loop": "the uncleaned capture looped",
    "loop": "the clean corpus looped",
    "unique-ip": "--unique-ip",
    "fresh": "fresh addresses",
}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _number(n: int) -> str:
    return _NUMBERS[n] if n < len(_NUMBERS) else f"{n}"


def clean_load(curves: pd.DataFrame, column: str, good: float) -> float | None:
    """Highest offered load up to which `column` was `good` at every load tested.

    `curves` holds one axis. None when the lowest load was not good, or nothing was measured.
    """
    best: float | None = None
    for row in curves[curves["offered"].notna()].sort_values("offered").to_dict("records"):
        if words.missing(row[column]) or row[column] != good:
            break
        best = float(row["offered"])
    return best


def _top(curves: pd.DataFrame, column: str) -> dict[str, Any] | None:
    known = curves[curves["offered"].notna() & curves[column].notna()]
    if known.empty:
        return None
    return {str(k): v for k, v in known.sort_values("offered").iloc[-1].to_dict().items()}


def detection_sentence(curves: pd.DataFrame) -> str:
    """Title of the main curve; `curves` holds one axis."""
    top = _top(curves, "detection_rate")
    if top is None:
        return "No valid trial measured a detection rate"
    axis = str(top["axis"])
    whole = clean_load(curves, "detection_rate", 1.0)
    if whole is not None and whole == top["offered"]:
        return (
            f"Every alert due was raised at every load tested, up to {words.load(whole, axis)}"
            f" (at most {_dropped(curves)} of packets dropped)"
        )
    start = (
        f"Every alert due was raised up to {words.load(whole, axis)}"
        if whole is not None
        else "Alerts were missing at every load from the lowest"
        if (curves["detection_rate"].dropna() < 1).all()
        else "Alerts were missing already at the lowest load"
    )
    drop = top["drop_rate_median"]
    end = (
        f"at {words.load(top['offered'], axis)}, {words.percent(top['detection_rate'])} were raised"
    )
    if not words.missing(drop):
        end += f", with {words.percent(drop)} of packets dropped"
    return f"{start}; {end}"


def _dropped(curves: pd.DataFrame) -> str:
    worst = curves["drop_rate_max"].max()
    return words.percent(worst, "an unknown share")


def part_total(curves: pd.DataFrame, part: str) -> int | None:
    """Packets in one part of the ledger, all loads; None when no load can tell."""
    known = curves[part].dropna()
    return int(known.sum()) if len(known) else None


def loss_sentence(curves: pd.DataFrame) -> str:
    """Where lost packets went; `curves` holds one axis."""
    offered = part_total(curves, "offered_packets")
    totals = {part: part_total(curves, part) for part in LEDGER_PARTS}
    if not offered:
        return "No valid trial has a ledger"
    unexplained = totals.pop("unexplained") or 0
    analysed = totals.pop("analysed")
    if analysed is None:
        return f"The sensor does not tell how many of {offered:,} packets offered it analysed"
    lost = offered - analysed
    blind = [PART_NAMES[part] for part, total in totals.items() if total is None]
    rest = f"; {words.series(blind)} not observable" if blind else ""
    if lost == 0 and unexplained == 0:
        return f"All {offered:,} packets offered on this curve were analysed{rest}"
    seen = {part: total for part, total in totals.items() if total}
    where = [
        f"{words.percent(total / lost)} of them in {_place(part)}"
        if lost > 0
        else f"{total:,} in {_place(part)}"
        for part, total in sorted(seen.items(), key=lambda item: -item[1])
    ]
    open_end = (
        f"{unexplained:,} unexplained" if unexplained else "every packet is accounted for"
    ).replace("-", "−")
    head = f"{words.percent(lost / offered)} of {offered:,} packets offered on this curve were lost"
    return f"{head}: {'; '.join([words.series(where), open_end]) if where else open_end}{rest}"


def _place(part: str) -> str:
    return {
        "before_nic": "front of the NIC",
        "software": "the software",
        "kernel": "the kernel",
        "nic": "the NIC",
    }[part]


def signature_sentence(signatures: pd.DataFrame) -> str:
    """Which signatures suffer most; `signatures` holds one axis."""
    known = signatures[signatures["detection_rate"].notna()]
    if known.empty:
        return "No valid trial scored a signature"
    axis, top = str(known["axis"].iloc[0]), known["asked"].max()
    at_top = known[known["asked"] == top].sort_values(["detection_rate", "signature_id"])
    worst, best = at_top.iloc[0], at_top.iloc[-1]
    where = f"at the highest load asked, {words.load(float(top), axis)}"
    if worst["detection_rate"] == best["detection_rate"]:
        share = words.percent(float(worst["detection_rate"]))
        many = words.plural(len(at_top), "signature")
        return f"{'Each of ' if len(at_top) > 1 else ''}{many} reached {share} {where}"
    return (
        f"Between {words.percent(float(worst['detection_rate']))} "
        f"(sid {worst['signature_id']}) and {words.percent(float(best['detection_rate']))} "
        f"(sid {best['signature_id']}) of a signature's alerts were raised {where}"
    )


def workers_sentence(workers: pd.DataFrame) -> str:
    """How evenly packets were spread; `workers` holds one axis and is not empty."""
    shares = workers.groupby("trial")["share"].max()
    n = int(workers.groupby("trial")["worker"].nunique().max())
    low, high = words.percent(float(shares.min())), words.percent(float(shares.max()))
    took = low if low == high else f"{low} to {high}"
    even = words.percent(1 / n)
    return f"The busiest of {_number(n)} workers took {took} of the packets; even would be {even}"


def _replays(methods: list[str]) -> str:
    return words.series([METHOD_NAMES.get(method, method) for method in methods])


def bias_sentence(bias: pd.DataFrame) -> str:
    """What the replay methods did to loss and to alerts."""
    lost = bias["lost"]
    scored = bias[bias["detected"].notna() & bias["due"].notna()]
    n = len(bias)
    replays = f"{_number(n)} replays"
    if lost.isna().all():
        loss = "Loss is not observable"
    elif lost.isna().any():
        loss = f"{int(lost.dropna().sum()):,} packets were lost where loss is observable"
    elif (lost == 0).all():
        loss = f"No packet was lost in any of the {replays}" if n > 1 else "No packet was lost"
    else:
        losers = list(bias.loc[lost != 0, "method"])
        loss = f"Packets were lost by {_replays(losers)}"
    if scored.empty:
        return f"{loss}; no replay has a score of its alerts"
    complete = list(scored.loc[scored["detected"] >= scored["due"], "method"])
    short = scored[scored["detected"] < scored["due"]]
    if short.empty:
        return f"{loss}; every one raised all alerts due"
    shares = (short["detected"] / short["due"]).astype("float64")
    worst = short.iloc[int(shares.to_numpy().argmin())]
    figure = (
        f"{METHOD_NAMES.get(str(worst['method']), worst['method'])} raised "
        f"{int(worst['detected']):,} of {int(worst['due']):,}"
    )
    if not complete:
        return f"{loss}; none raised every alert due: {figure}"
    return f"{loss}; only {_replays(complete)} raised every alert due: {figure}"
