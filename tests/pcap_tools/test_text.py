"""Text from the kernel against Python's own: csv, json and inet_ntop."""

from __future__ import annotations

import json
import socket
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcap_tools import text
from pcap_tools.text import ADDRESS, NAME, NUMBER, VLAN, Column, address_texts, format_rows

WORDS = st.lists(st.sampled_from([0, 0, 0, 1, 0xFFFF]) | st.integers(0, 0xFFFF), min_size=8)


def texts(numbers: list[int], version: int) -> list[str]:
    high = np.array([number >> 64 for number in numbers], np.uint64)
    low = np.array([number & (1 << 64) - 1 for number in numbers], np.uint64)
    data, bounds = address_texts(high, low, np.full(len(numbers), version, np.uint8))
    return [bytes(data[a:b]).decode() for a, b in pairwise(bounds)]


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=20))
def test_ipv6_as_inet_ntop(many: list[list[int]]) -> None:
    numbers = [int.from_bytes(b"".join(w.to_bytes(2) for w in words[:8])) for words in many]
    assert texts(numbers, 6) == [socket.inet_ntop(socket.AF_INET6, n.to_bytes(16)) for n in numbers]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_ipv4_as_inet_ntop(numbers: list[int]) -> None:
    assert texts(numbers, 4) == [socket.inet_ntoa(n.to_bytes(4)) for n in numbers]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63) + 1, 2**63 - 1),
            st.integers(0, 2),
            st.sampled_from([4, 6]),
            WORDS,
            st.integers(0, (1 << 24) - 1) | st.sampled_from([0, 5, 4096, 5 << 12]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_few_rows_as_many(rows: list[tuple[int, int, int, list[int], int]]) -> None:
    """Python's way and the kernel's."""
    version = np.array([row[2] for row in rows], np.uint8)
    numbers = [
        int.from_bytes(b"".join(word.to_bytes(2) for word in row[3][:8]))
        & ((1 << 32) - 1 if row[2] == 4 else (1 << 128) - 1)
        for row in rows
    ]
    high = np.array([number >> 64 for number in numbers], np.uint64)
    low = np.array([number & (1 << 64) - 1 for number in numbers], np.uint64)
    columns = [
        Column(NUMBER, b"{", np.array([row[0] for row in rows])),
        Column(NAME, b", ", np.array([row[1] for row in rows]), ("", "a", "long name")),
        Column(ADDRESS, b" at ", low, (), high, version),
        Column(VLAN, b"/", np.array([row[4] for row in rows])),
    ]
    found = [b"".join(map(bytes, format_rows(columns, b"}\n")))]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text, "FEW", 0)
        found.append(b"".join(map(bytes, format_rows(columns, b"}\n"))))
    assert found[0] == found[1]


@pytest.mark.parametrize("few", [0, 200])
@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**63) + 1, 2**63 - 1), st.integers(0, 2)), min_size=1))
def test_rows_are_json(few: int, rows: list[tuple[int, int]]) -> None:
    names = ("", "a", "long name")
    columns = [
        Column(NUMBER, b'{"n": ', np.array([number for number, _ in rows])),
        Column(NAME, b', "s": "', np.array([name for _, name in rows]), names),
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text, "FEW", few)
        lines = b"".join(map(bytes, format_rows(columns, b'"}\n'))).decode().splitlines()
    expected = [{"n": number, "s": names[name]} for number, name in rows]
    assert [json.loads(line) for line in lines] == expected


def test_more_rows_than_one_piece() -> None:
    values = np.arange(20_000)
    columns = [Column(NUMBER, b"", values), Column(VLAN, b",", values)]
    lines = b"".join(map(bytes, format_rows(columns, b"\n"))).decode().splitlines()
    assert lines[0] == "0," and lines[4095] == "4095,4095" and lines[4097] == "4097,1.1"
    assert [int(line.split(",")[0]) for line in lines] == values.tolist()


def test_no_rows() -> None:
    assert list(format_rows([Column(NUMBER, b"", np.zeros(0, np.int64))], b"\n")) == []
