"""Balancers over simulated replays: the table of the field notes, and what every one must keep."""

from __future__ import annotations

import ipaddress

import numpy as np
import numpy.typing as npt
import pytest

from pcap_tools.balancers import BALANCERS, pick
from pcap_tools.errors import PcapError
from pcap_tools.hashes import SYMMETRIC_KEY, Tuples, reversed_tuples, toeplitz, toeplitz_table

Numbers = npt.NDArray[np.int64]
WORKERS = 8
COLUMNS = ("pf_ring-5tuple", "autofp-ippair", "ebpf-lb", "xdp-lb", "rss-6d5a-128")
KEYED = ("af_packet-hash", "autofp-hash")


def ip(text: str) -> int:
    return int(ipaddress.ip_address(text))


def flows(a: Numbers, b: Numbers, sport: Numbers) -> Tuples:
    a, b, sport = np.broadcast_arrays(a, b, sport)
    zero = np.zeros(a.size, np.uint32)
    ends = [x.ravel().astype(np.uint32)[:, None] for x in (a, b)]
    return Tuples(4, *ends, sport.ravel().astype(np.uint32), zero + 80, zero + 6, zero, zero)


def peak(tuples: Tuples, name: str, key: int = 0) -> float:
    prepare = BALANCERS[name].prepare
    assert prepare is not None
    chosen = prepare(tuples, WORKERS)(key)
    assert chosen.min() >= 0 and chosen.max() < WORKERS
    return float(np.bincount(chosen, minlength=WORKERS).max()) / len(chosen) * WORKERS


ONE_A, ONE_B = ip("10.1.2.3"), ip("198.18.4.4")  # complementary in the last three bits
N = np.arange(10_000)
RANDOM = np.random.default_rng(7)
MANY_A = ip("10.0.0.0") + RANDOM.integers(1, 1 << 24, 50)
MANY_B = ip("198.18.0.0") + RANDOM.integers(1, 1 << 17, 50)
PORTS = RANDOM.integers(1024, 65536, 50)
I = np.arange(1000)[:, None]  # noqa: E741
XOR = RANDOM.integers(0, 1 << 16, 10_000)
KEYED_A = ip("10.0.0.0") + RANDOM.integers(1, 1 << 24, (1000, 50))
KEYED_B = ip("198.18.0.0") + RANDOM.integers(1, 1 << 17, (1000, 50))
P = np.array(40_000)

# Bounds of max/mean: what the field notes have, with room for what depends on the addresses.
EVEN, ALL = (1.0, 1.06), (8.0, 8.0)
TABLE = {
    "unique-ip, 1 flow x 10,000": (
        (ONE_A - N, ONE_B + N, P), (ALL, ALL, ALL, (6.0, 8.0), (1.1, 4.0))),
    "unique-ip, 50 flows x 1,000": (
        (MANY_A - I, MANY_B + I, PORTS), ((1.1, 2.3), ALL, (1.1, 2.3), (1.1, 2.3), (1.0, 1.2))),
    "keyed remap inside 10/8 to 198.18/15": (
        (KEYED_A, KEYED_B, PORTS), (EVEN, ALL, EVEN, EVEN, EVEN)),
    "+i to both": (
        (ONE_A + N, ONE_B + N, P), ((2.0, 2.0), ALL, (2.0, 2.0), (1.0, 1.2), (1.2, 8.0))),
    "the same XOR on both": (
        (ONE_A ^ XOR, ONE_B ^ XOR, P), (ALL, ALL, ALL, (1.0, 1.3), ALL)),
    "+i to the source": (
        (ONE_A + N, np.array(ONE_B), P), ((1.0, 1.01), ALL, (1.0, 1.01), EVEN, (1.0, 1.01))),
}  # fmt: skip


@pytest.mark.parametrize("traffic", TABLE)
def test_the_field_notes_simulation_is_reproduced(traffic: str) -> None:
    addresses, expected = TABLE[traffic]
    tuples = flows(*addresses)
    for name, (low, high) in zip(COLUMNS, expected, strict=True):
        assert low <= peak(tuples, name) <= high, name
    for name in KEYED:
        assert 1.0 <= peak(tuples, name) <= 1.08, name


def test_unique_ip_has_few_toeplitz_hashes() -> None:
    """10,000 iterations, and a handful of values to choose a queue from."""
    value = toeplitz(flows(ONE_A - N, ONE_B + N, P), toeplitz_table(SYMMETRIC_KEY))
    assert len(np.unique(value)) < 300


@pytest.mark.parametrize("name", [n for n, b in BALANCERS.items() if not b.per_packet])
def test_directions_meet_where_the_balancer_is_symmetric(name: str) -> None:
    balancer = BALANCERS[name]
    assert balancer.prepare is not None
    tuples = flows(KEYED_A[:20], KEYED_B[:20], PORTS)
    there = balancer.prepare(tuples, 5)(3)
    back = balancer.prepare(reversed_tuples(tuples), 5)(3)
    assert (there == back).all() == balancer.symmetric
    assert set(there.tolist()) == set(range(5))


@pytest.mark.parametrize("name", KEYED)
def test_random_keys_spread_as_chance_does(name: str) -> None:
    """Over keys, one flow's worker is uniform, and two flows' are independent (chi-squared)."""
    balancer = BALANCERS[name]
    assert balancer.prepare is not None
    choose = balancer.prepare(flows(MANY_A, MANY_B, PORTS), 4)
    chosen = np.stack([choose(key) for key in range(1600)])
    for counts in (
        np.bincount(chosen[:, 0], minlength=4),
        np.bincount(chosen[:, 0] * 4 + chosen[:, 1], minlength=16),
    ):
        mean = counts.mean()
        assert ((counts - mean) ** 2 / mean).sum() < 40  # p < 0.001 at 15 degrees of freedom


def test_names_are_checked() -> None:
    assert [b.name for b in pick(["ebpf-lb"])] == ["ebpf-lb"]
    assert len(pick(None)) == len(BALANCERS)
    with pytest.raises(PcapError, match="unknown balancer 'x'"):
        pick(["x"])
