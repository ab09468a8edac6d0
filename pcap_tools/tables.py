"""One iteration's stand-ins by number of an address book, ready to be stored into frames."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pcap_tools.edits import MAC
from pcap_tools.errors import PlanError
from pcap_tools.kernels import U8, U64
from pcap_tools.macs import mac_words, mapped_macs
from pcap_tools.plan import AddressPlan

__all__ = ["Tables", "new_macs", "tables_of"]


class Tables(NamedTuple):
    """What number n of a book becomes: v4[0, n], v6[0, n] or macs[n], as `patch` takes them."""

    v4: U64
    v6: U64
    macs: U64


def tables_of(version: U8, high: U64, low: U64, macs: U64 | None = None) -> Tables:
    """Tables from columns in a book's order: what each number becomes (version 4, 6 or 48).

    `macs` are the MAC addresses of the rows of version 48, in their order.
    """
    count = max(1, len(version))
    v4 = np.zeros((1, count), np.uint64)
    octets = low.astype(">u4").view(np.uint16).reshape(-1, 2).astype(np.uint64)
    v4[0, : len(low)] = octets[:, 0] | (octets[:, 1] << np.uint64(16)) | (_sum(octets) << _32)
    six = np.flatnonzero(version == 6)
    v6 = np.zeros((1, count if len(six) else 1, 3), np.uint64)
    if len(six):
        halves = np.column_stack([high[six], low[six]]).astype(">u8")
        v6[0, six, :2] = halves.view(np.uint64)
        v6[0, six, 2] = _sum(halves.view(np.uint16).astype(np.uint64))
    words = np.zeros(count if macs is not None else 1, np.uint64)
    if macs is not None:
        words[np.flatnonzero(version == MAC)] = mac_words(macs)
    return Tables(v4, v6, words)


_32 = np.uint64(32)


def _sum(words: U64) -> U64:
    """One's complement sum of each row's 16-bit words, folded."""
    total: U64 = words.sum(axis=1, dtype=np.uint64)
    for _ in range(2):
        total = (total & np.uint64(0xFFFF)) + (total >> np.uint64(16))
    return total


def new_macs(plan: AddressPlan, numbers: U64, *, back: bool = False) -> U64:
    """What MAC addresses become under a plan, or (`back`) were; others stay.

    Raises PlanError for a unicast address that the plan does not know.
    """
    if plan.macs is None:
        return numbers
    originals = np.array(plan.macs, np.uint64)
    mapped = mapped_macs(plan.key, len(originals))
    source, target = (mapped, originals) if back else (originals, mapped)
    order = np.argsort(source)
    place = np.searchsorted(source[order], numbers)
    place = order[np.minimum(place, max(len(order) - 1, 0))] if len(order) else place * 0
    known = source[place] == numbers if len(order) else np.zeros(len(numbers), np.bool_)
    stays = (numbers == 0) | ((numbers >> np.uint64(40)) & np.uint64(1) == 1)
    unknown = np.flatnonzero(~known & ~stays)
    if len(unknown):
        text = int(numbers[unknown[0]]).to_bytes(6, "big").hex(":")
        raise PlanError(f"MAC address {text} of the capture is not in the plan")
    return np.where(known, target[place], numbers) if len(order) else numbers
