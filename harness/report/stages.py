"""The whole way of a load's packets, flows and alerts, stage by stage: frames and their tables.

Counts are summed over the valid trials of a load; one that any of them cannot tell is missing
(NA), never zero. Runs of version 0.1 have no stages: their frame is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.report import words
from harness.report.accounts import KIND_NAMES, STAGE_NAMES, Accounts
from harness.report.grids import Grid, Row
from harness.report.tables import status_of
from harness.results import Trial

__all__ = [
    "STAGE_PARTS",
    "stage_curve_grid",
    "stage_more_grid",
    "stages_frame",
    "stops_frame",
    "stops_text",
]

STAGE_PARTS = ("analysed", "unobserved", *reversed(STAGE_NAMES), "unexplained")
"""Parts of the packets offered, from what went through to what nobody accounts for.

"unobserved" is what came to the sensor where nobody can tell how much of it was analysed.
"""

_OTHERS = (
    *("offered_packets", "flows_offered", "flows_seen", "due", "detected"),
    *("alerts_counted", "alerts_written"),
    *("bytes_offered", "bytes_analysed", "bytes_lost", "bytes_unexplained"),
)
_COLUMNS = ("axis", "asked", "trials", "sound", "label", "offered", *_OTHERS, *STAGE_PARTS)


def _parts(trial: Trial) -> dict[str, int | None]:
    """The parts of one trial's packets; those that are known sum to what was offered."""
    ledger = trial.ledger
    assert ledger is not None
    parts: dict[str, int | None] = {stage.key: stage.packets for stage in ledger.stages}
    parts = {key: parts.get(key) for key in STAGE_NAMES}
    parts |= {"analysed": ledger.analysed, "unexplained": ledger.unexplained}
    rest = ledger.offered - sum(n for n in parts.values() if n is not None)
    return {**parts, "unobserved": rest if ledger.analysed is None else 0}


def _counts(trial: Trial) -> dict[str, int | None]:
    ledger, flows, found = trial.ledger, trial.flow_ledger, trial.detection
    alerts = trial.alert_ledger
    assert ledger is not None
    size = ledger.bytes
    scored = found if found is not None and trial.method == "fresh" else None
    return {
        **_parts(trial),
        "offered_packets": ledger.offered,
        "flows_offered": flows.offered if flows else None,
        "flows_seen": flows.seen if flows else None,
        "due": scored.due if scored else None,
        "detected": scored.detected if scored else None,
        "alerts_counted": alerts.counted if alerts else None,
        "alerts_written": alerts.raised if alerts else None,
        "bytes_offered": size.offered if size else None,
        "bytes_analysed": size.analysed if size else None,
        "bytes_lost": size.lost if size else None,
        "bytes_unexplained": size.unexplained if size else None,
    }


def _summed(trials: Sequence[Trial]) -> dict[str, int | None]:
    rows = [_counts(trial) for trial in trials]
    return {
        key: None if any(row[key] is None for row in rows) else sum(row[key] or 0 for row in rows)
        for key in rows[0]
    }


def _by_load(trials: Iterable[Trial]) -> Iterator[tuple[str, float, list[Trial]]]:
    loads: dict[tuple[str, float], list[Trial]] = {}
    for trial in trials:
        loads.setdefault((trial.load.axis, trial.load.value), []).append(trial)
    for (axis, asked), some in sorted(loads.items()):
        yield axis, asked, some


def _median(trials: Iterable[Trial]) -> float | None:
    known = [trial.offered for trial in trials if trial.offered is not None]
    return float(pd.Series(known).median()) if known else None


def stages_frame(accounts: Accounts) -> pd.DataFrame:
    """One row a load of the sweep, and one for each invalid trial (`sound` False).

    Columns: axis, asked, trials (their number), sound, label (an invalid trial's status and name),
    offered (on the axis, median), offered_packets, those of `STAGE_PARTS` in packets, flows_offered
    and flows_seen, due and detected (events), alerts_counted (by the sensor) and alerts_written,
    bytes_offered, _analysed, _lost, _unexplained. Empty where a trial of the sweep has no stages.
    """
    trials = [t for t in accounts.sweep if t.ledger is not None]
    rows: list[dict[str, Any]] = []
    if all(t.ledger is not None and t.ledger.stages for t in trials):
        for axis, asked, some in _by_load(trials):
            good = [t for t in some if t.valid]
            groups = [(good, True)] * bool(good) + [([t], False) for t in some if not t.valid]
            for group, sound in groups:
                status = status_of(group[0]).replace("-", "-\n")
                label = "" if sound else f"{status}\n{group[0].name}"
                row = {"axis": axis, "asked": asked, "trials": len(group), "sound": sound}
                rows.append(row | {"label": label, "offered": _median(group)} | _summed(group))
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    for name in (*_OTHERS, *STAGE_PARTS):
        frame[name] = frame[name].astype("Int64")
    return frame.sort_values(["axis", "offered", "sound"], ascending=[True, True, False])


def stage_curve_grid(frame: pd.DataFrame) -> Grid:
    """Packets of `stages_frame`, a row a load."""
    heads = {"offered_packets": "offered", "analysed": "analysed", "unexplained": "unexplained"}
    return _grid(frame, heads | STAGE_NAMES)


def stage_more_grid(frame: pd.DataFrame) -> Grid:
    """Bytes, flows and events of `stages_frame`, a row a load."""
    heads = {
        "bytes_offered": "bytes offered",
        "bytes_analysed": "bytes decoded",
        "bytes_lost": "bytes lost, at most",
        "bytes_unexplained": "bytes unexplained",
        "flows_offered": "flows offered",
        "flows_seen": "flows seen",
        "due": "events due",
        "detected": "events raised",
        "alerts_counted": "alerts the sensor counted",
        "alerts_written": "alerts in its output",
    }
    return _grid(frame, heads)


def _grid(frame: pd.DataFrame, heads: Mapping[str, str]) -> Grid:
    """Counts under their heads, a row a load; trials that are invalid are left out."""
    rows = [
        Row(
            (
                words.load(float(one["asked"]), str(one["axis"])),
                *(words.count(one[name]) for name in heads),
            )
        )
        for one in _records(frame[frame["sound"].astype(bool)])
    ]
    return Grid(("asked", *heads.values()), tuple(rows), frozenset(range(len(heads) + 1)))


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def stops_frame(accounts: Accounts) -> pd.DataFrame:
    """What stopped the sensor in the valid trials of the sweep, one row a bottleneck named.

    Columns: trial, axis, asked, offered (on the axis), kind (`harness.model_ledger.Kind`), name
    (the same in words), primary (it cost most), packets (lost to it; missing: not counted so).
    """
    rows = [
        {
            "trial": trial.name,
            "axis": trial.load.axis,
            "asked": trial.load.value,
            "offered": trial.offered,
            "kind": one.kind,
            "name": KIND_NAMES.get(one.kind, one.kind),
            "primary": number == 0,
            "packets": one.packets,
        }
        for trial in accounts.sweep
        if trial.valid and trial.bottleneck is not None and trial.offered is not None
        for number, one in enumerate(trial.bottleneck.found)
    ]
    columns = ["trial", "axis", "asked", "offered", "kind", "name", "primary", "packets"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["packets"] = frame["packets"].astype("Int64")
    return frame


def stops_text(stops: pd.DataFrame) -> Callable[[dict[str, Any]], str]:
    """A cell for a load's row: its verdicts, with how many of its valid trials each is of."""

    def cell(row: dict[str, Any]) -> str:
        own = stops[(stops["axis"] == row["axis"]) & (stops["asked"] == row["asked"])]
        told = [" + ".join(some["name"]) for _, some in own.groupby("trial", sort=False)]
        if not told:
            return "–"
        counted = {text: told.count(text) for text in dict.fromkeys(told)}
        if len(counted) == 1:
            return told[0]
        return "; ".join(f"{text} ({n} of {len(told)})" for text, n in counted.items())

    return cell
