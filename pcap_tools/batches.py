"""Batches made of other batches: some of their packets, or packets in place of others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pcap_tools.capture import Batch
from pcap_tools.kernels import I64, U8
from pcap_tools.savefile import Meta
from pcap_tools.walk import U32

__all__ = ["owned", "part_of", "taken"]


def owned(batch: Batch) -> Batch:
    """The batch in memory of its own, which nothing overwrites."""
    meta = batch.meta
    return replace(
        batch,
        data=batch.data.copy(),
        offset=batch.offset.copy(),
        caplen=batch.caplen.copy(),
        wirelen=batch.wirelen.copy(),
        time_ns=batch.time_ns.copy(),
        meta=meta and Meta(meta.interface.copy(), meta.noted.copy(), meta.octets.copy()),
    )


def part_of(batch: Batch, rows: I64) -> Batch:
    """The batch's packets numbered `rows`, over the same bytes, without what pcapng tells."""
    return Batch(
        batch.data,
        batch.offset[rows],
        batch.caplen[rows],
        batch.wirelen[rows],
        batch.time_ns[rows],
        batch.link,
        batch.first,
        batch.file,
        batch.position,
    )


def taken(
    batch: Batch,
    rows: I64,
    *,
    data: U8 | None = None,
    offset: I64 | None = None,
    caplen: U32 | None = None,
    wirelen: U32 | None = None,
) -> Batch:
    """The batch's packets numbered `rows` (ascending; a row may repeat), or what replaces them.

    Times, and what pcapng tells about a packet, come from the row; options go to the first of
    several packets that replace one. `data` and the other columns replace the batch's.
    """
    return replace(
        batch,
        data=batch.data if data is None else data,
        offset=batch.offset[rows] if offset is None else offset,
        caplen=batch.caplen[rows] if caplen is None else caplen,
        wirelen=batch.wirelen[rows] if wirelen is None else wirelen,
        time_ns=batch.time_ns[rows],
        position=batch.position if data is None else -1,
        meta=batch.meta and _taken(batch.meta, rows),
    )


def _taken(meta: Meta, rows: I64) -> Meta:
    noted = meta.noted
    if len(noted) and len(rows):
        at = np.minimum(np.searchsorted(rows, noted[:, 0]), len(rows) - 1)
        found = rows[at] == noted[:, 0]
        noted = noted[found]
        noted[:, 0] = at[found]
    return Meta(meta.interface[rows], noted if len(rows) else noted[:0], meta.octets)
