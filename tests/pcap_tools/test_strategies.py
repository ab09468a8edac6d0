"""The addresses that each replay strategy sends."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import numpy as np
import pytest
from synth import Talk, merged, write_pcap

from pcap_tools.errors import PcapError, PlanError, PoolExhausted
from pcap_tools.flows import FlowTable, flow_table
from pcap_tools.hashes import Tuples
from pcap_tools.strategies import FlowGroup, Replay, flow_groups, plan_of

ENDS = (
    ("10.0.0.1", "198.51.100.7"),
    ("192.168.3.4", "10.0.0.9"),
    ("0.0.0.2", "8.8.8.8"),  # wraps below zero at the third iteration
    ("255.255.255.253", "9.9.9.9"),
    ("10.0.0.4", "255.255.255.254"),
    ("10.0.0.10", "10.0.0.7"),  # crosses
    ("2001:db8::1", "2001:db8::ffff:ffff"),
    ("fd00::7:0", "2001:db8::3"),
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> FlowTable:
    talks = [
        Talk(client=a, server=b, sport=4000 + i, dport=53).udp(0).udp(1)
        for i, (a, b) in enumerate(ENDS)
    ]
    return flow_table(write_pcap(tmp_path_factory.mktemp("s") / "s.pcap", merged(*talks)))


def texts(tuples: Tuples) -> list[tuple[str, str]]:
    kind = ipaddress.IPv4Address if tuples.version == 4 else ipaddress.IPv6Address
    ends = [[str(kind(row.astype(">u4").tobytes())) for row in e] for e in (tuples.a, tuples.b)]
    return list(zip(*ends, strict=True))


def sent(replay: Replay, group: FlowGroup) -> list[list[tuple[str, str]]]:
    """The ends of each flow, iteration by iteration."""
    rows = [pair for block in replay.blocks(group) for pair in texts(block.tuples) * block.repeats]
    return [rows[i : i + len(group)] for i in range(0, len(rows), len(group))]


def fast_edit_packet(src: int, dst: int, iteration: int) -> tuple[int, int]:
    """tcpreplay's C, line by line."""
    s, d = src, dst
    wrap = (1 << 32) - 1
    if d > s:
        s, d = (s - iteration) & wrap, (d + iteration) & wrap
        if s > src and d > dst:
            s = (s - 1) & wrap
        elif d < dst and s < src:
            d = (d + 1) & wrap
    else:
        s, d = (s + iteration) & wrap, (d - iteration) & wrap
        if d > dst and s > src:
            d = (d - 1) & wrap
        elif s < src and d < dst:
            s = (s + 1) & wrap
    return s, d


def test_loop_sends_the_same_again(table: FlowTable) -> None:
    for group in flow_groups(table):
        iterations = sent(Replay("loop", 3), group)
        expected = [pair for pair in ENDS if (":" in pair[0]) == (group.version == 6)]
        assert iterations == [expected] * 3


def test_unique_ip_is_tcpreplays_and_both_directions_agree(table: FlowTable) -> None:
    for group in flow_groups(table):
        iterations = sent(Replay("unique-ip", 12), group)
        base = iterations[0]
        assert base == sent(Replay("loop", 1), group)[0]
        for number, pairs in enumerate(iterations):
            for (a, b), old in zip(pairs, base, strict=True):
                low = [int(ipaddress.ip_address(x)) & 0xFFFFFFFF for x in (*old, a, b)]
                assert fast_edit_packet(low[0], low[1], number) == (low[2], low[3])
                back = fast_edit_packet(low[1], low[0], number)
                assert back == (low[3], low[2])
                # What it is made for: checksums stay right.
                assert (low[0] + low[1]) % 0xFFFFFFFF == (low[2] + low[3]) % 0xFFFFFFFF
                assert [int(ipaddress.ip_address(x)) >> 32 for x in (a, b)] == [
                    int(ipaddress.ip_address(x)) >> 32 for x in old
                ]


def test_fresh_and_remap_follow_the_plan(table: FlowTable) -> None:
    groups = flow_groups(table)
    plan = plan_of(groups, "key")
    for group in groups:
        base = sent(Replay("loop", 1), group)[0]
        for number, pairs in enumerate(sent(Replay("fresh", 4, plan, first=2), group), start=2):
            mapping = plan.mapped(number)
            assert pairs == [(mapping[a], mapping[b]) for a, b in base]
        mapping = plan.mapped(5)
        expected = [(mapping[a], mapping[b]) for a, b in base]
        assert sent(Replay("remap", 2, plan, first=5), group) == [expected] * 2


def test_blocks_are_the_iterations_whatever_their_size(
    table: FlowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = flow_groups(table)
    plan = plan_of(groups, "key")
    replays = [Replay("unique-ip", 9), Replay("fresh", 9, plan)]
    before = [sent(replay, group) for replay in replays for group in groups]
    monkeypatch.setattr("pcap_tools.strategies._ROWS", 14)
    assert [sent(replay, group) for replay in replays for group in groups] == before


def test_ports_and_weights_are_the_flow_tables(tmp_path: Path) -> None:
    talk = Talk(vlan=7).whole()
    table = flow_table(write_pcap(tmp_path / "t.pcap", talk.frames))
    (group,) = flow_groups(table)
    assert (group.tuples.sport[0], group.tuples.dport[0]) == (40000, 80)
    assert (group.tuples.outer[0], group.tuples.inner[0]) == (7, 0)
    assert group.weights.sum(axis=1)[0].tolist() == [
        len(talk.frames),
        sum(len(frame) for _, frame in talk.frames),
        1,
    ]
    assert group.weights[0, :, 0].tolist() == np.asarray(table.rows["packets"][0]).tolist()


def test_wrong_use_is_refused(table: FlowTable) -> None:
    groups = flow_groups(table)
    narrow = plan_of(groups, "key", ("10.0.0.0/24", "192.168.0.0/16"))
    with pytest.raises(PcapError, match="strategies are loop"):
        Replay("other", 1)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="needs a plan"):
        Replay("fresh", 1)
    with pytest.raises(PlanError, match="at least one"):
        Replay("loop", 0)
    with pytest.raises(PoolExhausted, match="home4"):
        Replay("fresh", 1_000_000, narrow)
    other = plan_of(groups[:1], "key")
    with pytest.raises(PlanError, match=r"does not know the address .*2001:db8"):
        list(Replay("fresh", 1, other).blocks(groups[1]))
