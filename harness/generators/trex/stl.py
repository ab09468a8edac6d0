"""TRex's stateless mode (STL): packets at a rate, in a mix of sizes, between drawn addresses.

Two streams a size: what clients send on the first port, and the same back on the second, stepping
through the same addresses and client ports, so that a sensor sees flows with two sides. The packets
are UDP without a checksum and carry nothing: what is measured is packets, not detection. With
`push` the corpus is sent instead, as a capture (`harness.generators.trex.push`).
"""

from __future__ import annotations

import struct
from typing import Any

from harness.errors import ConfigError, GeneratorFailed
from harness.generators.axes import axes_of
from harness.generators.mtu import must_carry
from harness.generators.trex.interactive import FCS, TrexInteractive
from harness.generators.trex.pools import Allocator
from harness.generators.trex.push import Push
from harness.generators.trex.reuse import packets_come_back
from harness.generators.trex.traffic import mix_of
from harness.model import Axis, Corpus, Identity, Load, Schedule, Sent
from harness.templates import Pool
from lab.host import Host
from lab.inventory import GeneratorSpec

__all__ = ["TrexStl", "frame"]

_SERVER_PORT = 9  # discard (RFC 863)
_HEADERS = 14 + 20 + 8
_RESOLUTION_S = 0.5  # within which the end of the traffic is seen


def frame(size: int, source: int, target: int, source_port: int, target_port: int) -> bytes:
    """An Ethernet frame of `size` bytes with FCS, which it is without; MACs are the server's."""
    length = size - FCS
    packet = struct.pack(
        ">BBHHHBBHII", 0x45, 0, length - 14, 0, 0, 64, 17, 0, source, target
    )  # the server writes the header checksum
    datagram = struct.pack(">HHHH", source_port, target_port, length - 34, 0)
    return bytes(12) + b"\x08\x00" + packet + datagram + bytes(length - _HEADERS)


class TrexStl(TrexInteractive):
    """Implements `Generator`."""

    name = "trex-stl"
    mode = "STL"

    _clients: Pool
    _servers: Pool

    def __init__(self, host: Host, spec: GeneratorSpec) -> None:
        super().__init__(host, spec)
        traffic = self._options
        self._push = Push(host, spec, traffic) if traffic.push else None
        self.axes: tuple[Axis, ...] = axes_of(self.name, {"push": traffic.push})
        # Streams carry nothing to detect; what is pushed are the corpus's own flows.
        self.identity: Identity = "template" if self._push is None else "flow"
        self.method = "loop" if traffic.push in ("remote", "local") else "fresh"

    def prepare(self, corpus: Corpus) -> None:
        """See `Generator.prepare`; of the corpus streams use its home networks alone."""
        super().prepare(corpus)
        if self._push is not None:
            for port in self._spec.interfaces:
                remedy = "capture without segmentation offload"
                must_carry(self._host, port, corpus.max_frame, "the corpus has", remedy)
            self._push.prepare(corpus)
            return
        largest = max(mix_of(self._options.frames)) - FCS
        for port in self._spec.interfaces:
            must_carry(self._host, port, largest, "the streams have", "choose smaller frames")
        pools = Allocator(corpus.home)
        self._clients = pools.take(True, self._options.clients)
        self._servers = pools.take(False, self._options.servers)

    @property
    def _tuples(self) -> int:
        """Clients and ports that a stream goes through before it begins anew."""
        return min(self._clients.size * 64_000, 10_000_000)

    def plan(self, load: Load, first_iteration: int) -> Schedule:
        """See `Generator.plan`. Sizes count with FCS in `frames`, bits without, as everywhere."""
        self.must_set(load)
        if self._push is not None:
            return self._push.plan(load, first_iteration)
        mix = mix_of(self._options.frames)
        weight = sum(mix.values())
        mean = sum((size - FCS) * count for size, count in mix.items()) / weight
        pps = load.value if load.axis == "pps" else load.value / (8 * mean)
        packets = round(pps * load.duration)
        if packets < 2 * len(mix):
            raise ConfigError(f"load {load.value:g} {load.axis}: too few packets for every stream")
        sizes = ", ".join(f"{size} B × {count}" for size, count in mix.items())
        return Schedule(
            load=load,
            first_iteration=first_iteration,
            iterations=0,
            every_s=0.0,
            pacing="pps",
            packets=packets,
            bytes=round(packets * mean),
            flows=0,
            seconds=load.duration,
            pps=pps,
            bps=pps * 8 * mean,
            flows_per_s=0.0,
            concurrent_flows=0.0,
            steady_fraction=1.0,
            how=f"TRex stateless: {pps:,.1f} packets/s on two ports, frames with FCS {sizes}",
            settings={
                "streams": 2 * len(mix),
                "mean_frame": mean,
                "reuse_s": packets_come_back(
                    self._tuples, [pps * count / weight / 2 for count in mix.values()]
                ),
            },
        )

    def job(self, schedule: Schedule) -> dict[str, Any]:
        """See `TrexInteractive.job`."""
        if self._push is not None:
            return self._push.job(schedule)
        mix = mix_of(self._options.frames)
        weight = sum(mix.values())
        streams = []
        for size, count in mix.items():
            for port in (0, 1):
                ends = (self._clients.first, self._servers.first, 1025, _SERVER_PORT)
                one, two, near, far = ends if port == 0 else (ends[1], ends[0], ends[3], ends[2])
                streams.append(
                    {
                        "port": port,
                        "pps": schedule.pps * count / weight / 2,
                        "frame": frame(size, one, two, near, far).hex(),
                        "clients": self._clients.texts(),
                        "servers": self._servers.texts(),
                        "flows": self._tuples,
                    }
                )
        return {"do": "stl", "streams": streams}

    def make_ready(self, schedule: Schedule) -> None:
        """Fresh iterations are expanded, which takes its time."""
        if self._push is not None:
            self._push.expand(schedule)

    def finish(self) -> Sent:
        """See `Generator.finish`."""
        ports = self._finished()["ports"].values()
        schedule = self._running
        packets = sum(port["opackets"] for port in ports)
        if self._push is not None and not packets:
            # The server answers before it has opened the file, and says nothing when it cannot.
            raise GeneratorFailed(
                f"{self._host.name}: TRex pushed nothing: it could not read the capture in "
                f"{self._host.workdir}"
            )
        late = max(0.0, self._seconds - schedule.seconds - _RESOLUTION_S)
        return Sent(
            packets=packets,
            bytes=sum(port["obytes"] for port in ports) - FCS * packets,
            flows=round(schedule.flows * packets / schedule.packets),
            seconds=schedule.seconds + late,
            failed=0,
            started_ns=self._started_ns,
            ended_ns=self._started_ns + int(self._seconds * 1e9),
            extra=self._extra(),
        )

    def stop(self) -> None:
        """See `Generator.stop`."""
        super().stop()
        if self._push is not None:
            self._push.clean()
