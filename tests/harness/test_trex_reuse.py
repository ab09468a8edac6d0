"""When TRex's five-tuples come back, and that trials with too few of them are marked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_gates import CONTEXT, good
from test_trex_interactive import Rig

from harness.gates import evaluate
from harness.generators.trex.astf import TrexAstf
from harness.generators.trex.reuse import PORTS, flows_come_back, packets_come_back
from harness.generators.trex.stl import TrexStl
from harness.model import Load, Schedule
from harness.templates import Pool, Template


def template(clients: int) -> Template:
    ends = (Pool(1, clients), Pool(1, 64))
    return Template("f", "TCP", "10.0.0.1", 1, "192.0.2.1", 80, 10, 1000, 0.1, *ends)


def walk(clients: int, ports: int, rate: float) -> float:
    """Oracle: clients in turn, each taking its next port, until one pair was seen before."""
    seen: set[tuple[int, int]] = set()
    last = [0] * clients
    number = 0
    while True:
        client = number % clients
        pair = (client, last[client] % ports)
        if pair in seen:
            return number / rate
        seen.add(pair)
        last[client] += 1
        number += 1


def test_the_smallest_pool_and_the_rate_decide() -> None:
    assert PORTS == 62_976
    assert flows_come_back([template(2), template(1)], 1000.0) == walk(1, PORTS, 1000.0)
    assert flows_come_back([template(3)], 500.0) == walk(3, PORTS, 500.0)


def test_the_fastest_stream_is_through_first() -> None:
    assert packets_come_back(10_000_000, [100.0, 250_000.0]) == 40.0


def codes(schedule: Schedule) -> set[str]:
    trial = replace(good(), schedule=replace(good().schedule, settings=schedule.settings))
    return {g.code for g in evaluate(trial, replace(CONTEXT, flow_timeout=60.0))}


@pytest.mark.parametrize(("clients", "marked"), [(1, True), (64, False)])
def test_connections_that_come_back_mark_the_trial(
    tmp_path: Path, clients: int, marked: bool
) -> None:
    made = Rig(TrexAstf, tmp_path, clients=clients, servers=1).generator
    schedule = made.plan(Load("flows", 4_000.0, 10.0), 0)
    rate = schedule.settings["connections_per_s"]
    assert schedule.settings["reuse_s"] == clients * PORTS / rate
    assert ("reuse-too-soon" in codes(schedule)) is marked


@pytest.mark.parametrize(("pps", "marked"), [(100_000.0, False), (1_000_000.0, True)])
def test_packets_that_come_back_mark_the_trial(tmp_path: Path, pps: float, marked: bool) -> None:
    """One size on two ports: each stream has half of the packets, and goes through 10 million."""
    made = Rig(TrexStl, tmp_path, frames="64").generator
    schedule = made.plan(Load("pps", pps, 10.0), 0)
    assert schedule.settings["reuse_s"] == 10_000_000 / (pps / 2)
    assert ("reuse-too-soon" in codes(schedule)) is marked
