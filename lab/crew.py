"""Processes that live only as long as their recording: started, watched, ended by their own pid."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lab import netns_tools as net
from lab.errors import LabError

__all__ = ["Crew", "Member"]


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the crew, leader of a process group of its own."""

    label: str
    popen: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        """The last line that it printed; for error messages."""
        lines = (
            self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        )
        return lines[-1] if lines else "it printed nothing"


class Crew:
    """A context that ends every process started in it, also after an error or Ctrl-C.

    `pid_file` lists their process groups while they live, so that what a killed recorder left
    running can be told from what others run in the same namespaces.
    """

    def __init__(self, logs: Path, pid_file: Path) -> None:
        self._logs = logs
        self._pid_file = pid_file
        self._members: list[Member] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(
        self,
        label: str,
        argv: Sequence[str],
        *,
        namespace: str,
        env: Mapping[str, str] | None = None,
        stdin: Path | None = None,
    ) -> Member:
        """Start a process in a namespace; both output streams go to a log of its own."""
        log = self._logs / f"{len(self._members):03d}-{label}.log"
        with log.open("wb") as out, (stdin or Path(os.devnull)).open("rb") as source:
            popen = subprocess.Popen(
                # Both wrappers become the command itself. Should we be killed, it gets TERM.
                ["setpriv", "--pdeathsig", "TERM", *net.in_namespace(namespace, argv)],
                stdin=source,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        member = Member(label, popen, log)
        self._members.append(member)
        with self._pid_file.open("a") as pids:
            pids.write(f"{popen.pid}\n")
        return member

    def check(self, member: Member) -> None:
        """Raise LabError when a process that should still run has ended."""
        status = member.popen.poll()
        if status is not None:
            raise LabError(f"{member.label} ended with status {status}: {member.last_words()}")

    def wait_for(self, member: Member, text: str, seconds: float = 5.0) -> None:
        """Wait until a process printed `text`. Raises LabError when it ends or stays silent."""
        until = time.monotonic() + seconds
        while text not in member.log.read_text(errors="replace"):
            self.check(member)
            if time.monotonic() > until:
                raise LabError(
                    f"{member.label} was not ready within {seconds:g} s: {member.last_words()}"
                )
            time.sleep(0.01)

    def stop(self, *members: Member, grace: float = 2.0) -> None:
        """TERM to the process groups of `members` (default: all), KILL after `grace` seconds."""
        chosen = members or tuple(reversed(self._members))
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            running = [m for m in chosen if m.popen.poll() is None]
            for member in running:
                with suppress(ProcessLookupError):
                    os.killpg(member.popen.pid, number)
            until = time.monotonic() + patience
            for member in running:
                with suppress(subprocess.TimeoutExpired):
                    member.popen.wait(max(0.0, until - time.monotonic()))

    def end_leftovers(self, namespaces: Sequence[str]) -> None:
        """End what an earlier, killed recorder left: pids it noted that are in its namespaces."""
        try:
            noted = {int(line) for line in self._pid_file.read_text().split()}
        except (OSError, ValueError):
            noted = set()
        inside = {pid for namespace in namespaces for pid in net.processes_in(namespace)}
        net.end_processes(pid for pid in inside if pid in noted or _group(pid) in noted)
        self._pid_file.unlink(missing_ok=True)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1
