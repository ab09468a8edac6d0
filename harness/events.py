"""An alert's event in canonical form, the same for the reference and for a loaded sensor."""

from __future__ import annotations

import ipaddress

from harness.model import DueEvent

__all__ = ["canonical_address", "event"]


def canonical_address(text: str) -> str:
    """An address as `ipaddress` prints it: sensors write IPv6 unabridged, others do not."""
    return str(ipaddress.IPv6Address(text)) if ":" in text else text


def event(
    proto: str, src: str, src_port: int, dst: str, dst_port: int, signature_id: int
) -> DueEvent:
    """The event of an alert: both ends in sorted order, whichever way the sensor saw it.

    Addresses are given in canonical form. Two flows of one iteration with the same five-tuple are
    one event; `corpus clean` reports reused tuples.
    """
    (a, a_port), (b, b_port) = sorted(((src, src_port), (dst, dst_port)))
    return DueEvent(proto, a, a_port, b, b_port, signature_id)
