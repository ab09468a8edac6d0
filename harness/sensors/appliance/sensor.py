"""A sensor of which nothing is known but counters somebody reads out and alerts it sends.

Nothing of it is ours: it runs before and after the trial. Counters are taken as increases since
`prepare`, so that before a trial they are zero; alerts are what came to the intake since then.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import SensorFailed
from harness.model import Alert, Capabilities, Counters, LossOf
from harness.sensors.appliance.options import ApplianceOptions
from harness.sensors.appliance.readings import Reading, Tally, to_counters
from harness.sensors.appliance.source import Source
from harness.sensors.base import Footprint, Live
from harness.sensors.intake.listener import Intake, Received
from lab.host import Host

__all__ = ["ApplianceSensor", "stood_still"]

# A live link is never silent (LLDP, ARP): below this rate it counts as quiet.
_QUIET_PPS = 10.0
_RETRY_S = 0.5


def stood_still(readings: Sequence[tuple[float, dict[str, float]]], seconds: float) -> bool:
    """True when no counter moved in the last `seconds`, but for a live link's murmur.

    `readings` are (time in s, counters), oldest first.
    """
    last, now = readings[-1]
    earlier = next(((t, c) for t, c in reversed(readings) if last - t >= seconds), None)
    if earlier is None:
        return False
    span = last - earlier[0]
    few = max(1.0, _QUIET_PPS * span)
    for name, value in now.items():
        # Drops and alerts do not murmur: one more means that work is still being done.
        allowed = few if name in ("received", "decoded", "flows", "invalid") else 0
        if name == "decoded_bytes":
            allowed = few * 1500
        if name in _SETTLED and value - earlier[1].get(name, 0) > allowed:
            return False
    return True


_PACKETS = ("received", "dropped", "decoded")
_SETTLED = ("received", "dropped", "decoded", "decoded_bytes", "invalid", "flows", "alerts")


def _loss(counters: Collection[str]) -> LossOf | None:
    """The loss rate that such counters give."""
    if "decoded" in counters:
        return "analysed"
    return "capture" if {"received", "dropped"} & set(counters) else None


class ApplianceSensor:
    """`harness.sensors.base.Sensor` over a `Source` of counters and an intake for alerts."""

    def __init__(
        self, driver: str, host: Host, options: ApplianceOptions[Any], source: Source
    ) -> None:
        self.name = options.name or driver
        self.version = options.version or ""
        self.state = "restarted" if options.restart else "observed"
        counters = options.counters.keys()
        self.capabilities = Capabilities(
            kernel_drops="dropped" in counters,
            software_drops={"received", "decoded"} <= counters,
            per_worker=options.workers is not None,
            flows="flows" in counters,
            alerts=options.intake is not None,
            exact_totals=False,
            adjacent=False,
            loss=_loss(counters),
        )
        self.cpu_seconds: float | None = None
        self.flow_timeout = options.flow_timeout
        self._host = host
        self._options = options
        self._source = source
        self._intake: Intake | None = None
        self._tally: Tally | None = None
        self._received: Received | None = None
        self._last_live = 0.0
        self._left: tuple[float, Tally] | None = None  # when and how the last trial was read
        self._trusted = False
        self._settled = False
        self._log: list[dict[str, Any]] = []

    # -- before a trial ---------------------------------------------------------------------

    def check(self) -> None:
        """Every counter can be read, alerts can be received. Raises SensorFailed, ConfigError."""
        if not self.version:
            self.version = self._source.describe()
        self._source.read()
        if self._options.intake is not None:
            Intake.start(self._host, self._options.intake).stop()

    def prepare(self) -> None:
        """Restart it where the inventory says how; listen for alerts; count from here.

        Raises SensorFailed when it does not come to rest: then something else is on the link.
        """
        self.stop()
        self._received, self._log = None, []
        if self._options.restart:
            self._restart()
        if self._options.intake is not None:
            self._intake = Intake.start(self._host, self._options.intake)
        self._tally = Tally(self._source.where)
        self._tally.begin(self._read())
        # Whether `refresh` is long enough is found out once; then a trial may follow at once.
        if not (self._trusted and self._left) and not self._rest(self._options.ready_timeout):
            raise SensorFailed(
                f"{self._source.where}: the sensor is not idle after "
                f"{self._options.ready_timeout:g} s: other traffic is on the link, or alerts of "
                "earlier traffic still come"
            )
        if self._intake is not None:
            self._intake.mark()
        self._must_have_been_whole()
        self._tally.begin(self._read())

    def _must_have_been_whole(self) -> None:
        """Refuse counters that went on moving after the last trial was read: it was read too early.

        Raises SensorFailed.
        """
        if self._left is None or self._options.restart:
            return
        (then, tally), self._left = self._left, None
        self._trusted = False
        before = tally.totals()
        tally.add(self._read())
        few = max(10.0, _QUIET_PPS * (time.monotonic() - then))
        grown = {n: v - before.get(n, 0) for n, v in tally.totals().items() if n in _PACKETS}
        late = {name: value for name, value in grown.items() if value > few}
        if late:
            name, value = max(late.items(), key=lambda item: item[1])
            raise SensorFailed(
                f"{self._source.where}: {name} grew by {value:,.0f} after the last trial was read, "
                "with nothing sent: the sensor brings its counters up to date less often than "
                f"sensor.options.refresh = {self._options.refresh:g} says; raise it"
            )
        self._trusted = True

    def _restart(self) -> None:
        argv = self._options.restart
        done = self._host.run(argv, check=False, timeout=self._options.ready_timeout, sudo=True)
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["nothing on standard error"])[-1]
            raise SensorFailed(
                f"{self._host.name}: {argv[0]} (sensor.options.restart) ended with status "
                f"{done.returncode}: {said[:200]}"
            )
        end = time.monotonic() + self._options.ready_timeout
        while True:
            try:
                self._source.read()
                return
            except SensorFailed as error:
                if time.monotonic() > end:
                    raise SensorFailed(f"{error} (after its restart)") from None
                time.sleep(_RETRY_S)

    # -- while it runs ----------------------------------------------------------------------

    def footprint(self) -> Footprint:
        """Nothing of it is known to its host."""
        return Footprint()

    def _read(self) -> Reading:
        reading = self._source.read()
        entry = {"t": time.time(), **{n: sum(v.values()) for n, v in reading.values.items()}}
        self._log.append(entry)
        return reading

    def _counting(self) -> Tally:
        if self._tally is None:
            raise SensorFailed(f"{self._source.where}: the sensor is not being watched")
        return self._tally

    def _take(self) -> Tally:
        tally = self._counting()
        tally.add(self._read())
        return tally

    def snapshot(self) -> Counters:
        """Increases since `prepare`, read now."""
        return to_counters(self._take(), self._options.received_includes_drops)

    def live(self) -> Live:
        """Read every `live_interval` s; a reading that fails shows as nothing, a reset ends it."""
        alerts = None if self._intake is None else self._intake.messages
        every = self._options.live_interval
        nothing = Live(None, None, alerts)
        if self._tally is None or not every or time.monotonic() - self._last_live < every:
            return nothing
        self._last_live = time.monotonic()
        try:
            reading = self._read()
        except SensorFailed:
            return nothing
        self._tally.add(reading)
        counters = to_counters(self._tally, self._options.received_includes_drops)
        return Live(counters.received, counters.dropped, alerts)

    def settle(self, timeout: float) -> bool:
        """Wait until counters stood still for longer than `refresh`, and alerts for `quiet`.

        A sensor that does not answer for a while (its management starves first under load) is asked
        again until `timeout`. Raises SensorFailed when it never does, or its counters were reset.
        """
        self._settled = self._rest(timeout)
        return self._settled

    def _rest(self, timeout: float) -> bool:
        begun = time.monotonic()
        still = self._options.refresh * 1.2
        pause = min(1.0, max(0.1, self._options.refresh / 4))
        readings: list[tuple[float, dict[str, float]]] = []
        while True:
            over = time.monotonic() - begun + pause > timeout
            reading = self._read_patiently(give_up=over)
            if reading is not None:
                self._counting().add(reading)
                readings.append((time.monotonic(), self._counting().totals()))
                quiet = self._intake is None or self._intake.quiet(begun)
                if quiet and stood_still(readings, still):
                    return True
            if over:
                return False
            time.sleep(pause)

    def _read_patiently(self, give_up: bool) -> Reading | None:
        """A reading, or None when there was none; raises its SensorFailed when `give_up`."""
        try:
            return self._read()
        except SensorFailed:
            if give_up:
                raise
            return None

    # -- after a trial ----------------------------------------------------------------------

    def finish(self) -> Counters:
        """The last reading, and what came to the intake."""
        tally = self._take()
        self._left = (time.monotonic(), tally) if self._settled else None
        counters = to_counters(tally, self._options.received_includes_drops)
        raw = dict(counters.raw)
        raw["probebench.readings"] = tally.readings
        raw["probebench.reading_s"] = tally.seconds
        intake, self._intake = self._intake, None
        if intake is not None:
            self._received, said = intake.finish()
            raw.update(said)
        return replace(counters, raw=raw)

    def alerts(self) -> Iterator[Alert]:
        """Alerts that came between `prepare` and `finish`."""
        if self._received is not None:
            yield from self._received

    def collect(self, into: Path) -> None:
        """Every reading of the trial, as the sensor gave it."""
        into.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(entry) + "\n" for entry in self._log)
        (into / "readings.jsonl").write_text(lines)
        if self._received is not None and (other := self._received.example()):
            (into / "not-an-alert.txt").write_text(f"{other}\n")

    @property
    def rules_digest(self) -> str:
        """Nobody can read its rules: the digest of what it says it is."""
        return hashlib.sha256(f"{self.name} {self.version}".encode()).hexdigest()

    def stop(self) -> None:
        """End the intake; the sensor is left alone. Idempotent."""
        intake, self._intake = self._intake, None
        if intake is not None:
            intake.stop()
        self._source.close()
