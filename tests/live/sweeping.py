"""`probebench` as a user runs it: as a process, watched from outside and killed from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import netns_tools as net
from lab.virtual_layout import layout

PROBEBENCH = (sys.executable, "-m", "harness")


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and everything it said."""

    status: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """Its one line of error. Fails when there is a traceback, or not exactly one line."""
        assert "Traceback" not in self.stderr, self.stderr
        lines = [x for x in self.stderr.splitlines() if x.startswith("probebench: ")]
        assert len(lines) == 1, self.stderr
        assert self.stderr.splitlines()[-1] == lines[0]
        return lines[0]


def probebench(*argv: str | Path, before: Sequence[str] = (), timeout: float = 120) -> Outcome:
    """Run a command to its end."""
    done = subprocess.run(
        [*before, *PROBEBENCH, *map(str, argv)], capture_output=True, text=True, timeout=timeout
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def good(*argv: str | Path) -> str:
    """Run a command that must succeed; returns what it printed."""
    outcome = probebench(*argv)
    assert outcome.status == 0, outcome.stderr
    assert "Traceback" not in outcome.stderr
    return outcome.stdout


@dataclass
class Sweep:
    """A `probebench sweep` that runs; what it says goes to files."""

    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self, *argv: str | Path) -> Sweep:
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*PROBEBENCH, "sweep", *map(str, argv)],
                stdout=subprocess.DEVNULL,
                stderr=out,
                start_new_session=True,
            )
        return self

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def reach(self, trial: str, patience: float = 60) -> None:
        """Wait until packets of a trial are being sent."""

        def sending() -> bool:
            assert self.process.poll() is None, self.said()
            return re.search(rf"^ *{trial} .*  received +[1-9]", self.said(), re.M) is not None

        until(sending, patience)

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self, patience: float = 60) -> Outcome:
        status = self.process.wait(patience)
        return Outcome(status, "", self.said())

    def clear(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def timeline(run: Path) -> list[str]:
    """Whole rows of `timeline.csv`, without its head."""
    path = run / "timeline.csv"
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()[1:]


def trials(run: Path) -> list[dict[str, Any]]:
    """Records of `trials.jsonl`."""
    return [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]


def until(true: Callable[[], bool], patience: float) -> float:
    """Wait until something holds; returns how long that took."""
    begun = time.monotonic()
    while not true():
        waited = time.monotonic() - begun
        assert waited < patience, f"not within {patience:g} s"
        time.sleep(0.05)
    return time.monotonic() - begun


def running(lab: str, role: str, *words: str) -> dict[int, str]:
    """Processes in a namespace of a lab whose command has one of the words."""
    space = getattr(layout(lab).namespaces, role)
    listed = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True)
    commands = {int(pid): net.process_command(int(pid)) for pid in listed.stdout.split()}
    return {pid: text for pid, text in commands.items() if any(word in text for word in words)}


def generators(lab: str) -> dict[int, str]:
    """Whatever can still send."""
    return running(lab, "generator", "tcpreplay", "pcap_tools")


def sensors(lab: str) -> dict[int, str]:
    """Suricata and what watches it."""
    return running(lab, "sensor", "suricata")


def sent_packets(lab: str) -> int:
    """What the generator's test interface has counted."""
    space = layout(lab).namespaces.generator
    argv = ["ip", "netns", "exec", space, "cat", "/sys/class/net/tx0/statistics/tx_packets"]
    return int(net.run(argv).stdout)
