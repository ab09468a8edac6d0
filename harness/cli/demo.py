"""`probebench demo`: the whole main job on a virtual lab, in one command."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.demo import DemoOptions, DemoOutcome

__all__ = ["app"]

app = typer.Typer()

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Run directory.")]
Keep = Annotated[bool, typer.Option(help="Leave the lab up afterwards.")]
Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
Name = Annotated[str, typer.Option("--name", help="Name of the virtual lab to build.")]


@app.callback(invoke_without_command=True)
def demo(
    context: typer.Context,
    profile: Annotated[Path, typer.Option(help="Load profile.")] = Path("profiles/demo.toml"),
    out: Out = None,
    name: Name = "demo",
    keep_lab: Keep = False,
    as_json: Json = False,
) -> None:
    """The whole main job on a virtual lab: record, clean, sweep a live Suricata, report.

    Example: `probebench demo -o results/first`
    """
    if context.invoked_subcommand is not None:
        return
    from harness.demo import DemoOptions

    _run(DemoOptions(profile, name, out, keep_lab=keep_lab), whole=True, as_json=as_json)


@app.command("bias")
def bias(
    profile: Annotated[Path, typer.Option(help="Load profile.")] = Path("profiles/demo.toml"),
    out: Out = None,
    name: Name = "demo",
    keep_lab: Keep = False,
    as_json: Json = False,
) -> None:
    """One corpus, one modest load, four ways to replay it: what each hides.

    Example: `probebench demo bias`
    """
    from harness.demo import DemoOptions

    _run(DemoOptions(profile, name, out, keep_lab=keep_lab), whole=False, as_json=as_json)


def _run(options: DemoOptions, *, whole: bool, as_json: bool) -> None:
    from harness import demo as job
    from harness.errors import HarnessError, Interrupted
    from harness.progress import Progress
    from harness.report.build import build_report
    from harness.results import RunDir
    from harness.signals import interruptible

    progress = Progress()
    try:
        with interruptible():
            outcome = (job.demo if whole else job.bias_demo)(options, progress)
            if whole:
                progress.step("7/7", "Report", f"probebench report {outcome.run}")
            files = build_report(outcome.run)
    except KeyboardInterrupt:
        left = "the lab is still up" if options.keep_lab else "the lab was removed"
        raise Interrupted(f"interrupted; {left}") from None
    except OSError as error:  # a full disk, or a directory that cannot be written to
        raise HarnessError(f"{error.filename or 'demo'}: {error.strerror or error}") from None
    if as_json:
        print(json.dumps({**asdict(outcome), "report": str(files.html)}, default=str))
    else:
        _print(outcome)
        print(f"\nreport: {files.html}   ({outcome.seconds:.0f} s)")
    if outcome.sweep is not None:
        if outcome.sweep.failed:
            raise typer.Exit(3)
        job.verdict([t for t in RunDir(outcome.run).trials() if t.phase == "sweep"])


def _print(outcome: DemoOutcome) -> None:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from harness.report.tables import bias_frame
    from harness.results import RunDir

    table = Table(title="The same corpus, the same load, four ways to replay it")
    for column in (
        "replay",
        "packets lost",
        "flows offered",
        "flows seen",
        "alerts due",
        "alerts raised",
    ):
        table.add_column(column, justify="left" if column == "replay" else "right")
    for row in bias_frame(RunDir(outcome.run)).to_dict("records"):
        cells = [row[c] for c in ("lost", "flows_offered", "flows_seen", "due", "raised")]
        shown = ["not observable" if pd.isna(c) else f"{c:,}" for c in cells]
        table.add_row(str(row["method"]), *shown)
    Console().print(table)
