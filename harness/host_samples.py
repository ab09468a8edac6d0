"""`host.jsonl` of a run: what the sampler read on the sensor's host, sample by sample.

One JSON object a line: {"trial": "t03", "number": 0, …}. The first line of a trial has every group
of a `HostReading`; each later one has only what changed since the line before (null: gone), so that
a trial of ten minutes on a NIC with a thousand counters takes kilobytes. `read_samples` puts
them together again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from harness.model_host import HostReading

__all__ = ["FILE", "SampleWriter", "read_samples", "to_reading"]

FILE = "host.jsonl"
_GROUPS = {f.name for f in fields(HostReading)}


def to_reading(raw: dict[str, Any]) -> HostReading:
    """A reading as the sampler sends it (`lab.sampler.Raw`) as a value; unknown groups are left."""
    return HostReading(**{key: value for key, value in raw.items() if key in _GROUPS})


class SampleWriter:
    """Appends one trial's samples to a run's `host.jsonl`."""

    def __init__(self, directory: Path, trial: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._trial = trial
        self._number = 0
        self._last: dict[str, Any] = {}
        # Line by line: what a killed orchestrator leaves is whole but for its last line.
        self._out: TextIO = (directory / FILE).open("a", buffering=1)

    def write(self, raw: dict[str, Any]) -> None:
        """Add a sample. Raises OSError."""
        line = {"trial": self._trial, "number": self._number, **_changes(self._last, raw)}
        self._out.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._last = raw
        self._number += 1

    def close(self) -> None:
        """Close the file; idempotent."""
        self._out.close()


def read_samples(directory: Path) -> Iterator[tuple[str, HostReading]]:
    """(trial, reading) in order; nothing when the run has none, and no further than a torn line.

    A trial that was run twice (resumed after a crash) comes twice.
    """
    path = directory / FILE
    if not path.exists():
        return
    last: dict[str, Any] = {}
    with path.open() as lines:
        for line in lines:
            try:
                data = json.loads(line)
            except ValueError:
                continue  # torn by a crash; the next trial begins with a whole reading
            trial = data.pop("trial")
            last = _applied({} if data.pop("number") == 0 else last, data)
            yield trial, to_reading(last)


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := _changes(old, value):
                found[key] = inner
        elif value != old:
            found[key] = value
    return {**found, **{key: None for key in before if key not in after}}


def _applied(before: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    after = dict(before)
    for key, value in changes.items():
        if value is None:
            after.pop(key, None)
        elif isinstance(value, dict):
            after[key] = _applied(after.get(key) or {}, value)
        else:
            after[key] = value
    return after
