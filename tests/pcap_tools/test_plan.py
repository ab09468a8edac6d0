"""The plan: fresh addresses until the pool is used up, and exact inversion."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcap_tools.errors import PlanError, PoolExhausted
from pcap_tools.plan import AddressPlan, invert_many, make_plan
from pcap_tools.population import Population
from pcap_tools.space import Space

TEXTS = ("10.0.0.9", "10.0.0.10", "192.168.3.4", "8.8.8.8", "198.51.100.7", "fd00::1")
TEXTS += ("2001:db8::5", "224.0.0.1", "fe80::1", "255.255.255.255", "127.0.0.1", "::1", "0.0.0.0")


def plan(
    *texts: str, key: str = "key", home: tuple[str, ...] = ("10.0.0.0/8", "fd00::/8")
) -> AddressPlan:
    return make_plan(key, map(ipaddress.ip_address, texts or TEXTS), home)


def test_addresses_are_ranked_per_class_by_number() -> None:
    made = plan()
    assert made.originals["home4"] == ("10.0.0.9", "10.0.0.10")
    assert made.originals["external4"] == ("8.8.8.8", "192.168.3.4", "198.51.100.7")
    assert made.originals["home6"] == ("fd00::1",)
    assert made.originals["external6"] == ("2001:db8::5",)
    assert set(made.kept) == set(TEXTS[7:])


@given(iteration=st.integers(0, 5_000_000), key=st.text(max_size=5))
@settings(max_examples=80, deadline=None)
def test_every_address_inverts(iteration: int, key: str) -> None:
    made = plan(key=key)
    for original, mapped in made.mapped(iteration).items():
        if original in made.kept:
            assert mapped == original
            assert made.invert(mapped) is None
        else:
            assert made.invert(mapped) == (iteration, original)


def test_home_stays_home_and_classes_never_meet() -> None:
    made = plan()
    home = [ipaddress.ip_network(n) for n in made.home]
    for iteration in range(200):
        for original, mapped in made.mapped(iteration).items():
            if original not in made.kept:
                inside = [
                    any(
                        ipaddress.ip_address(a) in n
                        for n in home
                        if n.version == ipaddress.ip_address(a).version
                    )
                    for a in (original, mapped)
                ]
                assert inside[0] == inside[1]


def test_no_address_returns_before_the_pool_is_used_up() -> None:
    made = plan("10.0.0.1", "10.0.0.2", "10.0.0.3", home=("10.0.0.0/22",))
    assert made.capacity == 4 * 254 // 3
    seen = [a for i in range(made.capacity) for a in made.mapped(i).values()]
    assert len(seen) == len(set(seen)) == 3 * made.capacity


def test_past_capacity_is_refused_with_numbers_and_remedy() -> None:
    made = plan("10.0.0.1", "10.0.0.2", "10.0.0.3", home=("10.0.0.0/22",))
    made.require(0, made.capacity)
    with pytest.raises(PoolExhausted, match=r"home4 .*1,016.*338 iterations.*--home"):
        made.require(1, made.capacity)
    with pytest.raises(PlanError, match="--first -1"):
        made.require(-1, 1)


def test_both_ends_move_independently() -> None:
    """No constant sum or difference between the ends, unlike replay tools' +n/−n."""
    made = plan("10.0.0.1", "8.8.8.8")
    pairs = [made.mapped(i) for i in range(500)]
    home = [int(ipaddress.ip_address(p["10.0.0.1"])) for p in pairs]
    outside = [int(ipaddress.ip_address(p["8.8.8.8"])) for p in pairs]
    sums = {(a + b) % 2**32 for a, b in zip(home, outside, strict=True)}
    differences = {(a - b) % 2**32 for a, b in zip(home, outside, strict=True)}
    assert len(sums) > 490
    assert len(differences) > 490


def test_json_is_enough_to_invert(tmp_path: Path) -> None:
    made = plan()
    made.save(tmp_path / "plan.json")
    again = AddressPlan.load(tmp_path / "plan.json")
    assert again == made
    mapped = made.mapped(41)
    assert invert_many(again, [mapped["8.8.8.8"], "nonsense", mapped["fd00::1"]]) == [
        (41, "8.8.8.8"),
        None,
        (41, "fd00::1"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format"),
        ({"version": 3}, '"version" is 3'),
        ({"permutation": "xor"}, "\"permutation\" is 'xor'"),
        ({"home": ["10.0.0.1/8"]}, "home"),
        ({"originals": 3}, "malformed"),
        ({"originals": {"home4": ["10.0.0"]}}, "malformed plan: '10.0.0' is not an IPv4 address"),
        ({"mapping": "other"}, "\"mapping\" is 'other'"),
        ({"hosts": {"away": 3}}, "malformed"),
        ({"sockets": {"class": [9]}}, "key 'protocol' is missing"),
        ({"macs": ["x"]}, "'x' is not a MAC address"),
    ],
)
def test_a_wrong_plan_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**plan().as_json(), **change}))
    with pytest.raises(PlanError, match=message) as caught:
        AddressPlan.load(path)
    assert "plan.json" in str(caught.value)


def test_missing_keys_and_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with pytest.raises(PlanError, match=r"plan\.json: No such file"):
        AddressPlan.load(path)
    path.write_text("{")
    with pytest.raises(PlanError, match="not JSON"):
        AddressPlan.load(path)
    value = plan().as_json()
    del value["key"]
    path.write_text(json.dumps(value))
    with pytest.raises(PlanError, match="'key' is missing"):
        AddressPlan.load(path)


def test_a_plan_of_the_first_format_is_read_and_written_still(tmp_path: Path) -> None:
    """As version 0.1 wrote it: `indent=1`, and nothing that a later format brought."""
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan().as_json(), indent=1) + "\n")
    value = json.loads(path.read_text())
    assert value["version"] == 1
    assert set(value) == {
        *("format", "version", "permutation", "key", "home", "originals", "kept"),
        *("pools", "capacity", "run"),
    }
    again = AddressPlan.load(path)
    assert again == plan()
    again.save(tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == value


def test_what_the_first_format_cannot_say_is_version_2(tmp_path: Path) -> None:
    for changed in (
        replace(plan(), prefix=True),
        replace(plan(), macs=(1, 2)),
        replace(plan(), hosts=Population(5, None)),
        replace(plan(), space=Space(external_pool=("198.18.0.0/15",))),
    ):
        changed.save(tmp_path / "plan.json")
        assert json.loads((tmp_path / "plan.json").read_text())["version"] == 2
        assert AddressPlan.load(tmp_path / "plan.json") == changed
