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
    running = "process=42 ./_t-rex-64 -i\nruntime=3\ntaken=4500\n"
    found = lines(monkeypatch, inventory, FOUND.replace("binary=yes\n", "") + running, "ss\n")
    texts = [line.text for line in found if line.level == "problem"]
    assert any(text.startswith("ss: not there") for text in texts)
    assert any("/opt/trex/v3.08/_t-rex-64 is not there" in text for text in texts)
    assert any("port 4500 is taken there" in text for text in texts)
    assert any("a TRex runs already: pid 42" in x.text for x in found if x.level == "info")
    assert any("3 runtime files" in line.text for line in found if line.level == "info")


def test_a_trex_that_is_ours_or_has_other_ports_is_no_problem(
    monkeypatch: pytest.MonkeyPatch, inventory: Inventory
) -> None:
    ours = (
        "process=42 ./_t-rex-64 -f x --cfg /var/tmp/probebench/trex.yaml\ntaken=4500\ntaken=4501\n"
    )
    other = "process=43 ./_t-rex-64 -i --cfg /etc/trex_cfg.yaml\n"
    for running, more in ((ours, "; the next run ends it, since it is one of ours"), (other, "")):
        found = lines(monkeypatch, inventory, FOUND + running)
        assert not [line for line in found if line.level == "problem"]
        (said,) = [line.text for line in found if "runs already" in line.text]
        assert said.endswith(running.partition("=")[2].partition("\n")[0].partition(" ")[2] + more)


def test_ports_that_the_mode_cannot_drive(
    monkeypatch: pytest.MonkeyPatch, inventory: Inventory
) -> None:
    hard = {**inventory.generator.options, "software": False}
    generator = inventory.generator.model_copy(update={"options": hard})
    found = lines(monkeypatch, inventory.model_copy(update={"generator": generator}), FOUND)
    assert any("'ens2f0' is a kernel interface" in x.text for x in found if x.level == "problem")


def test_a_server_that_the_user_started(
    monkeypatch: pytest.MonkeyPatch, inventory: Inventory
) -> None:
    """Its ports are taken, which is as it should be; without any it is missed."""
    options = {**inventory.generator.options, "server": "running"}
    spec = inventory.generator.model_copy(update={"options": options})
    running = inventory.model_copy(update={"generator": spec})
    taken = FOUND + "taken=4500\ntaken=4501\n"
    assert not [x for x in lines(monkeypatch, running, taken) if x.level == "problem"]
    (line,) = [x for x in lines(monkeypatch, running, FOUND) if x.level == "problem"]
    assert line.text.startswith("nothing listens on port 4501: start `t-rex-64 -i`")
