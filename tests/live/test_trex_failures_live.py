"""Everything that may go wrong with a TRex on its host, done to it from outside.

On the fake one of tests/harness/fake_trex.py, and on a real one where PROBEBENCH_TREX=DIR says so:
what is asserted of the fake one is thereby checked against the original.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import test_trex_stf_live as stf

from harness.corpus import describe
from harness.errors import GeneratorFailed
from harness.generators.trex.stf import TrexStf
from harness.model import Load
from lab import netns_tools as net
from lab.connect import connect
from lab.inventory import load_inventory
from lab.virtual_layout import layout

pytestmark = pytest.mark.live

lab = stf.lab
corpus = stf.corpus


@pytest.fixture(params=stf.TREXES)
def generator(
    lab: Path,
    corpus: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[TrexStf]:
    """A prepared driver; at the end nothing of TRex may be left in the generator's namespace."""
    monkeypatch.setattr("harness.generators.trex.stf._STOP_GRACE_S", 2.0)
    found = load_inventory(
        stf.inventory(lab, tmp_path, stf.trex_of(request.param, tmp_path)),
    )
    host = connect("generator", found.hosts["generator"])
    driver = TrexStf(host, found.generator)
    driver.prepare(describe(corpus, ("10.0.0.0/8",), "k", None))
    try:
        yield driver
    finally:
        driver.stop()
        host.close()
    left = stf.running(lab)
    for pid in left.values():
        os.kill(pid, signal.SIGKILL)
    assert not left


def begun(generator: TrexStf, lab: Path) -> dict[str, int]:
    """Start a trial of 30 s and wait until it sends."""
    generator.start(generator.plan(Load("flows", 40, 30), 0))
    end = time.monotonic() + 60
    while not generator.progress().packets:
        assert time.monotonic() < end
        time.sleep(0.1)
    return stf.running(lab)


def test_killed_in_mid_trial(generator: TrexStf, lab: Path) -> None:
    os.kill(begun(generator, lab)["_t-rex-64"], signal.SIGKILL)
    with pytest.raises(GeneratorFailed, match="generator: TRex was killed by SIGKILL"):
        generator.finish()


def test_the_wrapper_is_ended_and_would_leave_the_server(generator: TrexStf, lab: Path) -> None:
    begun_ = begun(generator, lab)
    os.kill(begun_["t-rex-64"], signal.SIGKILL)
    with pytest.raises(GeneratorFailed, match="TRex was killed by SIGKILL"):
        generator.finish()


def test_frozen_in_mid_trial(
    generator: TrexStf, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.generators.trex.stf._SILENT_S", 3.0)
    os.kill(begun(generator, lab)["_t-rex-64"], signal.SIGSTOP)
    with pytest.raises(GeneratorFailed, match="TRex hangs: it said nothing for 3 s"):
        generator.finish()


def test_a_missing_interface(generator: TrexStf, lab: Path, tmp_path: Path, corpus: Path) -> None:
    space = layout(load_inventory(lab).name).namespaces.generator
    net.run(["ip", "-n", space, "link", "set", "tx1", "down"])
    net.run(["ip", "-n", space, "link", "set", "tx1", "name", "gone1"])
    try:
        fails(generator, "ERROR: Could not find Linux interface tx1")
    finally:
        net.run(["ip", "-n", space, "link", "set", "gone1", "name", "tx1"])
        net.run(["ip", "-n", space, "link", "set", "tx1", "up"])


def test_a_traffic_file_that_is_no_yaml(
    generator: TrexStf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.generators.trex.stf.traffic_yaml", lambda *words: "nonsense: [\n")
    fails(generator, "Error parsing file .*traffic.yaml as YAML: yaml-cpp: error at")


def test_a_flow_file_that_is_gone(generator: TrexStf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "_files", "/nowhere")
    fails(generator, "ERROR file /nowhere/.*pcap does not exist or not supported")


def test_its_port_is_taken(generator: TrexStf, lab: Path) -> None:
    space = layout(load_inventory(lab).name).namespaces.generator
    hold = (
        "import socket, sys; s = socket.socket(); s.bind(('', 4500)); s.listen(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        net.in_namespace(space, [sys.executable, "-c", hold]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        fails(generator, rf"ZMQ port is used by the following process: pid: {holder.pid}, cmd: ")
    finally:
        holder.kill()
        holder.communicate()


def test_panels_come_while_it_sends(generator: TrexStf) -> None:
    """The measured time is that between panels, so they may not come all at the end."""
    generator.start(generator.plan(Load("flows", 40, 3), 0))
    sent = generator.finish()
    console = generator._console
    assert console.first is not None and console.last is not None
    assert console.last - console.first > 1.0
    assert sent.seconds >= 3.0 and 0 < console.sent <= sent.packets


def fails(generator: TrexStf, why: str) -> None:
    """A trial that does not begin says why, in one line."""
    generator.start(generator.plan(Load("flows", 40, 3), 0))
    with pytest.raises(GeneratorFailed, match=f"generator: TRex failed with status .*: {why}") as e:
        generator.finish()
    assert "\n" not in str(e.value)
