"""Pandas frames of a run. Every number in a report comes from one of these.

All are recomputed from the run directory; a value that was not measured, or that the sensor
cannot tell, is missing (NaN or NA), never zero. Rates are shares of 1; times are seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from harness.results import RunDir, Trial

__all__ = [
    "BIAS_METHODS",
    "CURVE_COLUMNS",
    "LEDGER_PARTS",
    "TRIAL_COLUMNS",
    "bias_frame",
    "curves_frame",
    "gates_frame",
    "signatures_frame",
    "status_of",
    "trials_frame",
    "workers_frame",
]

LEDGER_PARTS = ("analysed", "software", "kernel", "nic", "before_nic", "unexplained")
"""Parts of the ledger, from what went through to what is unaccounted for."""

BIAS_METHODS = ("raw-loop", "loop", "unique-ip", "fresh")
"""Replay methods, from the most to the least biased."""

TRIAL_COLUMNS: dict[str, str] = {
    "trial": "name, unique in the run",
    "phase": "calibration, sweep or bias",
    "method": "replay method: fresh, loop, unique-ip, raw-loop",
    "repeat": "number of the repetition at this load",
    "status": "valid, generator-limited (that gate alone makes it invalid), invalid or failed",
    "valid": "measured whole, and no gate of severity invalid fired",
    "axis": "pps, flows, bps or concurrent",
    "asked": "load asked of the generator, in the unit of its axis",
    "offered": "load really offered on that axis while iterations were being started",
    "offered_pps": "packets/s really offered, likewise",
    "offered_flows_per_s": "new flows/s really offered, likewise",
    "offered_bps": "bits/s of frames really offered, likewise; no FCS, preamble, gap",
    "seconds": "time the sending really took",
    "offered_packets": "packets sent, as the generator says",
    "offered_flows": "flows sent, as the generator says",
    "analysed": "packets that went through the sensor",
    "software": "packets received but not decoded, or decoded as invalid",
    "kernel": "packets dropped in the capture ring",
    "nic": "packets dropped at the sensor's interface",
    "before_nic": "packets sent that did not reach the sensor's interface",
    "unexplained": "packets that no counter accounts for (negative: counted twice or foreign)",
    "tolerance": "largest |unexplained| that is accepted",
    "drop_rate": "1 - analysed / offered; capture loss where loss_of says so",
    "loss_of": "analysed; or capture: lost before or in the capture, where no more can be told",
    "due": "distinct (iteration, flow, signature) that the zero-load reference calls for",
    "detected": "those of them that the sensor raised",
    "detection_rate": "detected / due; only for method fresh, as what follows but raised",
    "detection_low": "lower bound of the 95 % interval",
    "detection_high": "upper bound of the 95 % interval",
    "raised": "all alerts, duplicates included",
    "repeated": "alerts for an event already counted",
    "unexpected": "distinct events that the reference does not have",
    "unmapped": "alerts whose addresses belong to no iteration sent",
    "scored_by": "flow, or template where the generator chose the addresses",
    "how": "what the load became in the generator's own terms",
    "flows_due": "flows sent, counted as this sensor counts them at zero load where that is known",
    "flows_seen": "flows the sensor created in the trial",
    "cpu_s": "CPU seconds of the sensor",
    "settled": "whether the sensor worked off everything before it was read",
    "state": "how the sensor's initial state was made known",
    "gates": "codes of the gates that fired, with severity",
    "failure": "why there is no result",
}

_SPREAD = ("offered_pps", "offered_flows_per_s", "offered_bps", "drop_rate")

CURVE_COLUMNS: dict[str, str] = {
    "axis": "pps, flows, bps or concurrent",
    "asked": "load asked of the generator, in the unit of its axis",
    "trials": "trials at this load",
    "valid": "valid trials among them; everything that follows is from these alone",
    "offered": "median load really offered on that axis",
    **{
        f"{name}_{part}": f"{part} of {TRIAL_COLUMNS[name]}, over the valid trials"
        for name in _SPREAD
        for part in ("median", "min", "max")
    },
    "due": "events due, summed",
    "detected": "events detected, summed",
    "detection_rate": "detected / due of the sums",
    "detection_low": "lowest lower bound of the trials' 95 % intervals",
    "detection_high": "highest upper bound of the trials' 95 % intervals",
    "detection_rate_min": "lowest detection rate of a trial",
    "detection_rate_max": "highest detection rate of a trial",
    "offered_packets": "packets sent, summed",
    **{part: f"ledger: {TRIAL_COLUMNS[part]}, summed" for part in LEDGER_PARTS},
}

_WHOLE = {
    *("offered_packets", "offered_flows", "flows_due", "tolerance", "due", "detected", "raised"),
    *("repeated", "unexpected", "unmapped", "flows_seen", *LEDGER_PARTS),
}
_REAL = {
    *("asked", "offered", "offered_pps", "offered_flows_per_s", "offered_bps", "seconds"),
    *("drop_rate", "detection_rate", "detection_low", "detection_high", "cpu_s"),
}
_LIMITED = "generator-limited"
_RANK = {"invalid": 0, "warning": 1, "info": 2}


def status_of(trial: Trial) -> str:
    """One word for a trial: valid, generator-limited, invalid or failed.

    "generator-limited" when that gate fired and no other makes the trial invalid.
    """
    if trial.failure is not None:
        return "failed"
    if any(gate.severity == "invalid" and gate.code != _LIMITED for gate in trial.gates):
        return "invalid"
    return _LIMITED if any(gate.code == _LIMITED for gate in trial.gates) else "valid"


def _flows_seen(trial: Trial) -> int | None:
    """Flows created in the trial; None when the sensor cannot tell.

    A sensor that was started for the trial began at zero, whether it said so or not. One that ran
    before did not: without its first count there is no difference.
    """
    if trial.after is None or trial.after.flows is None:
        return None
    begin = trial.before.flows if trial.before is not None else None
    if begin is None and trial.state == "observed":
        return None
    return trial.after.flows - (begin or 0)


def _flows_due(trial: Trial, counted: int | None) -> int:
    """Flows that were meant: tools differ in what is a flow (an ICMP error, say)."""
    if counted is None or trial.method == "raw-loop":
        return trial.schedule.flows
    return counted * trial.schedule.iterations


def _row(trial: Trial, counted: int | None) -> dict[str, Any]:
    axis = trial.load.axis
    found, ledger, sent = trial.detection, trial.ledger, trial.sent
    # Copies of a naive replay cannot be told apart: only totals mean anything there.
    scored = found if found and found.due and trial.method == "fresh" else None
    return {
        "trial": trial.name,
        "phase": trial.phase,
        "method": trial.method,
        "repeat": trial.repeat,
        "status": status_of(trial),
        "valid": trial.valid,
        "axis": axis,
        "asked": trial.load.value,
        "offered": trial.offered,
        "offered_pps": trial.offered_pps,
        "offered_flows_per_s": trial.offered_flows_per_s,
        "offered_bps": trial.offered_bps,
        "seconds": sent.seconds if sent else None,
        "offered_packets": sent.packets if sent else None,
        "offered_flows": sent.flows if sent else None,
        **{part: getattr(ledger, part) if ledger else None for part in LEDGER_PARTS},
        "tolerance": ledger.tolerance if ledger else None,
        "drop_rate": trial.drop_rate,
        "loss_of": trial.loss_of,
        "due": found.due if found else None,
        "detected": found.detected if found else None,
        "detection_rate": scored.rate if scored else None,
        "detection_low": scored.low if scored else None,
        "detection_high": scored.high if scored else None,
        "raised": found.raised if found else None,
        "repeated": scored.repeated if scored else None,
        "unexpected": scored.unexpected if scored else None,
        "unmapped": scored.unmapped if scored else None,
        "scored_by": scored.scored_by if scored else None,
        "how": trial.schedule.how,
        "flows_due": _flows_due(trial, counted) if sent else None,
        "flows_seen": _flows_seen(trial),
        "cpu_s": trial.sensor_cpu_s,
        "settled": trial.settled,
        "state": trial.state,
        "gates": " ".join(f"{gate.code}({gate.severity})" for gate in trial.gates),
        "failure": trial.failure.message if trial.failure else None,
    }


def _frame(rows: Iterable[dict[str, Any]], columns: Iterable[str]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=list(columns))
    for name in frame.columns:
        if name in _WHOLE:
            frame[name] = frame[name].astype("Int64")
        elif name in _REAL:
            frame[name] = frame[name].astype("float64")
    return frame


def trials_frame(run: RunDir) -> pd.DataFrame:
    """Every trial of the run, one a row, in order of execution; columns: `TRIAL_COLUMNS`."""
    counted = run.info().reference.get("flows")
    return _frame((_row(trial, counted) for trial in run.trials()), TRIAL_COLUMNS)


def _whole_sum(values: pd.Series[Any]) -> Any:
    """Sum of counts, missing when any of them is: half a sum would be a wrong number."""
    return pd.NA if values.empty or values.isna().any() else int(values.sum())


def _curve_row(axis: str, asked: float, trials: pd.DataFrame) -> dict[str, Any]:
    good = trials[trials["valid"].astype(bool)]
    scored = good[good["detection_rate"].notna()]
    due, detected = int(scored["due"].sum()), int(scored["detected"].sum())
    row: dict[str, Any] = {
        "axis": axis,
        "asked": asked,
        "trials": len(trials),
        "valid": len(good),
        "offered": good["offered"].median(),
    }
    for name in _SPREAD:
        row |= {f"{name}_{how}": getattr(good[name], how)() for how in ("median", "min", "max")}
    row |= {
        "due": due if len(scored) else pd.NA,
        "detected": detected if len(scored) else pd.NA,
        "detection_rate": detected / due if due else None,
        "detection_low": scored["detection_low"].min(),
        "detection_high": scored["detection_high"].max(),
        "detection_rate_min": scored["detection_rate"].min(),
        "detection_rate_max": scored["detection_rate"].max(),
    }
    return row | {name: _whole_sum(good[name]) for name in ("offered_packets", *LEDGER_PARTS)}


def curves_frame(run: RunDir) -> pd.DataFrame:
    """The curve: one row a load of the sweep, by axis and load; columns: `CURVE_COLUMNS`.

    Repeats are pooled: counts are summed and the detection rate is the ratio of the sums. Its
    interval is the envelope of the trials' own 95 % intervals (lowest low, highest high): wider
    than an interval of the pooled counts would be, so it also covers what differs between
    repeats. Invalid and failed trials are counted in `trials` and enter nothing else.
    A run whose `drop_rate` is capture loss has one column more, `loss_of`, which says "capture".
    """
    trials = trials_frame(run)
    sweep = trials[trials["phase"] == "sweep"]
    rows = [
        _curve_row(str(axis), float(str(asked)), group)
        for (axis, asked), group in sweep.groupby(["axis", "asked"], sort=True)
    ]
    frame = _frame(rows, CURVE_COLUMNS)
    return frame.assign(loss_of="capture") if (sweep["loss_of"] == "capture").any() else frame


def signatures_frame(run: RunDir) -> pd.DataFrame:
    """Detection by signature and load, pooled over the valid trials of the sweep.

    Columns: axis, asked, signature_id, signature, due, detected, detection_rate.
    """
    keys = ["axis", "asked", "signature_id", "signature"]
    rows = [
        {
            "axis": trial.load.axis,
            "asked": trial.load.value,
            "signature_id": score.signature_id,
            "signature": score.signature,
            "due": score.due,
            "detected": score.detected,
        }
        for trial in run.trials()
        if trial.phase == "sweep" and trial.valid and trial.detection is not None
        for score in trial.detection.by_signature
    ]
    frame = pd.DataFrame(rows, columns=[*keys, "due", "detected"])
    pooled = frame.groupby(keys, sort=True, as_index=False).sum()
    pooled["detection_rate"] = pooled["detected"] / pooled["due"].where(pooled["due"] > 0)
    return pooled


def workers_frame(run: RunDir) -> pd.DataFrame:
    """Packets decoded per worker thread in every valid trial of the sweep.

    Columns: trial, axis, asked, offered, worker, packets, share (of the trial's total).
    Empty when the sensor does not tell, or has one worker.
    """
    rows: list[dict[str, Any]] = []
    for trial in run.trials():
        if trial.phase != "sweep" or not trial.valid or trial.after is None:
            continue
        earlier = trial.before.workers if trial.before else {}
        packets = {name: n - earlier.get(name, 0) for name, n in trial.after.workers.items()}
        total = sum(packets.values())
        if len(packets) < 2 or total <= 0:
            continue
        offered = trial.offered
        rows += [
            {
                "trial": trial.name,
                "axis": trial.load.axis,
                "asked": trial.load.value,
                "offered": offered,
                "worker": name,
                "packets": n,
                "share": n / total,
            }
            for name, n in sorted(packets.items())
        ]
    columns = ["trial", "axis", "asked", "offered", "worker", "packets", "share"]
    return pd.DataFrame(rows, columns=columns)


def bias_frame(run: RunDir) -> pd.DataFrame:
    """One row a trial of phase "bias", in the order of `BIAS_METHODS`.

    Columns: method, trial, status, packets (sent), lost (packets, missing when not observable),
    drop_rate, flows_offered (as `flows_due` of `TRIAL_COLUMNS`), flows_seen, due, raised, detected.
    """
    rows: list[dict[str, Any]] = []
    counted = run.info().reference.get("flows")
    for trial in run.trials():
        if trial.phase != "bias":
            continue
        ledger, found = trial.ledger, trial.detection
        lost = ledger.offered - ledger.analysed if ledger and ledger.analysed is not None else None
        rows.append(
            {
                "method": trial.method,
                "trial": trial.name,
                "status": status_of(trial),
                "packets": trial.sent.packets if trial.sent else None,
                "lost": lost,
                "drop_rate": trial.drop_rate,
                "flows_offered": _flows_due(trial, counted),
                "flows_seen": _flows_seen(trial),
                "due": found.due if found else None,
                "raised": found.raised if found else None,
                "detected": found.detected if found else None,
            }
        )
    rank = {method: i for i, method in enumerate(BIAS_METHODS)}
    rows.sort(key=lambda row: rank.get(row["method"], len(rank)))
    columns = [
        *("method", "trial", "status", "packets", "lost", "drop_rate"),
        *("flows_offered", "flows_seen", "due", "raised", "detected"),
    ]
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("packets", "lost", *columns[6:]):
        frame[name] = frame[name].astype("Int64")
    frame["drop_rate"] = frame["drop_rate"].astype("float64")
    return frame


def gates_frame(run: RunDir) -> pd.DataFrame:
    """Every finding of a gate, most severe first, then by code, then in order of execution.

    Columns: code, severity, trial, phase, title, message, advice, numbers (dict).
    """
    rows = [
        {
            "code": gate.code,
            "severity": gate.severity,
            "trial": trial.name,
            "phase": trial.phase,
            "title": gate.title,
            "message": gate.message,
            "advice": gate.advice,
            "numbers": gate.numbers,
        }
        for trial in run.trials()
        for gate in trial.gates
    ]
    rows.sort(key=lambda row: (_RANK.get(str(row["severity"]), 3), str(row["code"])))
    columns = ["code", "severity", "trial", "phase", "title", "message", "advice", "numbers"]
    return pd.DataFrame(rows, columns=columns)
