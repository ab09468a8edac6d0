"""What a policy makes of a capture: the flow table, and what would be kept and dropped of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Capture
from pcap_tools.flows import ORPHAN_FRAGMENT, FlowTable, FlowTracker, decoded
from pcap_tools.policy import NEEDS_CHECKSUMS, RULES, Policy, judge, packet_rules

if TYPE_CHECKING:
    from pcap_tools.readdress import Readdress

__all__ = ["Forecast", "Progress", "Tally", "forecast", "kept_owners", "read_table", "tally_json"]

Progress = Callable[[str, int, int], None]
"""Called with the step's name, and bytes done of bytes in all."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Flows, packets, and bytes of frames on the wire."""

    flows: int
    packets: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.packets:,} packets, {self.bytes:,} bytes, {self.flows:,} flows"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a policy makes of a capture: all = kept + the sum of `dropped` (by reason)."""

    all: Tally
    kept: Tally
    dropped: dict[str, Tally]


def read_table(
    capture: Capture,
    idle_s: float,
    progress: Progress | None = None,
    readdress: Readdress | None = None,
    policy: Policy | None = None,
) -> FlowTable:
    """The flow table of an open capture, telling `progress` how far it is.

    Without a policy, flows are taken by outer headers and no checksum is verified.
    """
    tracker = FlowTracker(idle_s)
    policy = policy or Policy()
    wrong = None
    if NEEDS_CHECKSUMS in policy.drop:
        from pcap_tools.verify import BadChecksums  # kernels that only who asks must load

        wrong = BadChecksums()
    for batch, rows in decoded(capture, policy.inner, marked=readdress is not None):
        owner = tracker.update(batch, rows)
        if wrong is not None:
            wrong.update(batch, rows)
        if readdress is not None:
            readdress.collect(batch, rows, owner)
        if progress is not None:
            progress("reading flows", capture.bytes + 16 * capture.packets, capture.size)
    table = tracker.finish()
    if wrong is None:
        return table
    return replace(table, bad_checksums=wrong.flows(table.owner, len(table)))


def forecast(table: FlowTable, policy: Policy) -> Forecast:
    """What `policy` keeps and drops of the capture behind `table`."""
    names, reason = judge(table, policy)
    packets = table.rows["packets"].sum(axis=1)
    octets = table.rows["bytes"].sum(axis=1)
    found: dict[str, list[int]] = {}
    for code in np.flatnonzero(np.bincount(reason)).tolist():  # np.unique imports numpy.ma
        picked = reason == code
        found[names[code]] = [
            int(picked.sum()),
            int(packets[picked].sum()),
            int(octets[picked].sum()),
        ]
    for owner, name in packet_rules(policy).items():
        outside = table.frames[owner - ORPHAN_FRAGMENT]
        if outside[0]:
            total = found.setdefault(name, [0, 0, 0])
            total[1] += int(outside[0])
            total[2] += int(outside[1])
    kept = Tally(*found.pop("", [0, 0, 0]))
    dropped = {name: Tally(*found[name]) for name in RULES if name in found}
    return Forecast(Tally(len(table), table.packets, table.bytes), kept, dropped)


def kept_owners(table: FlowTable, policy: Policy) -> npt.NDArray[np.bool_]:
    """Whether packets of an owner are kept, at index owner − ORPHAN_FRAGMENT."""
    outside = packet_rules(policy)
    special = [not outside[owner] for owner in range(ORPHAN_FRAGMENT, 0)]
    return np.concatenate([np.array(special), judge(table, policy)[1] == 0])


def tally_json(tally: Tally) -> dict[str, int]:
    """A tally's JSON form."""
    return {"flows": tally.flows, "packets": tally.packets, "bytes": tally.bytes}
