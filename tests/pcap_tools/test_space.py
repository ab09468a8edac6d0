"""Home networks and pools, from options and from a file."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import numpy as np
import pytest

from pcap_tools.errors import PlanError
from pcap_tools.plan import AddressPlan, make_plan, plan_of
from pcap_tools.space import Space, read_space

LAB = Space(home=("192.168.0.0/16",), home_pool=("10.9.0.0/16",), external_pool=("198.18.0.0/15",))


def lab_plan() -> AddressPlan:
    low = [int(ipaddress.ip_address(a)) for a in ("192.168.1.1", "8.8.8.8", "10.9.9.9")]
    return plan_of(
        "key",
        np.full(3, 4, np.uint8),
        np.zeros(3, np.uint64),
        np.array(low, np.uint64),
        LAB,
    )


def test_stand_ins_come_from_the_pools_given(tmp_path: Path) -> None:
    plan = lab_plan()
    plan.save(tmp_path / "plan.json")
    again = AddressPlan.load(tmp_path / "plan.json")
    assert again == plan
    for iteration in range(50):
        mapping = again.mapped(iteration)
        assert ipaddress.ip_address(mapping["192.168.1.1"]) in ipaddress.ip_network("10.9.0.0/16")
        for outside in ("8.8.8.8", "10.9.9.9"):
            inside = ipaddress.ip_address(mapping[outside])
            assert inside in ipaddress.ip_network("198.18.0.0/15")
            assert again.invert(mapping[outside]) == (iteration, outside)


def test_a_version_without_a_pool_has_the_default() -> None:
    assert LAB.pool("external", 6) == Space(home=LAB.home).pool("external", 6)


def test_the_default_external_pool_leaves_the_home_pool_out() -> None:
    space = Space(home=("10.0.0.0/8",), home_pool=("8.8.0.0/16",))
    low = np.array([int(ipaddress.ip_address("8.8.8.8"))], np.uint64)
    high = np.zeros(1, np.uint64)
    assert space.pool("external", 4).indices(high, low)[0] == np.uint64(2**64 - 1)
    assert space.pool("home", 4).indices(high, low)[0] < 2**32


def test_pools_that_overlap_are_refused() -> None:
    with pytest.raises(PlanError, match=r"--external-pool: 10\.1\.0\.0/16 overlaps"):
        Space(external_pool=("10.1.0.0/16",))


def test_a_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "pools.toml"
    path.write_text(
        'home = ["192.168.0.0/16"]\nhome_pool = ["10.9.0.0/16"]\n'
        'external_pool = ["198.18.0.0/15"]  # RFC 2544\n'
    )
    assert read_space(path) == LAB


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hom = []", 'unknown key "hom"'),
        ("home = 7", '"home" is not a list'),
        ("home = ['10.0.0.1/8']", "--home: '10.0.0.1/8'"),
        ("home = []", "--home: no network"),
        ("home", "not TOML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pools.toml"
    path.write_text(text)
    with pytest.raises(PlanError, match=message) as caught:
        read_space(path)
    assert "pools.toml" in str(caught.value)
    with pytest.raises(PlanError, match="No such file"):
        read_space(tmp_path / "none.toml")


@pytest.mark.parametrize("workers", [8])
def test_ippair_over_8_workers_is_even(workers: int) -> None:
    """Suricata's autofp ippair adds both addresses in network order (tmqh-flow.c), so that on a
    little-endian machine the first octets alone choose among 2^k workers: they must vary."""
    plan = make_plan("key", [ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("8.8.8.8")])
    counts = np.zeros(workers)
    home, outside = plan.classes[0], plan.classes[1]
    for iteration in range(4000):
        ends = [group.stand_ins(iteration, np.zeros(1, np.int64))[1] for group in (home, outside)]
        words = [int(low[0].astype(np.uint32).byteswap()) for low in ends]
        counts[sum(words) % workers] += 1
    assert counts.max() / counts.mean() < 1.15  # 1.4 and more when the first octet stays
