"""TRex's stateless mode (STL): packets of a frame-size mix at a rate, to load a probe by packets.

Clients' packets leave the first port, servers' answers the second, as behind an optical tap: both
ports step through the same tuples, so that every flow is seen from both sides. The packets are UDP
with a payload of zeros: no rule fires on them, so nothing is due, and detection is not scored.
Half of the load goes out of each port.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from harness.errors import ConfigError
from harness.generators.axes import AXES
from harness.generators.trex.agent import Report
from harness.generators.trex.interactive import Interactive
from harness.generators.trex.options import TrexOptions
from harness.generators.trex.pools import Allocator
from harness.model import Axis, Corpus, Identity, Load, Schedule
from harness.templates import Pool, Template

__all__ = ["TrexStl", "frame_mix"]

_FCS = 4
_SERVER_PORT = 40000
# TRex's own (stl/imix.py) has the same shares.
_IMIX = ((64, 7.0), (594, 4.0), (1518, 1.0))


def frame_mix(options: TrexOptions) -> list[tuple[int, float]]:
    """(bytes without FCS, share of the packets) of every stream; the shares sum up to 1."""
    wanted = _IMIX if options.frames == "imix" else [(size, 1.0) for size in options.frames]
    whole = sum(share for _, share in wanted)
    return [(size - _FCS, share / whole) for size, share in wanted]


class TrexStl(Interactive):
    """Implements `Generator`."""

    name = "trex-stl"
    mode: ClassVar[str] = "stl"
    axes: tuple[Axis, ...] = AXES["trex-stl"]
    identity: Identity = "template"
    templates: tuple[Template, ...] = ()

    _pools: tuple[Pool, Pool] | None = None

    def prepare(self, corpus: Corpus) -> None:
        """See `Generator.prepare`. Of the corpus only its home networks are used."""
        pools = Allocator(corpus.home)
        options = self._options
        self._pools = (pools.take(True, options.clients), pools.take(False, options.servers))
        self._find()

    def plan(self, load: Load, first_iteration: int) -> Schedule:
        """See `Generator.plan`. An iteration is one packet here."""
        mix = frame_mix(self._options)
        mean = sum(size * share for size, share in mix)
        if load.axis not in self.axes:
            raise ConfigError(
                f"trex-stl cannot set the axis {load.axis!r}: its packets are of no flows that "
                f"begin or end; it can set {', '.join(self.axes)}"
            )
        pps = load.value if load.axis == "pps" else load.value / (8 * mean)
        packets = round(pps * load.duration)
        if packets < 2 * len(mix):
            raise ConfigError(
                f"load {load.value:g} {load.axis} for {load.duration:g} s is less than a packet of "
                f"each of {len(mix)} frame sizes in either direction"
            )
        flows = self._tuples()
        sizes = ", ".join(f"{size + _FCS} B {100 * share:.3g} %" for size, share in mix)
        return Schedule(
            load=load,
            first_iteration=first_iteration,
            iterations=packets,
            every_s=1 / pps,
            pacing="pps",
            packets=packets,
            bytes=round(packets * mean),
            flows=flows,
            seconds=load.duration,
            pps=pps,
            bps=pps * mean * 8,
            flows_per_s=flows / load.duration,
            concurrent_flows=float(flows),
            steady_fraction=1.0,
            how=f"TRex streams: {pps:,.1f} packets/s, half on each port, frames (with FCS) "
            f"{sizes}; {flows:,} UDP tuples",
            settings={"pps": pps, "frame_mean": mean, "tuples": flows},
        )

    def _tuples(self) -> int:
        """Both addresses step by one a packet."""
        options = self._options
        return math.lcm(options.clients, options.servers) * len(frame_mix(options))

    def _job(self, schedule: Schedule) -> dict[str, Any]:
        if self._pools is None:
            raise ConfigError("generator used before a corpus was prepared")
        clients, servers = self._pools
        half = schedule.pps / 2
        return {
            "clients": clients.texts(),
            "servers": servers.texts(),
            "server_port": _SERVER_PORT,
            "frames": [{"bytes": s, "pps": half * share} for s, share in frame_mix(self._options)],
        }

    def _flows(self, report: Report, schedule: Schedule) -> int:
        return min(schedule.flows, report.sum("opackets"))
