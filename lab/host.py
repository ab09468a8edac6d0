"""The seam to a machine: run a command, move files, keep a process on a leash.

Three implementations (local, network namespace, SSH) and a fake for tests; nothing above this
module knows which one it talks to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Completed", "Exit", "Host", "Process"]


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended. `stdout` and `stderr` are text (UTF-8, errors replaced)."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Exit:
    """How a leashed process ended.

    `returncode` is the exit status, or None when a signal ended it; `signal` is that signal's
    number, or None. `reason` is "exited", "killed" (by a signal that we did not send), "stopped"
    (by us), "deadline" (its hard time limit) or "orphaned" (the leash lost its orchestrator).
    """

    returncode: int | None
    signal: int | None
    reason: str


class Process(Protocol):
    """A process on a leash: it ends by itself soon after its orchestrator dies."""

    @property
    def pid(self) -> int:
        """Process id of the command itself on its host."""
        ...

    def poll(self) -> Exit | None:
        """How it ended, or None while it runs. Raises ConnectionLost when that cannot be known."""
        ...

    def wait(self, timeout: float | None = None) -> Exit:
        """Block until it ends. Raises CommandTimeout, ConnectionLost."""
        ...

    def lines(self) -> list[str]:
        """Lines the process has printed (both streams) since the last call; never blocks."""
        ...

    def stop(self, grace: float = 3.0) -> Exit:
        """TERM to its process group, KILL after `grace` seconds; idempotent."""
        ...


class Host(Protocol):
    """One machine (or namespace) of the lab."""

    @property
    def name(self) -> str:
        """Name in the inventory; every error message carries it."""
        ...

    @property
    def python(self) -> str:
        """Python interpreter to use on the host (for what we ship)."""
        ...

    @property
    def workdir(self) -> str:
        """Absolute directory on the host that is ours."""
        ...

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        timeout: float | None = 30.0,
        check: bool = True,
        sudo: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a command to its end; `sudo` prefixes `sudo -n` where the user is not root.

        Raises CommandFailed (when `check`), CommandTimeout, ConnectionLost, MissingTool.
        """
        ...

    def start(
        self,
        argv: Sequence[str],
        *,
        max_seconds: float,
        log: str | None = None,
        sudo: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a command on a leash.

        It is ended when the orchestrator dies or the connection is lost for about 4 s, and at
        the latest after `max_seconds`. Output goes line by line to `Process.lines()`, and to the
        file `log` on the host when given. A pipeline is one argv: ["sh", "-c", "a | b"]; the whole
        process group is ended.
        """
        ...

    def put(self, local: Path, remote: str) -> None:
        """Copy a file to the host; written under a temporary name and renamed."""
        ...

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from the host; written under a temporary name and renamed."""
        ...

    def close(self) -> None:
        """End every leashed process and the connection; idempotent."""
        ...
