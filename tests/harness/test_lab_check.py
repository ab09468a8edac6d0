"""`probebench lab check` on hosts that answer from memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import lab_check
from lab.fake import Call, FakeHost, Reply
from lab.host import Host
from lab.inventory import Inventory, load_inventory

FOUND = "wrapper=yes\nbinary=yes\nversion=v3.08\nstl=yes\nhugepages=0\nhugepages_free=0\ncores=8\n"


@pytest.fixture
def inventory() -> Inventory:
    return load_inventory(Path(__file__).resolve().parents[2] / "lab" / "example-trex.toml")


def lines(
    monkeypatch: pytest.MonkeyPatch, inventory: Inventory, trex: str, missing: str = ""
) -> list[lab_check.Line]:
    def answer(call: Call) -> Reply:
        script = call.argv[2] if len(call.argv) > 2 else ""
        if "t-rex-64" in script:
            return Reply(trex)
        return Reply(missing if "command -v" in script else "")

    @contextlib.contextmanager
    def connected(given: Inventory) -> Iterator[dict[str, Host]]:
        yield {name: FakeHost(answer, name=name) for name in given.hosts}

    monkeypatch.setattr(lab_check, "connect_lab", connected)
    monkeypatch.setattr(lab_check, "check_transmit", lambda *words: None)
    return lab_check.check_lab(inventory)


def test_a_trex_that_is_ready(monkeypatch: pytest.MonkeyPatch, inventory: Inventory) -> None:
    found = lines(monkeypatch, inventory, FOUND)
    assert not [line for line in found if line.level == "problem"]
    (line,) = [line for line in found if line.about == "trex" and line.level == "ok"]
    assert line.text.startswith("v3.08 in /opt/trex/v3.08; modes stf, stl; its own Python client")


def test_what_would_fail_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, inventory: Inventory
) -> None:
    running = "process=42 ./_t-rex-64 -i\nruntime=3\n"
    found = lines(monkeypatch, inventory, FOUND.replace("binary=yes\n", "") + running, "ss\n")
    texts = [line.text for line in found if line.level == "problem"]
    assert any(text.startswith("ss: not there") for text in texts)
    assert any("/opt/trex/v3.08/_t-rex-64 is not there" in text for text in texts)
    assert any("a TRex runs already: pid 42" in text for text in texts)
    assert any("3 runtime files" in line.text for line in found if line.level == "info")
