"""The comparison of replay methods: the same number of copies at the same rate, four ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fakes import CORPUS, FakeGenerator, fakes, make_rig

from harness import bias
from harness.model import Corpus
from harness.profile import Profile
from harness.results import RunDir, RunInfo
from harness.session import Session
from harness.sweep import Sweeper

RAW = replace(CORPUS, path="raw.pcap", packets=130, flows=13)
INFO = RunInfo({}, {}, {}, {}, {}, {}, {"permutation_key": "k"}, "now", "fake 1")


@pytest.mark.parametrize("raw", [None, Path("raw.pcap")])
def test_four_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, raw: Path | None) -> None:
    rig = make_rig(tmp_path)
    made: list[tuple[str, bool]] = []

    def loop(session: Session, corpus: Corpus, *, unique: bool) -> FakeGenerator:
        made.append((corpus.path, unique))
        generator = fakes(rig)[0]
        return replace(generator, corpus=corpus, started=generator.started)

    monkeypatch.setattr(bias, "_loop", loop)
    monkeypatch.setattr(bias, "describe", lambda *arguments: RAW)
    run = RunDir(tmp_path)
    run.write_info(INFO)
    parts: dict[str, Any] = {
        "rig": rig, "run": run, "corpus": CORPUS, "plan": SimpleNamespace(capacity=10**6),
        "first_iteration": 0,
    }  # fmt: skip
    sweeper = Sweeper(cast(Session, SimpleNamespace(**parts)), Profile(name="p"))
    trials = bias.run_bias(sweeper, raw, 1000.0, 5.0)
    methods = ["loop", "unique-ip", "fresh"]
    loops = [("corpus.pcap", False), ("corpus.pcap", True)]
    if raw is not None:
        methods, loops = ["raw-loop", *methods], [("raw.pcap", False), *loops]
    assert [t.method for t in trials] == methods
    assert [t.name for t in trials] == [f"b-{m}" for m in methods]
    assert made == loops
    assert {t.schedule.iterations for t in trials} == {50}
    assert {t.schedule.pps for t in trials} == {1000.0}
    assert {t.phase for t in trials} == {"bias"}
    assert [t.name for t in run.trials()] == [t.name for t in trials]
