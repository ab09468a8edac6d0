"""The figure of the whole way: packets by stage, flows and alerts, each as 100 % of its load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.report import words
from harness.report.accounts import STAGE_NAMES
from harness.report.stages import STAGE_PARTS
from harness.report.style import COLOURS, INK, PALE, Drawn, figure, percent_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ledger_stages"]

_NAMES = {
    **STAGE_NAMES,
    "analysed": "analysed",
    "unobserved": "arrived; analysed or not:\nnot observable",
    "unexplained": "unexplained",
}
# A family a place: yellow before the NIC, purple the NIC, reds the kernel, oranges and browns the
# software. Black is nobody's but what is unexplained.
_LOOKS: dict[str, dict[str, Any]] = {
    "analysed": {"facecolor": COLOURS["sky"]},
    "unobserved": {"facecolor": "none", "edgecolor": PALE, "hatch": "...."},
    "transmit": {"facecolor": COLOURS["yellow"]},
    "wire": {"facecolor": "#b8a500"},
    "nic": {"facecolor": COLOURS["purple"]},
    "backlog": {"facecolor": "#8c3a00"},
    "ring": {"facecolor": COLOURS["vermillion"]},
    "undecoded": {"facecolor": COLOURS["orange"]},
    "decoder": {"facecolor": "#f7c95c"},
    "flow": {"facecolor": COLOURS["green"]},
    "stream": {"facecolor": COLOURS["blue"]},
    "unexplained": {"facecolor": "#ff2d87", "edgecolor": INK, "hatch": "////"},
}


_CROWD = 12  # bars beyond which what stands over and under them is turned


def ledger_stages(stages: pd.DataFrame, name: str) -> Drawn:
    """Stacked bars of one axis's `stages_frame`, a bar a load (pale: an invalid trial).

    Packets by stage; flows that the sensor saw; events that it raised. Below the packets stand
    those panels that the sensor tells something for.
    """
    from matplotlib.patches import Patch

    bars = [{str(k): v for k, v in row.items()} for row in stages.to_dict("records")]
    below = [panel for panel in _BELOW if stages[panel[1]].notna().any()]
    made, panels = figure(
        4.4 + 1.15 * len(below),
        1 + len(below),
        sharex=True,
        height_ratios=(4.2, *(1 for _ in below)),
    )
    upper, *lower = panels
    for x, bar in enumerate(bars):
        _stack(upper, x, bar, len(bars))
    percent_axis(upper)
    room = 0.15 if len(bars) <= _CROWD else 0.3
    upper.set_ylim(min(0.0, *map(_low, bars)) * 1.25, max(1.0, *map(_high, bars)) + room)
    upper.axhline(0, color=INK, linewidth=0.8)
    upper.set_title("Packets, as a share of those offered")
    for axes, (what, value, whole, *names) in zip(lower, below, strict=True):
        _shares(axes, bars, value, whole, names)
        axes.set_title(what)
    crowd = len(bars)
    for axes in panels:
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="x", length=0, labelsize=9 if crowd < 8 else 7.5)
    turned = 90 if crowd > _CROWD else 0
    labels = [_label(bar) for bar in bars]
    if turned:
        labels = [label.replace("-\n", "-").replace("\n", " ") for label in labels]
    panels[-1].set_xticks(range(crowd), labels, rotation=turned)
    panels[-1].set_xlim(-0.6, max(crowd, 1) - 0.4)
    axis = str(stages["axis"].iloc[0])
    panels[-1].set_xlabel(f"Load really offered ({words.axis_unit(axis)})")
    handles = [
        Patch(label=label, **_LOOKS[part])
        for part in reversed(STAGE_PARTS)
        if (label := _legend(part, bars)) is not None
    ]
    upper.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.03))
    return Drawn(name, _title(stages), made)


def _title(stages: pd.DataFrame) -> str:
    """Where the packets of the valid trials went."""
    good = stages[stages["sound"].astype(bool)]
    if good.empty:
        return "No valid trial has a ledger"
    offered = int(good["offered_packets"].sum())
    told = {part: good[part].dropna() for part in STAGE_PARTS}
    if len(told["analysed"]) < len(good):
        return f"The sensor does not tell how many of {offered:,} packets offered it analysed"
    lost = offered - int(told["analysed"].sum())
    places = {key: int(told[key].sum()) for key in STAGE_NAMES}
    lossy = sorted((key for key, n in places.items() if n), key=lambda key: -places[key])
    where = [
        f"{words.percent(places[key] / lost) if lost > 0 else words.count(places[key])} "
        + STAGE_NAMES[key]
        for key in lossy[:3]
    ]
    if len(lossy) > 3:
        where.append(f"the rest at {words.plural(len(lossy) - 3, 'other stage')}")
    open_end = int(told["unexplained"].sum())
    end = f"{open_end:,} unexplained".replace("-", "−") if open_end else "none is unexplained"
    blind = [name for key, name in STAGE_NAMES.items() if len(told[key]) < len(good)]
    if blind:
        end += f"; {words.series(blind)} {words.NOT_OBSERVABLE}"
    if lost == 0:
        return f"All {offered:,} packets offered on this curve were analysed; {end}"
    head = f"{words.percent(lost / offered)} of {offered:,} packets offered on this curve were lost"
    return f"{head}: {', '.join(where)}; {end}" if where else f"{head}; {end}"


_BELOW = (
    ("Flows seen, of those offered", "flows_seen", "flows_offered", "seen", "not seen"),
    ("Events raised, of those due", "detected", "due", "raised", "missed"),
)


def _label(bar: dict[str, Any]) -> str:
    load = "?" if words.missing(bar["offered"]) else words.amount(float(bar["offered"]))
    return load if bar["sound"] else f"{load}\n{bar['label']}"


def _legend(part: str, bars: list[dict[str, Any]]) -> str | None:
    """A part's name, told apart: none lost there, and nobody can tell; None: not worth a line."""
    known = [bar[part] for bar in bars if not words.missing(bar[part])]
    label = _NAMES[part]
    if part == "unobserved":
        return label if any(known) else None
    if len(known) < len(bars):
        return f"{label} ({'partly ' if known else ''}{words.NOT_OBSERVABLE})"
    return label if any(known) else f"{label} (none)"


def _known(bar: dict[str, Any]) -> list[float]:
    total = float(bar["offered_packets"]) or 1.0
    return [float(bar[p]) / total for p in STAGE_PARTS if not words.missing(bar[p])]


def _high(bar: dict[str, Any]) -> float:
    return sum(share for share in _known(bar) if share > 0)


def _low(bar: dict[str, Any]) -> float:
    return sum(share for share in _known(bar) if share < 0)


def _stack(axes: Axes, x: int, bar: dict[str, Any], crowd: int) -> None:
    """One bar; what is negative (more came out than went in) hangs below zero."""
    total = float(bar["offered_packets"]) or 1.0
    up = down = 0.0
    for part in STAGE_PARTS:
        if words.missing(bar[part]) or bar[part] == 0:
            continue
        share = float(bar[part]) / total
        look = {"edgecolor": "none", "linewidth": 0.8, **_LOOKS[part]}
        alpha = 1.0 if bar["sound"] else 0.45
        axes.bar(x, share, bottom=up if share > 0 else down, width=0.72, alpha=alpha, **look)
        up, down = up + max(0.0, share), down + min(0.0, share)
    _over(axes, x, max(up, 0.02) + 0.015, _note(bar), crowd)


def _over(axes: Axes, x: int, y: float, text: str, crowd: int) -> None:
    """A number over a bar; upright where bars are narrow."""
    if crowd > _CROWD:
        text = text.replace("\n", " ")
    size, turned = 8 if crowd < 10 else 6.5, 90 if crowd > _CROWD else 0
    axes.text(x, y, text, ha="center", va="bottom", fontsize=size, rotation=turned)


def _note(bar: dict[str, Any]) -> str:
    if words.missing(bar["analysed"]):
        return ""
    lost = 1 - float(bar["analysed"]) / (float(bar["offered_packets"]) or 1.0)
    if lost < 0:
        return f"{words.percent(-lost)}\ntoo many"
    return "no loss" if lost == 0 else f"{words.percent(lost)}\nlost"


def _shares(
    axes: Axes, bars: list[dict[str, Any]], value: str, whole: str, names: Sequence[str]
) -> None:
    """Bars of a share inside the frame of the whole; the number stands over each."""
    from matplotlib.patches import Patch

    colour, top = COLOURS["sky"], 1.0
    for x, bar in enumerate(bars):
        alpha = 1.0 if bar["sound"] else 0.45
        if words.missing(bar[value]) or words.missing(bar[whole]) or not bar[whole]:
            axes.text(x, 0.5, "not\nobservable", ha="center", va="center", fontsize=6.5, color=PALE)
            continue
        share = float(bar[value]) / float(bar[whole])
        top = max(top, share)
        axes.bar(x, 1.0, width=0.72, color="none", edgecolor=PALE, linewidth=0.9)
        axes.bar(x, share, width=0.72, color=colour, alpha=alpha)
        _over(axes, x, max(1.0, share) + 0.08, words.percent(share), len(bars))
    percent_axis(axes)
    axes.set_yticks([0, 0.5, 1.0])
    axes.set_ylim(0, top + (0.5 if len(bars) <= _CROWD else 1.1))
    handles = [Patch(facecolor=colour, label=names[0])]
    handles.append(Patch(facecolor="none", edgecolor=PALE, label=names[1]))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))
