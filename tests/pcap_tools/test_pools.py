"""Pools: index to address and back, and never an address that must not be handed out."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcap_tools.errors import PlanError
from pcap_tools.pools import DEFAULT_HOME, Pool, external_pool, home_pool, is_kept, parse_networks

NONE = (1 << 64) - 1


def address_of(pool: Pool, index: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    high, low = pool.addresses(np.array([index], np.uint64))
    if pool.version == 4:
        return ipaddress.IPv4Address(int(low[0]))
    return ipaddress.IPv6Address(int(high[0]) << 64 | int(low[0]))


def index_of(pool: Pool, address: str) -> int:
    number = int(ipaddress.ip_address(address))
    high, low = np.array([number >> 64], np.uint64), np.array([number & NONE], np.uint64)
    return int(pool.indices(high, low)[0])


POOLS = [
    make(v, parse_networks(DEFAULT_HOME)) for make in (home_pool, external_pool) for v in (4, 6)
]


@given(pool=st.sampled_from(POOLS), data=st.data())
@settings(max_examples=300, deadline=None)
def test_index_to_address_and_back(pool: Pool, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, pool.size - 1))
    address = address_of(pool, index)
    assert any(address in network for network in pool.networks)
    assert not is_kept(address)
    assert index_of(pool, str(address)) == index


@given(pool=st.sampled_from(POOLS[:3:2]), data=st.data())
@settings(max_examples=200, deadline=None)
def test_ipv4_pools_leave_out_network_and_broadcast(pool: Pool, data: st.DataObject) -> None:
    address = address_of(pool, data.draw(st.integers(0, pool.size - 1)))
    assert int(address) & 255 not in (0, 255)


@pytest.mark.parametrize("cidr", ["192.168.1.0/24", "10.0.0.0/22", "10.1.2.0/28", "10.1.2.255/32"])
def test_small_ipv4_pools_are_enumerated_exactly(cidr: str) -> None:
    pool = home_pool(4, parse_networks([cidr]))
    expected = [a for a in ipaddress.IPv4Network(cidr) if int(a) & 255 not in (0, 255)]
    assert [address_of(pool, n) for n in range(pool.size)] == expected


@pytest.mark.parametrize("cidr", ["2001:db8::/120", "2001:db8::/128", "fd00::/72"])
def test_small_ipv6_pools_are_contiguous(cidr: str) -> None:
    network = ipaddress.IPv6Network(cidr)
    pool = home_pool(6, parse_networks([cidr]))
    assert pool.size == network.num_addresses
    for index in {0, pool.size // 3, pool.size - 1}:
        assert address_of(pool, index) == network[index]


@pytest.mark.parametrize("index", [1, 3])
def test_large_ipv6_pools_have_at_most_2_56_addresses(index: int) -> None:
    assert (1 << 55) <= POOLS[index].size <= (1 << 56)


@pytest.mark.parametrize(
    "address",
    [
        "10.1.1.1",
        "100.64.1.1",
        "127.0.0.1",
        "169.254.1.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "203.0.113.9",
        "240.1.1.1",
        "255.255.255.255",
        "0.1.2.3",
        "8.8.8.0",
        "8.8.8.255",
    ],
)
def test_the_external_pool_has_no_special_address(address: str) -> None:
    assert index_of(external_pool(4, parse_networks(DEFAULT_HOME)), address) == NONE


def test_the_external_pool_varies_the_first_octet() -> None:
    pool = external_pool(4, parse_networks(DEFAULT_HOME))
    firsts = {int(address_of(pool, n * (pool.size // 2000))) >> 24 for n in range(2000)}
    assert firsts == set(range(1, 224)) - {10, 127}


def test_public_home_networks_are_not_external() -> None:
    home = parse_networks(["8.8.8.0/24", "2606:4700::/32"])
    assert index_of(external_pool(4, home), "8.8.8.8") == NONE
    assert index_of(home_pool(4, home), "8.8.8.8") == 7
    assert index_of(external_pool(6, home), "2606:4700::1") == NONE


def test_overlapping_home_networks_count_once() -> None:
    home = parse_networks(["10.0.0.0/8", "10.1.0.0/16"])
    assert home_pool(4, home).size == 65536 * 254


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10/8", "nonsense", "", "fe80::1/10"])
def test_a_wrong_network_is_named(text: str) -> None:
    with pytest.raises(PlanError, match="--home"):
        parse_networks([text])
