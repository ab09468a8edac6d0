"""The report's table of what the generator says of itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import synthetic_run

from harness.model import Load
from harness.report import words
from harness.report.build import build_report
from harness.report.generator_table import generator_grid
from harness.results import Trial


def told(name: str, **extra: float) -> Trial:
    options = synthetic_run.Options()
    trial = synthetic_run.good_trial(name, Load("pps", 10_000, 10), options)
    assert trial.sent is not None
    return replace(trial, sent=replace(trial.sent, extra=extra, seconds=8.0))


def cells(grid: Any) -> list[dict[str, str]]:
    return [dict(zip(grid.heads, row.cells, strict=True)) for row in grid.rows]


def test_connections_retransmissions_and_drops_are_shown() -> None:
    grid = generator_grid(
        [
            told("t01", connections=400, retransmissions=3, connection_drops=2, queue_full=0),
            told("t02", queue_full=7, alloc_error=1, cpu_percent_peak=12.5),
            told("t03"),
        ]
    )
    one, two = cells(grid)  # t03 tells nothing
    assert one["connections"] == "400" and one["connections/s"] == "50.0"
    assert one["retransmitted segments"] == "3" and one["connections dropped"] == "2"
    assert one["queue full"] == "0" and one["out of buffers"] == words.NOT_OBSERVABLE
    assert two["connections/s"] == two["retransmitted segments"] == words.NOT_OBSERVABLE
    assert (two["queue full"], two["out of buffers"]) == ("7", "1")
    assert two["its CPU, peak"] == "12.5\u00a0%"
    assert "active flows, peak" not in grid.heads  # nobody tells it


def test_nobody_tells_anything() -> None:
    assert not generator_grid([told("t01")]).rows
    assert not generator_grid([told("t01", time_resolution_s=0.25)]).rows


def test_it_is_on_the_page(tmp_path: Any) -> None:
    run = synthetic_run.make_run(tmp_path / "run", synthetic_run.Options())
    build_report(run.path)
    without = (run.path / "report.html").read_text()
    run.append(told("t77", connections=400, retransmissions=31))
    build_report(run.path)
    page = (run.path / "report.html").read_text()
    assert "What the generator says of itself" in page and "retransmitted segments" in page
    assert "What the generator says of itself" not in without
