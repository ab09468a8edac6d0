"""Stand-ins looked up in columns are those the plan names one by one."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest

from pcap_tools.errors import PlanError, PoolExhausted
from pcap_tools.plan import make_plan
from pcap_tools.stand_ins import AddressBook, lookup

TEXTS = ("10.0.0.9", "10.7.0.10", "192.168.3.4", "8.8.8.8", "198.51.100.7", "fd00::1", "fe80::1")
TEXTS += ("2001:db8::5", "2001:db8::6", "224.0.0.1")


def columns(*texts: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    addresses = [ipaddress.ip_address(text) for text in texts]
    return (
        np.array([a.version for a in addresses], np.uint8),
        np.array([int(a) >> 64 for a in addresses], np.uint64),
        np.array([int(a) & (1 << 64) - 1 for a in addresses], np.uint64),
    )


def test_lookup_is_the_plans_mapping() -> None:
    plan = make_plan("key", map(ipaddress.ip_address, TEXTS))
    wanted = (*TEXTS[::-1], "9.9.9.9", *TEXTS)  # one that the plan does not know stays
    for iteration in (0, 7):
        mapping = {**plan.mapped(iteration), "9.9.9.9": "9.9.9.9"}
        version, high, low = columns(*wanted)
        new_high, new_low = lookup(plan, iteration, version, high, low)
        expected = columns(*(mapping[text] for text in wanted))
        assert (new_high == expected[1]).all()
        assert (new_low == expected[2]).all()
        assert (low == columns(*wanted)[2]).all()  # the input is not written


def test_lookup_past_the_pool_is_refused() -> None:
    plan = make_plan("key", [ipaddress.ip_address("10.0.0.1")], ["10.0.0.0/24"])
    with pytest.raises(PoolExhausted):
        lookup(plan, 254, *columns("10.0.0.1"))


def test_an_address_that_the_plan_does_not_know_is_named() -> None:
    plan = make_plan("key", [ipaddress.ip_address("10.0.0.1")])
    book = AddressBook()
    book.book.entries[:2] = [[4, 0, 0x0A000001], [4, 0, 0x0A000002]]
    book.book.size[0] = 2
    with pytest.raises(PlanError, match=r"1 addresses .* 10\.0\.0\.2 first"):
        book.slots(plan)
