"""The figure of `corpus balance`: what each worker would get, a panel a load balancer."""

from __future__ import annotations

import math
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from harness.report.style import COLOURS, INK, PALE, Drawn, figure, plotting
from pcap_tools.balance import EVEN, UNEVEN, Balance, BalancerResult
from pcap_tools.errors import OutputError, PcapError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "save_figure", "sentence"]

_SUFFIXES = (".png", ".svg", ".pdf")
_COLUMNS = 4


def sentence(balance: Balance) -> str:
    """The figure's title: what the prediction says, in one sentence."""
    whole = [r for r in balance.results if r.whole >= 0.5]
    drowned = [r for r in whole if r.packets.peak > UNEVEN]
    what = f"{balance.strategy}, {balance.iterations:,} iterations on {balance.workers} workers: "
    if not whole:
        return what + "no balancer keeps flows whole"
    if drowned:
        worst = max(drowned, key=lambda r: r.packets.peak)
        return what + (
            f"{len(drowned)} of {len(whole)} balancers that keep flows whole overload one worker, "
            f"{worst.name} with {worst.packets.peak:.1f}× its share"
        )
    worst = max(whole, key=lambda r: r.packets.peak)
    kind = "evenly" if worst.packets.peak <= EVEN else "without overloading one worker"
    return what + (
        f"every balancer that keeps flows whole spreads the packets {kind} "
        f"(worst: {worst.name}, {worst.packets.peak:.2f}× the mean)"
    )


def draw(balance: Balance) -> Drawn:
    """One panel a balancer: bars of the workers' shares of packets, and the even share."""
    count = len(balance.results)
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    with plotting():
        made, panels = figure(0.7 + 1.55 * rows, rows, ncols=columns, sharex=True, sharey=True)
        for axes, result in zip(panels, balance.results, strict=False):
            _panel(axes, result, balance.workers)
        for axes in panels[count:]:
            axes.set_visible(False)
        for axes in panels[max(0, count - columns) : count]:
            axes.tick_params(labelbottom=True)
        top = max(max(r.packets.shares) for r in balance.results)
        panels[0].set_ylim(0, min(1.0, max(top * 1.08, 1.6 / balance.workers)))
        made.supxlabel("Worker (random keys: busiest to idlest, median over the keys)", fontsize=9)
        made.supylabel("Share of packets; dotted: the even share", fontsize=9)
    return Drawn("balance", sentence(balance), made)


def _panel(axes: Axes, result: BalancerResult, workers: int) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    peak = result.packets.peak
    colour = COLOURS["blue"] if peak <= EVEN else COLOURS["orange"]
    colour = COLOURS["vermillion"] if peak > UNEVEN else colour
    torn = result.whole < 0.5
    axes.bar(
        range(1, workers + 1),
        result.packets.shares,
        width=0.8,
        color="none" if torn else colour,
        edgecolor=colour if torn else "none",
        hatch="////" if torn else None,
        linewidth=0.8,
    )
    axes.axhline(1 / workers, color=INK, linestyle=":", linewidth=1)
    note = f"max/mean {peak:.2f}"
    if result.keyed:
        note += f" ({result.packets.low:.2f}–{result.packets.high:.2f})"
    if torn:
        note = f"flows torn ({100 * (1 - result.whole):.0f} %)"
    axes.set_title(f"{result.name}\n{note}", fontsize=9, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))
    axes.grid(axis="y", color=PALE, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)


def check_suffix(path: Path) -> None:
    """Raise PcapError unless the figure can be written in the suffix's format."""
    if path.suffix not in _SUFFIXES:
        raise PcapError(f"{path}: a figure ends in {', '.join(_SUFFIXES)}")


def save_figure(drawn: Drawn, path: Path) -> None:
    """Write the titled figure, whole or not at all. Raises OutputError."""
    check_suffix(path)
    title = "\n".join(textwrap.wrap(drawn.title, 84))
    drawn.figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    dated = {".png": "Software", ".svg": "Date", ".pdf": "CreationDate"}[path.suffix]
    try:
        drawn.figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata={dated: None})
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
