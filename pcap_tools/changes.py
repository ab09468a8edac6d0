"""How a cleaned capture differs from the packets kept: closing packets, repaired checksums."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Batch
from pcap_tools.flows import FlowTable
from pcap_tools.policy import Policy
from pcap_tools.table import COLUMNS, flow_columns

if TYPE_CHECKING:
    from pcap_tools.closing import Closing

__all__ = ["Changes", "change_lines"]

Kept = tuple[Batch, npt.NDArray[np.bool_]]
"""A batch, and which of its packets are written."""


class Changes:
    """Applies what a policy asks for on the way to the output, and counts it."""

    def __init__(self, closing: Closing | None = None, fix: bool = False) -> None:
        self._closing = closing
        self._fix = fix
        self._fixed = 0

    def __bool__(self) -> bool:
        return self._fix or (self._closing is not None and len(self._closing.packets) > 0)

    def repaired(self, batches: Iterator[Kept]) -> Iterator[Kept]:
        """The batches with right checksums, when that was asked for."""
        return self._repaired(batches) if self._fix else batches

    def closed(self, batches: Iterator[Kept]) -> Iterator[Kept]:
        """The batches with the closing packets between them, in order of time."""
        if self._closing is None or not len(self._closing.packets):
            return batches
        from pcap_tools.closing import merged

        return merged(batches, self._closing)

    def report(self, table: FlowTable, policy: Policy) -> dict[str, Any]:
        """What was changed, for the report: `closed` and `fixed_checksums` when asked for.

        `closed` holds how many flows were ended, with how many packets and bytes of frames, and
        `flows`: a row (COLUMNS) each, with `closed` (fin or rst). `tunnels`, when there are any,
        counts the flows that were judged as tunnels, whatever is inside.
        """
        found: dict[str, Any] = {}
        if self._closing is not None:
            numbers, packets = self._closing.flows, self._closing.packets
            columns = flow_columns(table, policy, numbers)
            rows = [
                {**dict(zip(COLUMNS, row, strict=True)), "closed": self._closing.how}
                for row in zip(*columns.values(), strict=True)
            ]
            found["closed"] = {
                "how": self._closing.how,
                "count": len(numbers),
                "packets": len(packets),
                "bytes": int(packets.caplen.sum()),
                "flows": rows,
            }
        if self._fix:
            found["fixed_checksums"] = self._fixed
        if not policy.inner:
            from pcap_tools.tunnels import tunnel_flows

            outer = table.rows[tunnel_flows(table.rows)]
            if len(outer):
                sums = {name: int(outer[name].sum()) for name in ("packets", "bytes")}
                found["tunnels"] = {"flows": len(outer), **sums}
        return found

    def _repaired(self, batches: Iterable[Kept]) -> Iterator[Kept]:
        from pcap_tools.decode import Decoder
        from pcap_tools.verify import repair

        decode = Decoder()
        for batch, keep in batches:
            changed, bad = repair(batch, decode)
            self._fixed += int(np.count_nonzero(bad & keep))
            yield changed, keep


def change_lines(changes: dict[str, Any]) -> list[str]:
    """The changes of a report, for people."""
    lines = []
    if "closed" in changes:
        closed = changes["closed"]
        lines.append(
            f"closed {closed['count']:,} flows by {closed['how']}: appended "
            f"{closed['packets']:,} packets, {closed['bytes']:,} bytes"
        )
    if "fixed_checksums" in changes:
        lines.append(f"put right the checksums of {changes['fixed_checksums']:,} packets")
    if "tunnels" in changes:
        tunnels = changes["tunnels"]
        lines.append(
            f"{tunnels['flows']:,} flows are tunnels ({tunnels['packets']:,} packets): "
            "--flows-by inner judges what they carry"
        )
    return lines
