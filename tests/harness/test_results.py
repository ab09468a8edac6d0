"""A run on disk survives a crash at any byte of its last line, and reads back what was written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import ResultsError
from harness.model import (
    Counters,
    Detection,
    Failure,
    GateResult,
    InterfaceCounters,
    Ledger,
    Load,
    Schedule,
    Sent,
    SignatureScore,
)
from harness.results import RunDir, RunInfo, Trial
from harness.sweep import prune_timeline


def trial(name: str = "t01") -> Trial:
    load = Load("pps", 1000.0, 5.0)
    return Trial(
        name=name,
        phase="sweep",
        repeat=0,
        method="fresh",
        started="a",
        ended="b",
        load=load,
        schedule=Schedule(
            load, 0, 5, 1.0, "pps", 5000, 500_000, 50, 5.0, 1000.0, 8e5, 10.0, 3.0, 0.8
        ),
        state="restarted",
        sent=Sent(5000, 500_000, 50, 10.0, 0, 1, 2, 5000, 500_000),
        before=Counters(0, 0, 0, 0, 0, 0, 0),
        after=Counters(5000, 10, 4990, 499_000, 0, 50, 9, {"W#01": 4990}, {"x.y": 1.0}, True),
        nic=InterfaceCounters(5000, 500_000, 0, 0, 0, 0, 0, 0, 0),
        ledger=Ledger(5000, 0, 0, 10, 0, 4990, 0, 0),
        detection=Detection(10, 9, 0.9, 0.6, 0.98, 9, 0, 0, 0, (SignatureScore(1, "s", 10, 9),)),
        drop_rate=0.002,
        settled=True,
        gates=(GateResult("x", "invalid", "t", "m", "a", {"n": 1.0}),),
    )


def test_a_trial_reads_back_equal(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r")
    whole = [
        trial("t01"),
        replace(
            trial("t02"),
            sent=None,
            detection=None,
            gates=(),
            failure=Failure("generator-failed", "killed"),
        ),
    ]
    for one in whole:
        run.append(one)
    assert list(run.trials()) == whole
    assert [t.valid for t in run.trials()] == [False, False]


@pytest.mark.parametrize("lost", [1, 2, 100, 1000])
def test_a_torn_last_line_is_ignored_and_then_cut_off(tmp_path: Path, lost: int) -> None:
    run = RunDir(tmp_path)
    for name in ("t01", "t02", "t03"):
        run.append(trial(name))
    data = run.trials_path.read_bytes()
    run.trials_path.write_bytes(data[:-lost])
    assert [t.name for t in run.trials()] == ["t01", "t02"]
    run.append(trial("t04"))
    assert [t.name for t in run.trials()] == ["t01", "t02", "t04"]


def test_a_damaged_whole_line_is_named(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append(trial())
    run.trials_path.write_bytes(b"{}\n" + run.trials_path.read_bytes())
    with pytest.raises(ResultsError, match="line 1 is damaged"):
        list(run.trials())


def test_offered_rates_use_the_time_really_taken() -> None:
    # 5,000 packets were to take 5 s and took 10.
    assert trial().offered_pps == pytest.approx(500)
    assert trial().offered_flows_per_s == pytest.approx(5)
    assert trial().offered_bps == pytest.approx(4e5)


def test_run_info_reads_back_and_other_schemas_are_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    info = RunInfo(
        {"name": "p"},
        {},
        {},
        {},
        {},
        {},
        {"permutation_key": "k"},
        "now",
        "s 1",
        ("note",),
        (1.0, 2.0),
    )
    run.write_info(info)
    assert run.info() == info
    data = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**data, "schema": 99}))
    with pytest.raises(ResultsError, match="schema 99"):
        run.info()
    with pytest.raises(ResultsError, match="not a run directory"):
        RunDir(tmp_path / "none").info()


def test_samples_of_trials_that_never_became_whole_are_dropped(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.timeline_path.write_text("trial,t_s\nt01,0\nt02,0\nt01,1\nt02,")
    prune_timeline(run, {"t01"})
    assert run.timeline_path.read_text() == "trial,t_s\nt01,0\nt01,1\n"


def test_estimated_packets_are_not_called_offered() -> None:
    """A generator of flows: packets/s and bits/s are what it sent, whatever was reckoned with."""
    one = trial()
    assert one.sent is not None
    schedule = replace(
        one.schedule, packets=10**9, pps=10**8, bps=10**9, settings={"packets_are_estimates": 1.0}
    )
    flows = replace(one, schedule=schedule)
    assert flows.offered_pps == pytest.approx(one.sent.packets / one.sent.seconds)
    assert flows.offered_bps == pytest.approx(8 * one.sent.bytes / one.sent.seconds)
    by_packets = replace(flows, load=replace(one.load, axis="pps"))
    assert by_packets.offered == flows.offered_pps
    assert flows.offered_flows_per_s == pytest.approx(
        schedule.flows_per_s * one.sent.flows / schedule.flows * schedule.seconds / one.sent.seconds
    )
