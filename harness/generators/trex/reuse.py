"""When a five-tuple of TRex's comes back: the least time, from its pools and rates.

A client of a pool takes its ports one after the other (trex-core, src/tuple_gen.h: MIN_PORT 1024 up
to and without MAX_PORT 64000), so it uses a port again after 62,976 flows of its own; clients are
drawn at random and so have equal shares of a template's flows. The server's address is drawn too:
the same port may meet another server, and the whole five-tuple then comes back later still.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.templates import Template

__all__ = ["PORTS", "flows_come_back", "packets_come_back"]

PORTS = 64_000 - 1_024
"""Ports a client of a stateful template goes through."""


def flows_come_back(templates: Sequence[Template], rate: float) -> float:
    """Seconds until a client's port is used again, where each template has `rate` flows/s."""
    return min(template.clients.size for template in templates) * PORTS / rate


def packets_come_back(flows: int, rates: Sequence[float]) -> float:
    """Seconds until a stateless stream has gone through its `flows` clients and ports.

    `rates` are the packets/s of the streams; a packet takes the next client and port, and all
    streams go through the same ones.
    """
    return flows / max(rates)
