"""A sensor process that is ours: started on a leash, listened to, ended; and what it wrote."""

from __future__ import annotations

import gzip
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import SensorFailed
from lab.host import Exit, Host, Process

__all__ = ["Owned", "remote_lines", "require_interface"]

_MAX_SECONDS = 24 * 3600.0
_LARGE = 1 << 20  # bytes; what is larger travels compressed and is read line by line


def require_interface(host: Host, interface: str) -> None:
    """Raise SensorFailed when a host has no such interface."""
    if host.run(["ip", "link", "show", "dev", interface], check=False).returncode != 0:
        raise SensorFailed(f"{host.name}: there is no interface {interface}; see sensor.interface")


def remote_lines(host: Host, path: str) -> Iterator[str]:
    """Lines of a file on a host; none where there is no such file. Raises LabError."""
    size = host.run(["stat", "-c", "%s", path], check=False, sudo=True).stdout.strip()
    if not size.isdigit() or int(size) < _LARGE:
        done = host.run(["cat", path], check=False, timeout=60, sudo=True)
        yield from done.stdout.splitlines(keepends=True) if done.returncode == 0 else ()
        return
    packed = f"{path}.probebench.gz"
    host.run(["sh", "-c", 'gzip -1 -c "$1" > "$2"', "sh", path, packed], timeout=600, sudo=True)
    with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
        local = Path(scratch) / "file.gz"
        host.get(packed, local)
        host.run(["rm", "-f", packed], check=False, sudo=True)
        with gzip.open(local, "rt", errors="replace") as lines:
            yield from lines


class Owned:
    """One process; `name` is for messages."""

    def __init__(self, host: Host, name: str, argv: Sequence[str], directory: str) -> None:
        """Start `argv` with `directory` as its working directory."""
        self._host = host
        self._name = name
        self._said: list[str] = []
        command = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", directory, *argv]
        self._process: Process = host.start(command, max_seconds=_MAX_SECONDS, sudo=True)

    @property
    def pid(self) -> int:
        """Of the command itself."""
        return self._process.pid

    def said(self) -> str:
        """Everything it has printed."""
        self._said += self._process.lines()
        return "\n".join(self._said)

    def last_words(self) -> str:
        """Its last line."""
        lines = [line for line in self.said().splitlines() if line.strip()]
        return lines[-1].strip()[:200] if lines else "no word"

    def must_live(self, when: str) -> None:
        """Raises SensorFailed when it has ended."""
        if self._process.poll() is not None:
            raise SensorFailed(f"{self._host.name}: {self._name} ended {when}: {self.last_words()}")

    def await_words(self, words: str, timeout: float) -> None:
        """Wait until it has said something. Raises SensorFailed."""
        end = time.monotonic() + timeout
        while words not in self.said():
            self.must_live("while it started")
            if time.monotonic() > end:
                raise SensorFailed(
                    f"{self._host.name}: {self._name} was not ready within {timeout:g} s (it did "
                    f"not say {words!r}): {self.last_words()}"
                )
            time.sleep(0.02)

    def end(self, grace: float) -> Exit:
        """Tell it to end and wait. Raises SensorFailed when it had ended, or had to be killed."""
        self.must_live("during the trial")
        exit_ = self._process.stop(grace)
        if exit_.reason != "stopped" or exit_.signal == 9:
            raise SensorFailed(
                f"{self._host.name}: {self._name} did not end by itself when told to, so its last "
                f"counters are missing: {self.last_words()}"
            )
        return exit_

    def stop(self) -> None:
        """End it; idempotent."""
        self._process.stop(3.0)
