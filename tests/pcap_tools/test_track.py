"""The short way of in-order segments must leave a flow exactly as the long way does."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pcap_tools.flowrow import FLOW, HOLE
from pcap_tools.packet import packet_rows
from pcap_tools.tcp import advance
from pcap_tools.track import in_order


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_the_short_way_leads_where_the_long_one_does(seed: int) -> None:
    chance = random.Random(seed)
    short, long = np.zeros(1, FLOW), np.zeros(1, FLOW)
    short["hole"] = long["hole"] = -1
    holes, pool = np.zeros(1 << 12, HOLE), np.array([-1, 0], np.int32)
    its_own = np.zeros(1 << 12, HOLE), np.array([-1, 0], np.int32)
    numbers = [chance.randrange(2**32), chance.randrange(2**32)]
    sent = list(numbers)
    for step in range(60):
        end = chance.randrange(2)
        row = packet_rows(1)
        flags = chance.choice([2, 18, 16] if step < 3 else [16, 16, 16, 24, 24, 17, 20, 0])
        row["tcp_flags"] = flags
        row["payload"] = chance.choice([0, 0, 1, 100, 1400]) if step >= 3 else 0
        row["seq"] = (sent[end] + chance.choice([0, 0, 0, 0, -1, 1400, -100])) & 0xFFFFFFFF
        row["ack"] = (sent[1 - end] + chance.choice([0, 0, 0, -50, 200])) & 0xFFFFFFFF
        sent[end] += int(row["payload"][0]) + (flags & 1) + ((flags & 2) >> 1)
        if not in_order(short[0], row[0], end):
            advance(short[0], row[0], end, holes, pool)
        advance(long[0], row[0], end, *its_own)
        for name in FLOW.names or ():
            if name not in ("hole", "holes"):
                assert np.array_equal(short[name], long[name]), (name, step)
    assert short["holes"].tolist() == long["holes"].tolist()
