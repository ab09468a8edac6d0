"""How figures look, and how they are written: the same bytes for the same data.

Colours are Okabe and Ito's (2008, "Color Universal Design"), told apart by colour-blind readers.
Inks (text, axes, grid) are two fixed colours, so that the page can replace them by its own.
"""

from __future__ import annotations

import contextlib
import io
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "INK",
    "PALE",
    "Drawn",
    "figure",
    "inline_svg",
    "load_axis",
    "percent_axis",
    "plotting",
    "save",
]

INK = "#1f2326"  # text and what must be seen
PALE = "#8a9196"  # ticks, grid, references
COLOURS = {
    "black": "#000000",
    "orange": "#e69f00",
    "sky": "#56b4e9",
    "green": "#009e73",
    "yellow": "#f0e442",
    "blue": "#0072b2",
    "vermillion": "#d55e00",
    "purple": "#cc79a7",
}
WIDTH = 8.0  # inches; 800 px wide at 100 dpi, where 10 pt are 14 px

_RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "text.color": INK,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "probebench",
    "svg.fonttype": "none",
    "path.simplify": False,
    "hatch.linewidth": 0.8,
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure, and the sentence about its data that is its title.

    `name` is its file name without suffix.
    """

    name: str
    title: str
    figure: Figure


@contextlib.contextmanager
def plotting() -> Iterator[None]:
    """Draw with the project's style and no display, whatever the user's settings are."""
    import matplotlib as mpl
    from matplotlib import style

    with style.context("default"), mpl.rc_context(cast(Any, _RC)):
        yield


def figure(height: float, rows: int = 1, **kwargs: Any) -> tuple[Figure, list[Axes]]:
    """A figure of the standard width with `rows` panels (or as `subplots` takes them)."""
    from matplotlib.figure import Figure as NewFigure

    made = NewFigure(figsize=(WIDTH, height), layout="constrained")
    axes = made.subplots(rows, squeeze=False, **kwargs)
    return made, list(axes.flat)


def load_axis(axes: Axes, low: float, high: float) -> None:
    """Scale and tick labels of offered load: linear from 0, or logarithmic past a factor of 20."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    from harness.report.words import amount

    if low > 0 and high / low >= 20:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.3, high * 1.3)
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, high * 1.06 or 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))


def percent_axis(axes: Axes, top: float = 1.0) -> None:
    """A y axis of shares of 1, from 0 to `top`, read in per cent."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes.set_ylim(0, top * 1.04)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))
    axes.grid(axis="y", color=PALE, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)


def _svg(drawn: Drawn, *, transparent: bool) -> str:
    out = io.StringIO()
    drawn.figure.savefig(
        out,
        format="svg",
        transparent=transparent,
        metadata={"Date": None, "Creator": None, "Title": drawn.title},
    )
    return out.getvalue()


def inline_svg(drawn: Drawn) -> str:
    """The figure as an <svg> element for a page, without its title.

    Inks follow the page's variables --ink and --pale, so that they are right in light and dark;
    ids carry the figure's name, so that several figures live in one page. Call before `save`.
    """
    text = _svg(drawn, transparent=True)
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<title>.*?</title>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    prefix = f"{drawn.name}-"
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{prefix}\1"', text)
    text = text.replace(INK, "var(--ink)").replace(PALE, "var(--pale)")
    size = re.search(r'viewBox="[^"]*"', text)
    label = drawn.title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    head = f'<svg {size.group(0) if size else ""} role="img" aria-label="{label}">'
    return re.sub(r"^<svg[^>]*>", lambda _: head, text, count=1)


def save(drawn: Drawn, folder: Path) -> tuple[Path, Path]:
    """Write the titled figure as PNG (1200 px wide) and SVG; returns both paths."""
    lines = textwrap.wrap(drawn.title, 84)
    drawn.figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11, fontweight="bold")
    png, svg = folder / f"{drawn.name}.png", folder / f"{drawn.name}.svg"
    partial = png.with_suffix(".png.partial")
    drawn.figure.savefig(partial, format="png", dpi=150, metadata={"Software": None})
    partial.replace(png)
    partial = svg.with_suffix(".svg.partial")
    partial.write_text(_svg(drawn, transparent=False))
    partial.replace(svg)
    return png, svg
