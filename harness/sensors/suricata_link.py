"""Talking to a Suricata that runs, whoever started it: its command socket, its agent, its logs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from harness.errors import SensorFailed
from harness.model import Counters
from harness.sensors.suricata_agent import Sample, Watch, is_quiet
from harness.sensors.suricata_config import Paths, ship
from harness.sensors.suricata_counters import BUSY_POLLING, agrees, to_counters
from harness.sensors.suricata_options import Options
from lab.host import Host

__all__ = ["Link"]

# The statistics table is rebuilt every stats.interval, from what threads publish when they are
# woken, at most every 3 s (counters.c, STATS_WUT_TTS).
_TABLE_PATIENCE_S = 12.0
_PUBLISH_S = 3.5
_MAX_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Link:
    """One Suricata on one host: `socket` is its command socket, `device` what it captures on.

    `netdev` is the kernel's interface ("" where the kernel has none), `alive` raises SensorFailed
    when it is known to be gone.
    """

    host: Host
    options: Options
    paths: Paths
    socket: str
    device: str
    netdev: str

    def agent(self, name: str = "_suricata_agent.py") -> str:
        """Path on the host of a program of ours, shipped once."""
        source = files("harness.sensors").joinpath(name).read_bytes()
        return ship(self.host, self.paths, source, ".py")

    def call(
        self, mode: str, argument: dict[str, Any], program: str = "_suricata_agent.py"
    ) -> dict[str, Any]:
        """One question to an agent. Raises SensorFailed with what it says."""
        argv = [self.host.python, self.agent(program), mode, json.dumps(argument)]
        done = self.host.run(argv, check=False, timeout=300, sudo=True)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            answer = {"error": (done.stderr.strip().splitlines() or ["no answer"])[-1]}
        if not isinstance(answer, dict) or "error" in answer:
            why = answer["error"] if isinstance(answer, dict) else answer
            raise SensorFailed(f"{self.host.name}: the sensor agent could not {mode}: {why}")
        return answer

    def ask(self, *commands: list[Any]) -> list[dict[str, Any]]:
        """Commands to Suricata's socket; its answers in order. Raises SensorFailed."""
        answer = self.call("ask", {"path": self.socket, "commands": commands})
        answers: list[dict[str, Any]] = answer["answers"]
        return answers

    def closed_timeout(self) -> float | None:
        """How long it remembers a closed TCP flow, in s; None where its configuration has none."""
        name = {"variable": "flow-timeouts.tcp.closed"}
        try:
            (answer,) = self.ask(["conf-get", name])
            return float(str(answer["message"]))
        except (SensorFailed, KeyError, ValueError):
            return None

    def watch(self, log: str, alerts: str, workers: int) -> Watch:
        """Start the agent's samples. `workers` is how many captures must run (0: any)."""
        argument = {
            "path": self.socket,
            "interface": self.device,
            "netdev": self.netdev,
            "log": log,
            "alerts": alerts,
            "workers": workers,
            "interval": self.options.sample_interval,
            "timeout": self.options.ready_timeout,
            "sockets": self.options.capture in ("af-packet", "pcap"),
        }
        argv = [self.host.python, self.agent(), "watch", json.dumps(argument)]
        return Watch(self.host.start(argv, max_seconds=_MAX_SECONDS, sudo=True))

    def tail(self, path: str, limit: int) -> str:
        """The last bytes of a file; empty when it cannot be read."""
        done = self.host.run(["tail", "-c", str(limit), path], check=False, sudo=True)
        return done.stdout if done.returncode == 0 else ""

    def counters(self) -> Counters:
        """Counters now, as soon as the statistics table agrees with iface-stat.

        Nothing received yet is zero at once. When they do not agree within 12 s, what iface-stat
        says of the interface is believed. Raises SensorFailed.
        """
        capture = self.options.capture
        end = time.monotonic() + _TABLE_PATIENCE_S
        while True:
            answers = self.ask(["iface-stat", {"iface": self.device}], ["dump-counters", {}])
            now = answers[0].get("message")
            if not isinstance(now, dict) or "pkts" not in now:
                raise SensorFailed(
                    f"{self.host.name}: suricata does not answer iface-stat for {self.device}: "
                    f"{now}"
                )
            table = answers[1].get("message")
            if isinstance(table, dict):
                counters = to_counters(table, exact=False, capture=capture)
                if agrees(counters, int(now["pkts"]), capture):
                    return counters
                if time.monotonic() > end:
                    return self._believe_interface(counters, now)
            elif now["pkts"] == 0:
                return to_counters({}, exact=False, capture=capture)
            elif time.monotonic() > end:
                raise SensorFailed(f"{self.host.name}: suricata's dump-counters says: {table}")
            time.sleep(0.3)

    def _believe_interface(self, counters: Counters, now: dict[str, Any]) -> Counters:
        if self.options.capture in ("af-packet", "dpdk"):
            return replace(counters, received=int(now["pkts"]), dropped=int(now["drop"]))
        return counters

    def settle(self, watch: Watch, timeout: float, alive: Callable[[], None]) -> bool:
        """Wait until link and counters stand still and the workers are idle.

        Raises SensorFailed when the command socket goes away.
        """
        begin = time.monotonic()
        if self.options.capture in BUSY_POLLING:
            return self._settle_by_table(begin + timeout, alive)
        watch.read()  # what was sampled before now proves nothing
        mark = watch.count
        window: list[Sample] = []
        while time.monotonic() - begin < timeout:
            alive()
            fresh = watch.since(mark)
            mark = watch.count
            window += fresh
            if fresh and is_quiet(window, self.options.control == "observed"):
                return True
            if watch.ended:
                raise SensorFailed(
                    f"{self.host.name}: suricata's command socket went away while it settled "
                    f"({watch.last_words})"
                )
            time.sleep(0.05)
        return False

    def _settle_by_table(self, end: float, alive: Callable[[], None]) -> bool:
        """Settled when the decoded packets stand for longer than threads take to publish them."""
        rest = _PUBLISH_S + self.options.stats_interval
        seen, since = -1, time.monotonic()
        while time.monotonic() < end:
            alive()
            table = self.ask(["dump-counters", {}])[0].get("message")
            if isinstance(table, dict):
                decoded = to_counters(table, exact=False, capture="dpdk").decoded or 0
                if decoded != seen:
                    seen, since = decoded, time.monotonic()
                elif time.monotonic() - since >= rest:
                    return True
            time.sleep(0.25)
        return False
