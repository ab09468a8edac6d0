"""What a check is, the register of all of them, and what comes out of asking them.

A check looks at one `Setup` and yields an outcome for each host or interface that it looked at:
`Bad` with its numbers, `Fine`, or `Unseen` with the reason. One that yields nothing has nothing to
do with this lab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lab.preflight.facts import Setup

__all__ = [
    "CHECKS",
    "Bad",
    "Check",
    "Finding",
    "Fine",
    "Note",
    "Outcome",
    "Report",
    "Severity",
    "Unseen",
    "check",
    "examine",
]  # fmt: skip

Severity = Literal["info", "warning", "invalid"]
_ORDER: tuple[Severity, ...] = ("invalid", "warning", "info")


@dataclass(frozen=True, slots=True)
class Bad:
    """Something to report: where ("probe: ens1f1"), what, and the numbers in it.

    `severity` is given where it is not the check's own; `remedy` too, to name an interface in it.
    """

    where: str
    message: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    severity: Severity | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Fine:
    """Looked at, and good."""

    where: str
    message: str


@dataclass(frozen=True, slots=True)
class Unseen:
    """Not observable, and why."""

    where: str
    message: str


Outcome = Bad | Fine | Unseen
Judge = Callable[[Setup], Iterator[Outcome]]


@dataclass(frozen=True, slots=True)
class Check:
    """A registered check. `fakes` is the bottleneck that what it finds would look like."""

    code: str
    severity: Severity
    title: str
    fakes: str
    remedy: str
    judge: Judge


CHECKS: dict[str, Check] = {}


def check(
    code: str, severity: Severity, title: str, *, fakes: str, remedy: str
) -> Callable[[Judge], Judge]:
    """Register a check under its code; `docs/preflight.md` has a section for each."""

    def register(judge: Judge) -> Judge:
        CHECKS[code] = Check(code, severity, title, fakes, remedy, judge)
        return judge

    return register


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    code: str
    severity: Severity
    where: str
    title: str
    message: str
    numbers: dict[str, float]
    fakes: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Note:
    """What a check saw and found good, or could not see."""

    code: str
    where: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """All outcomes: findings by severity, then what was fine and what is not observable."""

    findings: tuple[Finding, ...]
    fine: tuple[Note, ...]
    unseen: tuple[Note, ...]

    @property
    def severe(self) -> bool:
        """Whether a run on this lab would not be worth its time."""
        return any(f.severity == "invalid" for f in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain data, as stored with a run."""
        return asdict(self)


def examine(setup: Setup, checks: dict[str, Check] | None = None) -> Report:
    """Ask every check."""
    findings: list[Finding] = []
    fine: list[Note] = []
    unseen: list[Note] = []
    for one in (CHECKS if checks is None else checks).values():
        for outcome in one.judge(setup):
            if isinstance(outcome, Bad):
                findings.append(
                    Finding(
                        code=one.code,
                        severity=outcome.severity or one.severity,
                        where=outcome.where,
                        title=one.title,
                        message=outcome.message,
                        numbers=dict(outcome.numbers),
                        fakes=one.fakes,
                        remedy=outcome.remedy or one.remedy,
                    )
                )
            else:
                note = Note(one.code, outcome.where, outcome.message)
                (fine if isinstance(outcome, Fine) else unseen).append(note)
    findings.sort(key=lambda found: _ORDER.index(found.severity))
    return Report(tuple(findings), tuple(fine), tuple(unseen))
