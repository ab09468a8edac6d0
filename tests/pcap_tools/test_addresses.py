"""Columns of addresses, against the standard library's objects."""

from __future__ import annotations

import ipaddress
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcap_tools.addresses import Addresses, none_of, parse_address, sorted_addresses

LOW = (1 << 64) - 1


def columns(numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array([n >> 64 for n in numbers], np.uint64),
        np.array([n & LOW for n in numbers], np.uint64),
    )


@given(
    drawn=st.sampled_from([4, 6]).flatmap(
        lambda v: st.tuples(st.just(v), st.lists(st.ip_addresses(v=v), max_size=40))
    ),
    others=st.lists(st.integers(0, 2**32 - 1), max_size=5),
)
@settings(max_examples=150, deadline=None)
def test_they_are_sorted_written_and_found(
    drawn: tuple[int, list[ipaddress.IPv4Address]], others: list[int]
) -> None:
    version, wanted = drawn
    made = sorted_addresses(version, *columns([int(a) for a in wanted]))  # type: ignore[arg-type]
    expected = sorted(set(wanted))
    assert [ipaddress.ip_address(text) for text in made.texts] == expected
    assert json.loads(made.json()) == list(made.texts)
    assert Addresses.of_texts(version, made.texts[::-1]) == made  # type: ignore[arg-type]
    asked = [int(a) for a in wanted] + others
    ranks = {int(a): rank for rank, a in enumerate(expected)}
    assert made.ranks(*columns(asked)).tolist() == [ranks.get(n, -1) for n in asked]


def test_none_is_an_empty_list() -> None:
    assert none_of(4).json() == none_of(6).json() == b"[]"
    assert none_of(4).texts == ()


@pytest.mark.parametrize("text", ["10.0.0", "10.0.0.256", "::1", "", None, 7])
def test_a_wrong_text_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=repr(text)):
        Addresses.of_texts(4, ["10.0.0.1", text])


def test_parsing_a_text() -> None:
    assert parse_address("1.2.3.4") == (4, 0, 0x01020304)
    assert parse_address("2001:db8::5") == (6, 0x20010DB8 << 32, 5)
    assert parse_address("host") is None
    assert parse_address("1.2.3.4\0") is None
