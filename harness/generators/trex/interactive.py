"""What TRex's interactive modes have in common: a server of ours, and an agent that drives it.

The server (`t-rex-64 -i`) and the agent run on TRex's host on leashes. The agent (`_agent.py`) is a
file we ship; it uses the Python client of TRex's own tree, which always matches its server, and
tells what it does in JSON lines. This process imports no client. For every trial both are started
anew, so that nothing of an earlier trial, or of a client that died, is left. With `server` =
"running" the server is the user's: only the agent is started; it takes the ports and gives them
back.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from harness.errors import ConfigError, GeneratorFailed
from harness.generators.base import Progress
from harness.generators.trex.console import Said
from harness.generators.trex.install import TrexInstall, end_ours, find_trex, require_trex
from harness.generators.trex.options import options_of, refuse_blanks
from harness.generators.trex.platform_file import platform_yaml
from harness.model import Axis, Corpus, Load, Schedule
from harness.signals import signal_name
from harness.templates import Template
from lab.host import Exit, Host, Process
from lab.inventory import GeneratorSpec

__all__ = ["FCS", "TrexInteractive", "put_text"]

FCS = 4  # bytes a packet that TRex's byte counters have and frames do not
_SILENT_S = 15.0  # the agent tells counters several times a second
_STOP_GRACE_S = 8.0
_SPARE_S = 60.0
_OPENED = ("tcps_connattempt", "udps_connects")  # of a client: flows it has begun
_RUNNING_PATIENCE_S = 5.0  # of a server that is said to run


def put_text(host: Host, name: str, text: str) -> str:
    """Write a file into our directory on a host; its path there."""
    remote = f"{host.workdir}/{name}"
    with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
        local = Path(scratch) / "file"
        local.write_text(text)
        host.run(["mkdir", "-p", str(Path(remote).parent)])
        host.put(local, remote)
    return remote


class TrexInteractive:
    """The parts of `Generator` that STL and ASTF share; a subclass gives the agent its job."""

    name = "trex"
    mode = ""  # "STL" or "ASTF"
    axes: tuple[Axis, ...]
    method = "fresh"  # how copies of a flow differ; see `harness.generators.base.method_of`

    def __init__(self, host: Host, spec: GeneratorSpec) -> None:
        self.templates: tuple[Template, ...] = ()
        self.install: TrexInstall | None = None
        self._host = host
        self._spec = spec
        self._options = options_of(spec)
        self._agent_path = ""
        self._server: Process | None = None
        self._agent: Process | None = None
        self._schedule: Schedule | None = None
        self._events: dict[str, dict[str, Any]] = {}
        self._peaks: dict[str, float] = {}
        self._opened: dict[str, int] = {}  # flows, by template
        self._sent = 0
        self._opening = (0, 0.0)  # flows opened, and when that was last seen to grow
        self._heard = 0.0
        self._said = Said()
        self._started_ns = 0

    # -- before a trial ---------------------------------------------------------------------

    def prepare(self, corpus: Corpus) -> None:
        """See `Generator.prepare`."""
        refuse_blanks(self._host)
        running = self._options.server == "running"
        self.install = (find_trex if running else require_trex)(self._host, self._options)
        if self.mode.lower() not in self.install.modes and not self._options.client_python:
            raise GeneratorFailed(
                f"{self._host.name}: {self.install.path} has no client for {self.mode} "
                "(automation/trex_control_plane/interactive): unpack a whole TRex, or give "
                "generator.options.client_python, a Python of that host with lbr-trex-client"
            )
        if not running:
            end_ours(self._host, self.install, self._cfg)
            put_text(self._host, "trex.yaml", platform_yaml(self._options, self._spec.interfaces))
        source = files("harness.generators.trex").joinpath("_agent.py").read_text()
        digest = hashlib.sha256(source.encode()).hexdigest()[:16]
        self._agent_path = put_text(self._host, f"agent-{digest}/trex_agent.py", source)
        if running:
            self._look_at_running()

    def _look_at_running(self) -> None:
        """The user's server answers, in our mode, with free ports. Raises GeneratorFailed."""
        job = put_text(self._host, "trex-job.json", json.dumps({**self._common(), "do": "ready"}))
        argv = [self._python, self._agent_path, job]
        self._events = {}
        done = self._host.run(argv, check=False, timeout=_RUNNING_PATIENCE_S + 60)
        for line in done.stdout.splitlines():
            self._take(line)
        if error := self._events.get("error"):
            self._refuse(error)
        if "ready" not in self._events:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise GeneratorFailed(f"{self._host.name}: TRex: its client failed: {last}")

    def _refuse(self, error: dict[str, Any]) -> NoReturn:
        """The agent's error in one line. Raises GeneratorFailed."""
        text = f"{self._host.name}: TRex: {error['code']}: {error['message']}"
        flag = " --astf" if self.mode == "ASTF" else ""
        hints = {
            "server-gone": f'start `t-rex-64 -i{flag}` there, or set server = "own"',
            "wrong-mode": f"start the server with `t-rex-64 -i{flag}`, or take another generator",
            "ports-taken": 'release them there (trex-console: release), or set server = "own"',
        }
        if self._options.server == "running" and error["code"] in hints:
            text += f'; server = "running" at port {self._options.rpc_port}: {hints[error["code"]]}'
        raise GeneratorFailed(text)

    @property
    def _python(self) -> str:
        return self._options.client_python or self._host.python

    def _common(self) -> dict[str, Any]:
        """What every job of the agent has."""
        options = self._options
        own = options.server == "own"
        # A server of the user's own may have ports of another session of ours: told by directory.
        mark = hashlib.sha256(self._host.workdir.encode()).hexdigest()[:8]
        return {
            "mode": self.mode,
            "tree": options.path,
            "rpc": options.rpc_port,
            "publish": options.publish_port,
            "patience": options.start_timeout if own else _RUNNING_PATIENCE_S,
            "user": f"probebench-{mark}",
            "force": own,
            "every": 0.25,
        }

    @property
    def _cfg(self) -> str:
        return f"{self._host.workdir}/trex.yaml"

    def must_set(self, load: Load) -> None:
        """Refuse a load on an axis that this mode cannot set. Raises ConfigError."""
        if load.axis not in self.axes:
            raise ConfigError(
                f"generator {self.name} cannot set the axis {load.axis!r}; it can set "
                f"{', '.join(self.axes)}"
            )

    def make_ready(self, schedule: Schedule) -> None:
        """What a trial needs on the host before anything is started."""

    def job(self, schedule: Schedule) -> dict[str, Any]:
        """What the agent shall do: "do", and that mode's own keys."""
        raise NotImplementedError

    # -- a trial ----------------------------------------------------------------------------

    def start(self, schedule: Schedule) -> None:
        """See `Generator.start`. The agent waits until the server answers."""
        self.stop()
        self.make_ready(schedule)
        self._schedule = schedule
        self._events, self._peaks, self._opened, self._said = {}, {}, {}, Said()
        self._sent, self._opening = 0, (0, 0.0)
        self._heard, self._started_ns = time.monotonic(), time.time_ns()
        duration = max(schedule.load.duration, schedule.seconds)
        longest = duration * 4 + self._options.start_timeout + _SPARE_S
        if self._options.server == "own":
            self._server = self._host.start(
                ["sh", "-c", self._server_command()],
                max_seconds=longest,
                log=f"{self._host.workdir}/generator.log",
                sudo=True,
            )
        job = {**self._common(), "duration": schedule.load.duration, **self.job(schedule)}
        remote = put_text(self._host, "trex-job.json", json.dumps(job))
        self._agent = self._host.start(
            [self._python, self._agent_path, remote], max_seconds=longest
        )

    def _server_command(self) -> str:
        argv = [
            *(["taskset", "-c", self._spec.cpus] if self._spec.cpus else []),
            *["./t-rex-64", "-i", "--cfg", self._cfg, "-c", str(self._options.cores)],
            *["--no-scapy-server", "--iom", "0"],
            *(["--astf"] if self.mode == "ASTF" else []),
            *(["--software"] if self._options.software else []),
            *self._options.arguments,
        ]
        path = shlex.quote(self._options.path)
        return f"cd {path} && exec {shlex.join(argv)} </dev/null"

    def progress(self) -> Progress:
        """See `Generator.progress`."""
        self._poll()
        return Progress(self._sent, "done" in self._events)

    def _poll(self) -> None:
        server, agent = self._server, self._agent
        if agent is None:
            raise GeneratorFailed("generator polled before it was started")
        gone, ended = server.poll() if server is not None else None, agent.poll()
        for line in server.lines() if server is not None else ():
            self._said.feed(line)
        for line in agent.lines():
            self._take(line)
        if "done" in self._events:
            return
        where = f"{self._host.name}: TRex"
        if gone is not None:
            self.stop()
            raise GeneratorFailed(f"{where} {_how(gone)}; last: {self._said.why}")
        if error := self._events.get("error"):
            self.stop()
            self._refuse(error)
        if ended is not None:
            self.stop()
            raise GeneratorFailed(f"{where}: its client {_how(ended)} before the end of the trial")
        patience = _SILENT_S + (0 if "started" in self._events else self._options.start_timeout)
        if time.monotonic() - self._heard > patience:
            self.stop()
            raise GeneratorFailed(f"{where} hangs: its client said nothing for {patience:g} s")

    def _take(self, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return  # a warning of some library
        if not isinstance(event, dict) or "event" not in event:
            return
        self._heard = time.monotonic()
        self._events[event["event"]] = event
        if event["event"] == "groups":
            self._opened.update({name: int(count) for name, count in event["flows"].items()})
        if event["event"] not in ("stats", "done"):
            return
        for name, value in event["global"].items():
            self._peaks[name] = max(float(value), self._peaks.get(name, 0.0))
        sent = sum(port["opackets"] for port in event["ports"].values())
        self._sent = max(self._sent, sent)
        client = event["traffic"].get("client", {})
        opened = sum(client.get(name, 0) for name in _OPENED)
        if opened > self._opening[0]:
            self._opening = (opened, event["t"])

    def _finished(self) -> dict[str, Any]:
        """Wait for the end; the agent's last event."""
        _ = self._running
        while "done" not in self._events:
            self._poll()
            time.sleep(0.05)
        return self._events["done"]

    @property
    def _running(self) -> Schedule:
        """The schedule of the trial. Raises GeneratorFailed before there is one."""
        if self._schedule is None:
            raise GeneratorFailed("generator finished before it was started")
        return self._schedule

    @property
    def _seconds(self) -> float:
        """From the start of the traffic to when it had ended, by the host's clock."""
        return float(self._events["done"]["ended"] - self._events["started"]["t"])

    def _extra(self) -> dict[str, float]:
        done = self._events["done"]
        total = {
            name: float(sum(port[name] for port in done["ports"].values()))
            for name in ("ipackets", "ierrors", "oerrors")
        }
        return {
            "queue_full": self._peaks.get("queue_full", 0.0),
            "alloc_error": self._peaks.get("total_alloc_error", 0.0),
            "active_flows_peak": self._peaks.get("active_flows", 0.0),
            "cpu_percent_peak": self._peaks.get("cpu_util", 0.0),
            "received_packets": total["ipackets"],
            "receive_errors": total["ierrors"],
            "transmit_errors": total["oerrors"],
            "time_resolution_s": 0.25,
        }

    def stop(self) -> None:
        """See `Generator.stop`: the agent first, which gives the ports back, then the server."""
        agent, self._agent = self._agent, None
        server, self._server = self._server, None
        try:
            if agent is not None and agent.poll() is None:
                # Without a server its client would only wait for an answer.
                alive = server.poll() is None if server is not None else True
                agent.stop(_STOP_GRACE_S if alive else 0.5)
        finally:
            if server is not None and server.poll() is None:
                server.stop(_STOP_GRACE_S)


def _how(ended: Exit) -> str:
    if ended.signal is not None:
        return f"was killed by {signal_name(ended.signal)}"
    if ended.reason == "deadline":
        return "did not end in its time and was stopped"
    return f"ended with status {ended.returncode}"
