"""The manifest beside a recording: what was run, how the path was shaped, what was cut and lost."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path
from typing import Any

from lab import netns_tools as net
from lab.capture import Counts
from lab.scenario import Step
from lab.shaping import Shape

__all__ = ["Done", "Recording", "manifest_path", "write_manifest"]

_VERSION = 1
_VERSIONS = {
    "tcpdump": ["tcpdump", "--version"],
    "nginx": ["nginx", "-v"],
    "dnsmasq": ["dnsmasq", "--version"],
    "openssh": ["ssh", "-V"],
    "curl": ["curl", "--version"],
    "dig": ["dig", "-v"],
    "openssl": ["openssl", "version"],
    "iproute2": ["ip", "-V"],
}


@dataclass(frozen=True, slots=True)
class Done:
    """A step as it went. `at` is in seconds from the start of the capture (negative: before).

    `status` is its exit status, None when it was still running at the end; `words` its last output.
    """

    step: Step
    at: float
    status: int | None = None
    words: str = ""
    running_at_start: bool = False
    running_at_stop: bool = False

    @property
    def failed(self) -> bool:
        """True for a step that was to end by itself and did not do so well."""
        return self.step.part in ("whole", "begun-before") and self.status not in self.step.ok

    @property
    def cut_as_planned(self) -> bool | None:
        """Whether the capture cut it as it should; None for a step that is to be whole."""
        match self.step.part:
            case "begun-before":
                return self.running_at_start
            case "unterminated":
                return self.running_at_stop
            case "spanning":
                return self.running_at_start and self.running_at_stop
        return None


@dataclass(frozen=True, slots=True)
class Recording:
    """A finished recording. Times are nanoseconds since the epoch, of the capture itself."""

    path: Path
    counts: Counts
    started_ns: int
    ended_ns: int
    steps: tuple[Done, ...]
    mtu: int
    manifest: Path | None = None

    @property
    def attacks(self) -> dict[int, int]:
        """Alerts due: signature id to number of flows that carry its attack."""
        sids = [d.step.attack for d in self.steps if d.step.attack is not None and not d.failed]
        return dict(sorted(Counter(sids).items()))


def manifest_path(capture: Path) -> Path:
    """Where the manifest of a capture is."""
    return capture.with_name(f"{capture.name}.manifest.json")


def write_manifest(capture: Path, recording: Recording, shape: Shape) -> Recording:
    """Write the manifest of a capture; returns the recording with both paths."""
    path = manifest_path(capture)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(_manifest(capture, recording, shape), indent=2) + "\n")
    partial.replace(path)
    return replace(recording, path=capture, manifest=path)


def _manifest(capture: Path, recording: Recording, shape: Shape) -> dict[str, Any]:
    with capture.open("rb") as handle:
        digest = file_digest(handle, "sha256").hexdigest()
    applications = Counter(done.step.application for done in recording.steps)
    return {
        "version": _VERSION,
        "capture": {
            "file": capture.name,
            "sha256": digest,
            "bytes": capture.stat().st_size,
            "started": _utc(recording.started_ns),
            "ended": _utc(recording.ended_ns),
            "seconds": round((recording.ended_ns - recording.started_ns) / 1e9, 3),
            "tap": "client side of the path, after its own shaping",
        },
        "tcpdump": asdict(recording.counts),
        "shaping": {
            "active": shape.active,
            "seeded": False,  # netem draws its own random numbers
            **asdict(shape),
            "tc": [" ".join(words) for words in shape.commands(recording.mtu)],
            "applied_to": ["client", "server"] if shape.active else [],
        },
        "applications": dict(sorted(applications.items())),
        "failed": [_entry(done) for done in recording.steps if done.failed],
        "attacks": [_entry(done) for done in recording.steps if done.step.attack is not None],
        "half_flows": {
            "begun_before": [_entry(d) for d in recording.steps if d.running_at_start],
            "unterminated": [_entry(d) for d in recording.steps if d.running_at_stop],
        },
        "tools": _tool_versions(),
    }


def _entry(done: Done) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "application": done.step.application,
        "about": done.step.about,
        "source": done.step.source,
        "at_s": round(done.at, 3),
    }
    if done.step.attack is not None:
        entry["signature_id"] = done.step.attack
    if done.failed:
        entry |= {"status": done.status, "said": done.words}
    return entry


def _utc(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 1_000_000_000 // 1000:06d}Z"


def _tool_versions() -> dict[str, str]:
    versions = {}
    for name, argv in _VERSIONS.items():
        done = net.run(argv, check=False)
        text = (done.stdout or done.stderr).strip().splitlines()
        found = re.search(r"\d+[.\d]+[\w.-]*", text[0]) if text else None
        versions[name] = found[0] if found else "unknown"
    return versions
