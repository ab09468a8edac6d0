"""What the flow tracker keeps about a flow, and the codes it uses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = [
    "CLOSED",
    "ESTABLISHED",
    "FLOW",
    "GROUP",
    "HOLE",
    "INACTIVE",
    "MALFORMED_PACKET",
    "NON_IP",
    "PARTIAL",
    "PENDING",
    "RESET",
    "SYN_ACK_SENT",
    "SYN_SENT",
    "UNREADABLE",
    "FlowRows",
]

# TCP endpoint states: Zeek's TCP_INACTIVE … TCP_RESET (scripts/base/init-bare.zeek).
INACTIVE = 0
SYN_SENT = 1
SYN_ACK_SENT = 2
PARTIAL = 3
ESTABLISHED = 4
CLOSED = 5
RESET = 6

# Owners of packets that belong to no flow. PENDING − g is fragment group g, until it is resolved.
NON_IP = -1
MALFORMED_PACKET = -2
UNREADABLE = -3
PENDING = -16

FLOW = np.dtype(
    [
        # End 0 is the client (originator), end 1 the server.
        ("hi", np.uint64, (2,)),
        ("lo", np.uint64, (2,)),
        ("port", np.uint16, (2,)),
        ("vlan", np.uint32),
        ("proto", np.uint8),
        ("version", np.uint8),
        ("state", np.uint8, (2,)),
        ("previous", np.uint8, (2,)),
        ("known", np.uint8, (2,)),  # the end's sequence numbers are initialised
        ("sized", np.uint8, (2,)),  # the end sent data (Zeek's TCP_Endpoint::Size() > 0)
        ("fin", np.uint8, (2,)),
        ("rst", np.uint8, (2,)),
        ("syn", np.uint8),  # the client's SYN was captured
        ("synack", np.uint8),
        ("first_letter", np.uint8),  # 1: Zeek's history begins with "S"; 2: with another letter
        ("spoiled", np.uint8),  # the client did one of H A F I Q, so a later RST is no RSTOS0
        ("rstos0", np.uint8),
        ("start", np.uint32, (2,)),  # initial sequence number
        ("next", np.uint32, (2,)),  # one past the highest sequence number seen or acknowledged
        ("first_ns", np.int64),
        ("last_ns", np.int64),
        ("packets", np.int64, (2,)),
        ("bytes", np.int64, (2,)),
        # Above: what every packet touches, two cache lines. Below: what only some do.
        ("hole", np.int32, (2,)),  # first node of the end's list of holes; -1: none
        ("holes", np.int32, (2,)),  # nodes in the list
        ("missing", np.int64),  # bytes of holes that left a list that grew too long
        ("truncated", np.int64),
        ("unused", np.uint8, (32,)),  # so that rows begin with a cache line
    ],
    align=True,
)

HOLE = np.dtype([("begin", np.uint32), ("end", np.uint32), ("next", np.int32)], align=True)

GROUP = np.dtype(
    [
        # A fragmented datagram: its key, its flow when known, and what waits for the flow.
        ("src_hi", np.uint64),
        ("src_lo", np.uint64),
        ("dst_hi", np.uint64),
        ("dst_lo", np.uint64),
        ("ip_id", np.uint32),
        ("vlan", np.uint32),
        ("proto", np.uint8),
        ("direction", np.uint8),
        ("flow", np.int32),  # -1: the first fragment was not captured yet
        ("truncated", np.int64),
        ("packets", np.int64),
        ("bytes", np.int64),
        ("first_ns", np.int64),
        ("last_ns", np.int64),
    ],
    align=True,
)

FlowRows = npt.NDArray[np.void]
