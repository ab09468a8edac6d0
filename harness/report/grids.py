"""Frames as tables of text, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.report import words
from harness.report.titles import PART_NAMES

__all__ = [
    "Grid",
    "Row",
    "bias_grid",
    "cleaning_grid",
    "curve_grid",
    "gate_list",
    "ledger_grid",
    "signature_grid",
    "terminal_grid",
    "trial_detection_grid",
    "trial_grid",
    "trial_ledger_grid",
]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of text cells; `mark` is its CSS class (a trial's status)."""

    cells: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of text; `numeric` holds the indices of right-aligned columns."""

    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    numeric: frozenset[int]


Column = tuple[str, bool, Callable[[dict[str, Any]], str]]  # head, numeric, cell


def _grid(frame: pd.DataFrame, columns: Sequence[Column], mark: str | None = None) -> Grid:
    records = [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]
    rows = (
        Row(tuple(cell(row) for _, _, cell in columns), str(row[mark]) if mark else "")
        for row in records
    )
    numeric = frozenset(i for i, column in enumerate(columns) if column[1])
    return Grid(tuple(column[0] for column in columns), tuple(rows), numeric)


def _count(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: words.count(row[name])


def _share(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: words.percent(row[name])


def _text(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: str(row[name])


def _amount(name: str, absent: str = "–") -> Callable[[dict[str, Any]], str]:
    return lambda row: absent if words.missing(row[name]) else words.amount(float(row[name]))


def _asked(row: dict[str, Any]) -> str:
    return words.load(float(row["asked"]), str(row["axis"]))


def _interval(row: dict[str, Any]) -> str:
    if words.missing(row["detection_low"]):
        return words.NOT_OBSERVABLE
    low, high = (words.percent(row[f"detection_{end}"]) for end in ("low", "high"))
    return f"{low.removesuffix(f'{words.NBSP}%')} – {high}"


def _drop_spread(row: dict[str, Any]) -> str:
    low, high = (words.percent(row[f"drop_rate_{part}"]) for part in ("min", "max"))
    return low if low == high else f"{low.removesuffix(f'{words.NBSP}%')} – {high}"


def curve_grid(
    curves: pd.DataFrame, stopped: Callable[[dict[str, Any]], str] | None = None
) -> Grid:
    """The curve, with offered load in every dimension, and what stopped the sensor where told."""
    stops: tuple[Column, ...] = () if stopped is None else (("bottleneck", False, stopped),)
    return _grid(
        curves,
        (
            ("asked", True, _asked),
            ("packets/s", True, _amount("offered_pps_median")),
            ("flows/s", True, _amount("offered_flows_per_s_median")),
            (
                "bits",
                True,
                lambda row: words.bits(row["offered_bps_median"]).replace(
                    words.NOT_OBSERVABLE, "–"
                ),
            ),
            (words.loss_name(curves).lower(), True, _share("drop_rate_median")),
            ("min – max", True, _drop_spread),
            ("due", True, _count("due")),
            ("detected", True, _count("detected")),
            ("detection", True, _share("detection_rate")),
            ("95 % interval", True, _interval),
            ("valid / trials", True, lambda row: f"{row['valid']} / {row['trials']}"),
            *stops,
        ),
    )


def terminal_grid(curves: pd.DataFrame) -> Grid:
    """The curve in 80 columns."""
    return _grid(
        curves,
        (
            ("asked", True, _amount("asked")),
            ("offered", True, _amount("offered")),
            ("unit", False, lambda row: words.axis_unit(str(row["axis"]))),
            (words.loss_name(curves).lower(), True, _share("drop_rate_median")),
            ("detection", True, _share("detection_rate")),
            ("95 % interval", True, _interval),
            ("valid", True, lambda row: f"{row['valid']}/{row['trials']}"),
        ),
    )


def ledger_grid(curves: pd.DataFrame) -> Grid:
    """Packets in each part of the ledger, by load."""
    parts: list[Column] = [(PART_NAMES[p], True, _count(p)) for p in PART_NAMES]
    known = curves[curves["valid"] > 0]
    return _grid(
        known, [("asked", True, _asked), ("offered", True, _count("offered_packets")), *parts]
    )


def signature_grid(signatures: pd.DataFrame) -> Grid:
    """Detection by signature and load."""
    return _grid(
        signatures,
        (
            ("asked", True, _asked),
            ("sid", True, _text("signature_id")),
            ("signature", False, _text("signature")),
            ("due", True, _count("due")),
            ("detected", True, _count("detected")),
            ("detection", True, _share("detection_rate")),
        ),
    )


def bias_grid(bias: pd.DataFrame) -> Grid:
    """The replay methods compared."""
    return _grid(
        bias,
        (
            ("method", False, _text("method")),
            ("packets sent", True, _count("packets")),
            ("lost", True, _count("lost")),
            ("drop rate", True, _share("drop_rate")),
            ("flows offered", True, _count("flows_offered")),
            ("flows seen", True, _count("flows_seen")),
            ("alerts due", True, _count("due")),
            ("alerts raised", True, _count("raised")),
            ("of those due", True, _count("detected")),
            ("status", False, _text("status")),
        ),
        "status",
    )


_SCORES = frozenset(
    ("detection_rate", "detection_low", "repeated", "unexpected", "unmapped")
)  # mean something for fresh addresses alone


def _measured(cell: Callable[[dict[str, Any]], str], name: str = "") -> Callable[..., str]:
    """A cell that reads "–" where the trial had nothing to observe: it failed, or is naive."""

    def show(row: dict[str, Any]) -> str:
        naive = row["method"] != "fresh" and name in _SCORES
        return "–" if naive or row["status"] == "failed" else cell(row)

    return show


def _measured_count(name: str) -> Callable[..., str]:
    return _measured(_count(name), name)


def _measured_share(name: str) -> Callable[..., str]:
    return _measured(_share(name), name)


_WHO: tuple[Column, ...] = (("trial", False, _text("trial")), ("status", False, _text("status")))


def _gate_codes(row: dict[str, Any]) -> str:
    codes = str(row["gates"]).split()
    return ", ".join(code.split("(")[0] for code in codes if not code.endswith("(info)"))


def trial_grid(trials: pd.DataFrame) -> Grid:
    """Every trial: what was asked, what was sent, what was lost; "–" is what was not measured."""
    return _grid(
        trials,
        (
            *_WHO,
            ("phase", False, _text("phase")),
            ("method", False, _text("method")),
            ("asked", True, _asked),
            ("packets/s", True, _amount("offered_pps")),
            ("flows/s", True, _amount("offered_flows_per_s")),
            ("bits/s", True, _amount("offered_bps")),
            ("sent in s", True, lambda row: words.number(row["seconds"], 2, "–")),
            (words.loss_name(trials).lower(), True, _measured_share("drop_rate")),
            ("sensor CPU s", True, _measured(lambda row: words.number(row["cpu_s"], 2))),
            ("gates but notes", False, _gate_codes),
        ),
        "status",
    )


def trial_ledger_grid(trials: pd.DataFrame) -> Grid:
    """The ledger of every trial, in packets."""
    parts: list[Column] = [(PART_NAMES[p], True, _measured_count(p)) for p in PART_NAMES]
    offered: Column = ("offered", True, _measured_count("offered_packets"))
    tolerance: Column = ("tolerance", True, _measured_count("tolerance"))
    return _grid(trials, (*_WHO, offered, *parts, tolerance), "status")


def trial_detection_grid(trials: pd.DataFrame) -> Grid:
    """The score of every trial."""
    return _grid(
        trials,
        (
            *_WHO,
            ("due", True, _measured_count("due")),
            ("detected", True, _measured_count("detected")),
            ("detection", True, _measured_share("detection_rate")),
            ("95 % interval", True, _measured(_interval, "detection_low")),
            ("raised", True, _measured_count("raised")),
            ("repeated", True, _measured_count("repeated")),
            ("unexpected", True, _measured_count("unexpected")),
            ("unmapped", True, _measured_count("unmapped")),
            ("flows due", True, _measured_count("flows_due")),
            ("flows seen", True, _measured_count("flows_seen")),
        ),
        "status",
    )


def cleaning_grid(clean: dict[str, Any]) -> Grid | None:
    """What cleaning kept and dropped, rule by rule; None for a report without these totals."""
    try:
        rules = clean.get("rules", {})
        parts = [("in the capture", "", clean["in"]), ("kept", "", clean["kept"])]
        parts += [(f"dropped: {r}", rules.get(r, ""), n) for r, n in clean["dropped"].items()]
        rows = [
            Row((name, *(f"{total[k]:,}" for k in ("flows", "packets", "bytes")), why))
            for name, why, total in parts
        ]
    except (KeyError, TypeError, AttributeError):
        return None
    return Grid(("", "flows", "packets", "bytes", "rule"), tuple(rows), frozenset((1, 2, 3)))


def gate_list(gates: pd.DataFrame) -> list[dict[str, Any]]:
    """Findings by gate, in the order of the frame (most severe first); the same words once."""
    grouped: list[dict[str, Any]] = []
    for (severity, code, title), rows in gates.groupby(["severity", "code", "title"], sort=False):
        said: dict[tuple[str, str], list[str]] = {}
        for row in rows.to_dict("records"):
            numbers = ", ".join(f"{k} = {v:g}" for k, v in row["numbers"].items())
            said.setdefault((str(row["message"]), numbers), []).append(str(row["trial"]))
        findings = [
            {"trial": ", ".join(trials), "message": message, "numbers": numbers}
            for (message, numbers), trials in said.items()
        ]
        advice = list(dict.fromkeys(rows["advice"]))
        grouped.append(
            {"severity": severity, "code": code, "title": title}
            | {"findings": findings, "advice": advice}
        )
    return grouped
