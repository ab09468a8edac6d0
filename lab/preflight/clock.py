"""How far a host's clock is from ours, by round trips.

When a host's clock is asked, its answer was made after we asked and before we had it. So its offset
lies in an interval as wide as the round trip, and in the intersection of several such intervals
(Marzullo 1984).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lab.errors import LabError
from lab.host import Host
from lab.preflight.facts import Offset

__all__ = ["clock_offset"]

_TRIES = 5


def clock_offset(host: Host, now: Callable[[], float] = time.time) -> Offset | None:
    """Bounds of the host's clock minus ours; None when it does not tell its time.

    None too when the intervals have nothing in common: one of the clocks was set meanwhile. Raises
    ConnectionLost, CommandTimeout.
    """
    low, high = float("-inf"), float("inf")
    for _ in range(_TRIES):
        asked = now()
        done = host.run(["date", "+%s.%N"], check=False)
        answered = now()
        try:
            theirs = float(done.stdout)
        except ValueError:
            return None
        low, high = max(low, theirs - answered), min(high, theirs - asked)
    return Offset(low, high) if low <= high else None


def offsets(hosts: dict[str, Host]) -> dict[str, Offset]:
    """Those of several hosts; one that does not tell is left out."""
    found = {}
    for name, host in hosts.items():
        try:
            offset = clock_offset(host)
        except LabError:
            continue
        if offset is not None:
            found[name] = offset
    return found
