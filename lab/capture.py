"""tcpdump on an interface: when it really listens, what it took, and what it lost by accident."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from lab.crew import Crew, Member
from lab.errors import LabError

__all__ = ["Capture", "Counts"]

_BUFFER_KIB = 16384


@dataclass(frozen=True, slots=True)
class Counts:
    """tcpdump's own report, in packets.

    `captured` were written to the file, `received` passed the filter, `dropped` were lost by the
    kernel for want of room: such a gap looks like evasion or noise and spoils a corpus.
    """

    captured: int
    received: int
    dropped: int


@dataclass(slots=True)
class Capture:
    """One running tcpdump."""

    crew: Crew
    member: Member
    started_ns: int

    @classmethod
    def start(cls, crew: Crew, namespace: str, interface: str, path: Path) -> Capture:
        """Start tcpdump into `path` and return once it listens. Raises LabError."""
        argv = ["tcpdump", "-i", interface, "-n", "-s", "0", "-B", str(_BUFFER_KIB), "-U"]
        argv += ["--immediate-mode", "-Z", "root", "-w", str(path)]
        member = crew.start("tcpdump", argv, namespace=namespace)
        crew.wait_for(member, "listening on")
        return cls(crew, member, time.time_ns())

    def stop(self) -> Counts:
        """End it and read its report. Raises LabError when it had already ended or says nothing."""
        self.crew.check(self.member)
        self.crew.stop(self.member)
        return parse_counts(self.member.log.read_text(errors="replace"))


def parse_counts(text: str) -> Counts:
    """The three figures of tcpdump's closing words. Raises LabError when one is missing."""
    figures = []
    for words in ("captured", "received by filter", "dropped by kernel"):
        match = re.search(rf"^(\d+) packets? {words}$", text, re.MULTILINE)
        if match is None:
            raise LabError(f"tcpdump did not report its packets {words}; it said: {text.strip()!r}")
        figures.append(int(match[1]))
    return Counts(*figures)
