"""A host in memory, for tests of what stands above the seam (as httpx.MockTransport does).

def handler(call: Call) -> Reply:
    if call.argv[0] == "suricata":
        return Reply(stdout="This is Suricata version 7.0.10 RELEASE\\n")
    return Reply(returncode=1)

host = FakeHost(handler)
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import CommandFailed, CommandTimeout, LabError, TransferFailed
from lab.host import Completed, Exit

__all__ = ["Call", "FakeHost", "FakeProcess", "Reply"]


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked of the host. `leashed` tells `start` from `run`."""

    argv: tuple[str, ...]
    input: bytes | None = None
    sudo: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    leashed: bool = False
    log: str | None = None
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command run to its end printed, and how it ended."""

    stdout: str = ""
    stderr: str = ""
    returncode: int = 0


class FakeProcess:
    """A leashed process whose output and end the test decides.

    `lines` are there at once; it ends by `finish`, by `stop`, or after `seconds`. An error given
    to `fail` is raised by every later `poll`, `wait` and `stop`.
    """

    def __init__(
        self,
        lines: Sequence[str] = (),
        exit: Exit | None = None,
        *,
        seconds: float | None = None,
        pid: int = 4711,
    ) -> None:
        self.pid = pid
        self._lines = list(lines)
        self._exit = exit if seconds is None else None
        self._later = (time.monotonic() + (seconds or 0.0), exit or Exit(0, None, "exited"))
        self._timed = seconds is not None
        self._error: LabError | None = None

    def emit(self, *lines: str) -> None:
        """Let it print."""
        self._lines += lines

    def finish(self, exit: Exit) -> None:
        """Let it end."""
        self._exit = exit

    def fail(self, error: LabError) -> None:
        """Lose it."""
        self._error = error

    def poll(self) -> Exit | None:
        """How it ended, or None."""
        if self._error is not None:
            raise self._error
        if self._exit is None and self._timed and time.monotonic() >= self._later[0]:
            self._exit = self._later[1]
        return self._exit

    def wait(self, timeout: float | None = None) -> Exit:
        """Wait until it ends; without a time limit, one that nobody ends raises at once."""
        limit = time.monotonic() + (timeout or 0.0)
        while (ended := self.poll()) is None:
            if not self._timed and (timeout is None or time.monotonic() >= limit):
                raise CommandTimeout(f"fake: pid {self.pid} still runs")
            if timeout is not None and time.monotonic() >= limit:
                raise CommandTimeout(f"fake: pid {self.pid} still runs after {timeout:g} s")
            time.sleep(0.001)
        return ended

    def lines(self) -> list[str]:
        """Lines since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def stop(self, grace: float = 3.0) -> Exit:
        """End it with SIGTERM unless it has ended."""
        if self.poll() is None:
            self._exit = Exit(None, 15, "stopped")
        assert self._exit is not None
        return self._exit


Handler = Callable[[Call], Reply | FakeProcess]


def _nothing(call: Call) -> Reply | FakeProcess:
    return FakeProcess() if call.leashed else Reply()


class FakeHost:
    """A `lab.host.Host` whose commands are answered by a function and whose files are a dict.

    `calls` records everything asked; `files` maps absolute paths to contents. A handler may raise
    any LabError, which is how a lost connection or a missing tool is played.
    """

    def __init__(
        self,
        handler: Handler = _nothing,
        *,
        name: str = "fake",
        python: str = "python3",
        workdir: str = "/var/tmp/probebench",
    ) -> None:
        self.name = name
        self.python = python
        self.workdir = workdir
        self.handler = handler
        self.calls: list[Call] = []
        self.files: dict[str, bytes] = {}
        self.processes: list[FakeProcess] = []
        self.closed = False

    def _ask(self, call: Call) -> Reply | FakeProcess:
        self.calls.append(call)
        return self.handler(call)

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
        """Answer with the handler's reply."""
        reply = self._ask(Call(tuple(argv), input, sudo, dict(env or {})))
        assert isinstance(reply, Reply), f"the handler must give a Reply to run {argv!r}"
        if check and reply.returncode != 0:
            raise CommandFailed(
                f"{self.name}: `{' '.join(argv)}` ended with status {reply.returncode}: "
                f"{reply.stderr.strip()}"
            )
        return Completed(tuple(argv), reply.returncode, reply.stdout, reply.stderr, 0.0)

    def start(
        self,
        argv: Sequence[str],
        *,
        max_seconds: float,
        log: str | None = None,
        sudo: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> FakeProcess:
        """Answer with the handler's process; a Reply becomes one that has printed and ended."""
        call = Call(tuple(argv), None, sudo, dict(env or {}), True, log, max_seconds)
        reply = self._ask(call)
        if isinstance(reply, Reply):
            lines = (reply.stdout + reply.stderr).splitlines()
            reply = FakeProcess(lines, Exit(reply.returncode, None, "exited"))
        self.processes.append(reply)
        return reply

    def put(self, local: Path, remote: str) -> None:
        """Copy into `files`."""
        self.files[posixpath.join(self.workdir, remote)] = local.read_bytes()

    def get(self, remote: str, local: Path) -> None:
        """Copy out of `files`. Raises TransferFailed."""
        path = posixpath.join(self.workdir, remote)
        if path not in self.files:
            raise TransferFailed(f"{self.name}: cannot copy {path} to {local}: No such file")
        local.write_bytes(self.files[path])

    def close(self) -> None:
        """End every process; idempotent."""
        self.closed = True
        for process in self.processes:
            if process._exit is None:
                process.finish(Exit(None, 15, "stopped"))
