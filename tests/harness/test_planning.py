"""The arithmetic from a load to iterations, against a plain simulation of t_j + iΔ."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ConfigError
from harness.model import Corpus, Load
from harness.planning import plan


def corpus(packets: int = 1000, flows: int = 50, span: float = 2.0) -> Corpus:
    return Corpus(
        "c.pcap",
        "0" * 64,
        packets,
        packets * 400,
        flows,
        span,
        ("10.0.0.0/8",),
        "k",
        flow_seconds=flows * 0.5,
        max_frame=1514,
    )


@given(
    times=st.lists(st.floats(0, 5), min_size=2, max_size=40),
    rate=st.floats(5, 500),
    duration=st.floats(10, 60),
)
def test_flow_axis_matches_a_simulation_of_the_due_times(
    times: list[float], rate: float, duration: float
) -> None:
    times = sorted(t - min(times) for t in times)
    flows = 7
    subject = corpus(len(times), flows, times[-1])
    planned = plan(subject, Load("flows", rate, duration), 0)
    starts = [i * flows / rate for i in range(planned.iterations)]
    due = [start + t for start in starts for t in times]
    assert planned.packets == len(due)
    assert planned.flows == flows * planned.iterations
    assert planned.seconds == pytest.approx(max(due))
    # One more iteration would have started after the asked time.
    assert starts[-1] < duration
    assert (planned.iterations + 1) * flows / rate > duration * (1 - 1e-9)


@given(rate=st.floats(500, 1e6), duration=st.floats(3, 60))
def test_packet_axis_sends_whole_iterations_for_the_asked_time(
    rate: float, duration: float
) -> None:
    planned = plan(corpus(), Load("pps", rate, duration), 5)
    assert planned.packets % 1000 == 0
    assert planned.seconds == pytest.approx(planned.packets / rate)
    assert duration - 1000 / rate < planned.seconds + 1e-6
    assert planned.seconds <= duration + 1e-6
    assert planned.pps == pytest.approx(rate)
    assert planned.flows_per_s == pytest.approx(rate * 50 / 1000)
    assert planned.first_iteration == 5


def test_both_axes_agree_on_the_steady_state() -> None:
    by_packets = plan(corpus(), Load("pps", 20_000, 10), 0)
    by_flows = plan(corpus(), Load("flows", 1_000, 10), 0)
    assert by_packets.every_s == pytest.approx(by_flows.every_s)
    assert by_packets.pps == pytest.approx(by_flows.pps)
    assert by_packets.concurrent_flows == pytest.approx(by_flows.concurrent_flows) == 500


def test_the_steady_share_is_what_full_cycles_there_are() -> None:
    # 2 s of span at one iteration each 50 ms: 40 in flight; of 200 iterations 160 cycles are full.
    planned = plan(corpus(), Load("pps", 20_000, 10), 0)
    assert planned.iterations == 200
    assert planned.steady_fraction == pytest.approx(160 / 200)


def test_a_load_too_small_for_one_iteration_is_refused() -> None:
    with pytest.raises(ConfigError, match="less than one iteration"):
        plan(corpus(), Load("pps", 10, 5), 0)
