"""Spacing and what it comes to, against a count over explicit packets."""

from __future__ import annotations

import pytest

from pcap_tools.errors import PlanError
from pcap_tools.schedule import (
    Dimensions,
    Timing,
    every_for_flow_rate,
    every_for_pps,
    every_in_sequence,
)

# Two flows: 0 … 4 s and 1 … 2 s; five packets.
PACKETS = (0.0, 1.0, 2.0, 3.0, 4.0)
FLOWS = ((0.0, 4.0), (1.0, 2.0))
CORPUS = Dimensions(packets=5, bytes=500, flows=2, span_s=4.0, flow_seconds=5.0)


def test_totals_match_a_count() -> None:
    timing = Timing(CORPUS, iterations=100, every_s=0.5)
    due = [t + 0.5 * i for i in range(100) for t in PACKETS]
    assert timing.packets == len(due)
    assert timing.seconds == max(due) - min(due)
    steady = [t for t in due if 4.0 <= t < 4.0 + timing.steady_s - 4.0]
    assert timing.packets_per_s == pytest.approx(len(steady) / (timing.steady_s - 4.0), rel=0.02)
    starts = [a + 0.5 * i for i in range(100) for a, _ in FLOWS if 10 <= a + 0.5 * i < 40]
    assert timing.flows_per_s == pytest.approx(len(starts) / 30)


def test_concurrency_is_the_mean_number_in_flight() -> None:
    timing = Timing(CORPUS, iterations=100, every_s=0.5)
    moments = [20 + n / 100 for n in range(1000)]
    in_flight = [
        sum(a + 0.5 * i <= m < b + 0.5 * i for i in range(100) for a, b in FLOWS) for m in moments
    ]
    assert timing.concurrent_flows == pytest.approx(sum(in_flight) / len(moments), rel=0.01)


def test_spacings() -> None:
    assert every_for_flow_rate(18, 900) == 0.02
    assert every_for_pps(962, 20_000) == 0.0481
    assert every_in_sequence(5, 4.0) == 5.0
    assert Timing(CORPUS, 1, 0.1).steady_s == 0


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_rates_must_be_above_zero(rate: float) -> None:
    with pytest.raises(PlanError, match="--flow-rate"):
        every_for_flow_rate(3, rate)
    with pytest.raises(PlanError, match="rate"):
        every_for_pps(3, rate)
