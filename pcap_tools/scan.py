"""Rows and edits of a batch: plain frames by one kernel, the others by a second one.

A plain frame has addresses in its IP header only. What else there is (ICMP, tunnels, ARP, or MAC
addresses when they are wanted) takes a kernel that is many times larger: it is compiled when a
capture first needs it.
"""

from __future__ import annotations

import numpy as np

from pcap_tools.analyse_plain import analyse_plain
from pcap_tools.capture import Batch
from pcap_tools.edits import ARPS, COLUMNS, COUNTS, MAX_EDITS, QUOTES, QUOTING
from pcap_tools.kernels import I32, I64
from pcap_tools.stand_ins import AddressBook

__all__ = ["analyse_batch"]


def analyse_batch(
    batch: Batch, book: AddressBook, counts: I64, macs: bool = False
) -> tuple[I32, I32]:
    """Rows and edits of a batch, with address numbers of the book; repairs checksums.

    With `macs`, MAC addresses are numbered too. The rows' edits count from this batch; there are
    none when no frame has any.
    """
    rows = np.zeros((len(batch), COLUMNS), np.int32)
    sizes = batch.caplen.astype(np.int64)
    later = np.empty(len(batch), np.int64)
    book.reserve(2 * len(batch))
    data = batch.data.ctypes.data
    count = analyse_plain(
        data, batch.offset, sizes, batch.link, book.book, rows, counts, int(macs), later
    )
    if not count:
        return rows, np.zeros((0, COLUMNS), np.int32)
    return rows, _edits(batch, sizes, later[:count], book, rows, counts, macs)


def _edits(
    batch: Batch,
    sizes: I64,
    later: I64,
    book: AddressBook,
    rows: I32,
    counts: I64,
    macs: bool,
) -> I32:
    from pcap_tools.analyse import analyse  # only here: see above

    quotes = np.zeros((2 * MAX_EDITS + 3 * len(later), COLUMNS), np.int32)
    progress = np.zeros(2, np.int64)
    found = np.zeros(len(COUNTS), np.int64)
    while True:
        book.reserve(2 * MAX_EDITS)
        analyse(
            batch.data.ctypes.data,
            batch.offset,
            sizes,
            later,
            batch.link,
            book.book,
            rows,
            quotes,
            found,
            int(macs),
            progress,
        )
        if progress[0] == len(later):
            break
        if progress[1] + MAX_EDITS > len(quotes):
            quotes = np.concatenate([quotes, np.zeros_like(quotes)])
    counts[QUOTES] += found[QUOTES]
    counts[ARPS:QUOTING] += found[ARPS:QUOTING]
    return quotes[: progress[1]]
