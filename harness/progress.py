"""One live line a second on a terminal, plain lines elsewhere; and the steps of a long job."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TextIO

__all__ = ["Progress", "count"]


def count(value: float | None) -> str:
    """A number for people: 1234567 → "1.23 M"; None → "n/o" (not observable)."""
    if value is None:
        return "n/o"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == ' k' else size):.3g}{unit}"
    return f"{value:.0f}"


@dataclass(slots=True)
class Progress:
    """Writes to standard error, so that a command's output stays clean."""

    quiet: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _open: bool = False

    @property
    def terminal(self) -> bool:
        """True when lines may overwrite each other."""
        return self.stream.isatty()

    def live(self, text: str) -> None:
        """Show the state of a running trial: replaces the live line, or is a line of its own."""
        if self.quiet:
            return
        if self.terminal:
            self.stream.write(f"\r\x1b[K{text}")
            self._open = True
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.quiet:
            return
        if self._open:
            self.stream.write("\r\x1b[K")
            self._open = False
        self.stream.write(text + "\n")
        self.stream.flush()

    def step(self, number: str, text: str, command: str | None = None) -> None:
        """Begin a step of a long job; `command` is what would do this step alone."""
        self.say(f"\n{number} {text}")
        if command:
            self.say(f"    $ {command}")
