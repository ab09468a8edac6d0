"""Which load axes each generator can set: known before one is connected to, so that a profile that
asks for another is refused when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.model import Axis

__all__ = ["AXES", "axes_of"]

AXES: dict[str, tuple[Axis, ...]] = {
    "tcpreplay": ("pps", "flows", "bps", "concurrent"),
    # One multiplier scales the rate of new flows, and with it everything else.
    "trex-stf": ("pps", "flows", "bps", "concurrent"),
    # A connection lives as long as its TCP stack needs, not as in the corpus: not "concurrent".
    "trex-astf": ("flows", "pps", "bps"),
    "trex-stl": ("pps", "bps"),  # packets without flows, or the same flows over and over
}
"""By driver name. With one corpus the axes cannot be set apart: each is translated."""


def axes_of(driver: str, options: Mapping[str, Any]) -> tuple[Axis, ...]:
    """The axes of a driver with these options; AXES[driver] unless they change what is sent."""
    if driver == "trex-stl" and options.get("push") == "fresh":
        return AXES["tcpreplay"]  # the very same expansion of the corpus
    return AXES[driver]
