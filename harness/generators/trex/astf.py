"""TRex's advanced stateful mode (ASTF): the corpus's payloads over TCP and UDP stacks of its own.

A connection a template, its payload from the corpus's flow; segments, timing and retransmissions
are the stack's. Every template has address pools of its own and is a template group, so TRex tells
how many flows of each it opened. New flows a second are what can be set; packets follow.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.generators.axes import AXES
from harness.generators.trex.flows import Flows, prepare_flows, ship_flows
from harness.generators.trex.interactive import FCS, TrexInteractive
from harness.generators.trex.reuse import flows_come_back
from harness.model import Axis, Corpus, Identity, Load, Schedule, Sent

__all__ = ["TrexAstf"]


class TrexAstf(TrexInteractive):
    """Implements `Generator`."""

    name = "trex-astf"
    mode = "ASTF"
    axes: tuple[Axis, ...] = AXES["trex-astf"]
    identity: Identity = "template"

    _flows: Flows
    _files = ""

    def prepare(self, corpus: Corpus) -> None:
        """See `Generator.prepare`."""
        super().prepare(corpus)
        with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
            directory = Path(scratch) / "flows"
            self._flows = prepare_flows(corpus, self._options, directory, "astf")
            self.templates = self._flows.templates
            self._files = ship_flows(self._host, self._flows, directory, f"astf {corpus.digest}")

    def plan(self, load: Load, first_iteration: int) -> Schedule:
        """See `Generator.plan`; packets and bytes are the corpus's, an estimate."""
        self.must_set(load)
        flows = self._flows
        count = len(flows.templates)
        rounds = load.value / count
        total = rounds * load.duration
        if total < 1:
            raise ConfigError(
                f"load {load.value:g} flows for {load.duration:g} s is less than one flow of each "
                f"of {count:,} templates: it needs {count / load.value:.3g} s"
            )
        left_out = sum(flows.left_out.values())
        return Schedule(
            load=load,
            first_iteration=first_iteration,
            iterations=int(total),
            every_s=1 / rounds,
            pacing="timestamps",
            packets=round(total * flows.packets),
            bytes=round(total * flows.bytes),
            flows=round(total * count),
            seconds=load.duration,
            pps=rounds * flows.packets,
            bps=rounds * flows.bytes * 8,
            flows_per_s=load.value,
            concurrent_flows=rounds * flows.seconds,
            steady_fraction=1.0,
            how=f"TRex ASTF: {rounds:.6g} connections/s of each of {count:,} templates"
            + (f" ({left_out:,} flows of the corpus left out)" if left_out else "")
            + "; packets are an estimate",
            settings={
                "templates": count,
                "left_out": left_out,
                "connections_per_s": rounds,
                "packets_are_estimates": 1.0,
                "reuse_s": flows_come_back(flows.templates, rounds),
            },
        )

    def job(self, schedule: Schedule) -> dict[str, Any]:
        """See `TrexInteractive.job`."""
        caps = [
            {
                "name": template.name,
                "file": f"{self._files}/{template.name}.pcap",
                "cps": schedule.settings["connections_per_s"],
                "clients": template.clients.texts(),
                "servers": template.servers.texts(),
                "port": template.server_port,
            }
            for template in self.templates
        ]
        return {"do": "astf", "caps": caps}

    def finish(self) -> Sent:
        """See `Generator.finish`."""
        done = self._finished()
        ports = done["ports"].values()
        packets = sum(port["opackets"] for port in ports)
        client = done["traffic"].get("client", {})
        server = done["traffic"].get("server", {})
        opened = self._opened
        extra = self._extra() | {
            "connections": _sum(client, "tcps_connects", "udps_connects"),
            "connection_drops": _sum(client, "tcps_conndrops", "tcps_drops"),
            "retransmissions": _sum(client, "tcps_sndrexmitpack")
            + _sum(server, "tcps_sndrexmitpack"),
        }
        return Sent(
            packets=packets,
            bytes=sum(port["obytes"] for port in ports) - FCS * packets,
            flows=sum(opened.values()),
            seconds=self._measured(),
            failed=0,
            started_ns=self._started_ns,
            ended_ns=self._started_ns + int(self._seconds * 1e9),
            templates={t.name: opened.get(t.name, 0) for t in self.templates},
            extra=extra,
        )

    def _measured(self) -> float:
        """New flows were opened for the load's duration; what the last ones took is not counted."""
        assert self._schedule is not None
        duration = self._schedule.load.duration
        return duration + max(0.0, self._seconds - duration - self._flows.longest - 1.0)


def _sum(counters: dict[str, Any], *names: str) -> float:
    """An absent counter is zero."""
    return float(sum(counters.get(name, 0) for name in names))
