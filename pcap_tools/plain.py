"""Fresh addresses for plain packets: whole TCP and UDP in IPv4 or IPv6 behind Ethernet.

Nine packets of ten are such, and all that has to change in them are two addresses and two
checksums. Which stand-ins they get follows from their flow, so that nothing is looked up by
address. All other frames take the general way through pcap_tools.edits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pcap_tools.checksum import fold, less, pseudo_sum, sum_message, sum_words, sum_words_of
from pcap_tools.kernels import (
    I32,
    I64,
    U8,
    U64,
    inner,
    kernel,
    load16,
    load32,
    load64,
    load_u8,
    prefetch,
    store16,
    store32,
    store64,
    swap16,
)
from pcap_tools.packet import PacketRows
from pcap_tools.walk import U32, Word

__all__ = [
    "FIXED_IP",
    "FIXED_L4",
    "PLAIN",
    "give4",
    "give6",
    "mark_plain",
    "other_frames",
    "plain_at",
    "swap_plain",
]

# Columns of the counts (int64).
PLAIN, FIXED_IP, FIXED_L4 = range(3)

_ETHERNET = 1
_MARK = 512  # pcap_tools.packet.PLAIN; kernels freeze plain integers of their own module
_SOON = 8  # frames
_TCP, _UDP = 6, 17
_ONES = np.uint64(0xFFFF)


@inner
def _be16(address: Word) -> Word:
    return np.int64(swap16(load16(address)))


def _special_ports() -> U64:
    """A bit a port whose payload may hold addresses: DNS, FTP, SIP, and UDP tunnels."""
    bits = np.zeros(1024, np.uint64)
    for port in (21, 53, 2152, 3544, 4789, 5060, 5353, 5355, 6081, 8472):
        bits[port >> 6] |= np.uint64(1 << (port & 63))
    return bits


_SPECIAL = _special_ports()


@inner
def _special(port: Word) -> Word:
    """1 for a special port; a table is faster than ten comparisons."""
    return (_SPECIAL[port >> 6] >> np.uint64(port & 63)) & np.uint64(1)


@inner
def plain_at(frame: Word, size: Word, link: Word) -> Word:
    """Offset of the IP header of a plain packet, negative for all others."""
    if link != _ETHERNET or size < 34:
        return -1
    if load32(frame) == 0xFFFFFFFF and load16(frame + 4) == 0xFFFF:
        return -1  # to everybody: its target may be a directed broadcast
    kind = _be16(frame + 12)
    at = 14
    while kind == 0x8100 or kind == 0x88A8 or kind == 0x9100:
        if at + 24 > size:
            return -1
        kind = _be16(frame + at + 2)
        at += 4
    if kind == 0x0800:
        first = np.int64(load_u8(frame + at))
        header = (first & 15) * 4
        total = _be16(frame + at + 2)
        if first >> 4 != 4 or header < 20 or at + total > size or _be16(frame + at + 6) & 0x3FFF:
            return -1
        proto = np.int64(load_u8(frame + at + 9))
        rest = total - header
        upper = frame + at + header
    elif kind == 0x86DD:
        if at + 40 > size or load_u8(frame + at) >> np.uint64(4) != 6:
            return -1
        proto = np.int64(load_u8(frame + at + 6))
        rest = _be16(frame + at + 4)
        if at + 40 + rest > size:
            return -1
        upper = frame + at + 40
    else:
        return -1
    # TCP and UDP come in no order that a processor could guess: one way for both.
    tcp, udp = proto == _TCP, proto == _UDP
    if not (tcp | udp) or rest < (20 if tcp else 8) or udp & (_be16(upper + 4) != rest):
        return -1
    if _special(_be16(upper)) | _special(_be16(upper + 2)):
        return -1
    return at


@kernel
def mark_plain(data: U8, offset: I64, caplen: U32, link: int, rows: PacketRows) -> None:
    """Set the flag PLAIN in the decoded rows of plain frames."""
    base = np.int64(data.ctypes.data)
    for i in range(len(offset)):
        if plain_at(base + offset[i], np.int64(caplen[i]), link) >= 0:
            rows[i].flags |= np.uint16(_MARK)


@kernel
def other_frames(rows: PacketRows, owner: I32, odd: U32, found: I64) -> int:
    """Numbers of the frames that are not plain (or in no flow) into `found`; returns how many.

    `rows` are marked. Counts a flow's frames of this kind in `odd`.
    """
    count = 0
    for i in range(len(owner)):
        if owner[i] < 0 or not rows[i].flags & np.uint16(_MARK):
            found[count] = i
            count += 1
            if owner[i] >= 0:
                odd[owner[i]] += 1
    return count


@kernel
def swap_plain(
    data: U8,
    offset: I64,
    caplen: U32,
    link: int,
    owner: I32,
    direction: U8,
    keep: npt.NDArray[np.bool_],
    v4: U64,
    v6: U64,
    counts: I64,
    others: I64,
) -> int:
    """Give the plain frames of kept flows their stand-ins, with right checksums.

    `keep[owner + 4]` tells whether an owner's frames matter. Row 2f + e of `v4` (low half: address
    as loaded, high half: its sum) or of `v6` (two halves as loaded, sum) is the stand-in of end e
    of flow f. The numbers of the other kept frames go into `others`; returns how many. Checksums
    that were wrong are counted.
    """
    base = np.int64(data.ctypes.data)
    table4, table6 = np.int64(v4.ctypes.data), np.int64(v6.ctypes.data)
    count = 0
    for i in range(len(offset)):
        soon = np.int64(owner[min(i + _SOON, len(offset) - 1)])
        prefetch(table4 + 16 * soon)
        if len(v6) > 1:
            prefetch(table6 + 48 * soon)
        flow = np.int64(owner[i])
        if not keep[flow + 4]:
            continue
        frame = base + offset[i]
        at = plain_at(frame, np.int64(caplen[i]), link)
        if at < 0 or flow < 0:
            others[count] = i
            count += 1
            continue
        counts[PLAIN] += 1
        source = 2 * flow + np.int64(direction[i])
        target = source ^ 1
        place = frame + at
        if load_u8(place) >> np.uint64(4) == 4:
            one, two = v4[source], v4[target]
            wrong = give4(place, one, two, (one >> np.uint64(32)) + (two >> np.uint64(32)))
        else:
            new = v6[source, 2] + v6[target, 2]
            wrong = give6(place, v6[source, 0], v6[source, 1], v6[target, 0], v6[target, 1], new)
        counts[FIXED_IP] += wrong & 1
        counts[FIXED_L4] += wrong >> 1
    return count


@inner
def give4(place: Word, source: Word, target: Word, new: Word) -> Word:
    """Give an IPv4 packet two addresses (as loaded, in the low halves) whose sum is `new`.

    1 is added for a header checksum that was wrong, 2 for one of TCP or UDP; they are right now.
    """
    header: Word = (np.int64(load_u8(place)) & 15) * 4
    proto: Word = np.int64(load_u8(place + 9))
    old = sum_words_of(load64(place + 12))
    if header == 20:
        first, second = sum_words_of(load64(place)), sum_words_of(load64(place + 8))
        last = load32(place + 16)
        whole = first + second + (last & _ONES) + (last >> np.uint64(16))
    else:
        whole = sum_words(place, header)
    wrong = 0 if fold(whole) == _ONES else 1
    store16(place + 10, _ONES ^ fold(less(whole, load16(place + 10) + old) + new))
    store32(place + 12, source)
    store32(place + 16, target)
    return wrong + _upper(place + header, _be16(place + 2) - header, proto, old, new)


@inner
def give6(place: Word, one: Word, two: Word, three: Word, four: Word, new: Word) -> Word:
    """Give an IPv6 packet two addresses, of two loaded words each, whose sum is `new`.

    2 for a TCP or UDP checksum that was wrong, else 0.
    """
    old = sum_words(place + 8, 32)
    store64(place + 8, one)
    store64(place + 16, two)
    store64(place + 24, three)
    store64(place + 32, four)
    return _upper(place + 40, _be16(place + 4), np.int64(load_u8(place + 6)), old, new)


@inner
def _upper(upper: Word, size: Word, proto: Word, old: Word, new: Word) -> Word:
    """Write the checksum of a TCP or UDP message whose pseudo-header changes; 2 if it was wrong."""
    field = upper + (16 if proto == _TCP else 6)
    said = load16(field)
    if proto == _UDP and said == 0:
        return 0  # sent without a checksum (RFC 768)
    whole = sum_message(upper, size) + pseudo_sum(proto, size)  # behind 34 bytes at least
    right = _ONES ^ fold(less(whole, said) + new)
    if right == 0 and proto == _UDP:
        right = _ONES
    store16(field, right)
    return 0 if fold(whole + old) == _ONES else 2
