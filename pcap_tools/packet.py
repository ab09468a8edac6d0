"""What decoding tells about a packet: one row of `PACKET`, and the bits of its `flags`."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "FIRST_FRAGMENT",
    "FOLLOWER",
    "FRAGMENT",
    "IP",
    "MALFORMED",
    "MORE_FRAGMENTS",
    "PACKET",
    "PLAIN",
    "PORTS",
    "SNAPPED",
    "TUNNELLED",
    "VERIFIABLE",
    "PacketRows",
    "Row",
    "packet_rows",
]

PACKET = np.dtype(
    [
        ("src_hi", np.uint64),  # IPv6: the address's upper half; IPv4: 0
        ("src_lo", np.uint64),  # IPv6: the lower half; IPv4: the address
        ("dst_hi", np.uint64),
        ("dst_lo", np.uint64),
        ("seq", np.uint32),  # TCP; ICMP echo: the sequence number
        ("ack", np.uint32),  # TCP; ICMP echo: the identifier
        ("ip_id", np.uint32),  # IPv4 identification, or that of the IPv6 fragment header
        # The VLAN id, 0 without a tag; with more tags, the last but one × 4096 + the last. Bits 24
        # and up: how many tunnels the described packet is in (0 unless decoded by inner headers).
        ("vlan", np.uint32),
        ("l3", np.int32),  # offset of the IP header in the frame; -1 without one
        ("l4", np.int32),  # offset of the transport header (of the fragment's data); -1 without
        ("ip_len", np.int32),  # bytes of the IP packet, header included, by its own length field
        ("payload", np.int32),  # bytes of transport payload, by the IP length (without padding)
        ("sport", np.uint16),  # TCP, UDP, SCTP; ICMP: the type
        ("dport", np.uint16),  # TCP, UDP, SCTP; ICMP: the code
        ("tcp_flags", np.uint16),  # the 9 flag bits of RFC 9293 and RFC 3540 (FIN = 1 … NS = 256)
        ("flags", np.uint16),  # the bits below
        ("proto", np.uint8),  # the IP protocol after IPv6 extension headers
        ("version", np.uint8),  # 4, 6, or 0 for other than IP
        ("ethertype", np.uint16),  # after VLAN tags; the length for IEEE 802.3 frames
    ],
    align=True,
)
"""One decoded packet. Numbers are in host order, offsets and lengths in bytes."""

IP = 1  # an IP header that could be read
PORTS = 2  # sport and dport (or ICMP type and code) are valid
FRAGMENT = 4  # a fragment, first or not
FOLLOWER = 8  # a fragment without the transport header
SNAPPED = 16  # the capture holds less than the whole IP packet (or frame, without IP)
MALFORMED = 32  # lengths or versions contradict each other; what could be read is valid
VERIFIABLE = 64  # whole and unfragmented: its transport checksum can be verified
MORE_FRAGMENTS = 128  # the fragment is not the last
PLAIN = 512  # marked on request: see pcap_tools.plain
TUNNELLED = 256  # the row describes a packet inside a tunnel
FIRST_FRAGMENT = FRAGMENT | PORTS

PacketRows = npt.NDArray[np.void]
Row: TypeAlias = Any  # one record of such an array inside a kernel: its fields are attributes


def packet_rows(size: int) -> PacketRows:
    """`size` rows to decode into."""
    return np.zeros(size, PACKET)
