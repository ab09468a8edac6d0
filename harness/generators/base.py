"""The seam to a traffic generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from harness.model import Axis, Corpus, Identity, Load, Schedule, Sent
from harness.templates import Template

__all__ = ["Generator", "Progress", "method_of"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What the generator has said so far, for the live line; not used in any result."""

    packets: int
    done: bool


class Generator(Protocol):
    """Sends a corpus at a load. One trial at a time: start, poll until done, finish."""

    name: str
    axes: tuple[Axis, ...]
    identity: Identity  # what an alert can be traced to: one flow, or the template it was made from
    templates: tuple[Template, ...]  # after `prepare`, where the addresses are its own; else none

    def prepare(self, corpus: Corpus) -> None:
        """Ship the corpus (once, by digest) and check that everything needed is on the host."""
        ...

    def plan(self, load: Load, first_iteration: int) -> Schedule:
        """Translate a load into iterations of the prepared corpus."""
        ...

    def start(self, schedule: Schedule) -> None:
        """Begin to send. Returns at once. Raises GeneratorFailed."""
        ...

    def progress(self) -> Progress:
        """What was sent so far. Raises GeneratorFailed when the generator died."""
        ...

    def finish(self) -> Sent:
        """Wait for the end of the sending. Raises GeneratorFailed with the reason of a death."""
        ...

    def stop(self) -> None:
        """End the sending now, leaving nothing behind; idempotent."""
        ...


def method_of(generator: Generator) -> str:
    """How its copies of a flow differ: "fresh" (each has addresses of its own), or "loop".

    Only a generator that is told to repeat itself says anything (`method`).
    """
    return str(getattr(generator, "method", "fresh"))
