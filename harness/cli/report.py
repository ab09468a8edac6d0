"""`probebench report`: from run directories to pages, figures and curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from harness.report.build import ReportFiles

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("report")(report)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print files and curves as JSON on standard output.")
    ] = False,
) -> None:
    """Write report.html, figures/ and curves.csv into each run directory.

    Everything is recomputed from run.json, trials.jsonl and timeline.csv.

    Example: `probebench report results/20260203T040500Z-demo-suricata`
    """
    import json

    from harness.report.build import build_report

    made = [(run, build_report(run)) for run in runs]
    if as_json:
        typer.echo(json.dumps([_plain(run, files) for run, files in made], indent=1))
        return
    for run, files in made:
        _show(run, files)


def _plain(run: Path, files: ReportFiles) -> dict[str, Any]:
    import json

    from harness.report.tables import curves_frame
    from harness.results import RunDir

    return {
        "run": str(run),
        "html": str(files.html),
        "curves_csv": str(files.curves_csv),
        "figures": [str(path) for path in files.figures],
        "curves": json.loads(curves_frame(RunDir(run)).to_json(orient="records")),
    }


def _show(run: Path, files: ReportFiles) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from harness.report.grids import terminal_grid
    from harness.report.tables import curves_frame
    from harness.results import RunDir

    console = Console()
    grid = terminal_grid(curves_frame(RunDir(run)))
    if grid.rows:
        table = Table(box=None, pad_edge=False)
        for i, head in enumerate(grid.heads):
            table.add_column(head, justify="right" if i in grid.numeric else "left", no_wrap=True)
        for row in grid.rows:
            table.add_row(*(Text(cell) for cell in row.cells))
        console.print(table)
    else:
        console.print("no trial of a sweep: no curve")
    for name, path in (("report", files.html), ("curves", files.curves_csv)):
        typer.echo(f"{name}: {path}")
    if files.figures:
        typer.echo(f"figures: {files.figures[0].parent} ({len(files.figures)} files)")
