"""Our end of the sampler: what it reads on a host during a trial, put together again.

`lab/_sampler.py` is shipped as a zip file named by its digest, and runs on a leash as the user of
the connection: nothing it reads needs root. It reads once at the start, then every `interval`, and
once more when stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import time
import zipfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.host import Host, Process

__all__ = ["Merger", "Raw", "Sampler", "Subject", "archive"]

Raw = dict[str, Any]
"""A reading, groups by name: t, wall, cost (numbers); interface, sockets, memory, disk, threads,
throttled (names to numbers); softnet, cpus, interrupts (names to names to numbers)."""

_MODULES = ("_sampler.py", "_sampler_files.py", "_sampler_machine.py", "_sampler_net.py")
_MAX_SECONDS = 25 * 3600.0  # a trial is never longer
_FIRST_S = 10.0
_STOP_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What to look at: an interface, processes (and what they started), and where they log."""

    interface: str | None
    pids: tuple[int, ...] = ()
    logs: str | None = None
    interval: float = 1.0


class Merger:
    """Whole readings out of the sampler's lines, as they come.

    A line carries what changed since the reading before, so everything after a lost one is given
    up (`torn`): a reading is right or is not there. What is no piece of a reading is `other`.
    """

    def __init__(self) -> None:
        self.count = 0
        self.torn = False
        self.other = ""
        self._last: Raw = {}
        self._pieces: list[str] = []

    def feed(self, lines: list[str]) -> list[Raw]:
        """The readings that these lines complete."""
        readings: list[Raw] = []
        for line in lines:
            words = line.split(" ", 3)
            if len(words) != 4 or not all(word.isdigit() for word in words[:3]):
                self.other = line.strip() or self.other
                continue
            number, at, pieces = (int(word) for word in words[:3])
            self.torn = self.torn or number != self.count or at != len(self._pieces)
            if self.torn:
                continue
            self._pieces.append(words[3])
            if at + 1 == pieces:
                self._last = _applied(self._last, json.loads("".join(self._pieces)))
                self._pieces = []
                self.count += 1
                readings.append(self._last)
        return readings


class Sampler:
    """One sampler on one host, from its first reading to its last.

    Making, `first` and `stop` raise LabError (with the sampler's own words where it left any).
    `take` may be called from another thread than they, one call at a time.
    """

    def __init__(self, host: Host, subject: Subject) -> None:
        self._host = host
        self._merger = Merger()
        self._waiting: list[Raw] = []
        argument = {
            "interface": subject.interface,
            "pids": list(subject.pids),
            "logs": subject.logs,
            "interval": subject.interval,
        }
        self._process: Process = host.start(
            [host.python, "-I", "-S", _ship(host), json.dumps(argument)], max_seconds=_MAX_SECONDS
        )

    def first(self) -> Raw:
        """Wait for the first reading; `take` gives it again."""
        end = time.monotonic() + _FIRST_S
        while True:
            ended = self._process.poll()
            self._waiting += self.take()
            if self._waiting:
                return self._waiting[0]
            if ended is not None:
                said = self._merger.other or "it said nothing"
                raise LabError(f"{self._host.name}: the sampler ended ({ended.reason}): {said}")
            if time.monotonic() > end:
                raise LabError(f"{self._host.name}: no reading from the sampler in {_FIRST_S:g} s")
            time.sleep(0.01)

    def take(self) -> list[Raw]:
        """Readings since the last call; never waits."""
        readings, self._waiting = self._waiting, []
        return readings + self._merger.feed(self._process.lines())

    def stop(self) -> list[Raw]:
        """Take the last reading and end it; the readings since the last `take`."""
        ended = self._process.stop(_STOP_GRACE_S)
        readings = self.take()
        said = self._merger.other or "it said nothing"
        if ended.reason != "stopped" or ended.returncode != 0:
            raise LabError(
                f"{self._host.name}: the sampler ended before it was told to ({ended.reason}): "
                f"{said}"
            )
        if self._merger.torn:
            raise LabError(
                f"{self._host.name}: readings of the sampler were lost after {self._merger.count}; "
                "is the connection slow, or this machine busy?"
            )
        return readings

    def discard(self) -> None:
        """End it, whatever it has read. Raises LabError."""
        self._process.stop(1.0)


def archive() -> bytes:
    """The sampler as one zip file that Python runs; the same bytes for the same source."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zipped:

        def add(name: str, data: bytes) -> None:
            zipped.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)

        add("__main__.py", b"from lab._sampler import run\n\nrun()\n")
        add("lab/__init__.py", b"")
        for name in _MODULES:
            add(f"lab/{name}", resources.files("lab").joinpath(name).read_bytes())
    return out.getvalue()


def _ship(host: Host) -> str:
    """Put the sampler on the host, named by its digest; returns its path there."""
    data = archive()
    digest = hashlib.sha256(data).hexdigest()
    name = f"sampler-{digest[:16]}.pyz"
    path = f"{host.workdir}/{name}"
    if not host.run(["sha256sum", path], check=False).stdout.startswith(digest):
        with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
            local = Path(scratch) / name
            local.write_bytes(data)
            host.put(local, name)
    return path


def _applied(before: Raw, changes: Raw) -> Raw:
    after = dict(before)
    for key, value in changes.items():
        if value is None:
            after.pop(key, None)
        elif isinstance(value, dict):
            inner = before.get(key)
            after[key] = _applied(inner if isinstance(inner, dict) else {}, value)
        else:
            after[key] = value
    return after
