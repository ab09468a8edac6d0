"""The figure of the host under the sensor: what it did, second by second, in the telling trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.report import words
from harness.report.host_frame import HostLine
from harness.report.style import COLOURS, INK, PALE, Drawn, figure, percent_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["cost_sentence", "host_timeline"]

_THREADS = ("blue", "vermillion", "green", "orange", "purple", "sky")


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a panel: `take` gives begin, end and value of each interval of a trial."""

    name: str
    colour: str
    style: str
    take: Callable[[HostLine], tuple[pd.Series[Any], pd.Series[Any], pd.Series[Any]]]


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    lines: tuple[_Line, ...]
    scale: float = 1.0
    share: bool = False
    joined: bool = True


def _of(column: str) -> Callable[[HostLine], tuple[Any, Any, Any]]:
    return lambda one: (one.samples["begin"], one.samples["end"], one.samples[column])


def _thread(name: str) -> Callable[[HostLine], tuple[Any, Any, Any]]:
    def take(one: HostLine) -> tuple[Any, Any, Any]:
        none = pd.Series([math.nan] * len(one.samples))
        return one.samples["begin"], one.samples["end"], one.threads.get(name, none)

    return take


def _ring(one: HostLine) -> tuple[Any, Any, Any]:
    return one.ring["begin"], one.ring["end"], one.ring["dropped_per_s"]


def _panels(lines: Sequence[HostLine]) -> Iterator[_Panel]:
    names = list(dict.fromkeys(str(name) for one in lines for name in one.threads))
    named = [name for name in names if name != "other threads"]
    cpu = [_Line(n, COLOURS[c], "-", _thread(n)) for n, c in zip(named, _THREADS, strict=False)]
    if "other threads" in names:
        cpu.append(_Line("other threads", INK, ":", _thread("other threads")))
    cpu.append(_Line("busiest CPU in softirq", PALE, "--", _of("softirq")))
    cpu.append(_Line("stolen from the machine", COLOURS["purple"], ":", _of("steal")))
    yield _Panel("Packets/s received by the interface", (
        _Line("received", COLOURS["blue"], "-", _of("received_per_s")),))  # fmt: skip
    yield _Panel("CPU, as a share of one core", tuple(cpu), share=True)
    yield _Panel(
        "Packets/s dropped",
        (
            _Line("capture ring", COLOURS["vermillion"], "-", _ring),
            _Line("CPU backlog", COLOURS["orange"], "--", _of("backlog_per_s")),
            _Line("NIC", COLOURS["purple"], ":", _of("nic_per_s")),
        ),
    )
    yield _Panel(
        "Memory of the sensor, MiB",
        (_Line("resident", COLOURS["green"], "-", _of("rss")),),
        scale=2**-20,
    )
    yield _Panel(
        "Mean time of a write to the log disk, ms",
        (_Line("where writes ended", COLOURS["orange"], "-", _of("write_latency_s")),),
        scale=1e3,
        joined=False,
    )


def _values(line: _Line, lines: Sequence[HostLine]) -> list[float]:
    return [float(v) for one in lines for v in line.take(one)[2] if not words.missing(v)]


def host_timeline(lines: Sequence[HostLine], name: str) -> Drawn | None:
    """Panels over time, a column a trial; None without samples.

    A panel of which nothing was observable is left out, and the title says so.
    """
    if not lines:
        return None
    panels: list[_Panel] = []
    blind: list[_Panel] = []
    for panel in _panels(lines):
        seen = any(_values(line, lines) for line in panel.lines)
        (panels if seen else blind).append(panel)
    if not panels:
        return None
    n = len(lines)
    made, axes = figure(1.1 + 1.35 * len(panels), len(panels), ncols=n, sharex="col", sharey="row")
    for row, panel in enumerate(panels):
        own = axes[row * n : (row + 1) * n]
        _draw(panel, own, lines)
        own[0].set_title(panel.title)
    for one, top, bottom in zip(lines, axes[:n], axes[-n:], strict=True):
        head = "\n".join(filter(None, (words.load(one.pps, "pps"), one.trial, one.why)))
        # Above the panel's own title, which only the first column has.
        top.annotate(
            head,
            (0.5, 1.0),
            xytext=(0, 20),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
            fontweight="bold",
        )
        ends = [float(frame["end"].max()) for frame in (one.samples, one.ring) if len(frame)]
        bottom.set_xlim(0, max([*ends, 1.0]))
    middle = axes[-n:][n // 2] if n % 2 else axes[-n]
    middle.set_xlabel("Seconds since the first reading")
    return Drawn(name, _title(lines, blind), made)


def _draw(panel: _Panel, own: Sequence[Axes], lines: Sequence[HostLine]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    top = 0.0
    for line in panel.lines:
        known = [v * panel.scale for v in _values(line, lines)]
        top = max([top, *known])
        label = line.name
        if not known:
            label += f"\n({words.NOT_OBSERVABLE})"
        elif not any(known):
            label += " (none)"
        for i, (axes, one) in enumerate(zip(own, lines, strict=True)):
            begin, end, value = line.take(one)
            x, y = _steps((begin, end, value * panel.scale), joined=panel.joined)
            last = label if i == len(own) - 1 else "_"
            look: dict[str, Any] = {
                "color": line.colour,
                "linewidth": 1.6,
                "clip_on": False,
                "zorder": 3,
            }
            axes.plot(x, y, line.style, label=last, **look)
    if panel.share:
        percent_axis(own[0], max(1.0, top))
    for axes in own:
        axes.grid(axis="y", color=PALE, alpha=0.25, linewidth=0.8)
        axes.set_axisbelow(True)
        if not panel.share:
            axes.set_ylim(0, top * 1.12 or 1.0)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.amount(value)))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    own[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.6)


def _steps(data: tuple[Any, Any, Any], *, joined: bool) -> tuple[list[float], list[float]]:
    """A value holds for the whole of its interval; where none is known there is a gap."""
    x: list[float] = []
    y: list[float] = []
    for begin, end, value in zip(*data, strict=True):
        known = not words.missing(value)
        x += [float(begin), float(end)]
        y += [float(value) if known else math.nan] * 2
        if not joined:
            x, y = [*x, float(end)], [*y, math.nan]
    return x, y


def cost_sentence(lines: Sequence[HostLine]) -> str:
    """What the sampling itself took; the cost that was measured, or that it was not."""
    known = [one.sampler_share for one in lines if one.sampler_share is not None]
    if not known:
        return f"what the sampler took is {words.NOT_OBSERVABLE}"
    return f"the sampler took at most {words.percent(max(known))} of one core in these trials"


def _title(lines: Sequence[HostLine], blind: Sequence[_Panel]) -> str:
    last = lines[-1]
    parts = []
    most = {str(n): float(v) for n, v in last.threads.max().items() if n != "other threads"}
    if most:
        busiest = max(most, key=lambda name: most[name])
        share = words.percent(most[busiest])
        busiest = f"the {busiest}" if busiest.startswith("busiest of") else busiest
        parts.append(f"{busiest} used up to {share} of a core")
    drops = last.ring["dropped_per_s"].astype("float64").dropna()
    if len(drops):
        rate = float(drops.max())
        what = f"up to {words.amount(rate)} packets/s" if rate else "nothing"
        parts.append(f"the ring dropped {what}")
    said = words.series(parts) if parts else "no thread of the sensor is known"
    head = f"At {words.load(last.pps, 'pps')} {said}; {cost_sentence(lines)}"
    if blind:
        names = words.series([panel.title.split(",")[0].lower() for panel in blind])
        head += f"; {words.NOT_OBSERVABLE}: {names}"
    return head
