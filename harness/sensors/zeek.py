"""Zeek, started by us: one process a worker, on AF_PACKET fanout or libpcap.

Not run live here: Zeek is in no package source of the machines this was made on. It is built
against Zeek's documented interface and tested on Zeek's own recorded logs and a fake host.

Each worker is a Zeek of its own with its own logs, all in one fanout group: the data plane of a
cluster without its manager. Statistics are written every second; when a Zeek ends it writes the
last record and says what it received and dropped: both must agree to be called exact. A cluster
that zeekctl runs is `zeek_cluster`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from harness.errors import ConfigError, SensorFailed
from harness.model import Alert, Capabilities, Counters
from harness.model_flows import FlowRecords
from harness.sensors.appliance.options import Strict, read
from harness.sensors.base import Footprint, Live
from harness.sensors.owned import Owned, remote_lines, require_interface
from harness.sensors.zeek_logs import (
    Record,
    capture_loss,
    final,
    flow_records,
    notices,
    records,
    to_counters,
)
from lab.errors import MissingTool
from lab.host import Host
from lab.inventory import SensorSpec

__all__ = ["ZeekOptions", "ZeekSensor", "own_script"]

_STOP_S = 60.0  # Zeek flushes its connections and logs
_QUIET_S = 2.5


class ZeekOptions(Strict):
    """`scripts` are loaded by name (as on Zeek's command line); files of `sensor.rules` (.zeek and
    .sig) are shipped. `settings` are redefinitions, e.g. "SSL::…" = "T". `buffer` is the ring of a
    worker in bytes (AF_PACKET). Intervals are in s."""

    capture: Literal["af_packet", "pcap"] = "af_packet"
    scripts: tuple[str, ...] = ("local",)
    settings: dict[str, str] = Field(default_factory=dict)
    buffer: int = Field(default=128 << 20, ge=1 << 16)
    interval: float = Field(default=1.0, ge=0.1)
    loss_interval: float = Field(default=5.0, ge=0.5)
    ready_timeout: float = Field(default=60.0, gt=0)


def own_script(options: ZeekOptions, home: tuple[str, ...], fanout: int) -> str:
    """The script that makes Zeek say what we need; what its options are called is in its docs."""
    lines = [
        "@load policy/misc/stats",
        "@load policy/misc/capture-loss",
        f"redef Stats::report_interval = {options.interval:g}secs;",
        f"redef CaptureLoss::initial_watch_interval = {options.loss_interval:g}secs;",
        f"redef CaptureLoss::watch_interval = {options.loss_interval:g}secs;",
        "redef LogAscii::use_json = T;",
        "redef Log::default_rotation_interval = 0secs;",
        "redef Site::local_nets += { " + ", ".join(_network(net) for net in home) + " };",
    ]
    if options.capture == "af_packet":
        lines += [
            f"redef AF_Packet::fanout_id = {fanout};",
            f"redef AF_Packet::buffer_size = {options.buffer};",
        ]
    return "\n".join(lines) + "\n"


def _network(text: str) -> str:
    address, _, length = text.partition("/")
    return f"[{address}]/{length}" if ":" in address else text


class ZeekSensor:
    """`harness.sensors.base.Sensor` for Zeek 5.2 and later (AF_PACKET is built in from there)."""

    name = "zeek"
    state = "restarted"

    def __init__(self, host: Host, spec: SensorSpec) -> None:
        self._options = read(ZeekOptions, spec.options)
        if spec.interface is None:
            raise ConfigError("inventory: sensor.interface is missing: Zeek captures on one")
        if spec.workers > 1 and self._options.capture == "pcap":
            raise ConfigError(
                'inventory: sensor.workers > 1 needs sensor.options.capture = "af_packet": by '
                "libpcap every worker would see every packet"
            )
        self.version = ""
        self.capabilities = Capabilities(
            kernel_drops=True,
            software_drops=True,
            per_worker=True,
            flows=True,
            alerts=True,
            exact_totals=True,
        )
        self.balancer = "af_packet-hash" if self._options.capture == "af_packet" else None
        self.cpu_seconds: float | None = None
        self.rules_digest = ""
        self._host = host
        self._spec = spec
        self._binary = spec.program("zeek")
        self._run = f"{host.workdir}/zeek"
        self._workers: list[Owned] = []
        self._notices: list[Alert] = []

    # -- before a trial ---------------------------------------------------------------------

    def check(self) -> None:
        """Binary, version, interface, scripts. Raises SensorFailed."""
        host = self._host
        try:
            done = host.run([self._binary, "--version"], check=False)
        except MissingTool:
            done = None
        words = (done.stdout if done else "").split()  # "zeek version 7.0.1"
        if done is None or done.returncode != 0 or "version" not in words:
            raise SensorFailed(
                f"{host.name}: {self._binary} is not there; install Zeek, or give sensor.binary"
            )
        self.version = words[words.index("version") + 1]
        require_interface(host, str(self._spec.interface))
        self._ship()
        parsed = host.run(
            [self._binary, "--parse-only", *self._scripts()], check=False, timeout=120
        )
        if parsed.returncode != 0:
            said = [x for x in parsed.stderr.splitlines() if "error" in x] or ["no message"]
            raise SensorFailed(f"{host.name}: zeek refuses its scripts: {said[0].strip()[:200]}")

    def _ship(self) -> None:
        """Our script and the rules, into an empty run directory."""
        host = self._host
        host.run(["rm", "-rf", self._run], sudo=True)
        host.run(["mkdir", "-p", *(self._directory(n) for n in range(self._spec.workers))])
        fanout = 1 + os.getpid() % 65535
        digest = hashlib.sha256()
        with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
            own = Path(scratch) / "probebench.zeek"
            own.write_text(own_script(self._options, self._spec.home, fanout))
            host.put(own, f"{self._run}/probebench.zeek")
            for path in self._spec.rules:
                try:
                    digest.update(path.read_bytes())
                except OSError as error:
                    raise ConfigError(f"{path}: cannot read it: {error.strerror}") from None
                host.put(path, f"{self._run}/{path.name}")
        self.rules_digest = digest.hexdigest()

    def _directory(self, worker: int) -> str:
        return f"{self._run}/worker-{worker + 1}"

    def _scripts(self) -> list[str]:
        argv = list(self._options.scripts)
        for path in self._spec.rules:
            argv += ["-s"] if path.suffix == ".sig" else []
            argv.append(f"{self._run}/{path.name}")
        argv.append(f"{self._run}/probebench.zeek")
        return argv + [f"{name}={value}" for name, value in sorted(self._options.settings.items())]

    def prepare(self) -> None:
        """New processes, every one listening. Raises SensorFailed."""
        self.stop()
        self._notices = []
        self._ship()
        prefix = "af_packet::" if self._options.capture == "af_packet" else ""
        command = [self._binary, "-i", f"{prefix}{self._spec.interface}", "-C", *self._scripts()]
        cpus = self._spec.cpus.split(",") if self._spec.cpus else []
        for number in range(self._spec.workers):
            argv = command
            if cpus:
                argv = ["taskset", "-c", cpus[number % len(cpus)], *command]
            name = f"zeek (worker {number + 1})"
            self._workers.append(Owned(self._host, name, argv, self._directory(number)))
        for worker in self._workers:
            worker.await_words("listening on", self._options.ready_timeout)

    # -- while it runs ----------------------------------------------------------------------

    def footprint(self) -> Footprint:
        """Every worker, and where they write."""
        return Footprint(tuple(worker.pid for worker in self._workers), self._run)

    def snapshot(self) -> Counters:
        """Nothing was sent to the new processes yet."""
        self._must_live("before the trial")
        return to_counters((), 0, exact=False)

    def _must_live(self, when: str) -> None:
        if not self._workers:
            raise SensorFailed(f"{self._host.name}: zeek is not running")
        for worker in self._workers:
            worker.must_live(when)

    def live(self) -> Live:
        """Nothing but that it lives: its logs are read after the trial."""
        self._must_live("during the trial")
        return Live(None, None, None)

    def _log(self, worker: int, name: str) -> Iterator[str]:
        return remote_lines(self._host, f"{self._directory(worker)}/{name}.log")

    def _rows(self, worker: int, name: str, peer: str | None = None) -> Iterator[Record]:
        for row in records(self._log(worker, name), f"{self._host.name}: {name}.log"):
            yield row if peer is None else {**row, "peer": peer}

    def _stats(self) -> list[Record]:
        rows: list[Record] = []
        for number in range(len(self._workers)):
            rows += self._rows(number, "stats", f"worker-{number + 1}")
        return rows

    def settle(self, timeout: float) -> bool:
        """Wait until the interface is quiet and every worker reports seconds without a packet."""
        begun = time.monotonic()
        readings: list[tuple[float, tuple[int | None, ...]]] = []
        while True:
            self._must_live("while it settled")
            now = to_counters(self._stats(), None, exact=False)
            figures = (self._received(), now.received, now.dropped, now.decoded)
            readings.append((time.monotonic(), figures))
            wait = _QUIET_S + self._options.interval
            old = next((f for t, f in reversed(readings) if readings[-1][0] - t >= wait), None)
            if old is not None and all(
                (b or 0) - (a or 0) <= 10 * wait for a, b in zip(old, figures, strict=True)
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
        """End every worker and add up what they wrote.

        Where a worker's last words differ from the sum of its statistics, its last words count and
        the totals are not called exact. Raises SensorFailed.
        """
        self._must_live("during the trial")
        ends = []
        for worker in self._workers:
            worker.end(_STOP_S)
            said = final(worker.said())
            if said is None:
                raise SensorFailed(
                    f"{self._host.name}: zeek did not say what it received when it ended: "
                    f"{worker.last_words()}"
                )
            ends.append(said)
        stats = self._stats()
        loss: list[Record] = []
        for number in range(len(self._workers)):
            self._notices += notices(self._rows(number, "notice"))
            loss += self._rows(number, "capture_loss")
        counters = to_counters(stats, len(self._notices), exact=True)
        raw = {**counters.raw, **capture_loss(loss)}
        counters = replace(counters, raw=raw)
        received, dropped = sum(e.received for e in ends), sum(e.dropped for e in ends)
        if (counters.decoded, counters.dropped) != (received, dropped):
            counters = replace(
                counters,
                received=received + dropped,
                dropped=dropped,
                decoded=received,
                exact=False,
            )
        return counters

    def alerts(self) -> Iterator[Alert]:
        """Notices of all workers."""
        yield from self._notices

    def flow_records(self) -> FlowRecords | None:
        """conn.log of all workers, summed; None when there is none."""
        return flow_records(
            row for number in range(len(self._workers)) for row in self._rows(number, "conn")
        )

    def collect(self, into: Path) -> None:
        """Statistics, losses, and what each worker said."""
        into.mkdir(parents=True, exist_ok=True)
        for number, worker in enumerate(self._workers):
            (into / f"worker-{number + 1}.out").write_text(worker.said() + "\n")
            for name in ("stats", "capture_loss", "reporter"):
                if text := "".join(self._log(number, name)):
                    (into / f"worker-{number + 1}.{name}.log").write_text(text)
        rows = [alert.signature for alert in self._notices]
        counts = {name: rows.count(name) for name in sorted(set(rows))}
        (into / "notices.json").write_text(json.dumps(counts, indent=1) + "\n")

    def stop(self) -> None:
        """End every worker; idempotent."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.stop()
