"""Rows of plain frames, those with addresses in one IP header only; others are put off."""

from __future__ import annotations

from pcap_tools.edits import (
    KIND,
    MALFORMED,
    MAPPED,
    NOT_IP,
    PACKETS,
    QUOTING,
    TARGET,
    Book,
)
from pcap_tools.headers import read_packet
from pcap_tools.kernels import I32, I64, as_int, inner, kernel, load16, load32
from pcap_tools.layers import ARP, ETHERNET, IP4, IP6, RARP, big16, link_layer, may_hold_more

__all__ = ["analyse_plain", "note_broadcast"]


@inner
def note_broadcast(frame: int, link: int, row: I32, book: Book) -> None:
    """Mark the target of an IPv4 packet that was sent to the link's broadcast address."""
    if (
        link == ETHERNET
        and row[KIND] == 4
        and load32(frame) == 0xFFFFFFFF
        and load16(frame + 4) == 0xFFFF
    ):
        book.broadcast[row[TARGET]] = 1


@inner
def _quoting(port: int) -> bool:
    return port == 53 or port == 21 or port == 5060 or port == 5353 or port == 5355


@kernel
def analyse_plain(
    data: int,
    offsets: I64,
    sizes: I64,
    link: int,
    book: Book,
    rows: I32,
    counts: I64,
    macs: int,
    later: I64,
) -> int:
    """Fill a (zeroed) row for each frame; returns how many frames' numbers `later` took.

    Those hold more than an IP header's addresses (with `macs`, all do): `analyse` begins them anew,
    and counts only what is found there. The book has room for two addresses a frame. Wrong
    checksums are repaired in place.
    """
    count = 0
    for index in range(offsets.size):
        frame = data + offsets[index]
        size = sizes[index]
        counts[PACKETS] += 1
        kind, offset = link_layer(frame, size, link)
        more = macs != 0 or kind in (ARP, RARP)
        if kind != IP4 and kind != IP6:
            counts[NOT_IP] += 1
        else:
            row = rows[index]
            protocol, place, end = read_packet(frame, offset, size, as_int(1), book, row, counts)
            if protocol == -2:
                counts[MALFORMED] += 1
                row[:] = 0
            else:
                counts[MAPPED] += 1
                note_broadcast(frame, link, row, book)
                more = more or may_hold_more(frame, protocol, place, end)
                if (protocol == 6 or protocol == 17) and place + 4 <= end:
                    ports = big16(frame + place), big16(frame + place + 2)
                    if _quoting(ports[0]) or _quoting(ports[1]):
                        counts[QUOTING] += 1
        if more:
            later[count] = index
            count += 1
    return count
