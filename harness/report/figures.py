"""Figures over offered load: detection and loss, and where the packets went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.report import words
from harness.report.accounts import KIND_NAMES
from harness.report.style import COLOURS, INK, PALE, Drawn, figure, load_axis, percent_axis
from harness.report.tables import LEDGER_PARTS
from harness.report.titles import PART_NAMES, detection_sentence, loss_sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["detection_vs_load", "where_packets_went"]

_PART_COLOURS = {
    "analysed": COLOURS["sky"],
    "software": COLOURS["orange"],
    "kernel": COLOURS["vermillion"],
    "nic": COLOURS["purple"],
    "before_nic": COLOURS["yellow"],
    "unexplained": "none",
}

_STOP_COLOURS = {
    "none": COLOURS["green"],
    "unknown": PALE,
    "generator": INK,
    "wire": INK,
    "nic": COLOURS["purple"],
    "kernel": COLOURS["vermillion"],
    "one-worker": COLOURS["orange"],
    "all-workers": COLOURS["orange"],
    "memory": COLOURS["sky"],
    "disk": COLOURS["blue"],
}


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _points(axes: Axes, trials: pd.DataFrame, column: str, colour: str) -> None:
    """Every trial as a dot; hollow where it does not count."""
    known = trials[trials["offered"].notna() & trials[column].notna()]
    full = known[known["status"] == "valid"]
    axes.plot(full["offered"], full[column], ".", color=colour, alpha=0.45, markersize=5)
    for status, mark in (("generator-limited", "D"), ("invalid", "o")):
        some = known[known["status"] == status]
        if len(some):
            axes.plot(
                some["offered"],
                some[column],
                mark,
                markerfacecolor="none",
                markeredgecolor=INK,
                markersize=7,
                label=f"{status} ({_few(list(some['trial']))})",
                clip_on=False,
                zorder=5,
            )


def _asked(axes: Axes, trials: pd.DataFrame) -> None:
    """Faint ticks where the asked load was missed by more than 1 %."""
    known = trials[trials["offered"].notna()]
    off = known[(known["offered"] / known["asked"] - 1).abs() > 0.01]
    if len(off):
        axes.plot(
            off["asked"],
            [0.0] * len(off),
            "|",
            color=PALE,
            markersize=14,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            label="load asked, where it was not met",
        )


_LOSS_TITLES = {
    "Drop rate": "Drop rate (packets offered that were not analysed)",
    "Capture loss": "Capture loss (packets lost before or in the capture; what was analysed of the "
    "rest is not observable)",
}


def detection_vs_load(
    curves: pd.DataFrame, trials: pd.DataFrame, name: str, stops: pd.DataFrame | None = None
) -> Drawn:
    """Detection rate with its interval, and drop rate, against the load really offered.

    `curves` and `trials` (phase sweep) hold one axis; so does `stops` (`stages.stops_frame`), of
    which a strip below shows what the bottleneck was at each load.
    """
    kinds = [] if stops is None else list(dict.fromkeys(stops["kind"]))
    strip = 0.28 * len(kinds) + 0.35 if kinds else 0.0
    if strip:
        ratios = (2.7, 1.8, strip)
        made, (upper, lower, below) = figure(5.4 + strip, 3, sharex=True, height_ratios=ratios)
    else:
        made, (upper, lower) = figure(5.4, 2, sharex=True, height_ratios=(3, 2))
        below = lower
    line = curves[curves["offered"].notna()].sort_values("offered")
    found = line[line["detection_rate"].notna()]
    upper.fill_between(
        found["offered"],
        found["detection_low"],
        found["detection_high"],
        color=COLOURS["blue"],
        alpha=0.25,
        linewidth=0,
        label="95 % interval",
    )
    rate = found["detection_rate"]
    upper.errorbar(
        found["offered"],
        rate,
        yerr=[
            (rate - found["detection_low"]).clip(lower=0),
            (found["detection_high"] - rate).clip(lower=0),
        ],
        color=COLOURS["blue"],
        marker="o",
        markersize=5,
        linewidth=1.8,
        elinewidth=1,
        capsize=2.5,
        clip_on=False,
        label="detection rate, repeats pooled",
    )
    _points(upper, trials, "detection_rate", COLOURS["blue"])
    drops = line[line["drop_rate_median"].notna()]
    if len(drops):
        lower.plot(
            drops["offered"],
            drops["drop_rate_median"],
            color=COLOURS["vermillion"],
            marker="s",
            markersize=4.5,
            linewidth=1.8,
            clip_on=False,
            label=f"{words.loss_name(curves).lower()}, median of repeats",
        )
    _points(lower, trials, "drop_rate", COLOURS["vermillion"])
    _asked(lower, trials)
    _limits(upper, lower, trials)
    upper.set_title("Detection rate (distinct alerts due that were raised)")
    lower.set_title(_LOSS_TITLES[words.loss_name(curves)])
    axis = str(trials["axis"].iloc[0])
    if stops is not None and strip:
        _bottlenecks(below, stops)
    below.set_xlabel(f"Load really offered ({words.axis_unit(axis)})")
    _legends(upper, lower, drops.empty)
    return Drawn(name, detection_sentence(curves), made)


def _bottlenecks(axes: Axes, stops: pd.DataFrame) -> None:
    """A row a kind of bottleneck, a mark a trial; hollow where another one cost more."""
    order = [kind for kind in KIND_NAMES if kind in set(stops["kind"])]
    for y, kind in enumerate(order):
        own = stops[stops["kind"] == kind]
        colour = _STOP_COLOURS.get(kind, INK)
        for primary, some in own.groupby("primary"):
            axes.plot(
                some["offered"],
                [y] * len(some),
                "s",
                color=colour,
                markerfacecolor=colour if primary else "none",
                markersize=7,
                clip_on=False,
            )
    axes.set_yticks(
        range(len(order)), [KIND_NAMES[kind].removeprefix("software: ") for kind in order]
    )
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=PALE, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(
        "Bottleneck" + ("" if stops["primary"].all() else " (hollow: not the costliest)")
    )


def _limits(upper: Axes, lower: Axes, trials: pd.DataFrame) -> None:
    loads = trials["offered"].dropna()
    loads = pd.concat([loads, trials.loc[trials["offered"].notna(), "asked"]])
    load_axis(lower, loads.min() if len(loads) else 0, loads.max() if len(loads) else 1)
    percent_axis(upper)
    worst = trials["drop_rate"].max()
    percent_axis(lower, 0.01 if words.missing(worst) else max(0.001, float(worst) * 1.05))
    low = trials["drop_rate"].min()
    if not words.missing(low) and low < 0:
        lower.set_ylim(bottom=float(low) * 1.2)


def _legends(upper: Axes, lower: Axes, blind: bool) -> None:
    """One legend below both panels; what both show is named once."""
    entries: dict[str, Any] = {}
    for axes in (upper, lower):
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries and upper.figure is not None:
        upper.figure.legend(
            list(entries.values()), list(entries), loc="outside lower left", ncols=3
        )
    if blind:
        note = f"loss {words.NOT_OBSERVABLE}"
        lower.text(0.5, 0.5, note, transform=lower.transAxes, ha="center", color=PALE)
        lower.set_yticks([])


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _bars(curves: pd.DataFrame, trials: pd.DataFrame) -> list[dict[str, Any]]:
    """One bar a load from its valid trials, and one for every invalid trial with a ledger."""
    bars: list[dict[str, Any]] = []
    for row in _records(curves.sort_values("asked")):
        if row["valid"]:
            label = words.amount(float(row["offered"]))
            bars.append({**row, "label": label, "sound": True, "at": row["offered"]})
    wrong = trials[~trials["valid"].astype(bool) & trials["unexplained"].notna()]
    for row in _records(wrong):
        status = str(row["status"]).replace("-", "-\n")
        label = f"{words.amount(float(row['offered']))}\n{status}\n{row['trial']}"
        bars.append({**row, "label": label, "sound": False, "at": row["offered"]})
    return sorted(bars, key=lambda bar: (bar["at"], not bar["sound"]))


def _stack(axes: Axes, x: int, bar: dict[str, Any], crowd: int) -> None:
    total, base = float(bar["offered_packets"]), 0.0
    for part in LEDGER_PARTS:
        value = bar[part]
        if words.missing(value) or value == 0:
            continue
        share = float(value) / total
        hatch = "////" if part == "unexplained" else None
        axes.bar(
            x,
            share,
            bottom=base if share > 0 else 0.0,
            width=0.72,
            color=_PART_COLOURS[part],
            edgecolor=INK if hatch else "none",
            linewidth=0.8 if hatch else 0,
            hatch=hatch,
            alpha=1.0 if bar["sound"] else 0.45,
        )
        base += max(0.0, share)
    if not words.missing(bar["analysed"]):
        lost = 1 - float(bar["analysed"]) / total
        note = "no loss" if lost == 0 else f"{words.percent(lost)}\nlost"
        if lost < 0:
            note = f"{words.percent(-lost)}\ntoo many"
        size = 8 if crowd < 10 else 6.5
        axes.text(x, max(base, 0.02) + 0.015, note, ha="center", va="bottom", fontsize=size)


def where_packets_went(curves: pd.DataFrame, trials: pd.DataFrame, name: str) -> Drawn:
    """The ledger as stacked shares of what was offered, a bar a load; pale bars are invalid."""
    from matplotlib.patches import Patch

    bars = _bars(curves, trials)
    made, (axes,) = figure(4.6)
    for x, bar in enumerate(bars):
        _stack(axes, x, bar, len(bars))
    percent_axis(axes)
    _ledger_limits(axes, bars)
    axes.spines["bottom"].set_visible(False)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xticks(range(len(bars)), [bar["label"] for bar in bars])
    axes.tick_params(axis="x", length=0, labelsize=9 if len(bars) < 10 else 7.5)
    axes.set_xlim(-0.6, max(len(bars), 1) - 0.4)
    axes.set_ylabel("Share of packets offered")
    axis = str(trials["axis"].iloc[0])
    axes.set_xlabel(f"Load really offered ({words.axis_unit(axis)})")
    handles = []
    for part in reversed(LEDGER_PARTS):
        known = [bar[part] for bar in bars if not words.missing(bar[part])]
        label = PART_NAMES[part]
        if bars and len(known) < len(bars):
            label += f" ({'partly ' if known else ''}{words.NOT_OBSERVABLE})"
        elif known and not any(known):
            label += " (none)"
        edge, hatch = (INK, "////") if part == "unexplained" else ("none", None)
        handles.append(
            Patch(facecolor=_PART_COLOURS[part], edgecolor=edge, hatch=hatch, label=label)
        )
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Drawn(name, loss_sentence(curves), made)


def _ledger_limits(axes: Axes, bars: list[dict[str, Any]]) -> None:
    """Room above for the notes, and below zero where the unexplained part is negative."""
    low, high = 0.0, 1.0
    for bar in bars:
        parts = [bar[p] for p in LEDGER_PARTS if not words.missing(bar[p])]
        total = float(bar["offered_packets"])
        high = max(high, sum(float(p) for p in parts if p > 0) / total)
        low = min(low, sum(float(p) for p in parts if p < 0) / total)
    axes.set_ylim(low * 1.25, high + 0.14)
