"""TRex's advanced stateful mode (ASTF): the corpus's payloads over TRex's own TCP and UDP stacks.

Every flow of the corpus that ASTF takes is a template of rate 1/s with a pool pair of its own, so
that the mix is the corpus's and an alert's addresses tell its template. TRex's multiplier is the
number of corpora a second. New flows a second are set exactly; packets and bits follow from the
corpus's own, which TRex's stack does not keep (it segments and acknowledges by itself): for those
axes the load is a translation, and the trial says so.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import ConfigError, GeneratorFailed
from harness.generators.axes import AXES
from harness.generators.trex.agent import Report
from harness.generators.trex.interactive import Interactive
from harness.generators.trex.shipping import ship_flows
from harness.generators.trex.stf_profile import Flows, prepare_flows
from harness.model import Axis, Corpus, Identity, Load, Schedule
from harness.templates import Template

__all__ = ["TrexAstf"]


class TrexAstf(Interactive):
    """Implements `Generator`."""

    name = "trex-astf"
    mode: ClassVar[str] = "astf"
    axes: tuple[Axis, ...] = AXES["trex-astf"]
    identity: Identity = "template"
    templates: tuple[Template, ...] = ()

    _corpus: Flows | None = None
    _files = ""

    def prepare(self, corpus: Corpus) -> None:
        """See `Generator.prepare`: split the corpus, ship its flows once, shake hands."""
        with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
            directory = Path(scratch) / "flows"
            self._corpus = prepare_flows(corpus, self._options, directory, target="astf")
            self.templates = self._corpus.templates
            recipe = ["astf", corpus.digest, [t.name for t in self.templates]]
            self._files = ship_flows(self._host, directory, self.templates, recipe)
        self._find()

    @property
    def _ready(self) -> Flows:
        if self._corpus is None:
            raise GeneratorFailed("generator used before a corpus was prepared")
        return self._corpus

    def plan(self, load: Load, first_iteration: int) -> Schedule:
        """See `Generator.plan`. R rounds a second, each one flow of every template."""
        flows = self._ready
        count = len(flows.templates)
        sizes = {
            "pps": float(flows.packets),
            "flows": float(count),
            "bps": flows.bytes * 8.0,
        }
        if load.axis not in sizes:
            raise ConfigError(
                f"trex-astf cannot set the axis {load.axis!r}: how long its flows last is up to "
                f"TRex's stack; it can set {', '.join(self.axes)}"
            )
        rounds = load.value / sizes[load.axis]
        total = rounds * load.duration
        if total < 1:
            raise ConfigError(
                f"load {load.value:g} {load.axis} for {load.duration:g} s is less than one flow of "
                f"each of {count:,} templates: it needs {sizes[load.axis] / load.value:.3g} s"
            )
        left_out = sum(flows.left_out.values())
        how = f"TRex multiplier {rounds:.6g}: {rounds * count:,.1f} flows/s of {count:,} templates"
        if load.axis != "flows":
            how += f"; {load.axis} by the corpus's own packets, which TRex's stack does not keep"
        if left_out:
            how += f" ({left_out:,} flows of the corpus left out)"
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
            settings={"multiplier": rounds, "templates": count, "left_out": left_out},
            counts="flows",
        )

    def _longest(self) -> float:
        return 30.0 + self._ready.longest

    def _job(self, schedule: Schedule) -> dict[str, Any]:
        return {
            "multiplier": schedule.settings["multiplier"],
            "templates": [
                {
                    "name": template.name,
                    "file": f"{self._files}/{template.name}.pcap",
                    "port": template.server_port,
                    "clients": template.clients.texts(),
                    "servers": template.servers.texts(),
                }
                for template in self.templates
            ],
        }

    def _flows(self, report: Report, schedule: Schedule) -> int:
        return sum(report.templates.values())

    def _tail(self, report: Report) -> float:
        # New flows end with the load's time; behind it, those that are open are played out. A TRex
        # that cannot keep up begins fewer flows, and that is what its gate looks at.
        duration = 0.0 if self._schedule is None else self._schedule.load.duration
        return max(0.0, report.t - duration)

    def _extra(self, report: Report) -> dict[str, float]:
        return {
            "connections": report.stack("tcps_connects") / 2,
            "connection_drops": report.stack("tcps_drops") + report.stack("tcps_conndrops"),
            "retransmissions": report.stack("tcps_sndrexmitpack"),
            "retransmit_timeouts": report.stack("tcps_rexmttimeo"),
            "udp_connects": report.stack("udps_connects"),
            "flows_throttled": report.stack("err_c_nf_throttled"),
        }
