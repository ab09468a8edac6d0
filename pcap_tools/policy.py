"""Which flows belong in a replay corpus: named rules, each with its reason.

A probe must be able to analyse every flow it is offered, from its first packet to its last;
otherwise what it does not detect says nothing about load.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcap_tools.connstate import STATES
from pcap_tools.errors import PcapError
from pcap_tools.flows import ORPHAN_FRAGMENT, FlowTable
from pcap_tools.kernels import U8

__all__ = [
    "CHECKSUMS",
    "CLOSE",
    "DEFAULT_DROP",
    "NEEDS_CHECKSUMS",
    "RULES",
    "Policy",
    "judge",
    "packet_rules",
]

RULES = {
    "midstream": "begun before the capture (no SYN; UDP, ICMP: an answer without its request)",
    "unanswered": "TCP: the server never sent a packet",
    "one-sided": "TCP: both ends talked, but only one was captured (asymmetric routing)",
    "capture-loss": "bytes or the SYN-ACK were sent but not captured",
    "unterminated": "TCP: established, but the capture shows no end (FIN from both, or RST)",
    "truncated": "packets cut by the snapshot length",
    "edge": "one-way UDP, ICMP … so close to an end of the capture that the rest may be outside",
    "checksum": "packets with a wrong checksum, which probes ignore (kept by default)",
    "rejected": "TCP: the SYN was answered by a reset (complete, hence kept by default)",
    "one-way": "UDP, ICMP …: only one end sent (syslog, multicast …; kept by default)",
    "fragment": "fragments whose first fragment was not captured",
    "malformed": "packets whose headers contradict themselves",
    "non-ip": "ARP, LLDP, spanning tree and everything else without an IP header",
}
"""Reason code: what it drops. The first rule that applies to a flow, in this order, names it."""

DEFAULT_DROP = frozenset(RULES) - {"checksum", "rejected", "one-way"}

CLOSE = ("", "fin", "rst")
"""How unterminated flows are ended: not, by a FIN exchange, by a reset."""

CHECKSUMS = ("keep", "fix")
"""What happens to wrong checksums of packets that are kept."""

NEEDS_CHECKSUMS = "checksum"
"""The rule for which checksums must be verified while the flow table is made."""

_LONGEST_S = 2**32 - 1  # what a pcap timestamp holds

_CODES = {name: code for code, name in enumerate(RULES, start=1)}
_TCP = 6
_ROWS_AT_ONCE = 1 << 13  # rows that stay in the cache while all their fields are looked at


@dataclass(frozen=True, slots=True)
class Policy:
    """What is dropped.

    `drop` are names out of RULES. `edge_s` is how close to the capture's begin or end a one-way
    flow without TCP is suspect, in seconds (at most 5 % of the capture's span, so that short
    captures are not all edge). `idle_s` ends a flow without TCP. `inner` takes flows by the headers
    inside tunnels. `close` (out of CLOSE) ends unterminated flows instead of dropping them, where
    that can be done correctly. `checksums` (out of CHECKSUMS) tells what to do with wrong ones.
    """

    drop: frozenset[str] = DEFAULT_DROP
    edge_s: float = 1.0
    idle_s: float = 60.0
    inner: bool = False
    close: str = ""
    checksums: str = "keep"

    def __post_init__(self) -> None:
        unknown = sorted(self.drop - set(RULES))
        if unknown:
            raise PcapError(f"unknown rule {unknown[0]!r}; the rules are {', '.join(RULES)}")
        if self.close not in CLOSE:
            raise PcapError(f"--close {self.close}: connections are closed by fin or by rst")
        if self.checksums not in CHECKSUMS:
            raise PcapError(f"--checksums {self.checksums}: give keep, fix or drop")
        if not (0 <= self.edge_s <= _LONGEST_S and 0 < self.idle_s <= _LONGEST_S):
            raise PcapError(
                f"--edge {self.edge_s:g} --idle {self.idle_s:g}: the edge must be 0 s or more, the "
                f"idle time above 0 s, and both at most {_LONGEST_S} s"
            )


def judge(table: FlowTable, policy: Policy) -> tuple[list[str], U8]:
    """The reason of every flow: names, and one index into them a flow; index 0, "", is kept.

    A flow that is closed (`table.closed`) is not unterminated. Without `table.bad_checksums`, no
    checksum is wrong.
    """
    if policy not in table.memo:
        table.memo[policy] = _judged(table, policy)
    found: tuple[list[str], U8] = table.memo[policy]
    return found


def _judged(table: FlowTable, policy: Policy) -> tuple[list[str], U8]:
    reason = np.zeros(len(table), np.uint8)
    for start in range(0, len(table), _ROWS_AT_ONCE):
        _judge_part(table, policy, slice(start, start + _ROWS_AT_ONCE), reason)
    return ["", *RULES], reason


def _judge_part(table: FlowTable, policy: Policy, part: slice, reasons: U8) -> None:
    """Fill `reasons[part]`, which is all zero."""
    rows, state, reason = table.rows[part], table.state[part], reasons[part]
    tcp = rows["proto"] == _TCP
    sent = rows["packets"]
    one_way = (sent[:, 0] == 0) | (sent[:, 1] == 0)
    rejected = tcp & _in(state, "REJ")
    # An end is known by what it sent, or by what the other acknowledged.
    answered = rows["known"].all(axis=1)
    server_only = (sent[:, 0] == 0) & (rows["synack"] == 1)
    guard = int(min(policy.edge_s * 1e9, 0.05 * (table.last_ns - table.first_ns)))
    at_edge = (rows["first_ns"] < table.first_ns + guard) | (
        rows["last_ns"] > table.last_ns - guard
    )
    wrong = table.bad_checksums
    none = np.zeros(len(rows), np.bool_)
    closed = none if table.closed is None else table.closed[part] > 0
    # The rules do not overlap more than they must, so that keeping one reason keeps its flows.
    established = tcp & ~rejected & ~one_way
    no_synack = (rows["syn"] == 1) & (rows["synack"] == 0)
    applies: dict[str, npt.NDArray[np.bool_]] = {
        "midstream": np.where(tcp, (rows["syn"] == 0) & ~server_only, sent[:, 0] == 0),
        "unanswered": tcp & one_way & ~answered & ~server_only,
        "one-sided": tcp & one_way & (answered | server_only),
        "unterminated": established & ~_in(state, "SF", "RSTO", "RSTR") & ~closed,
        "capture-loss": established & (no_synack | (table.missing[part] > 0)),
        "truncated": rows["truncated"] > 0,
        "edge": ~tcp & one_way & at_edge,
        "checksum": none if wrong is None else wrong[part] > 0,
        "rejected": rejected,
        "one-way": ~tcp & one_way,
    }
    for name in RULES:
        if name in applies and name in policy.drop:
            reason[(reason == 0) & applies[name]] = _CODES[name]


def packet_rules(policy: Policy) -> dict[int, str]:
    """Reason ("" = kept) of packets outside flows, by their owner code."""
    codes = {-1: "non-ip", -2: "malformed", -3: "truncated", ORPHAN_FRAGMENT: "fragment"}
    return {code: name if name in policy.drop else "" for code, name in codes.items()}


def _in(state: U8, *names: str) -> npt.NDArray[np.bool_]:
    wanted = np.zeros(256, np.bool_)
    wanted[[STATES.index(name) for name in names]] = True
    return wanted[state]
