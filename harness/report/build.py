"""From a run directory to its report: page, figures and curves, all inside the directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.preflight import read_preflight
from harness.report import figures, figures_more, style
from harness.report.accounts import Accounts, bottleneck_sentence, read_accounts
from harness.report.budget_figure import time_budget
from harness.report.checked import check_sentence
from harness.report.frames import Frames, read_frames
from harness.report.host_figure import host_timeline
from harness.report.host_frame import HostLine, host_lines
from harness.report.page import Picture, render
from harness.report.stages import stages_frame, stops_frame
from harness.report.stages_figure import ledger_stages
from harness.report.verdict import verdict
from harness.results import RunDir

__all__ = ["ReportFiles", "build_report"]


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """Where a report's files are. `figures` holds PNG and SVG files, sorted by name."""

    html: Path
    curves_csv: Path
    figures: tuple[Path, ...]


def _of(frame: pd.DataFrame, axis: str) -> pd.DataFrame:
    return frame[frame["axis"] == axis]


def _draw(
    frames: Frames, accounts: Accounts, host: Sequence[HostLine]
) -> list[tuple[str, style.Drawn]]:
    """(kind, figure) of everything the run has data for; one set for each axis swept."""
    sweep = frames.trials[frames.trials["phase"] == "sweep"]
    axes = sorted(str(axis) for axis in sweep["axis"].unique())
    stages, stops = stages_frame(accounts), stops_frame(accounts)
    drawn: list[tuple[str, style.Drawn | None]] = []
    for axis in axes:
        suffix = f"_{axis}" if len(axes) > 1 else ""
        trials, curves = _of(sweep, axis), _of(frames.curves, axis)
        if trials["offered"].notna().any():
            name = "detection_vs_load"
            found = _of(stops, axis)
            one = figures.detection_vs_load(curves, trials, name + suffix, found)
            drawn.append((name, one))
        if trials["unexplained"].notna().any():
            name = "where_packets_went"
            whole = _of(stages, axis)
            if len(whole):
                one = ledger_stages(whole, name + suffix)
            else:  # version 0.1 kept no stages
                one = figures.where_packets_went(curves, trials, name + suffix)
            drawn.append((name, one))
        if (part := _of(frames.signatures, axis))["detection_rate"].notna().any():
            name = "by_signature"
            drawn.append((name, figures_more.by_signature(part, name + suffix)))
        if len(part := _of(frames.workers, axis)):
            drawn.append(("workers", figures_more.workers(part, "workers" + suffix)))
        name = "timeline"
        drawn.append((name, figures_more.timeline(frames.timeline, trials, name + suffix)))
    drawn.append(("time_budget", time_budget(accounts, "time_budget")))
    drawn.append(("host_timeline", host_timeline(host, "host_timeline")))
    if len(frames.bias):
        drawn.append(("bias", figures_more.bias(frames.bias, "bias")))
    return [(kind, one) for kind, one in drawn if one is not None]


def _write(path: Path, text: str) -> Path:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
    return path


def build_report(run_dir: Path) -> ReportFiles:
    """Write `report.html`, `figures/` and `curves.csv` into a run directory.

    The same directory gives the same bytes. `curves.csv` has the columns of
    `harness.report.tables.CURVE_COLUMNS`. Figures of an earlier report that this run has no data
    for are removed. Raises ResultsError when the directory is not a run or holds no trial.
    """
    run = RunDir(run_dir)
    info = run.info()
    frames = read_frames(run)
    accounts = read_accounts(run)
    host, checks = host_lines(run, accounts), read_preflight(run_dir)
    folder = run_dir / "figures"
    folder.mkdir(exist_ok=True)
    pictures: list[Picture] = []
    files: list[Path] = []
    with style.plotting():
        for kind, drawn in _draw(frames, accounts, host):
            svg = style.inline_svg(drawn)
            pictures.append(Picture(kind, drawn.name, drawn.title, svg))
            files += style.save(drawn, folder)
    for stale in {*folder.glob("*.png"), *folder.glob("*.svg")} - set(files):
        stale.unlink()
    sentences = [*verdict(frames), check_sentence(checks)]
    if (stopped := bottleneck_sentence(run)) is not None:
        sentences.insert(-3, stopped)  # before what is said of ledgers and gates
    csv = frames.curves.to_csv(index=False, lineterminator="\n")
    page = render(info, frames, accounts, checks, host, sentences, pictures)
    return ReportFiles(
        html=_write(run_dir / "report.html", page),
        curves_csv=_write(run_dir / "curves.csv", csv),
        figures=tuple(sorted(files)),
    )
