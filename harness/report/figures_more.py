"""Figures by signature, by worker, over time, and of the replay methods compared."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.report import words
from harness.report.style import COLOURS, INK, PALE, Drawn, figure, load_axis, percent_axis
from harness.report.titles import bias_sentence, signature_sentence, workers_sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bias", "by_signature", "timeline", "workers"]

_METHOD_LABELS = {
    "raw-loop": "uncleaned capture,\nlooped",
    "loop": "clean corpus,\nlooped",
    "unique-ip": "clean corpus,\n--unique-ip",
    "fresh": "clean corpus,\nfresh addresses",
}
_RATES = (
    ("sent", COLOURS["sky"], "-"),
    ("received", COLOURS["blue"], "--"),
    ("dropped", COLOURS["vermillion"], "-"),
)


def by_signature(signatures: pd.DataFrame, name: str) -> Drawn:
    """Heat map of the detection rate, a row a signature, a column a load asked."""
    table = signatures.pivot_table(
        index=["signature_id", "signature"], columns="asked", values="detection_rate"
    )
    made, (axes,) = figure(1.5 + 0.42 * max(len(table), 2))
    axes.pcolormesh(
        table.to_numpy(dtype="float64"),
        cmap="cividis",
        vmin=0,
        vmax=1,
        edgecolors="white",
        linewidth=1.5,
    )
    for y, (_, row) in enumerate(table.iterrows()):
        for x, share in enumerate(row):
            text = (
                "–"
                if words.missing(share)
                else words.percent(float(share)).removesuffix(f"{words.NBSP}%")
            )
            dark = words.missing(share) or share > 0.55
            colour = INK if words.missing(share) else "#000000" if dark else "#ffffff"
            axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=9, color=colour)
    names = [textwrap.shorten(f"{sid} {text}", 44, placeholder=" …") for sid, text in table.index]
    axes.set_yticks([y + 0.5 for y in range(len(table))], names)
    axes.set_xticks(
        [x + 0.5 for x in range(len(table.columns))],
        [words.amount(float(v)) for v in table.columns],
    )
    axes.invert_yaxis()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axis = str(signatures["axis"].iloc[0])
    axes.set_xlabel(f"Load asked ({words.axis_unit(axis)}); cells: detection rate in %")
    return Drawn(name, signature_sentence(signatures), made)


def workers(shares: pd.DataFrame, name: str) -> Drawn:
    """Share of the packets that each worker took, against the load really offered."""
    made, (axes,) = figure(3.6)
    names = sorted(shares["worker"].unique())
    palette = [COLOURS[c] for c in ("blue", "vermillion", "green", "orange", "purple", "sky")]
    if len(names) <= len(palette):
        for colour, worker in zip(palette, names, strict=False):
            own = shares[shares["worker"] == worker].sort_values("offered")
            pooled = own.groupby("asked", sort=True)[["offered", "share"]].median()
            axes.plot(own["offered"], own["share"], ".", color=colour, alpha=0.45)
            axes.plot(pooled["offered"], pooled["share"], "-", color=colour, label=worker)
    else:
        pooled = shares.groupby("trial", sort=False).agg(
            offered=("offered", "first"), low=("share", "min"), high=("share", "max")
        )
        axes.vlines(pooled["offered"], pooled["low"], pooled["high"], color=PALE, linewidth=1)
        axes.plot(pooled["offered"], pooled["high"], "^", color=COLOURS["blue"], label="busiest")
        axes.plot(pooled["offered"], pooled["low"], "v", color=COLOURS["orange"], label="idlest")
    axes.axhline(1 / len(names), color=PALE, linestyle=":", label="even share")
    load_axis(axes, shares["offered"].min(), shares["offered"].max())
    percent_axis(axes, float(shares["share"].max()) * 1.1)
    axes.set_ylabel("Share of decoded packets")
    axis = str(shares["axis"].iloc[0])
    axes.set_xlabel(f"Load really offered ({words.axis_unit(axis)})")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Drawn(name, workers_sentence(shares), made)


def _laid_out(samples: pd.DataFrame, order: list[str]) -> tuple[pd.DataFrame, list[Any]]:
    """Trials one behind the other: samples with a column `x`, and (trial, from, to) spans."""
    parts, spans, x = [], [], 0.0
    for trial in order:
        own = samples[samples["trial"] == trial].sort_values("t_s")
        if len(own) < 2:
            continue
        begin = float(own["t_s"].iloc[0])
        parts.append(own.assign(x=x + own["t_s"] - begin))
        end = x + float(own["t_s"].iloc[-1]) - begin
        spans.append((trial, x, end))
        x = end + max(0.5, 0.06 * (end - x))
    return (pd.concat(parts) if parts else samples.assign(x=0.0).iloc[:0]), spans


def timeline(samples: pd.DataFrame, trials: pd.DataFrame, name: str) -> Drawn | None:
    """Rates during the trials, one behind the other; None when no trial has two samples.

    `trials` gives order and loads; gaps between trials are not to scale.
    """
    from matplotlib.ticker import FuncFormatter

    laid, spans = _laid_out(samples, list(trials["trial"]))
    if not spans:
        return None
    made, (upper, lower) = figure(5.0, 2, sharex=True, height_ratios=(3, 2))
    loads = dict(zip(trials["trial"], trials["asked"], strict=True))
    for i, (trial, begin, end) in enumerate(spans):
        own = laid[laid["trial"] == trial]
        for what, colour, line in _RATES:
            rate = own[f"{what}_per_s"]
            label = what if i == 0 else None
            upper.plot(own["x"], rate, line, color=colour, linewidth=1.5, label=label)
        lower.plot(own["x"], own["alerts_per_s"], color=COLOURS["green"], linewidth=1.5)
        if i % 2:
            for axes in (upper, lower):
                axes.axvspan(begin, end, color=PALE, alpha=0.1, linewidth=0)
    middles = [(begin + end) / 2 for _, begin, end in spans]
    every = max(1, -(-len(spans) // 16))
    shown = [
        words.amount(float(loads[t])) if i % every == 0 else "" for i, (t, *_) in enumerate(spans)
    ]
    lower.set_xticks(middles, shown, rotation=45 if len(spans) > 9 else 0)
    for axes, title in ((upper, "Packets/s"), (lower, "Alerts/s")):
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.amount(value)))
        axes.grid(axis="y", color=PALE, alpha=0.25, linewidth=0.8)
    axis = str(trials["axis"].iloc[0])
    lower.set_xlabel(f"Trials in order of execution, by load asked ({words.axis_unit(axis)})")
    _blind(upper, lower, laid)
    upper.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Drawn(name, _timeline_sentence(laid), made)


def _blind(upper: Axes, lower: Axes, laid: pd.DataFrame) -> None:
    """Say what the sensor does not tell while it runs."""
    names = [what for what, *_ in _RATES if laid[what].isna().all()]
    for line in upper.get_lines():
        if line.get_label() in names:
            line.set_label(f"{line.get_label()} ({words.NOT_OBSERVABLE})")
    if laid["alerts"].isna().all():
        lower.text(0.5, 0.5, words.NOT_OBSERVABLE, transform=lower.transAxes, color=PALE)


def _timeline_sentence(laid: pd.DataFrame) -> str:
    dropped, samples = laid["dropped_per_s"].dropna(), len(laid)
    if dropped.empty:
        return f"Rates in {samples:,} samples; drops are not observable during a trial"
    hit = int((dropped > 0).sum())
    if not hit:
        return f"No drop was seen between any two of {samples:,} samples"
    return (
        f"Drops were counted in {hit:,} of {len(dropped):,} intervals between samples, at up to "
        f"{words.amount(float(dropped.max()))} packets/s"
    )


def bias(frame: pd.DataFrame, name: str) -> Drawn:
    """Packets lost, flows seen and alerts raised, for each replay method; see `bias_frame`."""
    made, panels = figure(1.1 + 0.62 * len(frame), 1, ncols=3, sharey=True)
    rows = frame.to_dict("records")
    specs = (
        ("Packets lost", "lost", "packets", COLOURS["vermillion"]),
        ("Flows the sensor saw", "flows_seen", "flows_offered", COLOURS["blue"]),
        ("Due alerts raised", "detected", "due", COLOURS["green"]),
    )
    for axes, (title, value, whole, colour) in zip(panels, specs, strict=True):
        for y, row in enumerate(rows):
            _against(axes, y, row[value], row[whole], colour, bool(row["status"] == "valid"))
        axes.set_title(title, fontweight="bold")
        axes.set_xlim(0, 1.02)
        axes.set_xticks([])
        axes.tick_params(length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
    labels = []
    for row in rows:
        label = _METHOD_LABELS.get(row["method"], row["method"])
        labels.append(label if row["status"] == "valid" else f"{label}\n({row['status']})")
    panels[0].set_yticks(range(len(rows)), labels, fontsize=10)
    panels[0].set_ylim(len(rows) - 0.7, -0.62)
    return Drawn(name, bias_sentence(frame), made)


def _against(axes: Axes, y: int, value: Any, whole: Any, colour: str, sound: bool) -> None:
    """A bar inside the frame of what was offered or due, with both numbers above it."""
    axes.barh(y, 1.0, height=0.34, color="none", edgecolor=PALE, linewidth=0.9)
    text = f"{words.count(value)} of {words.count(whole, 'an unknown number')}"
    if words.missing(value):
        text = words.NOT_OBSERVABLE
    elif not words.missing(whole) and whole:
        share = min(1.0, float(value) / float(whole))
        axes.barh(y, share, height=0.34, color=colour, alpha=1.0 if sound else 0.4)
    axes.text(0.0, y - 0.24, text, ha="left", va="bottom", fontsize=10)
