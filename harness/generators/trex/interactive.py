"""What TRex's interactive modes have in common: a server, and a job a trial that the agent plays.

The server is started afresh for each trial (unless one runs that is not ours), so that each begins
from the same state and `stop` leaves nothing. Ready is when the client's handshake succeeds.

Measured time is the agent's: from the return of the client's `start` until the server says that
the traffic has ended. It says so late, so that only what exceeds the load's duration by more than
`_RESOLUTION_S` counts as stretched.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

from harness.errors import ConfigError, GeneratorFailed
from harness.generators.base import Progress
from harness.generators.trex.agent import Agent, Report, put_text
from harness.generators.trex.install import TrexInstall, require_trex
from harness.generators.trex.options import read_options
from harness.generators.trex.platform import platform_yaml
from harness.generators.trex.server import TrexServer, end_leftovers
from harness.model import Schedule, Sent
from lab.host import Host
from lab.inventory import GeneratorSpec

__all__ = ["Interactive"]

_FCS = 4  # bytes a packet that TRex's byte counters have and frames do not
_RESOLUTION_S = 0.5
_SPARE_S = 90.0


class Interactive:
    """Base of the drivers; `mode` is "stl" or "astf"."""

    mode: ClassVar[str]

    def __init__(self, host: Host, spec: GeneratorSpec) -> None:
        self.install: TrexInstall | None = None
        self.version = ""
        self._host = host
        self._spec = spec
        self._options = read_options(spec.options)
        if len(spec.interfaces) != 2:
            raise ConfigError(
                "inventory: generator.server_interface is missing: TRex sends the clients' packets "
                "on generator.interface and the servers' on this one"
            )
        if self._options.client == "stl-lib" and self.mode != "stl":
            raise ConfigError("inventory: generator.options.client: trex-stl-lib has no ASTF")
        cfg = f"{host.workdir}/trex.yaml"
        self._server = TrexServer(host, self._options, cfg, self.mode, spec.cpus)
        self._cfg = cfg
        self._agent = Agent(host, self._options, self.mode)
        self._schedule: Schedule | None = None
        self._started_ns = 0

    # -- for the modes ----------------------------------------------------------------------

    def _job(self, schedule: Schedule) -> dict[str, Any]:
        """What the agent shall play."""
        raise NotImplementedError

    def _longest(self) -> float:
        """Seconds that traffic may go on behind the load's duration."""
        return 30.0

    def _flows(self, report: Report, schedule: Schedule) -> int:
        """Flows sent."""
        raise NotImplementedError

    def _extra(self, report: Report) -> dict[str, float]:
        """What else is known at the end."""
        return {}

    # -- before a trial ---------------------------------------------------------------------

    def _find(self) -> None:
        """Find TRex, end what a run of ours left, and shake hands once. Raises GeneratorFailed."""
        self.install = require_trex(self._host, self._options)
        if self.mode not in self.install.modes and self._options.client == "tree":
            raise GeneratorFailed(
                f"{self._host.name}: {self._options.path} has no Python client for {self.mode}; "
                "set generator.options.client = 'lbr' and client_python"
            )
        end_leftovers(self._host, self.install, self._cfg)
        put_text(self._host, "trex.yaml", platform_yaml(self._options, self._spec.interfaces))
        try:
            self._begin("look", self._options.start_timeout + _SPARE_S)
            while not self._poll():
                time.sleep(0.05)
            self.version = str((self._agent.connected or {}).get("version", "unknown"))
        finally:
            self.stop()

    def _begin(self, do: str, max_seconds: float, **job: Any) -> None:
        if self._options.server == "ours":
            self._server.start(max_seconds)
        self._agent.start(do, self._options.start_timeout, max_seconds, **job)

    def _poll(self) -> bool:
        """Whether the agent is done. A server that died is the better reason than its client's."""
        try:
            done = self._agent.read()
        except GeneratorFailed as error:
            # The client may notice before the leash has told how the server ended.
            end = time.monotonic() + (1.0 if "server-gone" in str(error) else 0.0)
            self._server.check()
            while time.monotonic() < end:
                time.sleep(0.05)
                self._server.check()
            raise
        if not done:
            self._server.check()
        return done

    # -- a trial ----------------------------------------------------------------------------

    def start(self, schedule: Schedule) -> None:
        """See `Generator.start`."""
        self.stop()
        self._schedule, self._started_ns = schedule, time.time_ns()
        most = schedule.load.duration + self._longest() + self._options.start_timeout + _SPARE_S
        self._begin(
            "play",
            most,
            duration=schedule.load.duration,
            longest=self._longest(),
            ports=[0, 1],
            **self._job(schedule),
        )

    def progress(self) -> Progress:
        """See `Generator.progress`."""
        if self._schedule is None:
            raise GeneratorFailed("generator polled before it was started")
        done = self._poll()
        latest = self._agent.latest
        return Progress(latest.sum("opackets") if latest else 0, done)

    def finish(self) -> Sent:
        """See `Generator.finish`."""
        schedule = self._schedule
        if schedule is None:
            raise GeneratorFailed("generator finished before it was started")
        while not self._poll():
            time.sleep(0.05)
        report, started = self._agent.done, self._agent.started
        if report is None or started is None:
            raise GeneratorFailed(f"{self._host.name}: TRex's client ended without a result")
        packets = report.sum("opackets")
        asked = schedule.load.duration
        extra = {
            "queue_full": float(report.queue_full),
            "alloc_error": report.alloc_error,
            "active_flows_peak": self._agent.peaks.get("active_flows", 0.0),
            "cpu_percent_peak": self._agent.peaks.get("cpu_util", 0.0),
            "received": float(report.sum("ipackets")),
            "errors_in": float(report.sum("ierrors")),
            "time_resolution_s": _RESOLUTION_S,
            **{f"port{n}_packets": float(p["opackets"]) for n, p in enumerate(report.ports)},
            **{
                f"port{n}_bytes": float(p["obytes"] - _FCS * p["opackets"])
                for n, p in enumerate(report.ports)
            },
            **self._extra(report),
        }
        return Sent(
            packets=packets,
            bytes=report.sum("obytes") - _FCS * packets,
            flows=self._flows(report, schedule),
            seconds=asked + max(0.0, report.t - asked - self._tail(report) - _RESOLUTION_S),
            failed=report.sum("oerrors"),
            started_ns=int(started["t_ns"]),
            ended_ns=time.time_ns(),
            templates=report.templates,
            extra=extra,
        )

    def _tail(self, report: Report) -> float:
        """Seconds in which open flows are played out, which are no stretching."""
        return 0.0

    def stop(self) -> None:
        """See `Generator.stop`: traffic ended, ports given back, server gone; idempotent."""
        try:
            self._agent.stop()
        finally:
            self._server.stop()
