"""Our end of the agent that plays a job on a TRex server (`_agent.py`, shipped to TRex's host)."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from harness.errors import GeneratorFailed
from harness.generators.trex.options import TrexOptions
from harness.signals import signal_name
from lab.host import Host, Process

__all__ = ["Agent", "Report", "put_text"]

_STOP_GRACE_S = 12.0  # it has to end the traffic and give the ports back
_REMEDY = {
    "version-refused": "use the client of TRex's own tree (generator.options.client = 'tree')",
    "ports-taken": "another user holds them: end that, or set generator.options.force = true",
    "server-gone": "look at trex-server.log on that host",
    "resolve-failed": "nobody answers ARP: give generator.options.dest_macs",
    "out-of-memory": "fewer templates, or more hugepages",
    "no-client": "the interpreter cannot import it: set generator.options.client_python",
}


@dataclass(frozen=True, slots=True)
class Report:
    """Numbers of the agent's "stats" and "done" lines; `t` is seconds since the start.

    `ports` has opackets, obytes (with FCS) … of each port; `traffic` the counters of the stacks by
    side, absent ones being zero; `templates` flows begun by name.
    """

    t: float
    ports: tuple[dict[str, int], ...]
    queue_full: int
    active_flows: float
    open_flows: float
    cpu_util: float
    alloc_error: float
    traffic: dict[str, dict[str, float]] = field(default_factory=dict)
    templates: dict[str, int] = field(default_factory=dict)

    def sum(self, name: str) -> int:
        """A counter summed over the ports."""
        return sum(port[name] for port in self.ports)

    def stack(self, name: str) -> float:
        """A counter of the stacks, summed over both sides."""
        return sum(float(side.get(name, 0)) for side in self.traffic.values())


def put_text(host: Host, name: str, text: str) -> str:
    """Write a file in the host's work directory; its path there."""
    remote = f"{host.workdir}/{name}"
    with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
        local = Path(scratch) / "file"
        local.write_text(text)
        host.run(["mkdir", "-p", host.workdir])
        host.put(local, remote)
    return remote


class Agent:
    """One job at a time. A job is the dictionary that `_agent.py` reads."""

    def __init__(self, host: Host, options: TrexOptions, mode: str) -> None:
        self._host = host
        self._options = options
        self._mode = mode
        self._process: Process | None = None
        self._script = ""
        self._heard = 0.0
        self._patience = 0.0
        self.connected: dict[str, Any] | None = None
        self.started: dict[str, Any] | None = None
        self.done: Report | None = None
        self.latest: Report | None = None
        self.peaks: dict[str, float] = {}
        self.said: list[str] = []

    def start(self, do: str, patience: float, max_seconds: float, **job: Any) -> None:
        """Start a job: "look" or "play". `patience` is how long the server may take to answer."""
        self.stop()
        self.connected = self.started = self.done = self.latest = None
        self.peaks, self.said = {}, []
        options = self._options
        text = json.dumps(
            {
                "do": do,
                "mode": self._mode,
                "client": options.client,
                "tree": options.path,
                "user": "probebench",
                "server": "127.0.0.1",
                "sync_port": options.rpc_port,
                "async_port": options.publish_port,
                "patience": patience,
                "force": options.force,
                **job,
            }
        )
        path = put_text(self._host, "trex-job.json", text)
        self._patience, self._heard = patience + 30.0, time.monotonic()
        self._process = self._host.start(
            [options.client_python or self._host.python, self._ship(), path],
            max_seconds=max_seconds,
            log=f"{self._host.workdir}/trex-agent.log",
        )

    def _ship(self) -> str:
        if not self._script:
            text = resources.files("harness.generators.trex").joinpath("_agent.py").read_text()
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            self._script = put_text(self._host, f"trex-agent-{digest}.py", text)
        return self._script

    def read(self) -> bool:
        """Take in what it said; True when it has ended well. Raises GeneratorFailed."""
        process = self._process
        if process is None:
            raise GeneratorFailed("TRex's agent polled before it was started")
        ended = process.poll()
        for line in process.lines():
            self._heard = time.monotonic()
            self._take(line)
        if ended is not None:
            if ended.reason in ("stopped", "orphaned"):
                raise GeneratorFailed(f"{self._where} was stopped before it had sent everything")
            if ended.returncode != 0 or (self.done is None and self.connected is None):
                number = ended.signal
                how = f"was killed by {signal_name(number)}" if number else "ended"
                last = self.said[-1] if self.said else "no message"
                raise GeneratorFailed(f"{self._where} {how} without a result; last: {last}")
            return True
        if time.monotonic() - self._heard > self._patience:
            silent = self._patience
            self.stop()
            raise GeneratorFailed(f"{self._where} hangs: it said nothing for {silent:g} s")
        return False

    @property
    def _where(self) -> str:
        return f"{self._host.name}: TRex's client"

    def _take(self, line: str) -> None:
        try:
            message = json.loads(line)
            event = message.pop("event")
        except (ValueError, AttributeError, KeyError, TypeError):
            self.said = [*self.said[-19:], line.strip()] if line.strip() else self.said
            return
        if event == "error":
            code, text = message["code"], message["message"]
            remedy = f"; {_REMEDY[code]}" if code in _REMEDY else ""
            raise GeneratorFailed(f"{self._host.name}: TRex: {code}: {text}{remedy}")
        if event == "connected":
            self.connected = message
        elif event == "started":
            self.started, self._patience = message, 15.0
        elif event in ("stats", "done"):
            report = Report(
                t=message["t"],
                ports=tuple(message["ports"]),
                queue_full=message["queue_full"],
                active_flows=message["active_flows"],
                open_flows=message["open_flows"],
                cpu_util=message["cpu_util"],
                alloc_error=message["total_alloc_error"],
                traffic=message.get("traffic", {}),
                templates=message.get("templates", {}),
            )
            for name in ("active_flows", "open_flows", "cpu_util"):
                self.peaks[name] = max(self.peaks.get(name, 0.0), getattr(report, name))
            self.latest = report
            if event == "done":
                self.done = report

    def stop(self) -> None:
        """End the job: it ends its traffic and gives the ports back; idempotent."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.stop(_STOP_GRACE_S)
