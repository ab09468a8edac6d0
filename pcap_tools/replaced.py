"""Addresses of plain packets, replaced packet by packet: tables of what each becomes."""

from __future__ import annotations

import numpy as np

from pcap_tools.edits import Book, seek
from pcap_tools.kernels import (
    I64,
    U8,
    U64,
    kernel,
    load32,
    load64,
    load_u8,
    swap32,
    swap64,
)
from pcap_tools.known import BLOCK, THERE, find_block, home, look
from pcap_tools.plain import FIXED_IP, FIXED_L4, PLAIN, give4, give6
from pcap_tools.walk import U32

__all__ = ["fill_known", "swap_known"]


@kernel
def fill_known(book: Book, v4: U64, known: U64, bits: int) -> None:
    """What each IPv4 address of the book becomes, into an empty table.

    `v4[n]` is the stand-in of the book's number n (see `give4`); rows of `known` are the address
    as loaded (with a mark) and its stand-in.
    """
    mask = len(known) - 1
    for number in range(book.size[0]):
        if book.entries[number, 0] == 4:
            address = swap32(book.entries[number, 2])
            place = home(address, bits)
            while known[place, 0]:
                place = (place + 1) & mask
            known[place, 0] = address | THERE
            known[place, 1] = v4[number]


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
        find_block(base, offset, caplen, link, first, last, table, 16, bits, at)
        for i in range(first, last):
            if at[i - first] < 0:
                others[count] = i
                count += 1
                continue
            header = base + offset[i] + at[i - first]
            if load_u8(header) >> np.uint64(4) == 4:
                source = look(load32(header + 12), table, 16, bits)
                target = look(load32(header + 16), table, 16, bits)
                wrong = give4(header, load64(source + 8), load64(target + 8))
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
