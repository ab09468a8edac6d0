"""Management subnets: never on top of anything the machine knows."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import subnets
from lab.errors import LabError

networks = st.builds(
    lambda address, prefix: IPv4Network((address, prefix), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(2, 32),
)
# Half of the networks lie in the pools, where a collision is possible at all.
near = st.builds(
    lambda pool, offset, prefix: IPv4Network((int(pool[0]) + offset, prefix), strict=False),
    st.sampled_from(subnets.POOLS),
    st.integers(0, 4095),
    st.integers(18, 32),
)


@settings(max_examples=200, deadline=None)
@given(taken=st.lists(st.one_of(networks, near), max_size=40), count=st.integers(1, 6))
def test_picks_distinct_subnets_that_overlap_nothing(taken: list[IPv4Network], count: int) -> None:
    """Whatever is taken, a picked subnet shares no address with it, nor with another one picked."""
    try:
        picked = subnets.pick(count, taken)
    except LabError:
        free = [c for p in subnets.POOLS for c in p.subnets(new_prefix=30)]
        assert sum(not any(c.overlaps(t) for t in taken) for c in free) < count
        return
    everything = [(int(n[0]), int(n[-1])) for n in [*taken, *picked]]
    assert len(set(picked)) == count
    for subnet in picked:
        low, high = int(subnet[0]), int(subnet[-1])
        assert sum(low <= b and a <= high for a, b in everything) == 1


def test_takes_the_gap_that_is_left() -> None:
    """One free /30 in a pool is found, and only that one."""
    pool = IPv4Network("172.31.224.0/28")
    taken = [IPv4Network("172.31.224.0/29"), IPv4Network("172.31.224.12/32")]
    assert subnets.pick(1, taken, pools=[pool]) == [IPv4Network("172.31.224.8/30")]


def test_says_when_nothing_is_left() -> None:
    """A machine whose routes cover all pools gets one line, not a wrong subnet."""
    with pytest.raises(LabError, match=r"no 2 free /30 subnets.*ip route"):
        subnets.pick(2, [IPv4Network(f"{half}/1") for half in ("0.0.0.0", "128.0.0.0")])


def test_reads_addresses_and_routes_but_not_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses, far ends, routes of every table and gateways count; a default route does not."""
    answers = {
        "addr": [
            {"addr_info": [{"local": "172.31.224.9", "prefixlen": 29}]},
            {"addr_info": [{"local": "10.9.9.1", "address": "10.9.9.2", "prefixlen": 32}]},
        ],
        "route": [
            {"dst": "default", "gateway": "192.0.2.1"},
            {"dst": "0.0.0.0/1"},
            {"dst": "192.168.240.0/20", "table": "220"},
            {"dst": "100.127.240.7"},
        ],
    }
    monkeypatch.setattr(subnets, "ip_json", lambda *words: answers[words[1]])
    assert [str(network) for network in subnets.taken()] == [
        "10.9.9.1/32",
        "10.9.9.2/32",
        "100.127.240.7/32",
        "172.31.224.8/29",
        "192.0.2.1/32",
        "192.168.240.0/20",
    ]
    assert subnets.pick(1, subnets.taken())[0][1] == IPv4Address("172.31.224.1")
