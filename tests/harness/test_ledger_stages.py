"""The stages: nothing is counted twice, nothing is invented, and the rest is what is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ledger import build
from harness.ledger_bytes import in_bytes
from harness.ledger_software import flow_ledger
from harness.model import Capabilities, Counters, InterfaceCounters, Ledger, Sent
from harness.model_host import HostReading, HostTrial
from harness.nic_names import meaning, nic_causes, packets_lost

ALL = Capabilities(True, True, True, True, True, True)
ZERO = Counters(0, 0, 0, 0, 0, 0, 0)
NUMBER = st.integers(0, 5_000)


def sent(packets: int, size: int = 100) -> Sent:
    return Sent(packets, packets * size, 10, 1.0, 0, 0, 0)


def lost(ledger: Ledger) -> dict[str, int | None]:
    return {stage.key: stage.packets for stage in ledger.stages}


def nic(rx: int, missed: int = 0, dropped: int = 0) -> InterfaceCounters:
    return InterfaceCounters(rx, rx * 100, dropped, missed, 0, 0, 0, 0, 0)


def port(tx: int, dropped: int = 0) -> InterfaceCounters:
    return InterfaceCounters(0, 0, 0, 0, 0, tx, tx * 100, dropped, 0)


def host(before: dict[str, int], after: dict[str, int]) -> HostTrial:
    return HostTrial(HostReading(0, 0, before), HostReading(1, 1, after), 1, 1.0)


@given(st.tuples(*[NUMBER] * 6), st.tuples(*[NUMBER] * 5), st.tuples(*[NUMBER] * 3), st.booleans())
def test_any_counters_add_up(
    front: tuple[int, ...], back: tuple[int, ...], kernel: tuple[int, ...], seen: bool
) -> None:
    offered, tx, tx_dropped, rx, missed, dropped = front
    received, drops, decoded, invalid, _ = back
    raw = {"flow.memcap": kernel[0], "tcp.ssn_memcap_drop": kernel[1], "tcp.rst": 1}
    after = Counters(received, drops, decoded, None, invalid, 0, 0, raw=dict(raw), exact=True)
    softnet = HostTrial(
        HostReading(0, 0, softnet={"0": {"dropped": 0}}),
        HostReading(1, 1, softnet={"0": {"dropped": kernel[2]}}),
        1,
        1.0,
    )
    found = build(
        sent(offered),
        nic(rx, missed, dropped) if seen else None,
        ZERO,
        after,
        ALL,
        port=port(tx, tx_dropped),
        host=softnet,
    )
    stages = lost(found)
    assert sum(n or 0 for n in stages.values()) + (found.analysed or 0) + found.unexplained == (
        offered
    )
    assert found.analysed is not None
    assert found.analysed >= 0
    assert all((n or 0) >= 0 for key, n in stages.items() if key != "undecoded")
    assert found.software == sum(stages[k] or 0 for k in ("undecoded", "decoder", "flow", "stream"))
    assert found.kernel == (stages["backlog"] or 0) + (stages["ring"] or 0)
    if seen:
        assert found.before_nic == (stages["transmit"] or 0) + (stages["wire"] or 0)


def test_a_veth_backlog_drop_is_lost_at_the_sender_and_only_there() -> None:
    after = Counters(970, 0, 970, None, 0, 0, 0, exact=True)
    found = build(sent(1000), nic(970), ZERO, after, ALL, port=port(970, 30))
    assert (lost(found)["transmit"], lost(found)["wire"], found.unexplained) == (30, 0, 0)
    assert found.stages[0].causes == {"tx_dropped": 30}


def test_a_cable_that_loses() -> None:
    after = Counters(970, 0, 970, None, 0, 0, 0, exact=True)
    found = build(sent(1000), nic(970), ZERO, after, ALL, port=port(1000))
    assert (lost(found)["transmit"], lost(found)["wire"]) == (0, 30)


def test_a_driver_s_own_name_for_a_lack_of_buffers() -> None:
    """mlx5 counts rx_out_of_buffer, and /sys/class/net of older kernels knows nothing of it."""
    watched = host({"ethtool.rx_out_of_buffer": 7}, {"ethtool.rx_out_of_buffer": 37})
    after = Counters(970, 0, 970, None, 0, 0, 0, exact=True)
    found = build(sent(1000), nic(970), ZERO, after, ALL, port=port(1000), host=watched)
    assert (lost(found)["nic"], lost(found)["wire"]) == (30, 0)
    assert found.stages[2].causes == {"rx_out_of_buffer": 30}


def test_a_retried_packet_is_no_lost_one() -> None:
    """rx_no_buffer_count: the packet waits in the FIFO, and may be received after all."""
    names = {"ethtool.rx_no_buffer_count": 50}
    after = Counters(990, 0, 990, None, 0, 0, 0, exact=True)
    found = build(sent(1000), nic(990), ZERO, after, ALL, port=port(1000), host=host({}, names))
    assert (lost(found)["nic"], lost(found)["wire"]) == (0, 10)
    assert nic_causes({}, names) == {"rx_no_buffer_count": 50}
    assert nic_causes({}, {"ethtool.rx_packets": 5, "rx_missed_errors": 5}) == {}


@pytest.mark.parametrize(
    ("counted", "packets"),
    [
        # igb: rx_fifo_errors has MPC and every queue's RQDPC in it (igb_main.c, igb_update_stats)
        ({"rx_missed_errors": 10, "rx_queue_0_drops": 3, "rx_queue_1_drops": 4,
          "rx_fifo_errors": 17, "rx_no_buffer_count": 99}, 17),
        # i40e 6.x: rx_missed_errors of the netdev is the port's
        ({"rx_missed_errors": 25, "port.rx_discards": 25, "rx_alloc_fail": 9,
          "rx_crc_errors": 2, "port.rx_crc_errors": 2}, 27),
        # virtio_net of 6.18: totals and queues
        ({"rx_drops": 9, "rx0_drops": 4, "rx1_drops": 5, "rx_xdp_drops": 1,
          "rx1_xdp_drops": 1}, 10),
        ({"rx_queue_0_xdp_drops": 6, "rx_queue_3_drops": 1}, 7),
        ({"rx_no_dma_resources": 8, "rx_missed_errors": 2, "rx_long_length_errors": 1,
          "rx_short_length_errors": 1, "rx_length_errors": 2}, 12),
        ({"rx_out_of_buffer": 5, "rx_discards_phy": 6, "rx_buff_alloc_err": 7}, 11),
        ({"rx_total_ring_discards": 5, "rx_total_oom_discards": 1}, 6),
        ({"bw_in_allowance_exceeded": 50, "pps_allowance_exceeded": 50}, 0),
        ({"rx_dropped.nic": 3, "rx_crc_errors.nic": 1, "rx_pg_alloc_fail": 4}, 4),
        ({"rx_packets": 1000, "rx_dropped": 5, "tx_drops": 5, "rx0_packets": 4}, 0),
    ],
)  # fmt: skip
def test_a_packet_under_several_names_is_lost_once(counted: dict[str, int], packets: int) -> None:
    names = {f"ethtool.{name}": n for name, n in counted.items()}
    causes = nic_causes({}, names)
    assert packets_lost(causes) == packets
    assert all(meaning(name) for name in causes)
    # On a link that lost one packet more, that one is the wire's.
    left = 1000 - packets - 1
    after = Counters(left, 0, left, None, 0, 0, 0, exact=True)
    found = build(sent(1000), nic(left), ZERO, after, ALL, port=port(1000), host=host({}, names))
    assert (lost(found)["nic"], lost(found)["wire"]) == (packets, 1)


def test_what_the_engines_refuse_is_not_analysed_and_events_are_not_packets() -> None:
    raw = {
        "flow.memcap": 5.0,
        "flow.get_used": 9.0,
        "tcp.ssn_memcap_drop": 3.0,
        "tcp.invalid_checksum": 2.0,
        "tcp.reassembly_gap": 40.0,
        "detect.alert_queue_overflow": 6.0,
    }
    after = Counters(1000, 0, 1000, None, 10, 0, 0, raw=raw, exact=True)
    found = build(sent(1000), nic(1000), ZERO, after, ALL)
    assert (found.analysed, found.software, found.unexplained) == (980, 20, 0)
    assert lost(found)["flow"] == lost(found)["stream"] == 5
    assert [(e.counter, e.count) for e in found.events] == [
        ("flow.get_used", 9),
        ("tcp.reassembly_gap", 40),
        ("detect.alert_queue_overflow", 6),
    ]


def test_tunnels_do_not_lose_more_packets_than_came() -> None:
    """Outer and inner packets are both refused, and only one was decoded."""
    after = Counters(10, 0, 10, None, 0, 0, 0, raw={"flow.memcap": 20.0}, exact=True)
    found = build(sent(10), nic(10), ZERO, after, ALL)
    assert (lost(found)["flow"], found.analysed, found.unexplained) == (10, 0, 0)


def test_a_sensor_without_such_counters_cannot_tell() -> None:
    after = Counters(10, 0, 10, None, 0, 0, 0, exact=True)
    stages = lost(build(sent(10), nic(10), ZERO, after, ALL))
    assert stages["flow"] is None
    assert stages["stream"] is None
    assert flow_ledger(ZERO, after, 5).gaps is None


def test_bytes_close_exactly_without_loss() -> None:
    found = in_bytes(sent(100), None, None, 10_000, 0, 0, 1514)
    assert (found.lost, found.unexplained) == (0, 0)
    stripped = in_bytes(sent(100), None, None, 9_600, 0, 0, 1514)  # 4-byte tags taken off
    assert stripped.unexplained == 400
    assert not stripped.adds_up


def test_lost_packets_account_for_bytes_within_what_they_can_weigh() -> None:
    assert in_bytes(sent(100), None, None, 9_000, 10, 0, 1514).unexplained == 0
    too_heavy = in_bytes(sent(100), None, None, 0, 3, 0, 1514)
    assert too_heavy.unexplained == 10_000 - 3 * 1514
    too_light = in_bytes(sent(100), None, None, 9_990, 10, 0, 1514)
    assert too_light.unexplained == 10 - 140
    assert in_bytes(sent(1), None, None, None, 0, 0, 0).unexplained is None
