"""What the benchmarks share: whole processes timed in turn, their memory, and a verdict.

A `Command` is run as a user runs it, start-up included. `compare` runs all of them in turn, again
and again, so that what else the machine does hits all alike; every output is removed before the
next run, outside of the time. Ratios are of medians. Memory is taken in a run of its own, since
looking costs time: ru_maxrss counts the pages of mapped files and of shared memory too, "its own"
are anonymous pages (RssAnon of /proc/PID/status, looked up every few milliseconds, children
included).

A process's ru_maxrss is at least what its parent held when it was started: nothing large may be
imported or made here, so captures are made by `traffic.py` as a process of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "OURS",
    "Claim",
    "Command",
    "Memory",
    "Run",
    "compare",
    "memory",
    "missing",
    "options",
    "present",
    "report",
    "run",
    "traffic",
    "workplace",
]

OURS = (sys.executable, "-m", "harness")
"""The program under test, as installed in this interpreter or from the checkout."""

_ROOT = Path(__file__).resolve().parents[1]
_LOOK_S = 0.005


@dataclass(frozen=True)
class Command:
    """A process to measure; `outputs` (files or directories) are removed before every run."""

    name: str
    arguments: Sequence[str]
    outputs: Sequence[Path] = ()
    package: str = ""

    def clear(self) -> None:
        """Remove what the last run wrote."""
        for output in self.outputs:
            if output.is_dir():
                shutil.rmtree(output)
                output.mkdir()
            else:
                output.unlink(missing_ok=True)


@dataclass(frozen=True)
class Run:
    """Wall-clock and CPU seconds, and ru_maxrss in bytes."""

    wall: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Memory:
    """Peaks in bytes: everything resident (ru_maxrss), and the process's own pages."""

    resident: int
    anonymous: int

    def __str__(self) -> str:
        return f"{self.resident / 1e6:,.0f} MB resident, {self.anonymous / 1e6:,.0f} MB its own"


@dataclass(frozen=True)
class Claim:
    """`what` is at least `must` (and better `aim`), or, with `most`, at most."""

    what: str
    value: float
    must: float | None
    aim: float | None = None
    most: bool = False
    unit: str = "x"

    @property
    def holds(self) -> bool:
        """True when there is nothing that it must reach, or it does."""
        return self.must is None or self._reaches(self.must)

    def _reaches(self, limit: float) -> bool:
        return self.value <= limit if self.most else self.value >= limit

    def __str__(self) -> str:
        word = "at most" if self.most else "at least"
        parts = []
        if self.must is not None:
            parts.append(f"must be {word} {self.must:g}: {'holds' if self.holds else 'FAILS'}")
        if self.aim is not None:
            reached = "reached" if self._reaches(self.aim) else "not reached"
            parts.append(f"aim {word} {self.aim:g}: {reached}")
        return f"{self.what}: {self.value:.2f} {self.unit} ({'; '.join(parts)})"


@dataclass
class Results:
    """Runs by command name."""

    runs: dict[str, list[Run]] = field(default_factory=dict)

    def wall(self, name: str) -> float:
        """Median wall-clock seconds."""
        return statistics.median(run.wall for run in self.runs[name])

    def ratio(self, slower: str, faster: str) -> float:
        """How many times the one takes what the other takes."""
        return self.wall(slower) / self.wall(faster)

    def __contains__(self, name: str) -> bool:
        return name in self.runs

    def show(self) -> None:
        """A line a command: median and extremes of wall time, CPU time, peak."""
        for name, runs in self.runs.items():
            walls = [run.wall for run in runs]
            cpu = statistics.median(run.cpu for run in runs)
            peak = max(run.peak for run in runs) / 1e6
            print(
                f"  {name}: {statistics.median(walls):.3f} s ({min(walls):.3f} … "
                f"{max(walls):.3f}), {cpu:.2f} s CPU, peak {peak:,.0f} MB resident",
                flush=True,
            )


def run(command: Command) -> Run:
    """One run; what it prints is thrown away. Exits with its last words when it fails."""
    command.clear()
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        process = _start(command, said.fileno())
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{command.name} failed: {said.read().strip()[-300:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def compare(commands: Sequence[Command], runs: int, warm: Command | None = None) -> Results:
    """Every command `runs` times in turn; `warm` (by default the first) once before, uncounted.

    Every other round goes backwards: who comes after a program that wrote much finds memory that
    the machine has at hand, and nobody shall always be that one.
    """
    run(warm or commands[0])
    results = Results({command.name: [] for command in commands})
    for number in range(runs):
        for command in commands if number % 2 == 0 else reversed(commands):
            results.runs[command.name].append(run(command))
            command.clear()
    return results


def memory(command: Command) -> Memory:
    """The command's peaks, in a run that is not timed."""
    command.clear()
    process = _start(command, subprocess.DEVNULL)
    anonymous = 0
    while True:
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        anonymous = max(anonymous, sum(_own_pages(pid) for pid in _family(process.pid)))
        time.sleep(_LOOK_S)
    process.returncode = os.waitstatus_to_exitcode(status)
    command.clear()
    if process.returncode:
        raise SystemExit(f"{command.name} failed (exit status {process.returncode})")
    return Memory(usage.ru_maxrss * 1024, anonymous)


def missing(commands: Sequence[Command]) -> list[Command]:
    """Those whose program is not installed; says so, with the package that has it."""
    absent = [command for command in commands if not shutil.which(command.arguments[0])]
    for command in absent:
        how = f"apt-get install {command.package}" if command.package else "install it"
        print(f"  {command.name}: not installed, its claims are not measured ({how})")
    return absent


def present(commands: Sequence[Command], absent: Sequence[Command]) -> list[Command]:
    """The commands without the absent ones."""
    return [command for command in commands if command not in absent]


def options(text: str | None, megabytes: int, runs: int) -> argparse.ArgumentParser:
    """The options that all scripts have."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=megabytes, help="size of the capture")
    parser.add_argument("--runs", type=int, default=runs, help="runs of each program")
    parser.add_argument(
        "--directory", type=Path, default=Path("/dev/shm"), help="for input and output; in memory"
    )
    return parser


def traffic(path: Path, profile: str, megabytes: int) -> Path:
    """Make a capture ("mix" or "small", see traffic.py), and tell what is in it."""
    maker = Path(__file__).with_name("traffic.py")
    command = [sys.executable, str(maker), profile, str(megabytes), str(path)]
    subprocess.run(command, check=True)
    return path


@contextmanager
def workplace(directory: Path) -> Iterator[Path]:
    """A directory for the files, removed at the end; tells what else the machine does."""
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} CPUs, load average {load:.2f}" + (", NOT QUIET" * (load > 0.5)))
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=directory) as name:
        yield Path(name)


def report(claims: Sequence[Claim]) -> int:
    """Print the claims; the exit status."""
    for claim in claims:
        print(claim)
    return 0 if all(claim.holds for claim in claims) else 1


def _start(command: Command, stderr: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    # A user's Python keeps its compiled modules; without them every start compiles all sources.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.Popen(
        command.arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env=environment,
    )


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return
    for child in text.split():
        yield from _family(int(child))


def _own_pages(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    _, found, rest = text.partition("RssAnon:")
    return int(rest.split()[0]) * 1024 if found else 0
