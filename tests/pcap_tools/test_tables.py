"""Whole frames patched from within another kernel, as a faster reader of plain frames would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layered_frames import layered
from rewrite_frames import frames, read_capture, write_capture

from pcap_tools.edits import COUNTS, MAC, MAX_EDITS
from pcap_tools.errors import PlanError
from pcap_tools.kernels import I64, U8, as_int, kernel
from pcap_tools.macs import unicast_macs
from pcap_tools.plan import AddressPlan
from pcap_tools.remap import RemapOptions, rewrite
from pcap_tools.space import Space
from pcap_tools.stand_ins import AddressBook, Book, lookup
from pcap_tools.tables import (
    Scratch,
    Tables,
    new_macs,
    note_frame,
    patch_frame,
    scratch,
    tables_of,
)

FRAMES = [*frames().values(), *(bytes(frame) for frame in layered().values())]


@kernel
def _note_all(data: U8, starts: I64, sizes: I64, book: Book, room: Scratch, macs: int) -> None:
    for index in range(starts.size):
        frame = as_int(data.ctypes.data) + starts[index]
        note_frame(frame, sizes[index], as_int(1), book, room, macs)


@kernel
def _patch_all(
    data: U8, starts: I64, sizes: I64, book: Book, tables: Tables, room: Scratch, macs: int
) -> None:
    for index in range(starts.size):
        frame = as_int(data.ctypes.data) + starts[index]
        patch_frame(frame, sizes[index], as_int(1), book, tables, room, macs)


@pytest.mark.parametrize("macs", ["keep", "map"])
def test_frame_by_frame_is_what_remap_writes(tmp_path: Path, macs: str) -> None:
    timed = [(10**18 + n, frame) for n, frame in enumerate(FRAMES)]
    source = write_capture(tmp_path / "in.pcap", timed)
    options = RemapOptions(key="key", iteration=4, macs=macs)
    _, plan = rewrite([source], tmp_path / "out.pcap", options)
    expected = [frame for _, frame in read_capture(tmp_path / "out.pcap")]

    data = np.frombuffer(bytearray(b"".join(FRAMES)), np.uint8)
    sizes = np.array([len(frame) for frame in FRAMES], np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)[:-1]])
    wanted = int(macs == "map")
    book, room = AddressBook(), scratch()
    book.reserve(2 * MAX_EDITS * len(FRAMES))
    _note_all(data, starts, sizes, book.book, room, wanted)
    mine = book.plan("key", Space())
    assert mine.ranked == plan.ranked
    assert mine.stay == plan.stay
    assert tuple(unicast_macs(book.book).tolist()) == (plan.macs or ())
    version, high, low = book.columns()
    changed = new_macs(plan, low[version == MAC]) if wanted else None
    tables = tables_of(version, *lookup(plan, 4, version, high, low), changed)
    size = len(book)
    _patch_all(data, starts, sizes, book.book, tables, room, wanted)
    assert len(book) == size
    ends = starts + sizes
    for begin, end, frame in zip(starts.tolist(), ends.tolist(), expected, strict=True):
        assert data[begin:end].tobytes().hex() == frame.hex()
    assert room.counts[COUNTS.index("packets")] == 2 * len(FRAMES)


def test_a_mac_address_that_the_plan_does_not_know_is_named() -> None:
    from pcap_tools.addresses import none_of

    ranked = dict.fromkeys(("home4", "external4"), none_of(4))
    six = dict.fromkeys(("home6", "external6"), none_of(6))
    stay = none_of(4), none_of(6)
    plan = AddressPlan("key", Space(), {**ranked, **six}, stay, macs=(5,))  # type: ignore[dict-item]
    numbers = np.array([5, 0, (1 << 48) - 1], np.uint64)
    assert (new_macs(plan, new_macs(plan, numbers), back=True) == numbers).all()
    with pytest.raises(PlanError, match="00:00:00:00:00:07"):
        new_macs(plan, np.array([5, 7], np.uint64))
