"""A preflight's report in words, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from lab.preflight.check import Report

__all__ = ["lines"]


def lines(report: Report) -> Iterator[str]:
    """Findings by severity, what is not observable, and how many checks found nothing."""
    for found in report.findings:
        yield f"{found.severity.upper():<8} {found.code}  {found.where}: {found.message}"
        yield f"         {found.title}."
        yield f"         would look like: {found.fakes}"
        yield f"         remedy: {found.remedy}"
    for note in report.unseen:
        yield f"{'unseen':<8} {note.code}  {note.where}: not observable: {note.message}"
    count = {
        s: sum(f.severity == s for f in report.findings) for s in ("invalid", "warning", "info")
    }
    told = ", ".join(f"{number} {severity}" for severity, number in count.items())
    yield f"{told}; {len(report.unseen)} not observable, {len(report.fine)} fine"
