"""Suricata, started by us and stopped after each trial.

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
from pathlib import Path

from harness.errors import SensorFailed
from harness.model import Alert, Capabilities, Counters
from harness.model_flows import FlowRecords
from harness.sensors.base import Footprint, Live
from harness.sensors.eve import read_alerts
from harness.sensors.eve_flows import read_flows
from harness.sensors.suricata_agent import Watch
from harness.sensors.suricata_capture import capture_argv, check_capture, device_of
from harness.sensors.suricata_config import (
    Paths,
    own_config_argv,
    render,
    settings_argv,
    ship,
    ship_rules,
)
from harness.sensors.suricata_counters import (
    FORMULAS,
    exact_pcap,
    last_record,
    pcap_totals,
    to_counters,
)
from harness.sensors.suricata_host import (
    check_support,
    first_error,
    how_ended,
    last_log_line,
    read_version,
    shutdown_totals,
)
from harness.sensors.suricata_intake import Intake
from harness.sensors.suricata_link import Link
from harness.sensors.suricata_options import Options, read_options
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
        self._options: Options = read_options(spec.options)
        check_capture(spec, self._options)
        formula = FORMULAS[self._options.capture]
        self.capabilities = Capabilities(
            kernel_drops=formula.drops is not None,
            software_drops=True,
            per_worker=True,
            flows=True,
            alerts=True,
            exact_totals=True,
        )
        self.balancer = "af_packet-hash" if self._options.capture == "af-packet" else None
        self.cpu_seconds: float | None = None
        # Closed TCP flows are remembered this long: flow-timeouts.tcp.closed of our suricata.yaml,
        # or of the user's, which is asked once it runs.
        named = dict(self._options.settings)
        theirs = bool(self._options.config) or "flow-timeouts.tcp.closed" in named
        self.flow_timeout = None if theirs else 60.0
        self.rules_digest = ""
        self._host = host
        self._spec = spec
        self._device = device_of(spec, self._options)
        self._netdev = spec.interface if self._options.capture != "dpdk" else None
        self._paths = Paths(f"{host.workdir}/suricata")
        self._paths.check()
        self._link = Link(
            host, self._options, self._paths, self._paths.socket, self._device, self._netdev or ""
        )
        self._argv: list[str] | None = None
        self._intake: Intake | None = None
        self._process: Process | None = None
        self._watch: Watch | None = None
        self._started = 0.0

    # -- before a trial ---------------------------------------------------------------------

    def check(self) -> None:
        """Binary, version, interface, rules. Raises SensorFailed, ConfigError."""
        host, spec = self._host, self._spec
        self.version = read_version(self._host, self._spec)
        check_support(host, spec, self._options)
        net = self._netdev
        if net and host.run(["ip", "link", "show", "dev", net], check=False).returncode != 0:
            raise SensorFailed(
                f"{host.name}: there is no interface {net}; see sensor.interface in the inventory"
            )
        argv = self._command()
        self._reset()
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
        self._reset()
        self._intake = Intake.start(self._link) if self._via_socket else None
        command = [spec.binary, *argv, *capture_argv(spec, self._options), "-l", paths.run]
        command += ["--pidfile", paths.pidfile]
        if spec.cpus and self._options.capture != "dpdk":  # which pins its threads itself
            command = ["taskset", "-c", spec.cpus, *command]
        self.cpu_seconds = None
        self._started = time.monotonic()
        self._process = host.start(
            command, max_seconds=_MAX_SECONDS, log=f"{paths.base}/console.log", sudo=True
        )
        self._watch = self._link.watch(
            paths.log("suricata.log"), paths.log("alerts.json"), self._expected_captures()
        )
        self._wait_ready()
        if self.flow_timeout is None:
            self.flow_timeout = self._link.closed_timeout()

    def _expected_captures(self) -> int:
        """How many captures our configuration makes; 0 where it is the user's."""
        options = self._options
        if options.config:
            return 0
        if options.capture == "pcap":
            return 1
        return options.receive_threads if options.runmode == "autofp" else self._spec.workers

    @property
    def _via_socket(self) -> bool:
        return self._options.alerts_via != "file"

    def _reset(self) -> None:
        self._link.call("reset", {"run": self._paths.run, "mark": self._paths.run})

    def _wait_ready(self) -> None:
        assert self._watch is not None
        end = time.monotonic() + self._options.ready_timeout + 5
        while self._watch.latest is None:
            self._must_live("while it started")
            if self._watch.ended or time.monotonic() > end:
                raise SensorFailed(
                    f"{self._host.name}: suricata did not begin to capture on "
                    f"{self._device} within {self._options.ready_timeout:g} s "
                    f"({self._watch.last_words}); last log line: {self._last_log_line()}"
                )
            time.sleep(0.01)

    # -- while it runs ----------------------------------------------------------------------

    def footprint(self) -> Footprint:
        """Suricata's own process (not that of sudo), from its command socket; the run directory."""
        pid = self._watch.pid if self._watch is not None else None
        if pid is None and self._process is not None:
            pid = self._process.pid
        return Footprint(() if pid is None else (pid,), self._paths.run)

    def snapshot(self) -> Counters:
        """Counters now, from the unix socket: as soon as the statistics table, which may be 4 s
        old, agrees with iface-stat."""
        self._must_live("before its counters were read")
        return self._link.counters()

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
        return self._link.settle(self._watch, timeout, lambda: self._must_live("while it settled"))

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
        raw = dict(facts)
        counters = self._totals(stats)
        if self._intake is not None:
            raw.update(self._intake.finish(counters.alerts))
        return replace(counters, raw={**counters.raw, **raw})

    def _totals(self, stats: dict[str, object]) -> Counters:
        """The last record as Counters, held against what the log says of the interface."""
        capture = self._options.capture
        log = self._read_tail("suricata.log", 1 << 16)
        counters = to_counters(stats, exact=True, capture=capture)
        if capture == "pcap":
            counters = exact_pcap(counters, pcap_totals(log, self._device))
        said = shutdown_totals(log, self._device)
        if said is None:
            return counters
        if FORMULAS[capture].drops_exact:
            wrong = said != (counters.received, counters.dropped)
        else:
            wrong = said[0] != counters.decoded
        if wrong:
            raise SensorFailed(
                f"{self._host.name}: suricata's last statistics record has {counters.received} "
                f"packets, {counters.dropped} drops and {counters.decoded} decoded, its log says "
                f"{said[0]} packets and {said[1]} drops at shutdown: the final record is missing "
                "(full disk?)"
            )
        return counters

    def flow_records(self) -> FlowRecords | None:
        """Flow records of the trial; None unless `flow-events` is on. Call after `finish`."""
        if not self._options.flow_events or self._options.config is not None:
            return None
        with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
            return read_flows(self._fetch("flows.json", Path(scratch) / "flows.json"))

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
            intake, self._intake = self._intake, None
            if intake is not None:
                intake.stop()

    # -- helpers ----------------------------------------------------------------------------

    def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()

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
        return self._link.tail(self._paths.log(name), limit)

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
