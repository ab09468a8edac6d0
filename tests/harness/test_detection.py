"""Scoring against the reference, with a small address plan that can be read by eye."""

from __future__ import annotations

import itertools
import time

from hypothesis import given
from hypothesis import strategies as st

from harness.detection import score
from harness.model import Alert, DueEvent, Reference

# Iteration i maps 10.0.0.x to 10.<i>.0.x, 20.0.0.x to 20.<i>.0.x, 2001:db8::x to 2001:db8:<i>::x.
# Multicast stays.


def invert(addresses: list[str]) -> list[tuple[int, str] | None]:
    found: list[tuple[int, str] | None] = []
    for address in addresses:
        if ":" in address:
            iteration, host = address.removeprefix("2001:db8:").split("::")
            found.append((int(iteration, 16), f"2001:db8::{host}"))
            continue
        a, b, _, d = address.split(".")
        found.append(None if int(a) >= 224 else (int(b), f"{a}.0.0.{d}"))
    return found


def alert(src: str, sport: int, dst: str, dport: int, sid: int, proto: str = "TCP") -> Alert:
    return Alert("", proto, src, sport, dst, dport, sid, f"s{sid}")


DUE = (
    DueEvent("TCP", "10.0.0.1", 1000, "20.0.0.2", 80, 1),
    DueEvent("TCP", "10.0.0.1", 1000, "20.0.0.2", 80, 2),
    DueEvent("TCP", "2001:db8::1", 1000, "2001:db8::2", 80, 1),
    DueEvent("UDP", "10.0.0.1", 5, "224.0.0.251", 5353, 3),
)
REFERENCE = Reference("c", "r", "s", 4, DUE, {1: "one", 2: "two", 3: "three"})


def raised(iteration: int) -> list[Alert]:
    i = iteration
    long = f"2001:0db8:{i:04x}:0000:0000:0000:0000:000"
    return [
        alert(f"10.{i}.0.1", 1000, f"20.{i}.0.2", 80, 1),
        alert(f"20.{i}.0.2", 80, f"10.{i}.0.1", 1000, 2),  # seen from the other side
        alert(f"{long}1", 1000, f"{long}2", 80, 1),  # as Suricata prints IPv6
        alert(f"10.{i}.0.1", 5, "224.0.0.251", 5353, 3, "UDP"),  # an end that stays
    ]


def test_everything_due_is_found() -> None:
    found = score(itertools.chain(*map(raised, range(7, 27))), REFERENCE, invert, 7, 20)
    assert (found.due, found.detected, found.rate) == (80, 80, 1.0)
    assert (found.repeated, found.unexpected, found.unmapped) == (0, 0, 0)
    assert found.low < 1.0 == found.high
    assert [(s.signature_id, s.signature, s.due, s.detected) for s in found.by_signature] == [
        (1, "one", 40, 40),
        (2, "two", 20, 20),
        (3, "three", 20, 20),
    ]


def test_repeats_count_once() -> None:
    found = score(raised(1) * 3, REFERENCE, invert, 1, 2)
    assert (found.due, found.detected, found.repeated) == (8, 4, 8)


def test_what_the_reference_has_not() -> None:
    strange = [
        alert("10.0.0.1", 1000, "20.0.0.2", 81, 1),
        alert("10.0.0.1", 1000, "20.0.0.2", 80, 9),
        alert("10.0.0.1", 1000, "20.0.0.2", 80, 9),
    ]
    found = score(strange, REFERENCE, invert, 0, 1)
    assert (found.detected, found.unexpected, found.repeated, found.unmapped) == (0, 2, 1, 0)


def test_what_belongs_to_no_iteration() -> None:
    strange = [
        alert("10.1.0.1", 1000, "20.2.0.2", 80, 1),  # ends of two iterations
        alert("10.9.0.1", 1000, "20.9.0.2", 80, 1),  # past the last
        alert("10.0.0.1", 1000, "20.0.0.2", 80, 1),  # before the first
        alert("224.0.0.1", 1, "224.0.0.2", 1, 1),  # nothing tells the iteration
    ]
    found = score(strange, REFERENCE, invert, 1, 8)
    assert (found.detected, found.unmapped, found.raised) == (0, 4, 4)


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(78, 82), st.integers(1, 4)),
        max_size=60,
    )
)
def test_every_alert_is_counted_once(rows: list[tuple[int, int, int, int]]) -> None:
    alerts = [alert(f"10.{i}.0.1", 1000, f"20.{j}.0.2", port, sid) for i, j, port, sid in rows]
    found = score(alerts, REFERENCE, invert, 1, 5)
    assert found.raised == len(alerts)
    assert found.raised == found.detected + found.repeated + found.unexpected + found.unmapped
    truth = {
        (i, sid)
        for i, j, port, sid in rows
        if i == j and 1 <= i <= 5 and port == 80 and sid in (1, 2)
    }
    assert found.detected == len(truth)


def test_no_alert_and_nothing_due() -> None:
    found = score([], REFERENCE, invert, 0, 3)
    assert (found.due, found.detected, found.rate, found.raised) == (12, 0, 0.0, 0)
    empty = Reference("c", "r", "s", 0, (), {})
    assert score([], empty, invert, 0, 3).due == 0


def test_a_large_trial_is_scored_in_seconds() -> None:
    reference = Reference("c", "r", "s", 1, DUE[:1], {1: "one"})
    number = 100_000

    def wide(addresses: list[str]) -> list[tuple[int, str] | None]:
        rows = [a.split(".") for a in addresses]
        return [
            (int(b) << 16 | int(c) << 8 | int(d), "10.0.0.1" if a == "10" else "20.0.0.2")
            for a, b, c, d in rows
        ]

    alerts = (
        alert(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 1000,
              f"20.{n >> 16}.{n >> 8 & 255}.{n & 255}", 80, 1)
        for n in range(number)
    )  # fmt: skip
    start = time.monotonic()
    assert score(alerts, reference, wide, 0, number).detected == number
    assert time.monotonic() - start < 10
