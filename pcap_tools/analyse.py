"""Find every address in a frame, and every checksum that depends on one: a row and edits a frame.

Each frame is read once. Wrong checksums of the outer packet are repaired where the whole packet is
there to compute them; the sums without addresses are left in the row, so that `patch` needs not
look at the payload. See `layers` for what is read, `edits` for what is left.

Addresses are found in IPv4 and IPv6 headers; in ARP and RARP (RFC 826, RFC 903); in what ICMP and
ICMPv6 errors quote; in the gateway of an ICMP redirect (RFC 792); in the targets and destinations
of neighbour discovery (RFC 4861); and in the packets inside tunnels, each with its own checksums.
With `macs`, MAC addresses too: of Ethernet frames, also tunnelled ones, Linux cooked headers, ARP
and neighbour discovery's options. First fragments carry their checksum along; later ones have none.
"""

from __future__ import annotations

import numpy as np

from pcap_tools.analyse_plain import note_broadcast
from pcap_tools.checksum import sum_words, without
from pcap_tools.edits import (
    ADDRESS,
    APART,
    ARPS,
    FLAGS,
    INNER,
    IP_BASE,
    IP_SUM,
    KIND,
    L4_BASE,
    L4_SUM,
    MAC,
    MALFORMED,
    MAPPED,
    MAX_EDITS,
    NEIGHBOURS,
    NOT_IP,
    PACKETS,
    QUOTE,
    QUOTES,
    REDIRECTS,
    SOURCE,
    TARGET,
    UNCOVERED,
    Book,
    intern,
)
from pcap_tools.headers import mac_number, number4, number6, read_packet
from pcap_tools.kernels import I32, I64, as_int, inner, kernel, load16, load_u8
from pcap_tools.layers import (
    ARP,
    BRIDGED,
    COOKED,
    COOKED2,
    ETHERNET,
    IP4,
    IP6,
    RARP,
    big16,
    inside,
    link_layer,
    past_tags,
)

__all__ = ["analyse", "analyse_frame"]

_ONES = np.uint64(0xFFFF)
_ICMP, _ICMP6 = 1, 58
_DEPTH = 6  # packets inside packets


@inner
def _cover(rows: I32, index: int, quotes: I32, part: np.uint64) -> None:
    """Free every checksum around a new edit of the words that the edit will write."""
    edit = as_int(rows[index, QUOTE])
    while edit:
        if quotes[edit - 1, L4_SUM]:
            quotes[edit - 1, L4_BASE] = as_int(without(np.uint64(quotes[edit - 1, L4_BASE]), part))
        edit = as_int(quotes[edit - 1, QUOTE])
    if rows[index, L4_SUM]:
        rows[index, L4_BASE] = as_int(without(np.uint64(rows[index, L4_BASE]), part))


@inner
def _apart(
    frame: int,
    places: tuple[int, int],
    kind: int,
    book: Book,
    rows: I32,
    index: int,
    quotes: I32,
    used: int,
    flags: int,
) -> int:
    """An edit for one address or two (second place above 0) outside an IP header."""
    edit = quotes[used]
    first, second = places
    width = 6 if kind == MAC else (4 if kind == APART + 4 else 16)
    part = np.uint64(0)
    for turn in range(2):
        place = second if turn else first
        if turn and not place:
            edit[TARGET] = edit[SOURCE]
            break
        part += sum_words(frame + place, width)
        if kind == MAC:
            number = intern(book, np.uint64(MAC), np.uint64(0), mac_number(frame + place))
        elif kind == APART + 4:
            number = number4(book, frame + place)
        else:
            number = number6(book, frame + place)
        edit[TARGET if turn else SOURCE] = number
    edit[KIND] = kind
    edit[ADDRESS] = first
    edit[IP_BASE] = second
    edit[FLAGS] = flags
    if not flags & UNCOVERED:
        _cover(rows, index, quotes, part)
    edit[QUOTE] = rows[index, QUOTE]
    rows[index, QUOTE] = used + 1
    return used + 1


@inner
def _arp(
    frame: int,
    place: int,
    end: int,
    book: Book,
    rows: I32,
    index: int,
    quotes: I32,
    used: int,
    flags: int,
    macs: int,
    counts: I64,
) -> int:
    """Edits for an ARP or RARP message for IPv4 over 48-bit addresses; others stay."""
    if place + 28 > end:
        return used
    if big16(frame + place + 2) != IP4 or big16(frame + place + 4) != 0x0604:
        return used
    if macs:
        both = (place + 8, place + 18)
        used = _apart(frame, both, as_int(MAC), book, rows, index, quotes, used, flags)
    both = (place + 14, place + 24)
    counts[ARPS] += 1
    return _apart(frame, both, as_int(APART + 4), book, rows, index, quotes, used, flags)


@inner
def _frame_macs(
    frame: int, size: int, link: int, book: Book, rows: I32, index: int, quotes: I32, used: int
) -> int:
    """An edit for the link layer's own MAC addresses; the row is the frame's."""
    places = (as_int(-1), as_int(0))
    if link == ETHERNET and size >= 14:
        places = (as_int(0), as_int(6))
    elif link == COOKED and size >= 16 and big16(frame + 4) == 6:
        places = (as_int(6), as_int(0))
    elif link == COOKED2 and size >= 20 and load_u8(frame + 11) == 6:
        places = (as_int(12), as_int(0))
    if places[0] < 0:
        return used
    outside = as_int(UNCOVERED)
    return _apart(frame, places, as_int(MAC), book, rows, index, quotes, used, outside)


@inner
def _plausible(frame: int, kind: int, offset: int, end: int) -> bool:
    """True when an IP header really seems to follow where a tunnel would have one."""
    if offset + 20 > end:
        return False
    version = as_int(load_u8(frame + offset)) >> 4
    if kind == IP4:
        header = (as_int(load_u8(frame + offset)) & 15) * 4
        if version != 4 or header < 20 or offset + header > end:
            return False
        right = sum_words(frame + offset, header) == _ONES
        return bool(right or load16(frame + offset + 10) == 0)
    return kind == IP6 and version == 6 and offset + 40 <= end


@inner
def _discovery(
    frame: int,
    place: int,
    end: int,
    book: Book,
    rows: I32,
    index: int,
    quotes: I32,
    used: int,
    macs: int,
    counts: I64,
) -> tuple[int, int, int]:
    """Edits for a neighbour discovery message (RFC 4861).

    Returns (edits used, offset of the packet that a redirect quotes or 0, where its bytes end).
    """
    none = as_int(0)
    kind = as_int(load_u8(frame + place))
    options = place + 8
    if kind == 134:
        options = place + 16
    elif kind >= 135:
        options = place + (24 if kind < 137 else 40)
        if options > end:
            return used, none, none
        both = (place + 8, place + 24 if kind == 137 else none)
        used = _apart(frame, both, as_int(APART + 6), book, rows, index, quotes, used, none)
        counts[NEIGHBOURS if kind < 137 else REDIRECTS] += 1
    quoted, last = none, none
    for _ in range(8):
        if options + 8 > end:
            break
        option = as_int(load_u8(frame + options))
        length = as_int(load_u8(frame + options + 1)) * 8
        if length == 0 or options + length > end:
            break
        if macs and length == 8 and (option == 1 or option == 2):
            one = (options + 2, none)
            used = _apart(frame, one, as_int(MAC), book, rows, index, quotes, used, none)
        elif option == 4 and kind == 137:
            quoted, last = options + 8, options + length
        options += length
    return used, quoted, last


@inner
def _quotes(protocol: int, kind: int) -> bool:
    """True for the ICMP (RFC 792) and ICMPv6 (RFC 4443) messages that quote a packet at once."""
    if protocol == _ICMP:
        return kind == 3 or kind == 4 or kind == 5 or kind == 11 or kind == 12
    return protocol == _ICMP6 and kind < 128


@inner
def _words(frame: int, edit: I32) -> np.uint64:
    """The sum of every word of a packet that its edit will rewrite."""
    part = sum_words(frame + edit[ADDRESS], 8 if edit[KIND] == 4 else 32)
    if edit[IP_SUM]:
        part += load16(frame + edit[IP_SUM])
    if edit[L4_SUM]:
        part += load16(frame + edit[L4_SUM])
    return np.uint64(part)


@inner
def _depends(frame: int, place: int, level: I32, rows: I32, index: int, quotes: I32) -> None:
    """Make a checksum without a pseudo-header one that follows the addresses behind it."""
    _cover(rows, index, quotes, load16(frame + place))
    level[L4_SUM] = place
    level[L4_BASE] = as_int(_ONES ^ load16(frame + place))


@inner
def _deeper(
    frame: int,
    protocol: int,
    place: int,
    end: int,
    book: Book,
    rows: I32,
    index: int,
    quotes: I32,
    used: int,
    macs: int,
    counts: I64,
) -> int:
    """Edits for what is inside the packet whose transport header is at `place`."""
    none = as_int(0)
    level = rows[index]
    for _ in range(_DEPTH):
        if protocol < 0 or place + 8 > end:
            return used
        tunnel = 0
        if protocol in (_ICMP, _ICMP6):
            kind = as_int(load_u8(frame + place))
            offset = 0
            if _quotes(protocol, kind):
                offset = place + 8
                if protocol == _ICMP:
                    _depends(frame, place + 2, level, rows, index, quotes)
                if protocol == _ICMP and kind == 5:
                    gateway = (place + 4, none)
                    apart = as_int(APART + 4)
                    used = _apart(frame, gateway, apart, book, rows, index, quotes, used, none)
                    counts[REDIRECTS] += 1
            elif protocol == _ICMP6 and kind >= 133 and kind <= 137 and level[KIND] == 6:
                used, offset, end = _discovery(
                    frame, place, end, book, rows, index, quotes, used, macs, counts
                )
            if not offset:
                return used
        else:
            tunnel, offset, checksum = inside(frame, protocol, place, end)
            if tunnel == 0:
                return used
            outer = offset
            if tunnel == BRIDGED:
                if offset + 14 > end:
                    return used
                tunnel, offset = past_tags(frame, end, big16(frame + offset + 12), offset + 14)
            arp = tunnel in (ARP, RARP)
            if not arp and not _plausible(frame, tunnel, offset, end):
                return used
            if checksum:
                _depends(frame, checksum, level, rows, index, quotes)
            if macs and offset != outer:
                ends = (outer, outer + 6)
                used = _apart(frame, ends, as_int(MAC), book, rows, index, quotes, used, none)
            if arp:
                return _arp(frame, offset, end, book, rows, index, quotes, used, none, macs, counts)
        edit = quotes[used]
        protocol, place, end = read_packet(frame, offset, end, as_int(0), book, edit, counts)
        if protocol == -2:
            edit[:] = 0
            return used
        _cover(rows, index, quotes, _words(frame, edit))
        edit[QUOTE] = rows[index, QUOTE]
        used += 1
        rows[index, QUOTE] = used
        counts[INNER if tunnel else QUOTES] += 1
        level = edit
    return used


@inner
def analyse_frame(
    frame: int,
    size: int,
    link: int,
    book: Book,
    rows: I32,
    index: int,
    quotes: I32,
    used: int,
    macs: int,
    counts: I64,
) -> int:
    """Fill row `index` for one frame, and its edits from `used` on; returns how many are used then.

    The row is zeroed, as are MAX_EDITS rows of `quotes` from `used` on; the book has room for
    2 × MAX_EDITS addresses more.
    """
    row = rows[index]
    counts[PACKETS] += 1
    kind, offset = link_layer(frame, size, link)
    if macs:
        used = _frame_macs(frame, size, link, book, rows, index, quotes, used)
    if kind in (ARP, RARP):
        outside = as_int(UNCOVERED)
        used = _arp(frame, offset, size, book, rows, index, quotes, used, outside, macs, counts)
    if kind != IP4 and kind != IP6:
        counts[NOT_IP] += 1
        return used
    protocol, place, end = read_packet(frame, offset, size, as_int(1), book, row, counts)
    if protocol == -2:
        counts[MALFORMED] += 1
        chain = row[QUOTE]
        row[:] = 0
        row[QUOTE] = chain
        return used
    counts[MAPPED] += 1
    note_broadcast(frame, link, row, book)
    if protocol == 6 or protocol < 0:
        return used
    return _deeper(frame, protocol, place, end, book, rows, index, quotes, used, macs, counts)


@kernel
def analyse(
    data: int,
    offsets: I64,
    sizes: I64,
    which: I64,
    link: int,
    book: Book,
    rows: I32,
    quotes: I32,
    counts: I64,
    macs: int,
    progress: I64,
) -> None:
    """Do the frames numbered `which[progress[0] :]` anew, until `quotes` or the book is full.

    `data` is the memory address that `offsets` count from. Their rows (one a frame) are cleared
    first; `quotes` are zeroed, `progress[1]` of them are used.
    """
    used = progress[1]
    for turn in range(progress[0], which.size):
        full = book.size[0] + 2 * MAX_EDITS > book.entries.shape[0]
        if full or used + MAX_EDITS > quotes.shape[0]:
            progress[0], progress[1] = turn, used
            return
        index = which[turn]
        rows[index, :] = 0
        frame = data + offsets[index]
        used = analyse_frame(
            frame, sizes[index], link, book, rows, index, quotes, used, macs, counts
        )
    progress[0], progress[1] = which.size, used
