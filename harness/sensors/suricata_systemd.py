"""A Suricata that systemd runs: restarted before each trial, stopped after it for exact totals.

Its configuration is left as it is: it needs the command socket, and an eve output with alerts and
stats (`sensor.options.socket` and `.eve`). Stopping the unit is what makes Suricata write its last
statistics record; afterwards the unit is put back into the state in which it was found.

Not verified with a real systemd: tested on a host in memory.
"""

from __future__ import annotations

from dataclasses import replace

from harness.errors import SensorFailed
from harness.model import Counters
from harness.sensors.suricata_counters import (
    exact_pcap,
    last_record,
    pcap_totals,
    to_counters,
)
from harness.sensors.suricata_foreign import ObservedSuricata
from lab.host import Host
from lab.inventory import SensorSpec

__all__ = ["SystemdSuricata"]

_TIMEOUT_S = 180.0
_TAIL = 16 << 20  # of the eve output: alerts of flows that end at shutdown may follow the record


class SystemdSuricata(ObservedSuricata):
    """`harness.sensors.base.Sensor` for a unit of systemd's."""

    state = "restarted"

    def __init__(self, host: Host, spec: SensorSpec) -> None:
        super().__init__(host, spec)
        assert self._options.unit is not None  # read_options refuses
        self._unit = self._options.unit
        self.capabilities = replace(self.capabilities, exact_totals=True)
        self._was_active: bool | None = None

    def check(self) -> None:
        """The unit exists and comes up; then as for any that runs."""
        loaded = self._show("LoadState")
        if loaded != "loaded":
            raise SensorFailed(
                f"{self._host.name}: systemd has no unit {self._unit} ({loaded or 'no answer'}); "
                "see sensor.options.unit"
            )
        self._restart()
        super().check()

    def _show(self, what: str) -> str:
        argv = ["systemctl", "show", "--value", "-p", what, self._unit]
        return self._host.run(argv, check=False).stdout.strip()

    def _systemctl(self, verb: str) -> None:
        argv = ["systemctl", verb, self._unit]
        done = self._host.run(argv, check=False, timeout=_TIMEOUT_S, sudo=True)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise SensorFailed(
                f"{self._host.name}: systemctl {verb} {self._unit} failed: {last}; see "
                f"journalctl -u {self._unit}"
            )

    def _restart(self) -> None:
        if self._was_active is None:
            self._was_active = self._show("ActiveState") == "active"
        self._systemctl("restart")
        self._watch = self._link.watch(self._options.log or "", "", 0)
        try:
            self._wait_ready()
        finally:
            self._end_watch()

    def prepare(self) -> None:
        """Restart the unit and wait until it captures."""
        self._restart()
        super().prepare()

    def finish(self) -> Counters:
        """Stop the unit and read the totals Suricata wrote on its way out.

        Raises SensorFailed when the unit restarted, or when it left no final record.
        """
        self._must_live()
        assert self._watch is not None
        self.cpu_seconds, facts = self._watch.cpu_seconds, self._watch.facts()
        self._must_be_the_same()
        _, lived = self._identity()
        self._end_watch()
        self._systemctl("stop")
        counters = self._totals(lived)
        gained = self._read_output()
        raw = {**counters.raw, **facts}
        raw.update({f"eve.{key}": float(gained[key]) for key in ("lines", "kept", "torn")})
        return replace(counters, raw=raw)

    def _totals(self, lived: int) -> Counters:
        where, capture = self._host.name, self._options.capture
        stats = last_record(self._link.tail(self._eve, _TAIL))
        if stats is None:
            raise SensorFailed(
                f"{where}: no statistics in {self._eve}: add `stats` (totals: yes, threads: yes) "
                "to the types of its eve-log"
            )
        if int(stats.get("uptime", 0)) < lived:
            raise SensorFailed(
                f"{where}: the last statistics in {self._eve} are of {stats.get('uptime')} s after "
                f"the start, but it ran for {lived} s: its final record is missing"
            )
        counters = to_counters(stats, exact=True, capture=capture)
        if capture == "pcap":
            log = self._link.tail(self._options.log, 1 << 16) if self._options.log else ""
            counters = exact_pcap(counters, pcap_totals(log, self._link.device))
        return counters

    def stop(self) -> None:
        """Put the unit back into the state in which it was found; idempotent."""
        super().stop()
        found, self._was_active = self._was_active, None
        if found is not None:
            self._systemctl("start" if found else "stop")
