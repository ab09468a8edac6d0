"""`probebench demo`: what it refuses before it builds a lab, and how it ends."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import make_rig

import harness.cli
from harness.demo import DemoOptions, DemoOutcome, _command, verdict
from harness.errors import GateFailed
from harness.model import Load
from harness.results import RunDir, Trial
from harness.sweep import Ledgered
from harness.trial import TrialSpec, run_trial

PROFILE = 'name = "p"\n[load]\nvalues = [1000]\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "p.toml").write_text(PROFILE)
    return tmp_path


def main(monkeypatch: pytest.MonkeyPatch, *argv: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["probebench", "demo", *map(str, argv)])
    with pytest.raises(SystemExit) as ended:
        harness.cli.main()
    return int(ended.value.code or 0)


def refuse(*arguments: object) -> None:
    raise AssertionError("it built a lab")


@pytest.mark.parametrize("group", [[], ["bias"]])
def test_a_run_is_never_written_over(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: Path,
    group: list[str],
) -> None:
    monkeypatch.setattr("lab.virtual.up", refuse)
    (place / "run").mkdir()
    (place / "run" / "run.json").write_text("{}")
    argv = [*group, "--profile", place / "p.toml", "-o", place / "run"]
    assert main(monkeypatch, *argv) == 2
    assert "already holds a run" in capsys.readouterr().err


@pytest.mark.parametrize(("keep", "says"), [([], "was removed"), (["--keep-lab"], "still up")])
def test_an_interruption_tells_what_became_of_the_lab(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: Path,
    keep: list[str],
    says: str,
) -> None:
    def interrupted(*arguments: object) -> DemoOutcome:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.demo.demo", interrupted)
    assert main(monkeypatch, "--profile", place / "p.toml", *keep) == 130
    assert says in capsys.readouterr().err


def test_the_recorded_command_repeats_the_demo(place: Path) -> None:
    options = DemoOptions(place / "p.toml", "mine", place / "run")
    told = _command(options, RunDir(place / "run"), "bias")
    profile, run = str(place / "p.toml"), str(place / "run")
    assert told == (
        *("probebench", "demo", "bias"),
        *("--profile", profile, "--name", "mine", "-o", run),
    )


def lost(whole: Trial, *rates: float) -> list[Trial]:
    return [replace(whole, drop_rate=rate, gates=()) for rate in rates]


def test_a_curve_that_proves_nothing_is_a_failed_gate(tmp_path: Path) -> None:
    spec = TrialSpec("t01", "sweep", Load("pps", 1000.0, 1.0), 0)
    whole = run_trial(make_rig(tmp_path), spec)
    verdict(lost(whole, 0.0, 0.2))
    with pytest.raises(GateFailed, match="no beginning"):
        verdict(lost(whole, 0.05, 0.2))
    with pytest.raises(GateFailed, match="into loss"):
        verdict(lost(whole, 0.0, 0.001))
    with pytest.raises(GateFailed, match="no beginning"):
        verdict([])


def test_failed_trials_are_status_3(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    outcome = DemoOutcome(place / "run", Ledgered(2, 0, 1, 1), 1.0)
    monkeypatch.setattr("harness.demo.demo", lambda *arguments: outcome)
    monkeypatch.setattr(
        "harness.report.build.build_report", lambda run: type("Files", (), {"html": "x"})()
    )
    assert main(monkeypatch, "--profile", place / "p.toml", "--json") == 3
