"""What an impairment did to the flows: their states before and after, and the gaps they have now.

Before and after are two flow tables, the second read from the impaired capture. A flow of the
output belongs to the input's flow that its first packet came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pcap_tools.connstate import STATES
from pcap_tools.damage import KINDS
from pcap_tools.flows import FlowTable
from pcap_tools.kernels import I32, I64
from pcap_tools.policy import DEFAULT_DROP, Policy, judge
from pcap_tools.table import flow_columns

__all__ = ["Suffering", "suffering"]

# Which end of the capture a flow is close to is nothing that it suffered.
_POLICY = Policy(drop=DEFAULT_DROP - {"edge"})
_IDENTITY = ("flow", "proto", "client", "client_port", "server", "server_port")


@dataclass(frozen=True, eq=False)
class Suffering:
    """Flows that suffered: `flows` (numbers in the input's flow table, ascending), and for each how
    many of its packets each kind touched (`counts`, flows × KINDS), how many flows it is in the
    output (`pieces`; 0: gone), the piece with most packets (`largest`, a number in the output's
    flow table, -1: gone), and the bytes of TCP data missing now that were not before
    (`gap_bytes`)."""

    before: FlowTable
    after: FlowTable
    flows: I64
    counts: I64
    pieces: I64
    largest: I64
    gap_bytes: I64

    @property
    def totals(self) -> dict[str, int]:
        """Flows touched, gone, with a new gap, split, and in another state than before."""
        here = self.largest >= 0
        changed = self.after.state[self.largest[here]] != self.before.state[self.flows[here]]
        return {
            "touched": len(self.flows),
            "gone": int((self.pieces == 0).sum()),
            "with_gap": int((self.gap_bytes > 0).sum()),
            "split": int((self.pieces > 1).sum()),
            "state_changed": int(changed.sum()),
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row a flow, for JSON; `reason` is why `corpus clean` would drop it ("": kept)."""
        columns = flow_columns(self.before, _POLICY, self.flows)
        identity = zip(*(columns[name] for name in _IDENTITY), strict=True)
        names, reasons = judge(self.after, _POLICY)
        counts, pieces, gaps = self.counts.tolist(), self.pieces.tolist(), self.gap_bytes.tolist()
        for n, (flow, piece) in enumerate(zip(identity, self.largest.tolist(), strict=True)):
            yield {
                **dict(zip(_IDENTITY, flow, strict=True)),
                "packets": {k: c for k, c in zip(KINDS, counts[n], strict=True) if c},
                "gap_bytes": gaps[n],
                "flows_after": pieces[n],
                "state": columns["state"][n],
                "state_after": STATES[self.after.state[piece]] if piece >= 0 else "",
                "reason": columns["reason"][n],
                "reason_after": names[reasons[piece]] if piece >= 0 else "",
            }


def suffering(before: FlowTable, after: FlowTable, sources: I32, counts: I64) -> Suffering:
    """Compare two flow tables; `sources` is the input's owner of each packet of the output.

    `counts` (flows of the input × KINDS) are packets touched. A flow has suffered when a packet of
    it was touched, or when it came out as more or less than one flow.
    """
    origin = np.full(len(after), -1, np.int64)
    inside = np.flatnonzero(after.owner >= 0)[::-1]
    origin[after.owner[inside]] = sources[inside]  # backwards: a flow's first packet is set last
    known = origin >= 0
    pieces = np.bincount(origin[known], minlength=len(before))
    missing = np.zeros(len(before), np.int64)
    np.add.at(missing, origin[known], after.missing[known])
    gap = np.maximum(missing - before.missing, 0)
    largest = np.full(len(before), -1, np.int64)
    order = np.argsort(after.rows["packets"].sum(axis=1), kind="stable")
    order = order[known[order]]
    largest[origin[order]] = order  # the largest piece is set last
    flows = np.flatnonzero(counts.any(axis=1) | (pieces != 1) | (gap > 0))
    return Suffering(before, after, flows, counts[flows], pieces[flows], largest[flows], gap[flows])
