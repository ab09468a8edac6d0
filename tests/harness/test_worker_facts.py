"""What samples of a sensor's workers say, and what of it is about load alone."""

from __future__ import annotations

import sys
from dataclasses import replace
from math import comb
from pathlib import Path

import pytest
from test_gates import counters, good

from harness.balancing import measured_balance, predictor
from harness.corpus import read_corpus
from harness.generators.tcpreplay import parse_output
from harness.model_ledger import Balance
from harness.sensors.suricata_agent import Sample, worker_facts
from pcap_tools.errors import PcapError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pcap_tools"))
from synth import Talk, write_pcap

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


def predict(tmp_path: Path, method: str, iterations: int) -> Balance:
    capture = write_pcap(tmp_path / "one.pcap", Talk(sport=1, client="10.0.0.1").whole().frames)
    _, plan = read_corpus(capture, ("10.0.0.0/8",), "key", None)
    one = good()
    schedule = replace(one.schedule, iterations=iterations, first_iteration=0)
    told = predictor(capture, plan)(replace(one, method=method, schedule=schedule), 2)
    assert told is not None and told.iterations == iterations
    return told


def test_a_single_flow_that_is_looped_is_one_worker_s(tmp_path: Path) -> None:
    told = predict(tmp_path, "loop", 50)
    assert (told.predicted, told.low, told.high) == (2.0, 2.0, 2.0)


def test_fresh_addresses_are_thrown_like_coins(tmp_path: Path) -> None:
    """Oracle: ten equal flows on two workers are ten throws of a coin."""
    throws = range(11)
    ways = {k: comb(10, k) / 2**10 for k in throws}
    peaks = sorted((max(k, 10 - k) / 5, ways[k]) for k in throws)

    def quantile(share: float) -> float:
        total = 0.0
        for peak, weight in peaks:
            total += weight
            if total >= share:
                return peak
        raise AssertionError

    told = predict(tmp_path, "fresh", 10)
    assert told.predicted == pytest.approx(quantile(0.5), abs=0.201)
    assert told.low == pytest.approx(quantile(0.05))
    assert told.high == pytest.approx(quantile(0.95), abs=0.201)


def test_other_replays_are_not_predicted(tmp_path: Path) -> None:
    capture = write_pcap(tmp_path / "one.pcap", Talk(sport=1, client="10.0.0.1").whole().frames)
    _, plan = read_corpus(capture, ("10.0.0.0/8",), "key", None)
    assert predictor(capture, plan)(replace(good(), method="raw-loop"), 2) is None
