"""TRex's stateless mode (STL): packets at a rate, in a mix of sizes, between drawn addresses.

Two streams a size: what clients send on the first port, and the same back on the second, stepping
through the same addresses and client ports, so that a sensor sees flows with two sides. The packets
are UDP without a checksum and carry nothing: what is measured is packets, not detection.
"""

from __future__ import annotations

import struct
from typing import Any

from harness.errors import ConfigError
from harness.generators.axes import AXES
from harness.generators.trex.interactive import FCS, TrexInteractive
from harness.generators.trex.pools import Allocator
from harness.generators.trex.reuse import packets_come_back
from harness.model import Axis, Corpus, Identity, Load, Schedule, Sent
from harness.templates import Pool

__all__ = ["IMIX", "TrexStl", "frame", "mix_of"]

IMIX = {64: 7, 594: 4, 1518: 1}
"""Packets by frame size with FCS: the mix that is usually called so (RFC 6985 gives it no law)."""

_SERVER_PORT = 9  # discard (RFC 863)
_HEADERS = 14 + 20 + 8


def mix_of(text: str) -> dict[int, int]:
    """Packets by frame size (with FCS) from "imix", "512" or "64:7,594:4,1518:1".

    Raises ConfigError.
    """
    if text.strip().lower() == "imix":
        return dict(IMIX)
    mix: dict[int, int] = {}
    for part in text.split(","):
        size, _, weight = part.strip().partition(":")
        if not size.isdigit() or not (weight or "1").isdigit() or int(weight or "1") == 0:
            raise ConfigError(
                f"inventory: generator.options.frames: {text!r}: write imix, 512, or 64:7,1518:1"
            )
        if not 64 <= int(size) <= 9238:
            raise ConfigError(
                f"inventory: generator.options.frames: {size} bytes: a frame has 64 to 9238, FCS "
                "included"
            )
        mix[int(size)] = mix.get(int(size), 0) + int(weight or "1")
    return mix


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
    axes: tuple[Axis, ...] = AXES["trex-stl"]
    identity: Identity = "template"

    _clients: Pool
    _servers: Pool

    def prepare(self, corpus: Corpus) -> None:
        """See `Generator.prepare`; of the corpus only its home networks are used."""
        super().prepare(corpus)
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

    def finish(self) -> Sent:
        """See `Generator.finish`."""
        ports = self._finished()["ports"].values()
        packets = sum(port["opackets"] for port in ports)
        return Sent(
            packets=packets,
            bytes=sum(port["obytes"] for port in ports) - FCS * packets,
            flows=0,
            seconds=self._seconds,
            failed=0,
            started_ns=self._started_ns,
            ended_ns=self._started_ns + int(self._seconds * 1e9),
            extra=self._extra(),
        )
