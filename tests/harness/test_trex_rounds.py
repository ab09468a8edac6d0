"""Flows per template from packets: against TRex's own algorithm, ported."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.generators.trex.rounds import flows_of_each


@dataclass
class Policer:
    """CPolicer::update of trex-core v3.08, utils/utl_policer.cpp."""

    cir: float
    level: float = 0.0
    last: float = 0.0

    def update(self, now: float) -> bool:
        if self.last == 0.0:
            self.last = now
            return True
        if now > self.last:
            self.level = min(100.0, self.level + (now - self.last) * self.cir)
            self.last = now
        if self.level > 1.0:
            self.level -= 1.0
            return True
        return False


def roundrobin(templates: int, multiplier: float, ticks: int) -> list[int]:
    """CFlowGenListPerThread::generate_flows_roundrobin, once a tick of 1/(all flows a second)."""
    policers = [Policer(multiplier) for _ in range(templates)]
    flows = [0] * templates
    current, now, step = 0, 0.0, 1 / (templates * multiplier)
    for _ in range(ticks):
        for _ in range(templates):
            if policers[current].update(now):
                flows[current] += 1
                current = (current + 1) % templates
                break
            current = (current + 1) % templates
        now += step
    return flows


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=40),
    st.floats(0.01, 5000),
    st.integers(1, 600),
)
def test_what_trex_s_own_algorithm_starts_is_found_again(
    sizes: list[int], multiplier: float, ticks: int
) -> None:
    flows = roundrobin(len(sizes), multiplier, ticks)
    packets = sum(number * size for number, size in zip(flows, sizes, strict=True))
    assert flows_of_each(packets, sizes) == (flows, True)


def test_the_recorded_run() -> None:
    """v3.08, 40 flows/s for 4 s and 120: what Suricata then decoded, TCP and UDP."""
    assert flows_of_each(1038, [8, 8, 8, 2]) == ([40, 40, 40, 39], True)
    assert flows_of_each(3118, [8, 8, 8, 2]) == ([120, 120, 120, 119], True)


@pytest.mark.parametrize(
    ("packets", "cores", "each"),
    [(1041, 1, [40, 40, 40, 40]), (1038, 2, [40, 40, 40, 40]), (0, 2, [0, 0, 0, 0])],
)
def test_what_is_no_sum_of_whole_flows_is_an_equal_share(
    packets: int, cores: int, each: list[int]
) -> None:
    assert flows_of_each(packets, [8, 8, 8, 2], cores) == (each, False)


def test_nothing_sent() -> None:
    assert flows_of_each(0, [8, 2]) == ([0, 0], True)
