"""Which load axes each generator can set: known before one is connected to, so that a profile that
asks for another is refused when it is read."""

from __future__ import annotations

from harness.model import Axis

__all__ = ["AXES"]

AXES: dict[str, tuple[Axis, ...]] = {
    "tcpreplay": ("pps", "flows", "bps", "concurrent"),
    # One multiplier scales the rate of new flows, and with it everything else.
    "trex-stf": ("pps", "flows", "bps", "concurrent"),
    "trex-astf": ("flows",),  # how many packets a connection takes is its TCP stack's business
    "trex-stl": ("pps", "bps"),  # packets without flows
}
"""By driver name. With one corpus the axes cannot be set apart: each is translated."""
