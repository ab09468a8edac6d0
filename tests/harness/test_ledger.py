"""Every packet has a place, and none is hidden."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.ledger import build, drop_rate, tolerance
from harness.model import Capabilities, Counters, InterfaceCounters, Sent

ALL = Capabilities(True, True, True, True, True, True)


def sent(packets: int) -> Sent:
    return Sent(packets, packets * 100, 10, 1.0, 0, 0, 0)


def nic(rx: int, missed: int = 0, dropped: int = 0, errors: int = 0) -> InterfaceCounters:
    return InterfaceCounters(rx, 0, dropped, missed, errors, 0, 0, 0, 0)


def counters(received: int, dropped: int, decoded: int, invalid: int = 0) -> Counters:
    return Counters(received, dropped, decoded, 0, invalid, 0, 0, exact=True)


ZERO = counters(0, 0, 0)
NONE = Counters(None, None, None, None, None, None, None)


def test_a_clean_trial_closes_to_the_packet() -> None:
    account = build(sent(50_000), nic(50_000), ZERO, counters(50_000, 0, 50_000), ALL)
    assert (account.analysed, account.unexplained, account.tolerance) == (50_000, 0, 0)
    assert account.adds_up
    assert drop_rate(account) == 0.0


def test_loss_at_each_layer() -> None:
    account = build(sent(1000), nic(950, missed=20), ZERO, counters(950, 100, 850, invalid=7), ALL)
    assert (account.before_nic, account.nic, account.kernel) == (30, 20, 100)
    assert (account.software, account.analysed, account.unexplained) == (7, 843, 0)
    assert drop_rate(account) == 1 - 843 / 1000


def test_counters_before_the_trial_are_taken_off() -> None:
    before = counters(500, 50, 450)
    account = build(sent(100), nic(100), before, counters(600, 60, 540), ALL)
    assert (account.kernel, account.analysed, account.unexplained) == (10, 90, 0)


def test_rx_dropped_is_believed_only_for_what_is_missing() -> None:
    unknown_protocols = build(sent(100), nic(100, dropped=40), ZERO, counters(100, 0, 100), ALL)
    assert (unknown_protocols.nic, unknown_protocols.unexplained) == (0, 0)
    old_driver = build(sent(100), nic(60, dropped=40), ZERO, counters(60, 0, 60), ALL)
    assert (old_driver.before_nic, old_driver.nic, old_driver.unexplained) == (0, 40, 0)


def test_background_packets_show_as_negative() -> None:
    account = build(sent(100), nic(103), ZERO, counters(103, 0, 103), ALL)
    assert account.unexplained == -3
    assert not account.adds_up
    assert drop_rate(account) == 1 - 103 / 100


def test_between_the_nic_and_the_ring_is_unexplained() -> None:
    account = build(sent(100), nic(100), ZERO, counters(90, 0, 90), ALL)
    assert account.unexplained == 10


def test_what_cannot_be_observed_is_none_and_not_zero() -> None:
    appliance = Capabilities(False, False, False, False, True, False)
    account = build(sent(100), nic(97), NONE, NONE, appliance)
    assert (account.kernel, account.software, account.analysed) == (None, None, None)
    assert (account.before_nic, account.unexplained) == (3, 0)
    assert drop_rate(account) is None
    blind = build(sent(100), None, ZERO, counters(100, 4, 96), ALL)
    assert (blind.before_nic, blind.nic, blind.unexplained) == (0, None, 0)
    closed = build(sent(100), None, NONE, NONE, appliance)
    assert (closed.before_nic, closed.nic, closed.unexplained) == (None, None, 0)


def test_tolerance() -> None:
    assert tolerance(99_999, exact=True) == 0
    assert tolerance(1_000_000, exact=True) == 10
    assert tolerance(1_000_000, exact=False) == 1000


@given(*[st.integers(0, 10_000) for _ in range(6)])
def test_the_parts_always_sum_to_offered(
    offered: int, rx: int, missed: int, received: int, dropped: int, decoded: int
) -> None:
    after = counters(received, dropped, decoded)
    account = build(sent(offered), nic(rx, missed), ZERO, after, ALL)
    parts = (account.before_nic, account.nic, account.kernel, account.software, account.analysed)
    assert sum(p or 0 for p in parts) + account.unexplained == offered


def test_two_drop_counters_do_not_take_the_same_packet_twice() -> None:
    account = build(sent(200), nic(100, missed=60, dropped=90), ZERO, counters(100, 0, 100), ALL)
    assert (account.before_nic, account.nic, account.unexplained) == (0, 100, 0)
