"""Our end of the intake: the agent on a leash, what it counts, and the messages it kept."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from harness.errors import SensorFailed
from harness.model import Alert
from harness.sensors.intake.options import IntakeOptions
from harness.sensors.intake.understand import understanding
from lab.host import Host, Process
from lab.inventory import HostSpec
from lab.local import LocalHost

__all__ = ["Intake", "Received"]

_MAX_SECONDS = 24 * 3600.0
_START_S = 15.0
_INTERVAL_S = 0.25
_STOP_S = 10.0


class Received:
    """Messages of one trial, on our disk until this is garbage; alerts are read out of them."""

    def __init__(self, options: IntakeOptions, path: Path, skip: int, keep: Any) -> None:
        self._options = options
        self._path = path
        self._skip = skip
        self._keep = keep  # the temporary directory

    def messages(self) -> Iterator[tuple[float, str, str]]:
        """(arrival in s since the epoch, sender, text) in order of arrival."""
        with self._path.open() as lines:
            for line in itertools.islice(lines, self._skip, None):
                arrived, sender, text = json.loads(line)
                yield arrived, sender, text

    def __iter__(self) -> Iterator[Alert]:
        understand = understanding(self._options)
        for arrived, _, text in self.messages():
            found = understand(text, arrived)
            if found is not None:
                yield found

    def counts(self) -> tuple[int, int]:
        """(messages, alerts among them)."""
        understand = understanding(self._options)
        number = alerts = 0
        for arrived, _, text in self.messages():
            number += 1
            alerts += understand(text, arrived) is not None
        return number, alerts

    def example(self) -> str:
        """The first message that is no alert, shortened; empty when there is none."""
        understand = understanding(self._options)
        return next((t[:160] for at, _, t in self.messages() if understand(t, at) is None), "")


class Intake:
    """A listener for alerts."""

    def __init__(self, options: IntakeOptions, host: Host, process: Process, path: str) -> None:
        self._options = options
        self._host = host
        self._process = process
        self._path = path
        self._last: dict[str, Any] | None = None
        self._heard = 0.0
        self._skip = 0
        self._dropped_before = 0

    @classmethod
    def start(cls, host: Host, options: IntakeOptions) -> Intake:
        """Listen. Raises SensorFailed when the address or port cannot be had."""
        if options.at == "orchestrator":
            work = tempfile.mkdtemp(prefix="probebench-intake-")
            host = LocalHost(
                "orchestrator", HostSpec(connection="local", workdir=work, python=sys.executable)
            )
        base = f"{host.workdir}/intake"
        host.run(["mkdir", "-p", base])
        with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
            local = Path(scratch) / "agent.py"
            local.write_bytes(files("harness.sensors.intake").joinpath("_agent.py").read_bytes())
            host.put(local, f"{base}/agent.py")
        argument = {
            "transport": options.transport,
            "listen": options.listen,
            "port": options.port,
            "into": f"{base}/messages.jsonl",
            "buffer": options.buffer,
            "interval": _INTERVAL_S,
        }
        process = host.start(
            [host.python, f"{base}/agent.py", json.dumps(argument)],
            max_seconds=_MAX_SECONDS,
            sudo=options.port < 1024,
        )
        self = cls(options, host, process, f"{base}/messages.jsonl")
        self._await_first()
        return self

    def _await_first(self) -> None:
        end = time.monotonic() + _START_S
        said = ""
        while self._last is None:
            said = self._read() or said
            if self._process.poll() is not None or time.monotonic() > end:
                said = said or self._read()
                if self._last is None:
                    self.stop()
                    options = self._options
                    raise SensorFailed(
                        f"{self._host.name}: cannot listen on {options.listen} port "
                        f"{options.port}/{options.transport}: {said or 'no answer'}; see "
                        "sensor.options.intake"
                    )
            time.sleep(0.01)

    def _read(self) -> str:
        """Take in status lines; returns the last other thing that was said."""
        other = ""
        for line in self._process.lines():
            try:
                message = json.loads(line)
            except ValueError:
                other = line.strip() or other
                continue
            if isinstance(message, dict) and message.get("event") == "intake":
                self._last = message
                self._heard = time.monotonic()
            elif isinstance(message, dict):
                other = str(message.get("error", other))
        return other

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._last is not None
        return int(self._last["port"])

    @property
    def messages(self) -> int:
        """Messages since `mark`."""
        self._read()
        assert self._last is not None
        return int(self._last["messages"]) - self._skip

    def mark(self) -> None:
        """What came so far is of earlier traffic: leave it out."""
        self._read()
        assert self._last is not None
        self._skip = int(self._last["messages"])
        self._dropped_before = int(self._last["dropped"] or 0)

    def quiet(self, since: float) -> bool:
        """True when nothing came for `quiet` s, all of them after `since` (monotonic)."""
        said = self._read()
        if self._process.poll() is not None:
            raise SensorFailed(
                f"{self._host.name}: the intake for alerts ended early ({said or 'no word'}): "
                "alerts are missing"
            )
        assert self._last is not None
        silent = min(float(self._last["idle"]), self._heard - since)
        return silent >= self._options.quiet

    def finish(self) -> tuple[Received, dict[str, float]]:
        """Take in what is queued, stop, and fetch the messages.

        The second value counts `intake.messages`, `.alerts` (understood), `.dropped` (the socket
        had no room), `.torn` (streams that made no sense) and `.cpu_s`. Raises SensorFailed when
        the agent had died: then alerts are missing.
        """
        exit_ = self._process.stop(_STOP_S)
        said = self._read()
        last = self._last
        if exit_.reason != "stopped" or last is None or not last["ended"]:
            self.stop()
            raise SensorFailed(
                f"{self._host.name}: the intake for alerts ended early ({said or exit_}): alerts "
                "are missing"
            )
        keep = tempfile.TemporaryDirectory(prefix="probebench-")
        path = Path(keep.name) / "messages.jsonl"
        self._host.get(self._path, path)
        received = Received(self._options, path, self._skip, keep)
        self.stop()
        messages, alerts = received.counts()
        return received, {
            "intake.messages": float(messages),
            "intake.alerts": float(alerts),
            "intake.dropped": float((last["dropped"] or 0) - self._dropped_before),
            "intake.torn": float(last["torn"]),
            "intake.cpu_s": float(last["cpu"]),
        }

    def stop(self) -> None:
        """End it and leave nothing behind; idempotent."""
        self._process.stop(2.0)
        if self._options.at == "orchestrator":
            self._host.close()
            shutil.rmtree(self._host.workdir, ignore_errors=True)
