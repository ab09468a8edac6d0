"""A sweep that is killed, interrupted, cut off or refused: nothing runs on, no number is made up.

One lab for the whole file; sweeps are processes of their own, as a user's are.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from suricata_traffic import RULES, write_capture
from sweeping import (
    Outcome,
    Sweep,
    generators,
    probebench,
    running,
    sensors,
    sent_packets,
    timeline,
    trials,
    until,
)

from lab import virtual
from lab.virtual_layout import layout

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.skipif(shutil.which("suricata") is None, reason="needs suricata"),
    pytest.mark.skipif(shutil.which("tcpreplay") is None, reason="needs tcpreplay"),
]


@dataclass(frozen=True)
class Bench:
    """A lab that is up, its inventory with small rules, and a corpus."""

    name: str
    lab: Path
    corpus: Path

    def changed(self, path: Path, *changes: tuple[str, str]) -> Path:
        """An inventory like the lab's, with parts of the text replaced."""
        text = self.lab.read_text()
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        path.write_text(text)
        return path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    tmp = tmp_path_factory.mktemp("resilience")
    name = f"res{os.getpid()}"
    try:
        lab = virtual.up(name)
        (tmp / "t.rules").write_text(RULES)
        lines = [
            f'rules = ["{tmp}/t.rules"]' if line.startswith("rules = ") else line
            for line in lab.read_text().splitlines()
        ]
        own = tmp / "lab.toml"
        own.write_text("\n".join(lines) + "\n")
        write_capture(tmp / "corpus.pcap")
        yield Bench(name, own, tmp / "corpus.pcap")
    finally:
        virtual.down(name)


def profile(tmp: Path, *loads: float, seconds: float = 3.0) -> Path:
    path = tmp / "profile.toml"
    path.write_text(f'name = "t"\n[load]\nvalues = {list(loads)}\nduration = {seconds}\n')
    return path


@pytest.fixture
def sweep(bench: Bench, tmp_path: Path) -> Iterator[Callable[..., Sweep]]:
    """Starts sweeps into one run directory; the last must have ended with the test."""
    started: list[Sweep] = []

    def start(where: Path, *more: str | Path) -> Sweep:
        one = Sweep(tmp_path / f"{len(started)}.log")
        how = more or ("-o", tmp_path / "run")
        started.append(one.start(where, "--lab", bench.lab, "--corpus", bench.corpus, *how))
        return one

    yield start
    for one in started:
        one.clear()


def test_killed_then_interrupted_then_resumed(
    bench: Bench, sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    """Nothing is sent on after a kill -9 or Ctrl-C; what was measured is kept, once."""
    run, loads = tmp_path / "run", profile(tmp_path, 2000, 3000)
    first = sweep(loads)
    first.reach("t02")
    kept = (run / "trials.jsonl").read_bytes()
    key = json.loads((run / "run.json").read_text())["seeds"]["permutation_key"]
    assert generators(bench.name) and sensors(bench.name)
    first.kill(signal.SIGKILL)
    until(lambda: not generators(bench.name), 5)
    until(lambda: not sensors(bench.name), 8)
    assert first.end().status == -signal.SIGKILL

    second = sweep(loads, "--resume", run)
    second.reach("t02")
    second.kill(signal.SIGINT)
    outcome = second.end()
    assert outcome.status == 130
    assert "interrupted; everything was stopped" in outcome.complaint
    assert f"--resume {run}" in outcome.complaint
    assert not generators(bench.name) and not sensors(bench.name)

    third = sweep(loads, "--resume", run).end()
    assert third.status == 0, third.stderr
    assert (run / "trials.jsonl").read_bytes().startswith(kept)
    assert json.loads((run / "run.json").read_text())["seeds"]["permutation_key"] == key
    one, two = trials(run)
    assert (one["name"], two["name"]) == ("t01", "t02")
    assert two["schedule"]["first_iteration"] == one["schedule"]["iterations"]
    for trial in (one, two):
        assert trial["failure"] is None
        assert trial["detection"]["due"] == trial["detection"]["detected"] > 0
        times = [float(r.split(",")[1]) for r in timeline(run) if r.startswith(trial["name"])]
        assert times and times == sorted(set(times))
        assert times[0] < 0.5 and max(b - a for a, b in itertools.pairwise(times)) < 3


def test_the_link_to_the_generator_is_lost(
    bench: Bench, sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    """The generator stops by itself; the sensor, still reachable, is stopped."""
    cable = layout(bench.name).management[0]
    one = sweep(profile(tmp_path, 2000, seconds=30))
    one.reach("t01")
    subprocess.run(["ip", "link", "set", cable, "down"], check=True)
    try:
        until(lambda: not generators(bench.name), 6)
        outcome = one.end(30)
    finally:
        subprocess.run(["ip", "link", "set", cable, "up"], check=True)
    assert outcome.status == 3
    assert "generator" in outcome.complaint
    assert f"--resume {tmp_path / 'run'}" in outcome.complaint
    assert not sensors(bench.name)
    assert not (tmp_path / "run" / "trials.jsonl").exists()


def test_a_death_is_named_and_never_a_number(
    bench: Bench, sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    """tcpreplay killed in the first trial, Suricata in the second; the third is run."""
    one = sweep(profile(tmp_path, 2000, 2500, 3000, seconds=3))
    for name, role, program in (
        ("t01", "generator", "tcpreplay -i"),
        ("t02", "sensor", "suricata -c"),
    ):
        one.reach(name)
        victims = running(bench.name, role, program)
        for pid, command in victims.items():
            if command.split()[0].endswith(program.split()[0]):
                os.kill(pid, signal.SIGKILL)
                break
        else:
            pytest.fail(f"no {program} among {victims}")
    outcome = one.end()
    assert outcome.status == 3
    assert "2 trial(s) failed" in outcome.complaint
    first, second, third = trials(tmp_path / "run")
    assert first["failure"]["what"] == "generator-failed"
    assert "tcpreplay was killed by signal 9 (SIGKILL)" in first["failure"]["message"]
    assert second["failure"]["what"] == "sensor-failed"
    assert "suricata was killed" in second["failure"]["message"]
    for trial in (first, second):
        for number in ("sent", "after", "ledger", "detection", "drop_rate"):
            assert trial[number] is None
    assert third["failure"] is None
    assert third["detection"]["detected"] == third["detection"]["due"] > 0
    assert not generators(bench.name) and not sensors(bench.name)


def test_a_generator_at_its_limit_is_marked(bench: Bench, tmp_path: Path) -> None:
    """Asked 3 Mpps, this tcpreplay sends a fraction: a trial of its own kind, and strict fails."""
    loads = profile(tmp_path, 3_000_000, seconds=0.15)
    out = tmp_path / "run"
    outcome = probebench(
        "sweep", loads, "--lab", bench.lab, "--corpus", bench.corpus, "-o", out, "--strict"
    )
    assert outcome.status == 1, outcome.stderr
    assert "gates mark 1 trial(s)" in outcome.complaint
    (trial,) = trials(out)
    assert "generator-limited" in [g["code"] for g in trial["gates"] if g["severity"] == "invalid"]


def refused(bench: Bench, tmp: Path, lab: Path, corpus: Path | None = None) -> Outcome:
    """A sweep that must not begin: nothing is sent, nothing is left."""
    before = sent_packets(bench.name)
    where = corpus or bench.corpus
    argv = ("sweep", profile(tmp, 2000), "--lab", lab, "--corpus", where, "-o", tmp / "run")
    outcome = probebench(*argv)
    assert sent_packets(bench.name) == before
    assert not (tmp / "run").exists()
    assert "PRIVATE KEY" not in outcome.stderr
    return outcome


def test_an_unknown_host_key(bench: Bench, tmp_path: Path) -> None:
    known = layout(bench.name).directory / "known_hosts"
    (tmp_path / "empty").touch()
    lab = bench.changed(tmp_path / "lab.toml", (str(known), str(tmp_path / "empty")))
    outcome = refused(bench, tmp_path, lab)
    assert outcome.status == 3
    assert "generator" in outcome.complaint and "is unknown" in outcome.complaint


def test_a_key_that_is_not_accepted(bench: Bench, tmp_path: Path) -> None:
    key = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    right = layout(bench.name).directory / "client_ed25519"
    outcome = refused(bench, tmp_path, bench.changed(tmp_path / "lab.toml", (str(right), str(key))))
    assert outcome.status == 3
    assert "accepted no key" in outcome.complaint
    secret = "".join(key.read_text().splitlines()[1:-1])
    assert secret[:40] not in outcome.stderr


def test_an_unreachable_host(bench: Bench, tmp_path: Path) -> None:
    change = ("[hosts.sensor]\n", "[hosts.sensor]\nport = 9\n")
    outcome = refused(bench, tmp_path, bench.changed(tmp_path / "lab.toml", change))
    assert outcome.status == 3
    assert "sensor: cannot connect" in outcome.complaint


def test_an_interface_not_declared_for_tests(bench: Bench, tmp_path: Path) -> None:
    lab = bench.changed(
        tmp_path / "lab.toml",
        (
            "[hosts.generator.interfaces.tx0]\ntest = true",
            "[hosts.generator.interfaces.tx0]\ntest = false",
        ),
    )
    outcome = refused(bench, tmp_path, lab)
    assert outcome.status == 2
    assert "tx0 is not declared for tests" in outcome.complaint


NO_PACKETS = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")


@pytest.mark.parametrize("content", [None, b"", b"not a capture at all", NO_PACKETS])
def test_a_corpus_that_is_none(bench: Bench, tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty, garbage, without a packet."""
    corpus = tmp_path / "corpus.pcap"
    if content is not None:
        corpus.write_bytes(content)
    outcome = refused(bench, tmp_path, bench.lab, corpus)
    assert outcome.status == 2
    assert str(corpus) in outcome.complaint


@pytest.mark.parametrize("program", ["tcpreplay", "suricata"])
def test_a_program_that_is_missing(bench: Bench, tmp_path: Path, program: str) -> None:
    """The program is hidden in a mount namespace; hosts are entered as namespaces for that."""
    spaces = layout(bench.name).namespaces
    text = bench.lab.read_text()
    for name, space in (("generator", spaces.generator), ("sensor", spaces.sensor)):
        head = f"[hosts.{name}]\n"
        part = text[text.index(head) : text.index("[hosts.", text.index(head) + 1)]
        kept = [x for x in part.splitlines() if x.startswith(("python", "workdir"))]
        new = [head.strip(), 'connection = "netns"', f'netns = "{space}"', *kept, "", ""]
        text = text.replace(part, "\n".join(new))
    lab = tmp_path / "lab.toml"
    lab.write_text(text)
    path = shutil.which(program)
    hide = ["unshare", "-m", "sh", "-c", f'mount --bind /dev/null {path} && exec "$@"', "sh"]
    argv = ("sweep", profile(tmp_path, 2000), "--lab", lab, "--corpus", bench.corpus)
    outcome = probebench(*argv, "-o", tmp_path / "run", before=hide)
    assert outcome.status == 3
    assert program in outcome.complaint
