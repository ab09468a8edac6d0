"""Addresses of plain packets, replaced packet by packet: tables of what each becomes."""

from __future__ import annotations

import numpy as np

from pcap_tools.checksum import sum_words_of
from pcap_tools.edits import Book, seek
from pcap_tools.kernels import (
    I64,
    U8,
    U16,
    U64,
    inner,
    kernel,
    load32,
    load64,
    load_u8,
    swap32,
    swap64,
)
from pcap_tools.known import BLOCK, find_block, home
from pcap_tools.parts import fetch, store
from pcap_tools.plain import FIXED_IP, FIXED_L4, PLAIN, give4, give6
from pcap_tools.walk import U32, Word

__all__ = ["carry_known", "fill_known", "swap_known"]


@kernel
def fill_known(book: Book, v4: U64, known: U64, bits: int) -> None:
    """What each IPv4 address of the book becomes, into an empty table.

    `v4[n]` is the stand-in of the book's number n (as loaded, in the low half); `known` holds the
    addresses as loaded, in the low halves, and their stand-ins. 0 is a free place, or 0.0.0.0 that
    becomes itself: both are found where 0.0.0.0 is looked for.
    """
    mask = len(known) - 1
    for number in range(book.size[0]):
        if book.entries[number, 0] == 4:
            address = swap32(book.entries[number, 2])
            place = home(address, bits)
            while known[place]:
                place = (place + 1) & mask
            known[place] = address | v4[number] << np.uint64(32)


@inner
def _stand_in(address: Word, known: Word, bits: Word) -> Word:
    """What an IPv4 address (as loaded) becomes, from the table at an address."""
    mask = (1 << bits) - 1
    place = home(address, bits)
    while True:
        there = load64(known + 8 * place)
        # What is free ends the search for an address of a file that was changed meanwhile.
        if there & np.uint64(0xFFFFFFFF) == address or there == 0:
            return there >> np.uint64(32)
        place = (place + 1) & mask


@kernel
def swap_known(
    data: U8,
    offset: I64,
    caplen: U32,
    link: int,
    known: U64,
    bits: int,
    book: Book,
    v6: U64,
    at: I64,
    counts: I64,
    others: I64,
) -> int:
    """Give plain frames, all of whose addresses are known, their stand-ins, with right checksums.

    `known` is from `fill_known`, `v6` by the book's numbers; `at` is room for BLOCK entries.
    Columns of `counts` as in pcap_tools.plain. The numbers of the other frames go into `others`;
    returns how many.
    """
    base = np.int64(data.ctypes.data)
    table = np.int64(known.ctypes.data)
    count = 0
    for first in range(0, len(offset), BLOCK):
        last = min(first + BLOCK, len(offset))
        find_block(base, offset, caplen, link, first, last, table, 8, bits, at)
        for i in range(first, last):
            if at[i - first] < 0:
                others[count] = i
                count += 1
                continue
            header = base + offset[i] + at[i - first]
            if load_u8(header) >> np.uint64(4) == 4:
                source = _stand_in(load32(header + 12), table, bits)
                target = _stand_in(load32(header + 16), table, bits)
                new = sum_words_of(target << np.uint64(32) | source)
                wrong = give4(header, source, target, new)
            else:
                one, two = swap64(load64(header + 8)), swap64(load64(header + 16))
                three, four = swap64(load64(header + 24)), swap64(load64(header + 32))
                s = seek(book, np.uint64(6), one, two)
                t = seek(book, np.uint64(6), three, four)
                new = v6[s, 2] + v6[t, 2]
                wrong = give6(header, v6[s, 0], v6[s, 1], v6[t, 0], v6[t, 1], new)
            counts[PLAIN] += 1
            counts[FIXED_IP] += wrong & 1
            counts[FIXED_L4] += wrong >> 1
    return count


@kernel
def carry_known(
    files: I64,
    parts: I64,
    sizes: U16,
    link: int,
    known: U64,
    bits: int,
    book: Book,
    v6: U64,
    data: U8,
    rows: I64,
    offset: I64,
    caplen: U32,
    at: I64,
    counts: I64,
    others: I64,
    pace: I64,
) -> tuple[int, int, int, int]:
    """Bring all packets to their places, plain ones with their stand-ins.

    See `pcap_tools.parts.carry_kept`, and `swap_known`.
    """
    base = np.int64(data.ctypes.data)
    for part in range(len(parts)):
        if not fetch(files, parts, part, base):
            return part, -1, 0, 0
        first, packets = parts[part, 0], parts[part, 1]
        octets: Word = 0
        for i in range(packets):
            rows[i] = first + i
            offset[i] = octets + 16
            caplen[i] = sizes[first + i]
            octets += 16 + np.int64(sizes[first + i])
        odd = swap_known(
            data,
            offset[:packets],
            caplen[:packets],
            link,
            known,
            bits,
            book,
            v6,
            at,
            counts,
            others,
        )
        if odd or not store(files, parts, part, base, octets, pace):
            return part, packets, octets, odd
    return len(parts), 0, 0, 0
