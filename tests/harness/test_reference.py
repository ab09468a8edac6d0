"""What is due must come back with fresh addresses; what does not is not scored, and is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import CORPUS, DUE, REFERENCE, invert

from harness import label, reference
from harness.corpus import CorpusFiles
from harness.errors import ConfigError
from harness.model import DueEvent, Reference
from harness.progress import Progress
from lab.fake import FakeHost
from lab.inventory import SensorSpec

SPEC = SensorSpec(host="sen", interface="rx0")


def mapped(iteration: int, due: DueEvent) -> DueEvent:
    """An event as it is raised on the addresses of an iteration."""
    return replace(due, a=f"{iteration}/{due.a}", b=f"{iteration}/{due.b}")


def rehearsed(monkeypatch: pytest.MonkeyPatch, *seen: DueEvent) -> tuple[Reference, Any]:
    """Rehearse with a sensor that raises these."""
    monkeypatch.setattr(reference, "expand", lambda *arguments: None)
    monkeypatch.setattr(reference, "invert_many", lambda plan, addresses: invert(addresses))
    monkeypatch.setattr(label, "label", lambda *arguments: replace(REFERENCE, due=seen))
    return reference.rehearse(CORPUS, None, REFERENCE, FakeHost(), SPEC)  # type: ignore[arg-type]


def test_what_comes_back_every_time_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [mapped(i, due) for i in range(reference.REHEARSED) for due in DUE]
    found, notes = rehearsed(monkeypatch, *seen)
    assert found == REFERENCE
    assert notes == ()


def test_an_event_that_is_missing_once_is_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    found, notes = rehearsed(monkeypatch, mapped(0, DUE[0]), mapped(1, DUE[0]), mapped(0, DUE[1]))
    assert found.due == (DUE[0],)
    assert len(notes) == 1 and "1 event(s) of sid 2 (two)" in notes[0]


def test_ends_of_different_iterations_are_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    crossed = replace(mapped(0, DUE[1]), b=f"1/{DUE[1].b}")
    found, _ = rehearsed(monkeypatch, mapped(0, DUE[0]), mapped(1, DUE[0]), crossed, crossed)
    assert found.due == (DUE[0],)


def test_an_end_that_keeps_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multicast: the other end tells the iteration."""
    due = replace(DUE[0], b="224.0.0.251")
    monkeypatch.setattr("fakes.REFERENCE", replace(REFERENCE, due=(due,)))
    seen = [replace(mapped(i, due), b=due.b) for i in range(reference.REHEARSED)]
    monkeypatch.setattr(reference, "expand", lambda *arguments: None)
    monkeypatch.setattr(reference, "invert_many", lambda plan, addresses: invert(addresses))
    monkeypatch.setattr(label, "label", lambda *a: replace(REFERENCE, due=tuple(seen)))
    wanted = replace(REFERENCE, due=(due,))
    found, notes = reference.rehearse(CORPUS, None, wanted, FakeHost(), SPEC)  # type: ignore[arg-type]
    assert (found.due, notes) == ((due,), ())


def test_nothing_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="none of the due alerts"):
        rehearsed(monkeypatch, mapped(0, DUE[0]))


def test_a_corpus_on_which_nothing_is_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(label, "label", lambda *arguments: replace(REFERENCE, due=()))
    files = CorpusFiles(tmp_path / "corpus.pcap")
    with pytest.raises(ConfigError, match="raises no alert on it"):
        reference.reference_for(files, FakeHost(), SPEC, Progress(quiet=True))
    assert not files.reference.exists()


def test_the_reference_is_kept_beside_the_corpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(label, "label", lambda *arguments: REFERENCE)
    files = CorpusFiles(tmp_path / "corpus.pcap")
    assert reference.reference_for(files, FakeHost(), SPEC, Progress(quiet=True)) == REFERENCE
    assert label.load(files.reference) == REFERENCE
