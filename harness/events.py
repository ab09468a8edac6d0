"""An alert's event in canonical form, the same for the reference and for a loaded sensor."""

from __future__ import annotations

import ipaddress

__all__ = ["Key", "canonical_address", "event_key"]

Key = tuple[str, str, int, str, int, int]
"""(proto, a, a_port, b, b_port, signature_id), as in `harness.model.DueEvent`."""


def canonical_address(text: str) -> str:
    """An address as `ipaddress` prints it: sensors write IPv6 unabridged, others do not."""
    return str(ipaddress.IPv6Address(text)) if ":" in text else text


def event_key(
    proto: str, src: str, src_port: int, dst: str, dst_port: int, signature_id: int
) -> Key:
    """The fields of the DueEvent of an alert: both ends in sorted order, whichever way it was seen.

    Addresses are given in canonical form. Two flows of one iteration with the same five-tuple are
    one event.
    """
    if (src, src_port) <= (dst, dst_port):
        return proto, src, src_port, dst, dst_port, signature_id
    return proto, dst, dst_port, src, src_port, signature_id
