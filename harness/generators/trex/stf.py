"""TRex's stateful batch mode (STF): the corpus's flows, one file each, replayed at a multiple.

Client side out of the first port, server side out of the second, as an optical tap sees them. The
addresses are TRex's own, drawn from a pool pair a template, so detection is scored by template.
`t-rex-64 -f … -m … -d …` runs on our leash: when we die, it ends. It starts flows for the load's
duration and then waits for those that are open, so that no flow is cut.

Measured time has the resolution of two panels, a second: the sending counts as stretched only by
what goes beyond that.

Without a NIC that computes checksums (software mode), a stateful TRex leaves the file's TCP
checksums under the new addresses (bp_sim.h, update_tcp_cs), and clears those of UDP. A sensor that
checks them ignores every TCP segment: the gate `invalid-checksums` fires, and each trial says it.
"""

from __future__ import annotations

import math
import shlex
import tempfile
import time
from pathlib import Path

from harness.errors import ConfigError, GeneratorFailed
from harness.generators.axes import AXES
from harness.generators.base import Progress
from harness.generators.mtu import must_carry
from harness.generators.trex.console import Console
from harness.generators.trex.flows import Flows, prepare_flows, ship_flows
from harness.generators.trex.install import TrexInstall, end_ours, require_trex
from harness.generators.trex.interactive import FCS, put_text
from harness.generators.trex.options import options_of, refuse_blanks
from harness.generators.trex.platform_file import platform_yaml
from harness.generators.trex.reuse import flows_come_back
from harness.generators.trex.rounds import flows_of_each
from harness.generators.trex.stf_profile import traffic_yaml
from harness.model import AMOUNTS, Axis, Corpus, Identity, Load, Schedule, Sent
from harness.signals import signal_name
from harness.templates import Template
from lab.host import Exit, Host, Process
from lab.inventory import GeneratorSpec

__all__ = ["TrexStf"]

_SILENT_S = 15.0  # it prints twice a second
_RESOLUTION_S = 1.0  # a panel at either end
_STOP_GRACE_S = 8.0  # it takes up to 3.5 s to end after TERM
_SPARE_S = 60.0


class TrexStf:
    """Implements `Generator`."""

    name = "trex-stf"
    axes: tuple[Axis, ...] = AXES["trex-stf"]
    identity: Identity = "template"

    def __init__(self, host: Host, spec: GeneratorSpec) -> None:
        self.templates: tuple[Template, ...] = ()
        self.install: TrexInstall | None = None
        self._host = host
        self._spec = spec
        self._options = options_of(spec)
        self._flows: Flows | None = None
        self._files = ""
        self._process: Process | None = None
        self._console = Console()
        self._schedule: Schedule | None = None
        self._heard = 0.0
        self._started_ns = 0

    # -- before a trial ---------------------------------------------------------------------

    def prepare(self, corpus: Corpus) -> None:
        """See `Generator.prepare`: find TRex, split the corpus, ship its flows once."""
        refuse_blanks(self._host)
        if self._options.server == "running":
            raise ConfigError(
                'inventory: generator.options.server = "running" is for trex-astf and trex-stl: '
                "trex-stf starts a run of its own"
            )
        self.install = require_trex(self._host, self._options)
        for port in self._spec.interfaces:
            remedy = "capture without segmentation offload"
            must_carry(self._host, port, corpus.max_frame, "the corpus has", remedy)
        end_ours(self._host, self.install, self._cfg)
        with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
            directory = Path(scratch) / "flows"
            self._flows = prepare_flows(corpus, self._options, directory, "stf")
            self.templates = self._flows.templates
            recipe = f"stf {self._options.reply_gap} {corpus.digest}"
            self._files = ship_flows(self._host, self._flows, directory, recipe)
        put_text(self._host, "trex.yaml", platform_yaml(self._options, self._spec.interfaces))

    @property
    def _cfg(self) -> str:
        return f"{self._host.workdir}/trex.yaml"

    @property
    def _ready(self) -> Flows:
        if self._flows is None:
            raise GeneratorFailed("generator used before a corpus was prepared")
        return self._flows

    def plan(self, load: Load, first_iteration: int) -> Schedule:
        """See `Generator.plan`. R rounds a second, each one flow of every template; -m is R."""
        flows = self._ready
        size, share = flows.amount(load.axis), AMOUNTS[load.axis]
        if size <= 0:
            raise ConfigError(f"the corpus has no {share}, so that axis cannot be set with it")
        rounds = load.value / size
        total = rounds * load.duration
        if total < 1:
            raise ConfigError(
                f"load {load.value:g} {load.axis} for {load.duration:g} s is less than one flow of "
                f"each of {len(flows.templates):,} templates: it needs {size / load.value:.3g} s"
            )
        count = len(flows.templates)
        left_out = sum(flows.left_out.values())
        how = (
            f"TRex multiplier {rounds:.6g}: {rounds * count:,.1f} flows/s of {count:,} templates"
            + (f" ({left_out:,} flows of the corpus left out)" if left_out else "")
            + ("; software mode: TCP checksums are wrong" if self._options.software else "")
        )
        return Schedule(
            load=load,
            first_iteration=first_iteration,
            iterations=math.floor(total + 1e-9),
            every_s=1 / rounds,
            pacing="timestamps",
            packets=round(total * flows.packets),
            bytes=round(total * flows.bytes),
            flows=round(total * count),
            seconds=load.duration,
            pps=rounds * flows.packets,
            bps=rounds * flows.bytes * 8,
            flows_per_s=rounds * count,
            concurrent_flows=rounds * flows.seconds,
            steady_fraction=max(0.0, 1 - flows.longest / load.duration),
            how=how,
            settings={
                "multiplier": rounds,
                "templates": count,
                "left_out": left_out,
                "reuse_s": flows_come_back(flows.templates, rounds),
            },
        )

    # -- a trial ----------------------------------------------------------------------------

    def start(self, schedule: Schedule) -> None:
        """See `Generator.start`."""
        flows = self._ready
        self.stop()
        traffic = put_text(
            self._host,
            "traffic.yaml",
            traffic_yaml(flows.templates, self._files, schedule.load.duration),
        )
        self._schedule, self._console = schedule, Console()
        self._heard, self._started_ns = time.monotonic(), time.time_ns()
        self._process = self._host.start(
            ["sh", "-c", self._command(schedule, traffic)],
            max_seconds=schedule.load.duration
            + flows.longest
            + self._options.start_timeout
            + _SPARE_S,
            log=f"{self._host.workdir}/generator.log",
            sudo=True,
        )

    def _command(self, schedule: Schedule, traffic: str) -> str:
        options = self._options
        argv = [
            *(["taskset", "-c", self._spec.cpus] if self._spec.cpus else []),
            # Into a pipe it writes 4 KiB at a time: panels would come in lumps, seconds late.
            *["stdbuf", "-oL", "./t-rex-64", "-f", traffic, "--cfg", self._cfg],
            *["-m", f"{schedule.settings['multiplier']:.9g}", "-d", f"{schedule.load.duration:g}"],
            *["-c", str(options.cores), "--no-key", "--iom", "1"],
        ]
        if options.software:
            argv.append("--software")
        if options.low_end:
            # Without it, a low-end TRex stretches gaps until 500 flows are open (main_dpdk.cpp).
            argv += ["--active-flows", str(max(1, round(schedule.concurrent_flows)))]
        argv += options.arguments
        return f"cd {shlex.quote(options.path)} && exec {shlex.join(argv)} </dev/null"

    def progress(self) -> Progress:
        """See `Generator.progress`."""
        if self._process is None or self._schedule is None:
            raise GeneratorFailed("generator polled before it was started")
        ended = self._process.poll()
        self._read()
        if ended is not None:
            self._judge(ended)
        else:
            self._must_speak()
        return Progress(self._console.sent, ended is not None)

    def _read(self) -> None:
        if self._process is None:
            return
        for line in self._process.lines():
            self._heard = time.monotonic()
            self._console.feed(line, self._heard)

    def _must_speak(self) -> None:
        """A TRex that hangs, or never begins to send, ends the trial."""
        now = time.monotonic()
        where = f"{self._host.name}: TRex"
        patience = _SILENT_S if self._console.running else self._options.start_timeout
        if now - self._heard <= patience:
            return
        self.stop()
        last = self._console.said.why
        what = "hangs: it said nothing" if self._console.running else "did not begin to send"
        raise GeneratorFailed(f"{where} {what} for {patience:g} s; last: {last}")

    def _judge(self, ended: Exit) -> None:
        where = f"{self._host.name}: TRex"
        why = self._console.said.why
        if ended.reason == "deadline":
            raise GeneratorFailed(f"{where} did not end in its time and was stopped")
        if ended.reason in ("stopped", "orphaned"):
            raise GeneratorFailed(f"{where} was stopped before it had sent everything")
        status = ended.returncode
        number = ended.signal or (status - 128 if status is not None and 128 < status < 165 else 0)
        if number:
            raise GeneratorFailed(f"{where} was killed by {signal_name(number)}; last: {why}")
        cause = self._console.cause
        if status or not self._console.whole:
            said = f"shut down: {cause}" if cause and "test has ended" not in cause else why
            raise GeneratorFailed(f"{where} failed with status {status}: {said}")

    def finish(self) -> Sent:
        """See `Generator.finish`."""
        process, schedule = self._process, self._schedule
        if process is None or schedule is None:
            raise GeneratorFailed("generator finished before it was started")
        while (ended := process.poll()) is None:
            self._read()
            self._must_speak()
            time.sleep(0.05)
        self._read()
        self._judge(ended)
        return self._sent(schedule)

    def _sent(self, schedule: Schedule) -> Sent:
        console, flows = self._console, self._ready
        packets = console.summary["Total-tx-pkt"]
        opened = int(console.peaks.get("Open-flows", 0))
        seconds = schedule.load.duration
        if console.first is not None and console.last is not None:
            took = console.last - console.first
            seconds += max(0.0, took - seconds - flows.longest - _RESOLUTION_S)
        sizes = [template.packets for template in flows.templates]
        each, exact = flows_of_each(packets, sizes, self._options.cores)
        extra = {
            "flows_opened": float(opened),
            "queue_full": console.peaks.get("Total_queue_full", 0.0),
            "alloc_error": console.peaks.get("Total_alloc_err", 0.0),
            "active_flows_peak": console.peaks.get("Active-flows", 0.0),
            "cpu_percent_peak": console.peaks.get("Cpu Utilization", 0.0),
            "time_resolution_s": _RESOLUTION_S,
            "templates_exact": float(exact),
        }
        return Sent(
            packets=packets,
            bytes=console.summary["Total-tx-bytes"] - FCS * packets,
            flows=sum(each),
            seconds=seconds,
            failed=console.summary.get("Total-sw-err", 0),
            started_ns=self._started_ns,
            ended_ns=time.time_ns(),
            templates={t.name: n for t, n in zip(flows.templates, each, strict=True)},
            extra=extra,
        )

    def stop(self) -> None:
        """See `Generator.stop`. The whole process group is told, the wrapper's child included."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.stop(_STOP_GRACE_S)
