"""A Suricata that runs already and is only read: its command socket and its eve output.

Nothing of it is started, stopped or configured. Counters are those of the statistics table once
they agree with iface-stat; alerts and flow records are what its eve output gained since `prepare`,
through whatever rotation. A trial in which it restarted fails: its counters began anew.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import SensorFailed, SensorRestarted
from harness.model import Alert, Capabilities, Counters
from harness.model_flows import FlowRecords
from harness.sensors.base import Footprint, Live
from harness.sensors.eve import read_alerts
from harness.sensors.eve_flows import read_flows
from harness.sensors.suricata_agent import Watch
from harness.sensors.suricata_capture import device_of
from harness.sensors.suricata_config import Paths, digest_of
from harness.sensors.suricata_counters import FORMULAS
from harness.sensors.suricata_host import last_log_line
from harness.sensors.suricata_link import Link
from harness.sensors.suricata_options import Options, read_options
from lab.host import Host
from lab.inventory import SensorSpec

__all__ = ["ObservedSuricata"]

_KINDS = ("alert", "flow")
_BACK_S, _AGAIN_S = 10.0, 0.25  # how long one that restarts is waited for, asked so often


class ObservedSuricata:
    """`harness.sensors.base.Sensor` for a Suricata 7 or 8 that is not ours."""

    name = "suricata"
    state = "observed"

    def __init__(self, host: Host, spec: SensorSpec) -> None:
        self.version = ""
        self._host = host
        self._spec = spec
        self._options: Options = read_options(spec.options)
        assert self._options.eve is not None  # read_options refuses
        self._eve = self._options.eve
        formula = FORMULAS[self._options.capture]
        self.capabilities = Capabilities(
            kernel_drops=formula.drops is not None,
            software_drops=True,
            per_worker=True,
            flows=True,
            alerts=True,
            exact_totals=False,
        )
        self.balancer = "af_packet-hash" if self._options.capture == "af-packet" else None
        self.cpu_seconds: float | None = None
        self.flow_timeout: float | None = None  # its own, once it was asked
        self.rules_digest = digest_of(path.read_bytes() for path in spec.rules)
        netdev = spec.interface if self._options.capture != "dpdk" else None
        self._paths = Paths(f"{host.workdir}/suricata")
        self._link = Link(
            host, self._options, self._paths, self._options.socket,
            device_of(spec, self._options), netdev or "",
        )  # fmt: skip
        self._watch: Watch | None = None
        self._marks: list[dict[str, Any]] = []
        self._before: tuple[int, int] | None = None  # pid and uptime at `prepare`
        self._gained: dict[str, Any] | None = None

    # -- before a trial ---------------------------------------------------------------------

    def check(self) -> None:
        """Socket, version, capture mode, eve output. Raises SensorFailed."""
        where = self._host.name
        version, mode = self._link.ask(["version", {}], ["capture-mode", {}])
        self.version = str(version.get("message", "")).partition(" ")[0]
        if not self.version.startswith(("7.", "8.")):
            raise SensorFailed(
                f"{where}: the suricata behind {self._options.socket} says it is version "
                f"{version.get('message')!r}; this driver knows Suricata 7 and 8"
            )
        wanted = _MODES[self._options.capture]
        if mode.get("message") != wanted:
            raise SensorFailed(
                f"{where}: suricata captures with {mode.get('message')}, the inventory says "
                f"sensor.options.capture = {self._options.capture!r} ({wanted}); correct it: the "
                "modes count differently"
            )
        self.flow_timeout = self._link.closed_timeout()
        if not self._link.call("mark", {"eve": self._eve}, "_eve_agent.py")["marks"]:
            raise SensorFailed(
                f"{where}: there is no file {self._eve}; see sensor.options.eve, and eve-log in "
                "suricata.yaml"
            )

    def prepare(self) -> None:
        """Wait until it answers and is idle; remember where its counters and its output stand.

        Raises SensorFailed when it does not answer or never comes to rest.
        """
        self._end_watch()
        self.cpu_seconds = None
        self._gained = None
        self._watch = self._link.watch(self._options.log or "", "", 0)
        self._wait_ready()
        if not self.settle(self._options.ready_timeout):
            raise SensorFailed(
                f"{self._host.name}: suricata is not idle on {self._link.device} after "
                f"{self._options.ready_timeout:g} s: other traffic is on the link"
            )
        self._before = self._identity()
        self._marks = self._link.call("mark", {"eve": self._eve}, "_eve_agent.py")["marks"]

    def _wait_ready(self) -> None:
        watch = self._watch
        assert watch is not None
        if not watch.await_first(self._options.ready_timeout + 5):
            raise SensorFailed(
                f"{self._host.name}: suricata does not answer on {self._options.socket} for "
                f"{self._link.device} ({watch.last_words}); is it running, with unix-command "
                "enabled, and is sensor.options.socket right?"
            )

    def _identity(self) -> tuple[int, int]:
        """Its process id and uptime (s)."""
        answer = self._link.call("ask", {"path": self._link.socket, "commands": [["uptime", {}]]})
        return int(answer["pid"]), int(answer["answers"][0].get("message", 0))

    # -- while it runs ----------------------------------------------------------------------

    def footprint(self) -> Footprint:
        """Its process, and the directory of its eve output."""
        pid = self._watch.pid if self._watch is not None else None
        return Footprint(() if pid is None else (pid,), self._eve.rpartition("/")[0])

    def snapshot(self) -> Counters:
        """Counters of the statistics table, as soon as they agree with iface-stat."""
        return self._link.counters()

    def live(self) -> Live:
        """The agent's last sample."""
        self._must_live()
        sample = self._watch.latest if self._watch else None
        return Live(None, None, None) if sample is None else Live(
            sample.received, sample.dropped, None
        )  # fmt: skip

    def _must_live(self) -> None:
        watch = self._watch
        if watch is None:
            raise SensorFailed(f"{self._host.name}: suricata is not being watched")
        watch.read()
        if watch.ended:
            self._must_not_be_back()
            raise SensorFailed(
                f"{self._host.name}: suricata's command socket went away during the trial "
                f"({watch.last_words}); {self._said()}"
            )

    def _must_not_be_back(self) -> None:
        """The socket went away: tell a restart from an end. Raises SensorRestarted.

        A Suricata that a supervisor starts again opens its socket once its rules are loaded.
        """
        if self._before is None:
            return
        end = time.monotonic() + min(_BACK_S, self._options.ready_timeout)
        while True:
            try:
                self._must_be_the_same()
                return
            except SensorRestarted:
                raise
            except SensorFailed:
                if time.monotonic() > end:
                    return
                time.sleep(_AGAIN_S)

    def _said(self) -> str:
        if self._options.log is None:
            return "see its log"
        return f"last log line: {last_log_line(self._link.tail(self._options.log, 4096))}"

    def settle(self, timeout: float) -> bool:
        """Wait until link and counters stand still and the workers are idle."""
        if self._watch is None:
            raise SensorFailed(f"{self._host.name}: suricata is not being watched")
        return self._link.settle(self._watch, timeout, self._must_live)

    # -- after a trial ----------------------------------------------------------------------

    def finish(self) -> Counters:
        """Counters that agree with iface-stat, and what the eve output gained.

        Raises SensorRestarted when Suricata restarted since `prepare`.
        """
        self._must_live()
        assert self._watch is not None
        self.cpu_seconds = self._watch.cpu_seconds
        counters = self._link.counters()
        self._must_be_the_same()
        gained = self._read_output()
        raw = {**counters.raw, **self._watch.facts()}
        raw.update({f"eve.{key}": float(gained[key]) for key in ("lines", "kept", "torn")})
        self._end_watch()
        return replace(counters, raw=raw)

    def _must_be_the_same(self) -> None:
        assert self._before is not None
        pid, uptime = self._identity()
        if pid != self._before[0] or uptime < self._before[1]:
            raise SensorRestarted(
                f"{self._host.name}: suricata restarted in mid-trial (pid {self._before[0]}, now "
                f"{pid}; up for {uptime} s): its counters began anew"
            )

    def _read_output(self) -> dict[str, Any]:
        """Have the new records of the eve output put into one file on the host."""
        self._host.run(["mkdir", "-p", self._paths.run])
        argument = {
            "eve": self._eve,
            "marks": self._marks,
            "into": self._paths.log("gained.json.gz"),
            "kinds": list(_KINDS),
        }
        self._gained = self._link.call("since", argument, "_eve_agent.py")
        return self._gained

    def _fetch(self, into: Path) -> Path:
        if self._gained is None:
            raise SensorFailed(f"{self._host.name}: the eve output was not read: the trial failed")
        packed = into / "eve.json.gz"
        self._host.get(self._paths.log("gained.json.gz"), packed)
        return packed

    def alerts(self) -> Iterator[Alert]:
        """Alerts that the eve output gained between `prepare` and `finish`."""
        with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
            plain = Path(scratch) / "eve.json"
            with gzip.open(self._fetch(Path(scratch)), "rb") as source, plain.open("wb") as target:
                while block := source.read(1 << 20):
                    target.write(block)
            yield from read_alerts(plain)

    def flow_records(self) -> FlowRecords | None:
        """Flow records that the eve output gained; None when it has none.

        Flows that are still in the table have no record yet.
        """
        with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
            records = read_flows(self._fetch(Path(scratch)))
        return records if records.flows else None

    def collect(self, into: Path) -> None:
        """The tail of its log where that is known, and which files were read."""
        into.mkdir(parents=True, exist_ok=True)
        if self._options.log is not None:
            (into / "suricata.log").write_text(self._link.tail(self._options.log, 1 << 16))
        (into / "eve.read.json").write_text(json.dumps(self._gained, indent=1) + "\n")

    def stop(self) -> None:
        """End the agent; Suricata is left alone. Idempotent."""
        self._end_watch()

    def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()


# What `capture-mode` answers (src/runmodes.c, RunModeTranslateModeToName; confirmed for the first
# three on 7.0.10).
_MODES = {
    "af-packet": "AF_PACKET_DEV",
    "pcap": "PCAP_DEV",
    "dpdk": "DPDK",
    "af-xdp": "AF_XDP_DEV",
    "netmap": "NETMAP",
}
