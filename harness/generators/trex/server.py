"""A TRex server in interactive mode: started on our leash, ended whole, leftovers found.

`_t-rex-64` is what must be told to end: TERM to the wrapper alone orphans it. The leash tells the
whole process group.
"""

from __future__ import annotations

import shlex
import time

from harness.errors import GeneratorFailed
from harness.generators.trex.console import Console, cause_of_failure
from harness.generators.trex.install import TrexInstall
from harness.generators.trex.options import TrexOptions
from harness.signals import signal_name
from lab.host import Host, Process

__all__ = ["TrexServer", "end_leftovers"]

_STOP_GRACE_S = 8.0  # it takes up to 3.5 s to end after TERM
_PATIENCE_S = 5.0


def end_leftovers(host: Host, found: TrexInstall, cfg: str) -> None:
    """End servers of an earlier run of ours: those with our configuration file."""
    ours = [pid for pid, command in found.processes if cfg in command.split()]
    for number in ("TERM", "KILL"):
        if not ours:
            return
        host.run(["kill", f"-{number}", *map(str, ours)], check=False, sudo=True)
        end = time.monotonic() + _PATIENCE_S
        while ours and time.monotonic() < end:
            time.sleep(0.2)
            ours = [pid for pid in ours if _runs(host, pid)]


def _runs(host: Host, pid: int) -> bool:
    return host.run(["test", "-e", f"/proc/{pid}"], check=False).returncode == 0


class TrexServer:
    """One server of one mode ("stl", "astf"), from `start` to `stop`."""

    def __init__(self, host: Host, options: TrexOptions, cfg: str, mode: str, cpus: str | None):
        self._host = host
        self._options = options
        self._cfg = cfg
        self._mode = mode
        self._cpus = cpus
        self._process: Process | None = None
        self._console = Console()

    def command(self) -> str:
        """What is run, for `sh -c`."""
        options = self._options
        argv = [
            *(["taskset", "-c", self._cpus] if self._cpus else []),
            *["./t-rex-64", "-i", *(["--astf"] if self._mode == "astf" else [])],
            *["--cfg", self._cfg, "-c", str(options.cores), "--no-scapy-server", "--iom", "0"],
            *(["--software"] if options.software else []),
            *options.arguments,
        ]
        return f"cd {shlex.quote(options.path)} && exec {shlex.join(argv)} </dev/null"

    def start(self, max_seconds: float) -> None:
        """Start it; returns at once. Ready is who answers the client (see the agent)."""
        self.stop()
        self._console = Console()
        self._process = self._host.start(
            ["sh", "-c", self.command()],
            max_seconds=max_seconds,
            log=f"{self._host.workdir}/trex-server.log",
            sudo=True,
        )

    def check(self) -> None:
        """Raise GeneratorFailed with the last words of a server that has ended."""
        if self._process is None:
            return
        ended = self._process.poll()
        for line in self._process.lines():
            self._console.feed(line)
        if ended is None:
            return
        status = ended.returncode
        number = ended.signal or (status - 128 if status is not None and 128 < status < 165 else 0)
        how = f"was killed by {signal_name(number)}" if number else f"ended with status {status}"
        cause = self._console.cause
        last = f"shut down: {cause}" if cause else cause_of_failure(self._console.said)
        raise GeneratorFailed(f"{self._host.name}: the TRex server {how}: {last}")

    def stop(self) -> None:
        """End it and wait until it is gone; idempotent."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.stop(_STOP_GRACE_S)
