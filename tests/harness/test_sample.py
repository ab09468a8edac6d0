"""The sample run in the repository is a real one, whole, and its report follows from it alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from harness.host_samples import read_samples
from harness.preflight import read_preflight
from harness.report.build import build_report
from harness.results import RunDir

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "results" / "sample"
RECORDS = (
    *("run.json", "trials.jsonl", "timeline.csv", "plan.json"),
    *("host.jsonl", "preflight.json"),
)
VERDICT = re.compile(r'<section class="verdict.*?</section>', re.S)


def test_curves_and_verdict_are_recomputed_from_the_trials(tmp_path: Path) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for name in RECORDS:
        shutil.copy(SAMPLE / name, copy / name)
    made = build_report(copy)
    assert made.curves_csv.read_text() == (SAMPLE / "curves.csv").read_text()
    committed = VERDICT.search((SAMPLE / "report.html").read_text())
    anew = VERDICT.search(made.html.read_text())
    assert committed and anew
    assert anew[0] == committed[0]
    assert {path.name for path in made.figures} == {p.name for p in (SAMPLE / "figures").iterdir()}


def test_it_tells_the_whole_story() -> None:
    """Lab check, host samples, every stage and a verdict of each trial are in the records."""
    assert read_preflight(SAMPLE)[-1]["findings"]
    sampled = {name for name, _ in read_samples(SAMPLE)}
    for trial in RunDir(SAMPLE).trials():
        assert trial.name in sampled
        assert trial.ledger is not None and trial.ledger.stages
        lost = sum(stage.packets or 0 for stage in trial.ledger.stages)
        assert lost + (trial.ledger.analysed or 0) == trial.ledger.offered
        assert trial.bottleneck is not None
        assert (trial.bottleneck.primary.kind == "none") == (trial.drop_rate == 0)
        assert trial.host is not None and (trial.host.sampler_share or 1) < 0.01


def test_the_first_page_shows_its_pictures() -> None:
    for name in ("bias.png", "detection_vs_load.png", "where_packets_went.png"):
        assert (ROOT / "docs" / name).read_bytes() == (SAMPLE / "figures" / name).read_bytes()


def test_it_shows_what_the_first_page_says() -> None:
    trials = list(RunDir(SAMPLE).trials())
    assert all(t.ledger is not None and t.ledger.unexplained == 0 for t in trials)
    sweep = [t for t in trials if t.phase == "sweep"]
    drops = [t.drop_rate for t in sweep if t.drop_rate is not None]
    assert min(drops) == 0
    assert max(drops) > 0.1
    bias = {t.method: t for t in trials if t.phase == "bias"}
    assert set(bias) == {"raw-loop", "loop", "unique-ip", "fresh"}
    assert all(t.drop_rate == 0 for t in bias.values())
    fresh, loop = bias["fresh"].detection, bias["loop"].detection
    assert fresh is not None and fresh.detected == fresh.due
    assert loop is not None and loop.raised < loop.due / 2


def test_no_secret_and_no_home_directory_is_in_it() -> None:
    for path in SAMPLE.rglob("*"):
        if path.is_file() and path.suffix != ".png":
            text = path.read_text(errors="replace")
            assert "PRIVATE KEY" not in text
            assert "/home/" not in text
