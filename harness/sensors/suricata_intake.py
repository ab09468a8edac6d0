"""Alerts from a unix socket: our end of the intake that listens on the sensor host.

Suricata sends eve records to the socket without waiting and counts nowhere what did not fit
(util-logopenfile.c, SCLogFileWriteSocket), so the loss is found by comparing: alerts that its
counters have, less those that arrived.
"""

from __future__ import annotations

import json
import time
from typing import Any

from harness.errors import SensorFailed
from harness.sensors.suricata_link import Link
from lab.host import Process

__all__ = ["Intake"]

_MAX_SECONDS = 24 * 3600.0
_START_S = 10.0


class Intake:
    """A listener on `alerts.sock` that writes `alerts.json` in the run directory."""

    def __init__(self, link: Link, process: Process) -> None:
        self._link = link
        self._process = process
        self._last: dict[str, Any] | None = None

    @classmethod
    def start(cls, link: Link) -> Intake:
        """Listen before Suricata starts. Raises SensorFailed when the socket cannot be made."""
        argument = {
            "path": link.paths.log("alerts.sock"),
            "kind": link.options.alerts_via,
            "into": link.paths.log("alerts.json"),
            "interval": 1.0,
        }
        argv = [link.host.python, link.agent("_eve_agent.py"), "intake", json.dumps(argument)]
        process = link.host.start(argv, max_seconds=_MAX_SECONDS, sudo=True)
        self = cls(link, process)
        end = time.monotonic() + _START_S
        while self._last is None:
            said = self._read()
            if process.poll() is not None or time.monotonic() > end:
                raise SensorFailed(
                    f"{link.host.name}: cannot listen on {argument['path']}: {said or 'no answer'}"
                )
            time.sleep(0.01)
        return self

    def _read(self) -> str:
        other = ""
        for line in self._process.lines():
            try:
                message = json.loads(line)
            except ValueError:
                other = line.strip() or other
                continue
            if isinstance(message, dict) and message.get("event") == "intake":
                self._last = message
            elif isinstance(message, dict):
                other = str(message.get("error", other))
        return other

    def finish(self, raised: int | None) -> dict[str, float]:
        """Take in what is queued and stop; `raised` is what Suricata's counters say.

        Returns `eve.intake.lines`, `.lost` (raised, did not arrive), `.torn` (cut records) and
        `.cpu_s`. Raises SensorFailed when the listener had died: then alerts are missing.
        """
        exit_ = self._process.stop(10.0)
        said = self._read()
        if exit_.reason != "stopped" or self._last is None or not self._last["ended"]:
            raise SensorFailed(
                f"{self._link.host.name}: the listener for alerts ended early ({said or exit_}): "
                "alerts are missing"
            )
        last = self._last
        counts = {f"eve.intake.{key}": float(last[key]) for key in ("lines", "torn")}
        counts["eve.intake.cpu_s"] = float(last["cpu"])
        if raised is not None:
            counts["eve.intake.lost"] = float(max(0, raised - int(last["lines"])))
        return counts

    def stop(self) -> None:
        """End it; idempotent."""
        self._process.stop(2.0)
