"""TRex's advanced stateful mode (ASTF): the corpus's payloads over TCP and UDP stacks of its own.

A connection a template, its payload from the corpus's flow; segments, timing and retransmissions
are the stack's. Every template has address pools of its own and is a template group, so TRex tells
how many flows of each it opened. New flows a second are what can be set; how many packets a flow
takes is the stack's business, so a load in packets or bits is translated by measuring it first: a
short round at a low rate, before the first such trial. Concurrent flows cannot be asked for: a
connection lives as long as the stack needs for its payload, not as long as in the corpus.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, GeneratorFailed
from harness.generators.axes import AXES
from harness.generators.mtu import must_carry
from harness.generators.trex.flows import Flows, prepare_flows, ship_flows
from harness.generators.trex.interactive import FCS, TrexInteractive
from harness.generators.trex.reuse import flows_come_back
from harness.model import Axis, Corpus, Identity, Load, Schedule, Sent

__all__ = ["TrexAstf"]

_RESOLUTION_S = 0.75  # counters come twice a second, and are asked for four times
_FRAME = 1514  # of a full segment of TRex's stack
_ROUND_S = 4.0  # of the measuring round
_ROUND_FLOWS = 50.0  # a second in it, all templates together …
_ROUND_LEAST = 0.5  # … but so many a second of each


@dataclass(frozen=True, slots=True)
class _Measured:
    """Packets and bytes that one flow of each template takes together; flows in the round."""

    packets: float
    bytes: float
    flows: int


class TrexAstf(TrexInteractive):
    """Implements `Generator`."""

    name = "trex-astf"
    mode = "ASTF"
    axes: tuple[Axis, ...] = AXES["trex-astf"]
    identity: Identity = "template"

    _flows: Flows
    _files = ""
    _measured_round: _Measured | None = None

    def prepare(self, corpus: Corpus) -> None:
        """See `Generator.prepare`."""
        super().prepare(corpus)
        for port in self._spec.interfaces:
            must_carry(self._host, port, _FRAME, "TRex's TCP sends", "use trex-stf")
        with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
            directory = Path(scratch) / "flows"
            self._flows = prepare_flows(corpus, self._options, directory, "astf")
            self.templates = self._flows.templates
            self._files = ship_flows(self._host, self._flows, directory, f"astf {corpus.digest}")

    def plan(self, load: Load, first_iteration: int) -> Schedule:
        """See `Generator.plan`; packets and bytes are an estimate: of the corpus, or as measured.

        The first load in packets or bits is preceded by the measuring round, which is sent.
        """
        self.must_set(load)
        if load.axis == "flows":
            return self._plan(load, load.value / len(self._flows.templates), None)
        if self._measured_round is None:
            self._measured_round = self._measure()
        found = self._measured_round
        size = found.packets if load.axis == "pps" else found.bytes * 8
        return self._plan(load, load.value / size, found)

    def _plan(self, load: Load, rounds: float, found: _Measured | None) -> Schedule:
        """`rounds` flows of each template a second."""
        flows = self._flows
        count = len(flows.templates)
        packets, octets = (found.packets, found.bytes) if found else (flows.packets, flows.bytes)
        total = rounds * load.duration
        if total < 1:
            raise ConfigError(
                f"load {load.value:g} {load.axis} for {load.duration:g} s is less than one flow of "
                f"each of {count:,} templates: it needs {1 / rounds:.3g} s"
            )
        left_out = sum(flows.left_out.values())
        how = f"TRex ASTF: {rounds:.6g} connections/s of each of {count:,} templates"
        if left_out:
            how += f" ({left_out:,} flows of the corpus left out)"
        how += "; packets are an estimate"
        if found:
            how += (
                f": {packets / count:.4g} packets and {octets / count:,.0f} B a flow, measured in "
                f"a round of {found.flows:,} flows"
            )
        return Schedule(
            load=load,
            first_iteration=0,
            iterations=int(total),
            every_s=1 / rounds,
            pacing="timestamps",
            packets=round(total * packets),
            bytes=round(total * octets),
            flows=round(total * count),
            seconds=load.duration,
            pps=rounds * packets,
            bps=rounds * octets * 8,
            flows_per_s=rounds * count,
            concurrent_flows=rounds * flows.seconds,
            steady_fraction=1.0,
            how=how,
            settings={
                "templates": count,
                "left_out": left_out,
                "connections_per_s": rounds,
                "packets_are_estimates": 1.0,
                "reuse_s": flows_come_back(flows.templates, rounds),
                **({"packets_a_flow": packets / count} if found else {}),
            },
        )

    def _measure(self) -> _Measured:
        """Send a short round at a low rate, and count. Raises GeneratorFailed."""
        templates = self._flows.templates
        count = len(templates)
        rounds = max(_ROUND_LEAST, _ROUND_FLOWS / count)
        load = Load("flows", rounds * count, _ROUND_S)
        try:
            self.start(self._plan(load, rounds, None))
            while not self.progress().done:
                time.sleep(0.05)
            sent = self.finish()
        finally:
            self.stop()
        lost = sent.extra["connection_drops"] + sent.extra["retransmissions"]
        if not sent.flows or lost > 0.01 * sent.flows:
            raise GeneratorFailed(
                f"{self._host.name}: TRex: the round that measures the packets of a flow opened "
                f"{sent.flows:,} flows, with {lost:,.0f} retransmissions and drops: see that each "
                "port's packets reach the other, or set a load in flows/s"
            )
        # A template more or less often than another: in the proportion of the corpus's flows.
        packets = sum(sent.templates[t.name] * t.packets for t in templates)
        octets = sum(sent.templates[t.name] * t.bytes for t in templates)
        return _Measured(
            packets=self._flows.packets * sent.packets / packets,
            bytes=self._flows.bytes * sent.bytes / octets,
            flows=sent.flows,
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
        """How long flows were opened: the load's duration, or longer when that was seen.

        What the last flows took to their end is not in it: they were offered before.
        """
        duration = self._running.load.duration
        opened_for = self._opening[1] - float(self._events["started"]["t"])
        return duration + max(0.0, opened_for - duration - _RESOLUTION_S)


def _sum(counters: dict[str, Any], *names: str) -> float:
    """An absent counter is zero."""
    return float(sum(counters.get(name, 0) for name in names))
