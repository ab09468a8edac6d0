"""One self-contained page from the frames of a run: no script, no external reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pandas as pd

from harness.report import accounts as accounting
from harness.report import words
from harness.report.accounts import Accounts
from harness.report.checked import NO_CHECK, sessions
from harness.report.frames import Frames
from harness.report.generator_table import generator_grid
from harness.report.grids import (
    bias_grid,
    cleaning_grid,
    curve_grid,
    gate_list,
    ledger_grid,
    signature_grid,
    trial_detection_grid,
    trial_grid,
    trial_ledger_grid,
)
from harness.report.host_frame import HostLine
from harness.report.method import METHOD, commands, host_note, method
from harness.report.stages import (
    stage_curve_grid,
    stage_more_grid,
    stages_frame,
    stops_frame,
    stops_text,
)
from harness.results import RunInfo

__all__ = ["Picture", "render"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure for the page: `kind` says in which section, `svg` is the inline element."""

    kind: str
    name: str
    title: str
    svg: str


def flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested configuration as (dotted key, text) rows."""
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += flat(value, f"{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
            for i, item in enumerate(value):
                rows += flat({str(i): item}, f"{name}.")
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(str(v) for v in value)))
        elif value is not None:
            rows.append(
                (name, f"{value:,}" if isinstance(value, int) and value > 9999 else str(value))
            )
    return rows


def _parameters(info: RunInfo, trials: pd.DataFrame, curves: pd.DataFrame) -> list[tuple[str, str]]:
    """The key parameters of the test in the manner of RFC 9411, section 6; only what is known."""
    sensor, generator = (info.inventory.get(k) or {} for k in ("sensor", "generator"))
    sweep = trials[trials["phase"] == "sweep"]
    corpus = info.corpus
    rows: list[tuple[str, Any]] = [
        ("device under test", info.sensor),
        # Only where the harness sets them; of other sensors they would be the inventory's defaults.
        ("workers", sensor.get("workers") if sensor.get("driver") in _SIZED else None),
        ("capture ring size", sensor.get("ring_size") if sensor.get("driver") in _RINGS else None),
        ("test interface", sensor.get("interface")),
        ("generator", generator.get("driver")),
        ("zero-load reference", _reference(info)),
        ("signatures with alerts due", len(info.reference.get("signatures") or {}) or None),
        ("events due per iteration", len(info.reference.get("due") or ()) or None),
        ("rules, SHA-256", info.reference.get("rules_digest")),
        ("corpus, SHA-256", corpus.get("digest")),
        ("packets, flows per iteration", _pair(corpus)),
        ("mean frame, bytes without FCS", _mean_frame(corpus)),
        ("replay methods", ", ".join(dict.fromkeys(trials["method"]))),
        ("sensor's initial state", ", ".join(dict.fromkeys(trials["state"]))),
        ("detection scored by", ", ".join(dict.fromkeys(trials["scored_by"].dropna()))),
        ("loads as the generator got them", "; ".join(dict.fromkeys(filter(None, trials["how"])))),
    ]
    for axis in sorted(sweep["axis"].unique()):
        asked = sorted(sweep.loc[sweep["axis"] == axis, "asked"].unique())
        loads = ", ".join(words.amount(float(load)) for load in asked)
        rows.append((f"loads asked, {words.axis_unit(str(axis))}", loads))
    if len(curves):
        rows.append(("trials per load", _range(curves["trials"], 0)))
    if sweep["seconds"].notna().any():
        rows.append(("sending time of a trial, s", _range(sweep["seconds"].dropna(), 2)))
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


_SIZED = ("suricata", "zeek", "snort")
_RINGS = ("suricata",)


def _reference(info: RunInfo) -> str | None:
    """How the run knows what is due; None in runs that do not say."""
    how = info.extra.get("reference") or {}
    spec = info.profile.get("reference") or {}
    if how.get("source") == "live":
        return (
            f"the sensor's own alerts on all of {how.get('iterations')} iterations at "
            f"{spec.get('pps', 0):,.0f} packets/s"
        )
    return {"offline": "the corpus read offline", "none": "none: loss only"}.get(
        str(how.get("source"))
    )


def _pair(corpus: Mapping[str, Any]) -> str | None:
    if corpus.get("packets") is None or corpus.get("flows") is None:
        return None
    return f"{corpus['packets']:,} packets, {corpus['flows']:,} flows"


def _mean_frame(corpus: Mapping[str, Any]) -> str | None:
    return f"{corpus['bytes'] / corpus['packets']:.1f}" if corpus.get("packets") else None


def _range(values: pd.Series[Any], digits: int) -> str:
    low, high = (f"{float(v):,.{digits}f}" for v in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _settings(clean: dict[str, Any]) -> dict[str, Any]:
    """A cleaning report without what the table of its totals shows."""
    return {k: v for k, v in clean.items() if k not in ("in", "kept", "dropped", "rules")}


def render(
    info: RunInfo,
    frames: Frames,
    accounts: Accounts,
    checks: Sequence[Mapping[str, Any]],
    host: Sequence[HostLine],
    sentences: list[str],
    pictures: list[Picture],
) -> str:
    """The page as text. The same arguments give the same text.

    `checks` are the entries of `preflight.json`, `host` the trials whose samples are drawn.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    jinja = Environment(
        loader=PackageLoader("harness", "report"), autoescape=True, undefined=StrictUndefined
    )
    css = resources.files("harness.report").joinpath("page.css").read_text()
    profile = str(info.profile.get("name", "unnamed profile"))
    trials = frames.trials
    corpus = {k: v for k, v in info.corpus.items() if k not in ("clean", "key")}
    environment = [(f"Host {name}", flat(facts)) for name, facts in sorted(info.hosts.items())]
    environment += [
        ("Tools", flat(info.tools)),
        ("Inventory", flat(info.inventory)),
        ("Profile", flat(info.profile)),
    ]
    stages, stops = stages_frame(accounts), stops_frame(accounts)
    values = {
        "title": f"{profile}: detection against load, {info.sensor}",
        "subtitle": f"Run of {info.started}, {words.plural(len(trials), 'trial')}",
        "css": Markup(css),
        "absent": words.NOT_OBSERVABLE,
        "verdict": sentences,
        "has_invalid": bool((~trials["valid"].astype(bool)).any()),
        "parameters": _parameters(info, trials, frames.curves),
        "curve": curve_grid(frames.curves, stops_text(stops) if len(stops) else None),
        "curve_note": dict(METHOD)["Repeats"],
        "ledger": stage_curve_grid(stages) if len(stages) else ledger_grid(frames.curves),
        "ledger_more": stage_more_grid(stages),
        "lab_checks": sessions(checks),
        "no_check": NO_CHECK,
        "host_note": host_note(accounts, host),
        "stages": accounting.stage_grid(accounts),
        "stage_events": accounting.event_grid(accounts),
        "bottlenecks": accounting.bottleneck_grid(accounts),
        "budgets": accounting.budget_grid(accounts),
        "flow_ledgers": accounting.flow_grid(accounts),
        "alert_ledgers": accounting.alert_grid(accounts),
        "host_peaks": accounting.host_grid(accounts),
        "signatures": signature_grid(frames.signatures),
        "bias": bias_grid(frames.bias),
        "gates": gate_list(frames.gates),
        "n_trials": len(trials),
        "trials": trial_grid(trials),
        "trial_ledgers": trial_ledger_grid(trials),
        "generator": generator_grid(accounts.trials),
        "trial_scores": trial_detection_grid(trials),
        "failures": trials[trials["status"] == "failed"][["trial", "failure"]]
        .rename(columns={"failure": "message"})
        .to_dict("records"),
        "corpus": flat(corpus),
        "cleaning": flat(_settings(info.corpus.get("clean") or {})),
        "cleaned": cleaning_grid(info.corpus.get("clean") or {}),
        "method": method(trials["scored_by"].dropna()),
        "environment": [(name, rows) for name, rows in environment if rows],
        "seeds": flat(info.seeds),
        "commands": commands(info),
        "notes": info.notes,
        "figures": [
            {"kind": p.kind, "name": p.name, "title": p.title, "svg": Markup(p.svg)}
            for p in pictures
        ],
    }
    names = {"verdict": "Verdict", "parameters": "Key parameters", "check": "Lab check"}
    names["curves"] = "Curves"
    if (frames.curves["valid"] > 0).any():
        names["ledger"] = "Ledger"
    if any(trial.bottleneck is not None for trial in accounts.trials):
        names |= {"bottleneck": "Bottleneck", "host": "Host"}
    if len(frames.signatures):
        names["signatures"] = "Signatures"
    if len(frames.bias):
        names["bias"] = "Replay methods"
    names |= {"gates": "Gates", "trials": "Trials", "corpus": "Corpus", "method": "Method"}
    names |= {"environment": "Environment", "reproduce": "Reproduce"}
    values["sections"] = list(names.items())
    return jinja.get_template("page.html.j2").render(values) + "\n"
