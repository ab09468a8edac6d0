"""What samples of a sensor's workers say, and what of it is about load alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_gates import counters, good

from harness.balancing import measured_balance
from harness.generators.tcpreplay import parse_output
from harness.model_ledger import Balance
from harness.sensors.suricata_agent import Sample, worker_facts
from pcap_tools.errors import PcapError

NAME = "W#01-rx0"


def samples(shares: list[float], arriving: list[bool], writing: set[int]) -> list[Sample]:
    """A quarter of a second apart: how much the worker was awake in each, and what came."""
    found = []
    awake, packets = 0.0, 0
    for number, (share, came) in enumerate(zip([0.0, *shares], [False, *arriving], strict=True)):
        awake += 0.25 * share
        packets += 1000 * came
        names = (NAME,) if number in writing else ()
        found.append(
            Sample(0.25 * number, packets, packets, 0, 0, awake, {NAME: awake / 2}, 0.0,
                   {NAME: awake}, names)
        )  # fmt: skip
    return found


def test_only_loaded_time_counts() -> None:
    facts = worker_facts(samples([1.0] * 4 + [0.0] * 8, [True] * 4 + [False] * 8, {1, 2}))
    key = f"probebench.worker.{NAME}."
    assert facts["probebench.loaded_s"] == pytest.approx(1.0)
    assert facts[key + "awake_s"] == pytest.approx(1.0)
    assert facts[key + "cpu_s"] == pytest.approx(0.5)
    assert facts[key + "busiest"] == pytest.approx(1.0)
    assert facts[key + "writing"] == pytest.approx(0.5)


def test_a_burst_of_a_quarter_second_is_no_saturation() -> None:
    facts = worker_facts(samples([0.1, 0.1, 1.0, 0.1, 0.1, 0.1], [True] * 6, set()))
    assert facts[f"probebench.worker.{NAME}.busiest"] == pytest.approx(0.325)


def test_where_the_kernel_tells_cpu_time_only_that_is_taken() -> None:
    some = [replace(s, awake={}) for s in samples([1.0] * 4, [True] * 4, set())]
    facts = worker_facts(some)
    assert f"probebench.worker.{NAME}.awake_s" not in facts
    assert facts[f"probebench.worker.{NAME}.busiest"] == pytest.approx(0.5)


def test_nothing_came_nothing_is_said() -> None:
    assert worker_facts(samples([1.0], [False], set())) == {}
    assert worker_facts([]) == {}


def test_refused_packets_of_tcpreplay() -> None:
    printed = parse_output("\tRetried packets (ENOBUFS): 3830079\n\tRetried packets (EAGAIN):  2\n")
    assert printed.retried == {"enobufs": 3830079, "eagain": 2}


def test_balance_beside_its_prediction() -> None:
    one = replace(good(), after=counters(1000, workers={"a": 600, "b": 400}))
    told = measured_balance(one, lambda trial, workers: Balance(workers, 0.0, 1.1, 1.0, 1.15))
    assert told is not None
    assert (told.measured, told.predicted, told.as_predicted) == (pytest.approx(1.2), 1.1, False)


def test_a_prediction_that_fails_takes_nothing_from_the_measurement() -> None:
    def fail(trial: object, workers: int) -> Balance:
        raise PcapError("x")

    found = measured_balance(replace(good(), after=counters(1000)), fail)
    assert found == Balance(2, 1.0)
    assert found.as_predicted is None
    assert measured_balance(replace(good(), after=counters(9, workers={"a": 9}))) is None
