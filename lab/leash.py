"""The leash: runs one command on a host and ends it when nobody holds the other end.

This file is shipped to the host as it is and run there by whatever Python 3 the host has, so it
uses the standard library only, imports nothing of this project, and keeps to Python 3.7. It is
started as `python3 -I -S leash.py LABEL`; everything it says and hears goes over its own standard
input and output, which the orchestrator holds through a pipe or an SSH channel.

Heard, one line each:
    {"argv": [...], "max_seconds": 60, "log": null, "env": {}, "cwd": null, ...}    first line
    (an empty line)         heartbeat, at least one every `silence` seconds
    stop 3.0                end the command: TERM now, KILL after 3 s

Said, one JSON object a line:
    {"event": "started", "pid": 4711}
    {"event": "failed", "errno": 2, "message": "No such file or directory", "what": "tcpreplay"}
    {"event": "line", "text": "..."}            standard output and error of the command
    {"event": "dropped", "lines": 12}           output that the orchestrator did not read in time
    {"event": "beat"}                           answer to a heartbeat
    {"event": "exit", "returncode": 0, "signal": null, "reason": "exited", "dropped": 12}

Reasons: "exited", "killed" (a signal that we did not send), "stopped", "deadline" (`max_seconds`),
"orphaned" (end of file on standard input, or no heartbeat for `silence` seconds).

The command runs in a session and process group of its own, and the whole group is ended; what left
the group is ended too, since the leash is its reaper (PR_SET_CHILD_SUBREAPER, linux/prctl.h).
Should the leash itself be killed, a guardian process that waits on a pipe kills the group.
Nothing here can make the command wait: its output is read always, and dropped (and counted) when it
cannot be passed on. Between events the leash sleeps in poll(2).
"""

# pathlib would double the start-up time; the log lives as long as we do.
# ruff: noqa: PTH103, PTH120, PTH123, PTH208, SIM115
from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
OUT_LIMIT = 256 * 1024  # bytes of events waiting for the orchestrator; output past it is dropped
LINE_LIMIT = 8192  # bytes of one line of output; the rest of a longer line is cut off
CHUNK = 65536


def become_subreaper() -> None:
    """Let what the command leaves behind become our child; without ctypes we do without."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start_guardian() -> tuple[int, int]:
    """Fork a process that kills the group should this one vanish; returns (pid, write end).

    The pipe carries the process group, then "done" once there is nothing left to kill. End of file
    without "done" means that we were killed.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reader)
        return pid, writer
    try:
        os.setsid()
        os.close(writer)
        # Holding our standard streams would keep the SSH channel open after our death.
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        words = b"".join(iter(lambda: os.read(reader, 64), b"")).split()
        if len(words) == 1:
            os.killpg(int(words[0]), signal.SIGKILL)
    except (OSError, ValueError):
        pass
    os._exit(0)


def processes() -> list[tuple[int, bytes, int, int]]:
    """Every (pid, state, ppid, pgrp) of the machine, by /proc/<pid>/stat (proc(5))."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/" + name + "/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            continue
        found.append((int(name), fields[0], int(fields[1]), int(fields[2])))
    return found


class Leash:
    """One command, its output, and the orchestrator's end of the line."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.silence = float(config.get("silence", 4.0))
        self.orphan_grace = float(config.get("orphan_grace", 0.7))
        self.out = bytearray()  # events on their way to the orchestrator
        self.partial = b""  # an unfinished line of output
        self.cutting = False  # inside a line longer than LINE_LIMIT
        self.heard = b""  # an unfinished line from the orchestrator
        self.dropped = 0
        self.told = 0  # dropped lines already reported
        self.reason: str | None = None  # why we are ending it; None while we are not
        self.kill_at: float | None = None
        self.listening = True
        self.talking = True
        self.log: Any = None
        self.child: subprocess.Popen[bytes] | None = None

    # --- towards the orchestrator ---------------------------------------------------------------

    def say(self, **event: Any) -> None:
        """Queue an event; the caller checks the room for what may be dropped."""
        self.out += json.dumps(event).encode() + b"\n"

    def flush(self) -> None:
        """Write as much as can be written without waiting."""
        while self.out and self.talking:
            try:
                sent = os.write(1, bytes(self.out[:CHUNK]))
            except BlockingIOError:
                return
            except OSError:
                self.talking = False
                self.out.clear()
                self.end("orphaned", self.orphan_grace)
                return
            del self.out[:sent]

    def relay(self, line: bytes) -> None:
        """Pass one line of output on, or count it as dropped."""
        if not self.talking or len(self.out) > OUT_LIMIT:
            self.dropped += 1
            return
        if self.told != self.dropped:
            self.say(event="dropped", lines=self.dropped - self.told)
            self.told = self.dropped
        self.say(event="line", text=line.decode("utf-8", "replace"))

    def output(self, data: bytes) -> None:
        """Take a piece of the command's output: to the log as it is, onwards line by line."""
        if self.log is not None:
            try:
                self.log.write(data)
            except OSError as error:
                self.log = None
                self.say(event="line", text="leash: log given up: " + str(error))
        if not self.talking or len(self.out) > OUT_LIMIT:
            self.count(data)
            return
        lines = (self.partial + data).split(b"\n")
        self.partial = lines.pop()
        for line in lines:
            if self.cutting:
                self.cutting = False
                continue
            self.relay(line[:LINE_LIMIT])
        if len(self.partial) > LINE_LIMIT:
            if not self.cutting:
                self.relay(self.partial[:LINE_LIMIT])
            self.partial = b""
            self.cutting = True

    def count(self, data: bytes) -> None:
        """Count the lines in `data` as dropped: all there is time for in a flood."""
        self.partial = b""
        ends = data.count(b"\n")
        begun = not data.endswith(b"\n") and (ends > 0 or not self.cutting)
        self.dropped += ends + begun - (1 if ends and self.cutting else 0)
        self.cutting = not data.endswith(b"\n")

    # --- from the orchestrator ------------------------------------------------------------------

    def listen(self) -> bool:
        """Read heartbeats and orders. Returns False at end of file."""
        try:
            data = os.read(0, CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            return False
        *lines, self.heard = (self.heard + data).split(b"\n")
        for line in lines:
            words = line.split()
            if not words:
                if len(self.out) < OUT_LIMIT:
                    self.say(event="beat")
            elif words[0] == b"stop":
                self.end("stopped", float(words[1]))
        return True

    # --- the command ----------------------------------------------------------------------------

    def signal_group(self, number: int) -> None:
        """Signal the command's process group (it exists until we have reaped its leader)."""
        if self.child is not None:
            with contextlib.suppress(OSError):
                os.killpg(self.child.pid, number)

    def dead(self) -> bool:
        """True once the command has ended; it is left a zombie, so that its group id stays ours."""
        assert self.child is not None
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.child.pid, flags) is not None

    def end(self, reason: str, grace: float) -> None:
        """Begin to end the command; a second call can only make it sooner."""
        if self.child is None or self.dead():
            return
        if self.reason is None:
            self.reason = reason
            self.signal_group(signal.SIGTERM)
            self.signal_group(signal.SIGCONT)  # a stopped process does not see TERM
        at = time.monotonic() + grace
        self.kill_at = at if self.kill_at is None else min(self.kill_at, at)

    def spawn(self) -> int | None:
        """Start the command; returns the read end of its output, or None after "failed"."""
        config = self.config
        reader, writer = os.pipe()
        try:
            if config.get("log"):
                os.makedirs(os.path.dirname(config["log"]) or ".", exist_ok=True)
                self.log = open(config["log"], "wb", buffering=0)
            self.child = subprocess.Popen(
                config["argv"],
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                env=dict(os.environ, **config.get("env", {})),
                cwd=config.get("cwd"),
                start_new_session=True,
            )
        except OSError as error:
            what = error.filename if isinstance(error.filename, str) else config["argv"][0]
            self.say(event="failed", errno=error.errno, message=error.strerror, what=what)
            return None
        finally:
            os.close(writer)
        os.set_blocking(reader, False)
        return reader

    def sweep(self, guardian: int, output: int) -> None:
        """End and reap everything the command left behind, in its group or not.

        Its leader is dead (a zombie, so that the group's number stays ours). When it was we who
        ended it, the others have what is left of the grace.
        """
        assert self.child is not None
        while self.kill_at is not None and time.monotonic() < self.kill_at:
            if not any(p[3] == self.child.pid and p[1] != b"Z" for p in processes()):
                break
            self.drain(output)
            self.flush()
            time.sleep(0.02)
        self.signal_group(signal.SIGKILL)
        me = os.getpid()
        for _ in range(50):
            left = [p[0] for p in processes() if p[2] == me]
            left = [pid for pid in left if pid not in (guardian, self.child.pid)]
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
            if not left:
                return

    def run(self) -> None:
        """Start, watch, end. Returns when there is nothing left to watch."""
        guardian, guard = start_guardian()
        become_subreaper()
        wake, waker = os.pipe()
        for fd in (0, 1, wake, waker):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self.end("stopped", self.orphan_grace))
        output = self.spawn()
        if output is not None and self.child is not None:
            with contextlib.suppress(OSError):
                os.write(guard, b"%d\n" % self.child.pid)
            self.say(event="started", pid=self.child.pid)
            self.watch(output, wake)
            self.sweep(guardian, output)
            self.drain(output)
            if self.partial:
                self.relay(self.partial)
            code = self.child.wait()
            self.say(
                event="exit",
                returncode=code if code >= 0 else None,
                signal=-code if code < 0 else None,
                reason=self.reason or ("killed" if code < 0 else "exited"),
                dropped=self.dropped,
            )
        with contextlib.suppress(OSError):
            os.write(guard, b"done\n")
        os.close(guard)
        with contextlib.suppress(OSError):
            os.waitpid(guardian, 0)
        self.farewell()

    def watch(self, output: int, wake: int) -> None:
        """Loop until the command has ended."""
        deadline = time.monotonic() + float(self.config["max_seconds"])
        beat = time.monotonic() + self.silence
        poll = select.poll()
        for fd in (0, wake, output):
            poll.register(fd, select.POLLIN)
        poll.register(1, 0)
        talking = True
        while True:
            self.flush()
            if self.dead():
                return
            now = time.monotonic()
            if self.listening and now >= beat:
                self.end("orphaned", self.orphan_grace)
                beat = float("inf")
            if now >= deadline:
                self.end("deadline", self.orphan_grace)
                deadline = float("inf")
            if self.kill_at is not None and now >= self.kill_at:
                self.signal_group(signal.SIGKILL)
                self.kill_at = now + 0.2
            if self.talking:
                poll.modify(1, select.POLLOUT if self.out else 0)
            elif talking:
                poll.unregister(1)
                talking = False
            at = min(deadline, beat, float("inf") if self.kill_at is None else self.kill_at)
            wait = min(max(at - now, 0.0), 3600.0)
            for fd, what in poll.poll(int(wait * 1000) + 1):
                if fd == output:
                    if not self.take(output):
                        poll.unregister(output)  # it closed its output and runs on
                elif fd == 0:
                    if self.listen():
                        beat = time.monotonic() + self.silence
                    else:
                        self.listening = False
                        beat = float("inf")
                        poll.unregister(0)
                        self.end("orphaned", self.orphan_grace)
                elif fd == wake:
                    with contextlib.suppress(OSError):
                        os.read(wake, 512)
                elif fd == 1 and what & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                    self.talking = False
                    self.end("orphaned", self.orphan_grace)

    def take(self, output: int) -> bool:
        """Read one piece of the command's output. Returns False at end of file."""
        data = os.read(output, CHUNK)
        if data:
            self.output(data)
        return bool(data)

    def drain(self, output: int) -> None:
        """Take what is in the command's pipe now, but of a flood no more than 4 MiB."""
        with contextlib.suppress(OSError):
            for _ in range(64):
                self.take(output)
                self.flush()

    def farewell(self) -> None:
        """Give the orchestrator two seconds to take the last events."""
        limit = time.monotonic() + 2.0
        poll = select.poll()
        poll.register(1, select.POLLOUT)
        while self.out and self.talking and time.monotonic() < limit:
            poll.poll(100)
            self.flush()


def main() -> int:
    """Read the configuration, leave the terminal's session, and run."""
    with contextlib.suppress(OSError):
        os.setsid()
    first = b""
    while not first.endswith(b"\n"):
        # Byte by byte: what follows the first line belongs to the loop.
        data = os.read(0, 1) if select.select([0], [], [], 10.0)[0] else b""
        if not data:
            return 1
        first += data
    Leash(json.loads(first.decode())).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
