"""The prediction: totals reconcile, shares are right, verdicts say what they must."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synth import Talk, merged, write_pcap

from pcap_tools.balance import Balance, BalancerResult, balance
from pcap_tools.balancers import BALANCERS
from pcap_tools.errors import EmptyCapture, PcapError
from pcap_tools.flows import FlowTable, flow_table
from pcap_tools.hashes import reversed_tuples
from pcap_tools.strategies import Replay, flow_groups, plan_of


def conversations(path: Path, count: int, rounds: int = 2, elephant: int = 0) -> FlowTable:
    talks = [Talk(client=f"10.0.{i}.1", sport=40000 + i).whole(rounds) for i in range(count)]
    talks.append(Talk(client="10.9.9.9", sport=1).whole(elephant or rounds))
    v6 = Talk(client="2001:db8::1", server="2001:db8::2", sport=9, dport=53).udp(0).udp(1)
    return flow_table(write_pcap(path, merged(*talks, v6)))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> FlowTable:
    return conversations(tmp_path_factory.mktemp("b") / "b.pcap", 20)


@pytest.fixture(scope="module")
def elephant(tmp_path_factory: pytest.TempPathFactory) -> FlowTable:
    return conversations(tmp_path_factory.mktemp("b") / "e.pcap", 20, elephant=100)


def result(made: Balance, name: str) -> BalancerResult:
    return next(r for r in made.results if r.name == name)


@pytest.mark.parametrize("strategy", ["loop", "unique-ip", "fresh", "remap"])
def test_totals_reconcile(table: FlowTable, strategy: str) -> None:
    plan = plan_of(flow_groups(table), "k")
    made = balance(table, Replay(strategy, 30, plan), 4, keys=3)  # type: ignore[arg-type]
    assert made.flows == 30 * len(table)
    assert made.packets == 30 * table.packets and made.bytes == 30 * table.bytes
    assert made.outside == 0
    assert [r.name for r in made.results] == list(BALANCERS)
    for one in made.results:
        for spread in (one.packets, one.bytes, one.flows):
            assert sum(spread.shares) == pytest.approx(1)
            assert 1 <= spread.low <= spread.peak <= spread.high <= 4
        if BALANCERS[one.name].symmetric and not BALANCERS[one.name].per_packet:
            assert one.whole == 1


def test_shares_are_those_of_a_plain_count(table: FlowTable) -> None:
    """Against a loop over flows and iterations, unweighted hashes taken from the balancers."""
    made = balance(table, Replay("unique-ip", 7), 3, ["pf_ring-4tuple", "rss-microsoft-128"])
    for one in made.results:
        packets, whole, flows = np.zeros(3), 0, 0
        prepare = BALANCERS[one.name].prepare
        assert prepare is not None
        for group in flow_groups(table):
            for block in Replay("unique-ip", 7).blocks(group):
                there = prepare(block.tuples, 3)(0)
                back = prepare(reversed_tuples(block.tuples), 3)(0)
                for row in range(len(block.tuples)):
                    out, home = group.weights[row % len(group), :, 0]
                    packets[there[row]] += out
                    packets[back[row]] += home
                    whole += there[row] == back[row]
                    flows += 1
        assert one.packets.shares == pytest.approx((packets / packets.sum()).tolist())
        assert one.whole == pytest.approx(whole / flows)


def test_a_loop_cannot_be_more_even_than_its_largest_flow_allows(elephant: FlowTable) -> None:
    loop = balance(elephant, Replay("loop", 100), 8)
    packets = elephant.rows["packets"].sum(axis=1)
    assert loop.largest == pytest.approx(packets.max() / packets.sum())
    assert loop.floor == pytest.approx(8 * loop.largest)
    for one in loop.results:
        if BALANCERS[one.name].symmetric and not BALANCERS[one.name].per_packet:
            assert one.packets.peak >= loop.floor - 1e-9
    assert "largest flow alone is 59 %" in loop.verdict(result(loop, "af_packet-hash"))
    plan = plan_of(flow_groups(elephant), "k")
    fresh = balance(elephant, Replay("fresh", 3000, plan), 8, keys=12)
    for one in fresh.results:
        assert one.packets.peak < 1.15, one.name
    assert fresh.verdict(result(fresh, "af_packet-hash")) == "even"


def test_unique_ip_of_one_flow_drowns_one_worker(tmp_path: Path) -> None:
    table = flow_table(write_pcap(tmp_path / "one.pcap", Talk(client="10.0.200.1").whole().frames))
    made = balance(table, Replay("unique-ip", 1000), 8)
    for name in ("pf_ring-2tuple", "pf_ring-5tuple", "autofp-ippair", "ebpf-lb"):
        one = result(made, name)
        assert one.packets.peak == 8 and one.idle == 7
        assert made.verdict(one) == (
            "one worker gets 8.0× its share and 7 of 8 idle: a loss measured with this replay says "
            "nothing about the sensor"
        )
    assert result(made, "af_packet-hash").packets.peak < 1.3


def test_torn_flows_are_named(table: FlowTable) -> None:
    made = balance(table, Replay("loop", 1), 8, ["rss-microsoft-128", "af_packet-lb"])
    for one in made.results:
        assert one.whole < 0.5
        assert made.verdict(one).startswith("flows are torn")
    assert result(made, "af_packet-lb").packets.shares == (0.125,) * 8


def test_keys_are_fewer_for_many_flows_and_results_repeat(
    table: FlowTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = balance(table, Replay("unique-ip", 50), 8, ["af_packet-hash", "autofp-hash"])
    assert first == balance(table, Replay("unique-ip", 50), 8, ["af_packet-hash", "autofp-hash"])
    assert first.keys == 200
    monkeypatch.setattr("pcap_tools.balance._EVALUATIONS", 50 * len(table) * 40)
    assert balance(table, Replay("unique-ip", 50), 8, ["ebpf-lb"]).keys == 40
    assert balance(table, Replay("unique-ip", 5000), 8, ["ebpf-lb"]).keys == 12


def test_wrong_use_is_refused(table: FlowTable, tmp_path: Path) -> None:
    with pytest.raises(PcapError, match="--workers 0"):
        balance(table, Replay("loop", 1), 0)
    with pytest.raises(PcapError, match="--keys 0"):
        balance(table, Replay("loop", 1), 2, keys=0)
    frame = bytes.fromhex("ffffffffffff020000000001") + b"\x08\x06" + bytes(46)
    nothing = flow_table(write_pcap(tmp_path / "arp.pcap", [(10**18, frame)]))
    with pytest.raises(EmptyCapture, match="no flow"):
        balance(nothing, Replay("loop", 1), 2)
