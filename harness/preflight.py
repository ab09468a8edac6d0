"""The preflight of a run: what `lab check` finds, known before the first trial and kept with it.

`preflight.json` in the run directory: {"schema": 1, "checks": [one a session that worked on the
run]}. Each has "at" (UTC), "seconds" (how long the quiet link was watched), "findings", "unseen",
"fine" (see `lab.preflight.check`), "facts" (what they were judged by), or "failure" in place of all
that. A run is never refused because of a finding: its trials have gates for what it did to them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.model import Corpus
from harness.profile import Profile
from harness.progress import Progress
from lab.errors import ConnectError, ConnectionLost, LabError
from lab.host import Host
from lab.inventory import Inventory, SensorSpec
from lab.preflight.check import Finding, Report
from lab.preflight.examine import Asked, Preflight
from lab.preflight.facts import Setup

__all__ = [
    "FILE",
    "RunPreflight",
    "asked_of",
    "peak_bps",
    "read_preflight",
    "record",
    "stored_findings",
]

FILE = "preflight.json"
_SCHEMA = 1
_SHORTEST_S = 1.0
_BYPASSES = ("dpdk", "af-xdp", "netmap")  # captures ahead of the kernel's stack
_RUNNING = ("observed", "systemd")  # sensors that may run before a trial begins
_OVERHEAD = 24  # bytes a frame takes of the link beside itself: FCS, preamble and gap


def peak_bps(profile: Profile, corpus: Corpus | None) -> float | None:
    """What the highest load of a profile takes of the link; None where that is not known yet.

    In bits/s, FCS, preamble and gap included as far as the corpus's packet sizes are known.
    """
    load = profile.load
    if load.values == "auto":
        return None
    most = max(load.values)
    if corpus is None or not corpus.bytes:
        return most if load.axis == "bps" else None
    bits = 8 * (corpus.bytes + _OVERHEAD * corpus.packets)
    units = {"bps": 8 * corpus.bytes, "pps": corpus.packets, "flows": corpus.flows}.get(load.axis)
    return most * bits / units if units else None


def asked_of(sensor: SensorSpec, profile: Profile | None, corpus: Corpus | None) -> Asked:
    """What a run asks of its lab."""
    eve = sensor.options.get("eve")
    return Asked(
        logs=eve if isinstance(eve, str) and eve.startswith("/") else None,
        bypass=sensor.options.get("capture") in _BYPASSES,
        observed=sensor.options.get("control") in _RUNNING,
        max_frame=None if corpus is None else corpus.max_frame or None,
        peak_bps=None if profile is None else peak_bps(profile, corpus),
    )


def record(setup: Setup, report: Report, seconds: float) -> dict[str, Any]:
    """One entry of `preflight.json`: plain data."""
    data = {"seconds": round(seconds, 3), **report.to_json(), "facts": asdict(setup)}
    plain: dict[str, Any] = json.loads(json.dumps(_plain(data)))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, bytes):
        return value.hex(":")
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def read_preflight(directory: Path) -> list[dict[str, Any]]:
    """Every entry of a run's `preflight.json`, oldest first; none where there is no such file."""
    try:
        data = json.loads((directory / FILE).read_text())
        return list(data["checks"]) if data["schema"] == _SCHEMA else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def stored_findings(directory: Path) -> tuple[Finding, ...]:
    """What the last preflight of a run found; nothing where there is none that can be read."""
    checks = read_preflight(directory)
    known = {field.name for field in fields(Finding)}
    try:
        return tuple(
            Finding(**{key: value for key, value in found.items() if key in known})
            for found in (checks[-1].get("findings", []) if checks else [])
        )
    except (AttributeError, TypeError):  # of a version that kept something else
        return ()


class RunPreflight:
    """The preflight of one session, begun when it is made.

    What goes wrong with it is stored and told, and ends nothing; a lost connection is raised.
    """

    def __init__(
        self,
        inventory: Inventory,
        hosts: dict[str, Host],
        profile: Profile,
        corpus: Corpus,
        progress: Progress,
    ) -> None:
        self._progress = progress
        self._failure: str | None = None
        self._preflight = Preflight(inventory, hosts, asked_of(inventory.sensor, profile, corpus))
        progress.say("preflight: reading both hosts")
        try:
            self._preflight.begin()
        except (ConnectError, ConnectionLost):
            raise
        except LabError as error:
            self._failure = str(error)

    def finish(self, directory: Path) -> None:
        """Judge, tell what is worth it, and store. Raises ConnectionLost, OSError."""
        entry: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds")}
        if self._failure is None:
            try:
                setup, report = self._preflight.finish(at_least=_SHORTEST_S)
                watched = max((q.seconds for q in setup.quiet.values()), default=0.0)
                entry |= record(setup, report, watched)
                for found in report.findings:
                    if found.severity != "info":
                        self._progress.say(
                            f"{found.severity}: preflight {found.code}: {found.where}: "
                            f"{found.message}"
                        )
            except (ConnectError, ConnectionLost):
                raise
            except LabError as error:
                self._failure = str(error)
        if self._failure is not None:
            entry["failure"] = self._failure
            self._progress.say(f"warning: no preflight: {self._failure}")
        data = {"schema": _SCHEMA, "checks": [*read_preflight(directory), entry]}
        partial = directory / f"{FILE}.partial"
        partial.write_text(json.dumps(data, indent=1) + "\n")
        partial.replace(directory / FILE)
