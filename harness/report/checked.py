"""The lab check stored with a run (`preflight.json`), for the page and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report import words
from harness.report.grids import Grid, Row

__all__ = ["NO_CHECK", "Session", "check_sentence", "sessions"]

NO_CHECK = "No lab check is stored with this run: whether the lab was fit for it is not known."
_SEVERITIES = (("invalid", "invalidating"), ("warning", "warning"), ("info", "note"))


@dataclass(frozen=True, slots=True)
class Session:
    """The check before one session of work on the run.

    `heading` says when it was made and for how long the quiet link was watched; `failure` why there
    is nothing else. `findings` is None where nothing was found; `rest` has what was not observable
    and what was found good.
    """

    heading: str
    failure: str | None
    findings: Grid | None
    rest: Grid | None
    summary: str


def _text(entry: Mapping[str, Any], key: str) -> str:
    return str(entry.get(key) or "")


def _numbers(values: object) -> str:
    if not isinstance(values, Mapping) or not values:
        return "–"
    return ", ".join(
        f"{k} = {v:,.6g}" if isinstance(v, int | float) else f"{k} = {v}" for k, v in values.items()
    )


def _list(check: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    return [one for one in check.get(key) or () if isinstance(one, dict)]


def _merged(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same finding on several hosts once, with all places."""
    merged: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in found:
        key = (
            *(_text(one, k) for k in ("code", "message", "remedy")),
            _numbers(one.get("numbers")),
        )
        if key in merged:
            merged[key]["where"] += f"; {_text(one, 'where')}"
        else:
            merged[key] = {**one, "where": _text(one, "where")}
    return list(merged.values())


def _findings(check: Mapping[str, Any]) -> Grid | None:
    rank = {severity: i for i, (severity, _) in enumerate(_SEVERITIES)}
    found = _merged(_list(check, "findings"))
    found.sort(key=lambda one: rank.get(_text(one, "severity"), len(rank)))
    rows = []
    for one in found:
        severity = _text(one, "severity")
        cells = (
            severity,
            _text(one, "code"),
            _text(one, "where"),
            f"{_text(one, 'title')}: {_text(one, 'message')}",
            _numbers(one.get("numbers")),
            _text(one, "fakes"),
            _text(one, "remedy"),
        )
        rows.append(Row(cells, severity))
    heads = ("severity", "code", "where", "finding", "numbers", "would look like", "remedy")
    return Grid(heads, tuple(rows), frozenset()) if rows else None


def _rest(check: Mapping[str, Any]) -> Grid | None:
    rows = [
        Row((words.NOT_OBSERVABLE if key == "unseen" else "fine", *(_text(one, k) for k in _NOTE)))
        for key in ("unseen", "fine")
        for one in _list(check, key)
    ]
    return Grid(("outcome", *_NOTE), tuple(rows), frozenset()) if rows else None


_NOTE = ("code", "where", "message")


def sessions(checks: Sequence[Mapping[str, Any]]) -> list[Session]:
    """The entries of `harness.preflight.read_preflight`, one a session, oldest first."""
    made = []
    for check in checks:
        seconds = check.get("seconds")
        watched = f"; the quiet link was watched for {seconds:g} s" if seconds else ""
        failure = check.get("failure")
        unseen, fine = (len(_list(check, key)) for key in ("unseen", "fine"))
        made.append(
            Session(
                heading=f"Checked {check.get('at', 'at an unknown time')}{watched}.",
                failure=None if failure is None else str(failure),
                findings=_findings(check),
                rest=_rest(check),
                summary=f"{unseen} not observable, {fine} found good",
            )
        )
    return made


def check_sentence(checks: Sequence[Mapping[str, Any]]) -> str:
    """What the last check found, by severity, with the codes of what is more than a note."""
    if not checks:
        return NO_CHECK
    last = checks[-1]
    if last.get("failure") is not None:
        return f"The lab check before the run failed: {last['failure']}"
    parts = []
    for severity, noun in _SEVERITIES:
        codes = [_text(f, "code") for f in _list(last, "findings") if f.get("severity") == severity]
        if codes and severity == "info":
            parts.append(words.plural(len(codes), noun))
        elif codes:
            parts.append(f"{noun}: {', '.join(dict.fromkeys(codes))}")
    if unseen := len(_list(last, "unseen")):
        parts.append(f"{unseen} not observable")
    good = len(_list(last, "fine"))
    return f"Lab check before the run: {'; '.join([*parts, f'{good} found good'])}."
