"""Suricata, started by us on AF_PACKET and stopped after each trial.

A fresh process per trial is the known state: empty flow tables, counters at zero, and the only
exact statistics Suricata has, those it writes while it shuts down. While it runs, a small agent on
its host (`_suricata_agent.py`) reads the interface counters and the CPU time of the workers; it
costs a few milliseconds of CPU a second, which `Counters.raw["probebench.sampler_cpu_s"]` reports.
"""

from __future__ import annotations

import gzip
import json
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, SensorFailed
from harness.model import Alert, Capabilities, Counters
from harness.sensors.base import Footprint, Live
from harness.sensors.eve import read_alerts
from harness.sensors.suricata_agent import Sample, Watch, is_quiet
from harness.sensors.suricata_config import (
    Options,
    Paths,
    own_config_argv,
    read_options,
    render,
    settings_argv,
    ship,
    ship_rules,
)
from harness.sensors.suricata_counters import last_record, reconciles, to_counters
from harness.sensors.suricata_host import (
    first_error,
    how_ended,
    last_log_line,
    read_version,
    shutdown_totals,
)
from lab.errors import CommandFailed, CommandTimeout
from lab.host import Host, Process
from lab.inventory import SensorSpec

__all__ = ["SuricataSensor"]

# A trial is never longer; the leash ends a Suricata that was forgotten.
_MAX_SECONDS = 24 * 3600.0
_STOP_GRACE_S = 30.0
_LARGE_LOG = 1 << 20


class SuricataSensor:
    """`harness.sensors.base.Sensor` for a Suricata 7 or 8 that is ours to start and stop.

    `cpu_seconds` is the CPU time of the process (user and system) from its readiness to the last
    sample of the trial, or None.
    """

    name = "suricata"
    state = "restarted"

    def __init__(self, host: Host, spec: SensorSpec) -> None:
        self.version = ""
        self.capabilities = Capabilities(
            kernel_drops=True,
            software_drops=True,
            per_worker=True,
            flows=True,
            alerts=True,
            exact_totals=True,
        )
        self.cpu_seconds: float | None = None
        # Closed TCP flows are remembered this long (flow-timeouts.tcp.closed of our suricata.yaml).
        self.flow_timeout = None if "config" in spec.options else 60.0
        self.rules_digest = ""
        self._host = host
        self._spec = spec
        if spec.interface is None:
            raise ConfigError("inventory: sensor.interface is missing: Suricata captures on one")
        self._interface = spec.interface
        self._options: Options = read_options(spec.options)
        self._paths = Paths(f"{host.workdir}/suricata")
        self._paths.check()
        self._argv: list[str] | None = None
        self._agent: str | None = None
        self._process: Process | None = None
        self._watch: Watch | None = None
        self._started = 0.0

    # -- before a trial ---------------------------------------------------------------------

    def check(self) -> None:
        """Binary, version, interface, rules. Raises SensorFailed, ConfigError."""
        host, spec = self._host, self._spec
        self.version = read_version(self._host, self._spec)
        if host.run(["ip", "link", "show", "dev", self._interface], check=False).returncode != 0:
            raise SensorFailed(
                f"{host.name}: there is no interface {self._interface}; see sensor.interface in "
                "the inventory"
            )
        argv = self._command()
        self._agent_call("reset", {"run": self._paths.run, "mark": self._paths.run})
        tested = host.run(
            [spec.binary, "-T", *argv, "-l", self._paths.run], check=False, timeout=300, sudo=True
        )
        if tested.returncode != 0:
            said = first_error(self._read_tail("suricata.log", 1 << 16) + tested.stderr)
            raise SensorFailed(
                f"{host.name}: suricata -T refuses the configuration or the rules: "
                f"{said or self._last_log_line()}"
            )

    def _command(self) -> list[str]:
        """Configuration arguments, made once: the files are shipped by digest."""
        if self._argv is None:
            host, spec, options, paths = self._host, self._spec, self._options, self._paths
            if options.config is None:
                rules, self.rules_digest = ship_rules(host, paths, spec.rules)
                text = render(host, spec, options, paths, rules, live=True)
                argv = ["-c", ship(host, paths, text.encode(), ".yaml")]
            else:
                rules, self.rules_digest = ship_rules(host, paths, spec.rules)
                argv = own_config_argv(host, spec, options, paths, rules, live=True)
            self._argv = argv + settings_argv(options)
        return self._argv

    def prepare(self) -> None:
        """Stop ours, empty the run directory, start anew, wait until the capture runs."""
        host, spec, paths = self._host, self._spec, self._paths
        self.stop()
        argv = self._command()
        self._agent_call("reset", {"run": paths.run, "mark": paths.run})
        command = [spec.binary, *argv, f"--af-packet={self._interface}", "-l", paths.run]
        command += ["--pidfile", paths.pidfile]
        if spec.cpus:
            command = ["taskset", "-c", spec.cpus, *command]
        self.cpu_seconds = None
        self._started = time.monotonic()
        self._process = host.start(
            command, max_seconds=_MAX_SECONDS, log=f"{paths.base}/console.log", sudo=True
        )
        self._watch = Watch(self._start_watch())
        self._wait_ready()

    def _start_watch(self) -> Process:
        argument = {
            "path": self._paths.socket,
            "interface": self._interface,
            "log": self._paths.log("suricata.log"),
            "alerts": self._paths.log("alerts.json"),
            "workers": 0 if self._options.config else self._spec.workers,
            "interval": self._options.sample_interval,
            "timeout": self._options.ready_timeout,
        }
        return self._host.start(
            [self._host.python, self._agent_path(), "watch", json.dumps(argument)],
            max_seconds=_MAX_SECONDS,
            sudo=True,
        )

    def _wait_ready(self) -> None:
        assert self._watch is not None
        end = time.monotonic() + self._options.ready_timeout + 5
        while self._watch.latest is None:
            self._must_live("while it started")
            if self._watch.ended or time.monotonic() > end:
                raise SensorFailed(
                    f"{self._host.name}: suricata did not begin to capture on "
                    f"{self._interface} within {self._options.ready_timeout:g} s "
                    f"({self._watch.last_words}); last log line: {self._last_log_line()}"
                )
            time.sleep(0.01)

    # -- while it runs ----------------------------------------------------------------------

    def footprint(self) -> Footprint:
        """The process we started, and the run directory."""
        pids = () if self._process is None else (self._process.pid,)
        return Footprint(pids, self._paths.run)

    def snapshot(self) -> Counters:
        """Counters now, from the unix socket; exact as soon as they reconcile.

        Right after a start nothing was received and everything is zero. Otherwise the statistics
        table, up to 4 s old, is awaited until it agrees with iface-stat.
        """
        self._must_live("before its counters were read")
        end = time.monotonic() + 12.0
        while True:
            answers = self._ask(["iface-stat", {"iface": self._interface}], ["dump-counters", {}])
            now = answers[0].get("message")
            if not isinstance(now, dict) or "pkts" not in now:
                raise SensorFailed(
                    f"{self._host.name}: suricata does not answer iface-stat for "
                    f"{self._interface}: {now}"
                )
            if now["pkts"] == 0:
                return to_counters({}, exact=False)
            table = answers[1].get("message")
            if isinstance(table, dict):
                counters = to_counters(table, exact=False)
                if reconciles(counters) and counters.received == now["pkts"]:
                    return counters
                if time.monotonic() > end:
                    return replace(counters, received=int(now["pkts"]), dropped=int(now["drop"]))
            elif time.monotonic() > end:
                raise SensorFailed(f"{self._host.name}: suricata's dump-counters says: {table}")
            time.sleep(0.3)

    def live(self) -> Live:
        """The agent's last sample. Raises SensorFailed when Suricata is gone."""
        self._must_live("during the trial")
        sample = self._watch.latest if self._watch else None
        if sample is None:
            return Live(None, None, None)
        return Live(sample.received, sample.dropped, sample.alerts)

    def settle(self, timeout: float) -> bool:
        """Wait until link and counters stand still and the workers are idle."""
        if self._watch is None:
            raise SensorFailed(f"{self._host.name}: suricata is not running")
        begin = time.monotonic()
        self._watch.read()  # what was sampled before now proves nothing
        mark = self._watch.count
        window: list[Sample] = []
        while time.monotonic() - begin < timeout:
            self._must_live("while it settled")
            fresh = self._watch.since(mark)
            mark = self._watch.count
            window += fresh
            if fresh and is_quiet(window):
                return True
            if self._watch.ended:
                raise SensorFailed(
                    f"{self._host.name}: suricata's command socket went away while it settled "
                    f"({self._watch.last_words}); last log line: {self._last_log_line()}"
                )
            time.sleep(0.05)
        return False

    # -- after a trial ----------------------------------------------------------------------

    def finish(self) -> Counters:
        """Stop Suricata and read the totals it wrote on its way out.

        Raises SensorFailed when it died before, did not end by itself, was restarted, or left no
        final record: then there are no numbers.
        """
        where = self._host.name
        self._must_live("during the trial")
        assert self._process is not None and self._watch is not None
        self._watch.read()
        self.cpu_seconds = self._watch.cpu_seconds
        sampler = self._watch.own_cpu
        facts = self._watch.facts()
        lived = time.monotonic() - self._started
        exit_ = self._process.stop(_STOP_GRACE_S)
        self._process = None
        self._end_watch()
        if exit_.reason != "stopped" or exit_.signal == signal.SIGKILL or exit_.returncode:
            raise SensorFailed(
                f"{where}: suricata did not end by itself when told to ({how_ended(exit_)}), so "
                f"its final counters are missing; last log line: {self._last_log_line()}"
            )
        stats = last_record(self._read_tail("stats.json", 4 << 20))
        if stats is None:
            raise SensorFailed(
                f"{where}: suricata left no statistics in {self._paths.log('stats.json')}; is "
                "stats.enabled set to no?"
            )
        uptime = float(stats.get("uptime", 0))
        if uptime < lived - 10.0:
            raise SensorFailed(
                f"{where}: suricata's counters are {uptime:.0f} s old but it was started "
                f"{lived:.0f} s ago: it restarted, or its final record is missing"
            )
        counters = to_counters(stats, exact=True)
        said = shutdown_totals(self._read_tail("suricata.log", 1 << 16), self._interface)
        if said is not None and said != (counters.received, counters.dropped):
            raise SensorFailed(
                f"{where}: suricata's last statistics record has {counters.received} packets and "
                f"{counters.dropped} drops, its log says {said[0]} and {said[1]} at shutdown: the "
                "final record is missing (full disk?)"
            )
        raw = {**counters.raw, **facts}
        if sampler is not None:
            raw["probebench.sampler_cpu_s"] = sampler
        return replace(counters, raw=raw)

    def alerts(self) -> Iterator[Alert]:
        """Alerts since `prepare`; a large file travels compressed."""
        with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
            path = Path(scratch) / "alerts.json"
            yield from read_alerts(self._fetch("alerts.json", path))

    def collect(self, into: Path) -> None:
        """suricata.log, the last statistics record and the configuration."""
        into.mkdir(parents=True, exist_ok=True)
        self._host.get(self._paths.log("suricata.log"), into / "suricata.log")
        stats = last_record(self._read_tail("stats.json", 4 << 20))
        if stats is not None:
            (into / "stats.json").write_text(json.dumps(stats, indent=1) + "\n")
        argv = self._command()
        self._host.get(argv[argv.index("-c") + 1], into / "suricata.yaml")

    def stop(self) -> None:
        """End Suricata and the agent; idempotent."""
        process, self._process = self._process, None
        try:
            if process is not None:
                process.stop(5.0)
        finally:
            self._end_watch()

    # -- helpers ----------------------------------------------------------------------------

    def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()

    def _agent_path(self) -> str:
        if self._agent is None:
            source = files("harness.sensors").joinpath("_suricata_agent.py").read_bytes()
            self._agent = ship(self._host, self._paths, source, ".py")
        return self._agent

    def _agent_call(self, mode: str, argument: dict[str, Any]) -> dict[str, Any]:
        argv = [self._host.python, self._agent_path(), mode, json.dumps(argument)]
        done = self._host.run(argv, check=False, timeout=30, sudo=True)
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            answer = {"error": (done.stderr.strip().splitlines() or ["no answer"])[-1]}
        if not isinstance(answer, dict) or "error" in answer:
            why = answer["error"] if isinstance(answer, dict) else answer
            raise SensorFailed(f"{self._host.name}: the sensor agent could not {mode}: {why}")
        return answer

    def _ask(self, *commands: list[Any]) -> list[dict[str, Any]]:
        answer = self._agent_call("ask", {"path": self._paths.socket, "commands": commands})
        answers: list[dict[str, Any]] = answer["answers"]
        return answers

    def _must_live(self, when: str) -> None:
        if self._process is None:
            raise SensorFailed(f"{self._host.name}: suricata is not running")
        exit_ = self._process.poll()
        if exit_ is not None:
            self._process = None
            self._end_watch()
            raise SensorFailed(
                f"{self._host.name}: suricata {how_ended(exit_)} {when}; last log line: "
                f"{self._last_log_line()}"
            )

    def _read_tail(self, name: str, limit: int) -> str:
        done = self._host.run(
            ["tail", "-c", str(limit), self._paths.log(name)], check=False, sudo=True
        )
        return done.stdout if done.returncode == 0 else ""

    def _last_log_line(self) -> str:
        return last_log_line(self._read_tail("suricata.log", 4096))

    def _fetch(self, name: str, local: Path) -> Path:
        """Copy a log file; gzip it on the way when it is large."""
        remote = self._paths.log(name)
        try:
            size = int(self._host.run(["stat", "-c", "%s", remote]).stdout)
        except (CommandFailed, ValueError):
            raise SensorFailed(f"{self._host.name}: {remote} is missing") from None
        if size < _LARGE_LOG:
            self._host.get(remote, local)
            return local
        packed = local.with_suffix(".gz")
        try:
            self._host.run(["gzip", "-1", "-k", "-f", remote], timeout=600, sudo=True)
        except (CommandFailed, CommandTimeout) as error:
            raise SensorFailed(f"{self._host.name}: cannot compress {remote}: {error}") from None
        self._host.get(f"{remote}.gz", packed)
        with gzip.open(packed, "rb") as source, local.open("wb") as target:
            while block := source.read(1 << 20):
                target.write(block)
        return local
