"""The report's pages of accounts: what a record says, and what an old record still lets tell."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import Options, make_run
from test_bottleneck import BUSY, HELD, QUIET, trial

from harness.conclusions import conclude
from harness.model_ledger import Balance
from harness.report import accounts
from harness.report.build import build_report
from harness.results import RunDir, Trial

OLD = Path(__file__).parent / "data" / "run-0.1"


def at(pps: float, name: str, one: Trial) -> Trial:
    """The trial under another name, at another load; concluded."""
    load = replace(one.load, value=pps)
    return conclude(replace(one, name=name, load=load, schedule=replace(one.schedule, pps=pps)))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = make_run(tmp_path / "run", Options(bias=False, calibration=False))
    made.trials_path.unlink()
    for one in (
        at(1e4, "t01", trial()),
        at(2e4, "t02", trial((5000, 0), (BUSY, QUIET))),
        at(3e4, "t03", trial((900, 100), (BUSY, HELD), raw={"tcp.reassembly_gap": 4.0})),
    ):
        made.append(one)
    return made


def test_the_sentence_follows_the_load(run: RunDir) -> None:
    said = (accounts.bottleneck_sentence(run) or "").replace("\xa0", " ")
    assert said == (
        "Bottleneck: none at 10 k packets/s; software: one worker at 20 k packets/s; "
        "software: one worker and software: disk at 30 k packets/s."
    )


def test_the_page_has_the_verdict_its_evidence_and_the_budget(run: RunDir) -> None:
    made = build_report(run.path)
    text = made.html.read_text()
    assert "What stopped the sensor" in text
    assert "W#02-rx0 held up in writes" in text
    assert "share of samples held up in a write: 0.6" in text
    assert "holes in streams" in text
    assert {p.name for p in made.figures} >= {"time_budget.png", "time_budget.svg"}


def test_stages_of_every_trial_sum_to_what_was_offered(run: RunDir) -> None:
    grid = accounts.stage_grid(accounts.read_accounts(run))
    heads = [head for head in grid.heads if not head.startswith("bytes")]
    assert len(grid.rows) == 3
    for row in grid.rows:
        cells = dict(zip(heads, row.cells, strict=False))
        parts = [v for k, v in cells.items() if k not in ("trial", "offered")]
        known = [int(v.replace(",", "")) for v in parts if v != "not observable"]
        assert sum(known) == int(cells["offered"].replace(",", "")) == 1_000_000


def test_each_worker_s_share_stands_beside_what_was_predicted(run: RunDir) -> None:
    read = accounts.read_accounts(run)
    (second,) = [t for t in read.trials if t.name == "t02"]
    balance = Balance(2, 1.31, 1.05, 1.0, 1.12, 1.0, 100)
    grid = accounts.budget_grid(replace(read, trials=(replace(second, balance=balance),)))
    whole, *workers = [dict(zip(grid.heads, row.cells, strict=True)) for row in grid.rows]
    assert whole["max/mean of workers"] == "1.31 (predicted 1.05, 1.00 – 1.12)"
    assert [w["worker"] for w in workers] == ["W#01-rx0", "W#02-rx0"]
    told = [w["packets/s, or packets"].replace("\xa0", " ") for w in workers]
    counts = [int(text.partition(" ")[0].replace(",", "")) for text in told]
    shares = [float(text.partition("(")[2].partition(" ")[0]) for text in told]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert shares[0] == pytest.approx(100 * counts[0] / sum(counts), abs=0.1)
    assert "predicted" not in str(accounts.budget_grid(replace(read, trials=(second,))).rows)


def test_an_old_run_says_what_it_can(tmp_path: Path) -> None:
    """Two real trials of version 0.1: no stages, no host, no verdict, no lab check."""
    run = RunDir(Path(shutil.copytree(OLD, tmp_path / "run")))
    assert accounts.bottleneck_sentence(run) is None
    kinds = {t.name: t.bottleneck.kinds for t in accounts.read_accounts(run).sweep if t.bottleneck}
    assert kinds["t01"] == ("none",)
    assert kinds["t07"] == ("unknown",)  # its records have no CPU time by worker
    assert not accounts.stage_grid(accounts.read_accounts(run)).rows
    made = build_report(run.path)
    assert {p.stem for p in made.figures} >= {"detection_vs_load", "where_packets_went"}
    assert "host_timeline" not in {p.stem for p in made.figures}
    text = made.html.read_text()
    assert "No lab check is stored with this run" in text
    assert "The sensor&#39;s host was not sampled in this run." in text
