"""Reading ahead: order, failures, and a consumer that leaves early."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pcap_tools.ahead import DEPTH, ahead


def test_all_items_in_order() -> None:
    assert list(ahead(iter(range(1, 1000)))) == list(range(1, 1000))


def test_a_failure_comes_where_it_happened() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("at the second")

    items = ahead(source())
    assert next(items) == 1
    with pytest.raises(ValueError, match="at the second"):
        next(items)


def test_never_further_ahead_than_promised() -> None:
    made = 0

    def source() -> Iterator[int]:
        nonlocal made
        while made < 100:
            made += 1
            yield made

    for item in ahead(source()):
        threading.Event().wait(0.0005)
        assert made <= item + DEPTH + 1


def test_a_consumer_that_leaves_ends_the_thread() -> None:
    before = threading.active_count()
    items = ahead(iter(range(1, 10**9)))
    next(items)
    assert threading.active_count() == before + 1
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
