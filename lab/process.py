"""The orchestrator's end of a leash: heartbeats out, events in.

A `Stream` is whatever joins the two ends (pipes of a local process, an SSH channel). Two threads
serve a process: one reads events, one sends a heartbeat a second. Neither keeps the interpreter
alive, so that a crash of the orchestrator is a broken stream, which is what the leash waits for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lab.errors import CommandTimeout, ConnectionLost, LabError, MissingTool
from lab.host import Exit

__all__ = ["HEARTBEAT", "LeashedProcess", "Stream", "Task", "stop_all"]

HEARTBEAT = 1.0  # seconds between two heartbeats; the leash gives up after `SILENCE`
SILENCE = 4.0
LOST_AFTER = 8.0  # seconds without a word from the leash (it answers every heartbeat)
START_TIMEOUT = 15.0
KEPT_LINES = 20_000  # lines kept for `lines()`; older ones are given up


class Stream(Protocol):
    """Both directions of a leash's standard input and output."""

    def read(self, timeout: float) -> bytes:
        """Some bytes; b"" at the end. Raises TimeoutError when `timeout` passes first."""
        ...

    def write(self, data: bytes) -> None:
        """Send all of `data`. Raises OSError when the other end is gone."""
        ...

    def close(self) -> None:
        """Give up both directions; idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """What the leash is asked to run (the first line it reads)."""

    argv: tuple[str, ...]
    max_seconds: float
    log: str | None
    env: Mapping[str, str]
    cwd: str | None

    def to_line(self) -> bytes:
        """The line of JSON that `lab/leash.py` expects first."""
        data = {
            "argv": self.argv,
            "max_seconds": self.max_seconds,
            "log": self.log,
            "env": dict(self.env),
            "cwd": self.cwd,
            "silence": SILENCE,
        }
        return json.dumps(data).encode() + b"\n"


class LeashedProcess:
    """A `lab.host.Process` over a stream to its leash."""

    def __init__(
        self,
        host: str,
        task: Task,
        stream: Stream,
        on_exit: Callable[[LeashedProcess], None] = lambda process: None,
    ) -> None:
        self._host = host
        self._name = os.path.basename(task.argv[0])  # noqa: PTH119 (a path of another machine)
        self._task = task
        self._stream = stream
        self._on_exit = on_exit
        self._pid: int | None = None
        self._exit: Exit | None = None
        self._failure: LabError | None = None
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._noise: deque[str] = deque(maxlen=5)  # what is no event: errors of sudo, python …
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._known = threading.Event()  # started, or failed to
        self._ended = threading.Event()
        self.dropped = 0

    @classmethod
    def launch(
        cls,
        host: str,
        task: Task,
        stream: Stream,
        on_exit: Callable[[LeashedProcess], None] = lambda process: None,
    ) -> LeashedProcess:
        """Hand the task to the leash at the other end of `stream` and wait until it runs.

        Raises MissingTool (no such program, no Python, no right), LabError, ConnectionLost.
        """
        process = cls(host, task, stream, on_exit)
        # What goes wrong here shows at the reading end, with the words of whoever refused.
        with contextlib.suppress(OSError):
            stream.write(task.to_line())
        for work, kind in ((process._read, "events"), (process._beat, "heartbeat")):
            name = f"{host}:{process._name}:{kind}"
            threading.Thread(target=work, name=name, daemon=True).start()
        if not process._known.wait(START_TIMEOUT):
            stream.close()
            raise CommandTimeout(
                f"{host}: {process._name} was not started within {START_TIMEOUT:.0f} s; "
                "the host may be overloaded or unreachable"
            )
        if process._pid is None:
            stream.close()
            raise process._failure or ConnectionLost(f"{host}: {process._name} was not started")
        return process

    @property
    def pid(self) -> int:
        """Process id of the command itself on its host."""
        assert self._pid is not None
        return self._pid

    def poll(self) -> Exit | None:
        """How it ended, or None while it runs. Raises ConnectionLost when that cannot be known."""
        if not self._ended.is_set():
            return None
        if self._exit is None:
            raise self._failure or ConnectionLost(f"{self._host}: the connection was lost")
        return self._exit

    @property
    def ended(self) -> bool:
        """True when it has ended, or when nothing more can be heard of it."""
        return self._ended.is_set()

    def wait(self, timeout: float | None = None) -> Exit:
        """Block until it ends. Raises CommandTimeout, ConnectionLost."""
        if not self._ended.wait(timeout):
            raise CommandTimeout(
                f"{self._host}: {self._name} (pid {self._pid}) still runs after {timeout:g} s"
            )
        ended = self.poll()
        assert ended is not None
        return ended

    def lines(self) -> list[str]:
        """Lines the process has printed (both streams) since the last call; never blocks."""
        with self._lock:
            lines = list(self._lines)
            self._lines.clear()
        return lines

    def stop(self, grace: float = 3.0) -> Exit:
        """TERM to its process group, KILL after `grace` seconds; idempotent."""
        self.ask_to_stop(grace)
        return self.wait(grace + LOST_AFTER + 2.0)

    def ask_to_stop(self, grace: float) -> None:
        """Like `stop`, without waiting."""
        if not self.ended:
            with contextlib.suppress(OSError):
                self._write(b"stop %.3f\n" % grace)

    def abandon(self) -> None:
        """Drop the leash without waiting: the command ends within 5 s; idempotent."""
        self._stream.close()

    # --- threads --------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        with self._writing:
            self._stream.write(data)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            try:
                self._write(b"\n")
            except OSError:
                return

    def _read(self) -> None:
        rest = b""
        # A few short waits rather than a long one: when this program itself was stopped (SIGSTOP)
        # the first wait after it ends at once, although the leash is well.
        quiet = 0
        while True:
            try:
                data = self._stream.read(LOST_AFTER / 4)
            except TimeoutError:
                quiet += 1
                if quiet < 4:
                    continue
                self._lost(f"nothing heard for {LOST_AFTER:.0f} s")
                break
            except OSError as error:
                self._lost(str(error) or type(error).__name__)
                break
            quiet = 0
            if not data:
                self._lost("the other end closed")
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._event(line)
        self._known.set()
        self._ended.set()
        self._stream.close()
        self._on_exit(self)

    def _event(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, TypeError, KeyError):
            self._noise.append(line.decode("utf-8", "replace").strip())
            return
        if kind == "line":
            with self._lock:
                self._lines.append(event["text"])
        elif kind == "started":
            self._pid = event["pid"]
            self._known.set()
        elif kind == "dropped":
            self.dropped += event["lines"]
        elif kind == "failed":
            self._failure = self._refused(event)
        elif kind == "exit":
            self.dropped = event["dropped"]
            self._exit = Exit(event["returncode"], event["signal"], event["reason"])
            self._ended.set()

    def _refused(self, event: Mapping[str, object]) -> LabError:
        what, message = event.get("what"), event.get("message")
        if event.get("errno") in (2, 13) and what == self._task.argv[0]:
            return MissingTool(
                f"{self._host}: cannot run {what}: {message}; install it there or correct its path"
            )
        return LabError(f"{self._host}: {self._name} was not started: {what}: {message}")

    def _lost(self, why: str) -> None:
        """Record why there will be no more events (unless how it ended is known)."""
        if self._exit is not None or self._failure is not None:
            return
        noise = " / ".join(text for text in self._noise if text)
        if self._pid is None and noise:
            self._failure = _explain(self._host, self._name, noise)
        else:
            self._failure = ConnectionLost(
                f"{self._host}: connection lost while {self._name} ran ({why}); "
                "the leash ends it there within 5 s"
            )


def _explain(host: str, name: str, noise: str) -> LabError:
    """The error for a leash that said something else than events before it ended."""
    if re.search(r"\bsudo: ", noise):
        return MissingTool(
            f"{host}: sudo refused to run {name}: {noise}; allow it without a password "
            "(NOPASSWD in sudoers) or connect as root"
        )
    if re.search(r"not found|No such file", noise):
        return MissingTool(
            f"{host}: cannot run the leash: {noise}; set hosts.{host}.python to a Python 3.7 or "
            "later of that host"
        )
    return LabError(f"{host}: {name} was not started: {noise}")


def stop_all(processes: Sequence[LeashedProcess], grace: float = 3.0) -> None:
    """Stop several processes at once; what cannot be reached is left to its leash."""
    for process in processes:
        process.ask_to_stop(grace)
    limit = time.monotonic() + grace + 2.0
    for process in processes:
        with contextlib.suppress(LabError):
            process.wait(max(limit - time.monotonic(), 0.0))
        process.abandon()
