"""Snort 3, started by us on libdaq's afpacket module.

Not run live here: Snort 3 is in no package source of the machines this was made on. It is built
against Snort's documented interface and sources, and tested on their recorded outputs and a fake
host.

perf_monitor writes each packet thread's counters every second, as JSON; totals are those that Snort
prints when it ends.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from harness.errors import ConfigError, SensorFailed
from harness.model import Alert, Capabilities, Counters
from harness.sensors.appliance.options import Strict, read
from harness.sensors.base import Footprint, Live
from harness.sensors.owned import Owned, remote_lines, require_interface
from harness.sensors.snort_logs import fast_alerts, from_json, from_text, json_alerts, to_counters
from lab.errors import MissingTool
from lab.host import Host
from lab.inventory import SensorSpec

__all__ = ["SnortSensor", "own_lua"]

_STOP_S = 60.0
_QUIET_S = 2.5
_FIELDS = "timestamp seconds proto src_addr src_port dst_addr dst_port gid sid rev msg"


class SnortOptions(Strict):
    """`config` is snort.lua on the sensor's host. `buffer` is the ring of a thread in MiB, `fanout`
    libdaq's fanout type (anything but hash splits flows). `alerts` is the form they are logged in.
    `arguments` are added to the command line."""

    config: str = "/usr/local/etc/snort/snort.lua"
    buffer: int = Field(default=128, ge=1)
    fanout: Literal["hash", "lb", "cpu", "rollover", "rnd", "qm"] = "hash"
    alerts: Literal["json", "fast"] = "json"
    arguments: tuple[str, ...] = ()
    ready_timeout: float = Field(default=120.0, gt=0)


def own_lua(alerts: str) -> str:
    """What is added to the configuration: alerts and statistics into the run directory."""
    logger = "alert_fast = { file = true }"
    if alerts == "json":
        logger = f"alert_json = {{ file = true, fields = '{_FIELDS}' }}"
    # An interval is written when both its packets and its seconds have passed.
    return (
        f"{logger}; perf_monitor = {{ base = true, format = 'json', output = 'file', "
        "seconds = 1, packets = 0, modules = { { name = 'daq' }, { name = 'stream' } } }"
    )


class SnortSensor:
    """`harness.sensors.base.Sensor` for Snort 3."""

    name = "snort"
    state = "restarted"

    def __init__(self, host: Host, spec: SensorSpec) -> None:
        self._options = read(SnortOptions, spec.options)
        if spec.interface is None:
            raise ConfigError("inventory: sensor.interface is missing: Snort captures on one")
        self.version = ""
        self.capabilities = Capabilities(
            kernel_drops=True,
            software_drops=True,
            per_worker=True,
            flows=True,
            alerts=True,
            exact_totals=True,
        )
        self.balancer = "af_packet-hash" if self._options.fanout == "hash" else None
        self.cpu_seconds: float | None = None
        self.rules_digest = ""
        self._host = host
        self._spec = spec
        self._binary = spec.program("snort")
        self._run = f"{host.workdir}/snort"
        self._process: Owned | None = None
        self._said = ""

    # -- before a trial ---------------------------------------------------------------------

    def check(self) -> None:
        """Binary, version, interface, configuration and rules. Raises SensorFailed."""
        host = self._host
        try:
            done = host.run([self._binary, "-V"], check=False)
        except MissingTool:
            done = None
        found = re.search(r"Version (3\.\S+)", (done.stdout + done.stderr) if done else "")
        if found is None:
            raise SensorFailed(
                f"{host.name}: {self._binary} is not there or is not Snort 3; install it, or give "
                "sensor.binary"
            )
        self.version = found[1]
        require_interface(host, str(self._spec.interface))
        self._ship()
        tested = host.run([*self._configuration(), "-T"], check=False, timeout=300, sudo=True)
        if tested.returncode != 0:
            text = (tested.stdout + tested.stderr).splitlines()
            said = [x for x in text if x.startswith(("ERROR", "FATAL"))] or text[-1:]
            why = said[0].strip()[:200] if said else "no message"
            raise SensorFailed(f"{host.name}: snort -T refuses its configuration or rules: {why}")

    def _ship(self) -> None:
        host, digest = self._host, hashlib.sha256()
        host.run(["rm", "-rf", self._run], sudo=True)
        host.run(["mkdir", "-p", self._run])
        with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
            rules = Path(scratch) / "probe.rules"
            try:
                data = b"\n".join(path.read_bytes() for path in self._spec.rules)
            except OSError as error:
                raise ConfigError(f"{error.filename}: cannot read it: {error.strerror}") from None
            rules.write_bytes(data + b"\n")
            digest.update(data)
            host.put(rules, f"{self._run}/probe.rules")
        self.rules_digest = digest.hexdigest()

    def _configuration(self) -> list[str]:
        options, home = self._options, ",".join(self._spec.home)
        argv = [self._binary, "-c", options.config, "-k", "none", "-l", self._run]
        argv += ["--lua", f"HOME_NET = '[{home}]'; {own_lua(options.alerts)}"]
        if self._spec.rules:
            argv += ["-R", f"{self._run}/probe.rules"]
        return argv + list(options.arguments)

    def prepare(self) -> None:
        """A new process, every packet thread running. Raises SensorFailed."""
        self.stop()
        self._said = ""
        self._ship()
        workers = self._spec.workers
        argv = [*self._configuration(), "-i", str(self._spec.interface), "-z", str(workers)]
        argv += ["--daq", "afpacket", "--daq-var", f"buffer_size_mb={self._options.buffer}"]
        argv += ["--daq-var", f"fanout_type={self._options.fanout}"]
        if self._spec.cpus:
            argv = ["taskset", "-c", self._spec.cpus, *argv]
        self._process = Owned(self._host, "snort", argv, self._run)
        self._process.await_words("Commencing packet processing", self._options.ready_timeout)
        # Then each thread says that it runs: "++ [0] eth0".
        for number in range(workers):
            self._process.await_words(f"++ [{number}]", self._options.ready_timeout)

    # -- while it runs ----------------------------------------------------------------------

    def footprint(self) -> Footprint:
        """The process, and where it writes."""
        return Footprint(() if self._process is None else (self._process.pid,), self._run)

    def _running(self, when: str) -> Owned:
        if self._process is None:
            raise SensorFailed(f"{self._host.name}: snort is not running")
        self._process.must_live(when)
        return self._process

    def snapshot(self) -> Counters:
        """Nothing was sent to the new process yet."""
        self._running("before the trial")
        return to_counters({"stream.flows": 0}, {}, exact=True)

    def live(self) -> Live:
        """Nothing but that it lives: its statistics are read after the trial."""
        self._running("during the trial")
        return Live(None, None, None)

    def _names(self, ending: str) -> list[str]:
        """The run directory's files whose name ends so; one a packet thread."""
        argv = ["find", self._run, "-type", "f", "-name", f"*{ending}"]
        found = self._host.run(argv, check=False, sudo=True).stdout.splitlines()
        return sorted(path.removeprefix(f"{self._run}/") for path in found)

    def _lines(self, name: str) -> Iterator[str]:
        return remote_lines(self._host, f"{self._run}/{name}")

    def _threads(self) -> dict[str, dict[str, float]]:
        ending = "perf_monitor_base.json"
        return {
            f"thread {name.removesuffix(ending).rstrip('_/') or '0'}": from_json(
                "".join(self._lines(name)), name
            )
            for name in self._names(ending)
        }

    def settle(self, timeout: float) -> bool:
        """Wait until the interface is quiet and the threads report nothing new."""
        begun = time.monotonic()
        readings: list[tuple[float, tuple[float, ...]]] = []
        while True:
            self._running("while it settled")
            threads = self._threads().values()
            pegs = ("daq.received", "daq.dropped", "daq.analyzed")
            figures = (self._received(), *(sum(t.get(p, 0) for t in threads) for p in pegs))
            readings.append((time.monotonic(), figures))
            old = next((f for t, f in reversed(readings) if readings[-1][0] - t >= _QUIET_S), None)
            if old is not None and all(
                b - a <= 10 * _QUIET_S for a, b in zip(old, figures, strict=True)
            ):
                return True
            if time.monotonic() - begun > timeout:
                return False
            time.sleep(0.5)

    def _received(self) -> int:
        path = f"/sys/class/net/{self._spec.interface}/statistics/rx_packets"
        text = self._host.run(["cat", path], check=False).stdout.strip()
        return int(text) if text.isdigit() else 0

    # -- after a trial ----------------------------------------------------------------------

    def finish(self) -> Counters:
        """End Snort; totals are those it printed. Raises SensorFailed when it printed none."""
        process = self._running("during the trial")
        process.end(_STOP_S)
        self._said = process.said()
        threads = self._threads()
        begin = self._said.rfind("Packet Statistics")
        pegs = from_text(self._said[begin:]) if begin >= 0 else {}
        if "daq.analyzed" not in pegs and "daq.received" not in pegs:
            raise SensorFailed(
                f"{self._host.name}: snort printed no packet statistics when it ended (-q in "
                f"sensor.options.arguments?): {process.last_words()}"
            )
        pegs.setdefault("stream.flows", 0)
        return to_counters(pegs, threads, exact=True)

    def alerts(self) -> Iterator[Alert]:
        """Alerts of all threads."""
        ending = "alert_json.txt" if self._options.alerts == "json" else "alert_fast.txt"
        for name in self._names(ending):
            if self._options.alerts == "json":
                yield from json_alerts(self._lines(name), name)
            else:
                yield from fast_alerts(self._lines(name))

    def collect(self, into: Path) -> None:
        """What it printed, and its threads' statistics."""
        into.mkdir(parents=True, exist_ok=True)
        (into / "snort.out").write_text(self._said + "\n")
        for name in self._names("perf_monitor_base.json"):
            (into / name.replace("/", "_")).write_text("".join(self._lines(name)))

    def stop(self) -> None:
        """End it; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()
