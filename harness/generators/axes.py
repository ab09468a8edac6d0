"""Which load axes each generator can set: known before one is connected to, so that a profile that
asks for another is refused when it is read."""

from __future__ import annotations

from harness.model import Axis

__all__ = ["AXES"]

AXES: dict[str, tuple[Axis, ...]] = {
    "tcpreplay": ("pps", "flows", "bps", "concurrent"),
    # One multiplier scales the rate of new flows, and with it everything else.
    "trex-stf": ("pps", "flows", "bps", "concurrent"),
    # Streams of packets: no flow begins or ends.
    "trex-stl": ("pps", "bps"),
    # How long a flow lasts is up to TRex's own TCP stack, so concurrency cannot be set.
    "trex-astf": ("pps", "flows", "bps"),
}
"""By driver name. With one corpus the axes cannot be set apart: each is translated."""
