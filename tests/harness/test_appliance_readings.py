"""Counters of closed sensors: wraps, resets, restarts, and what `received` means."""

from __future__ import annotations

import pytest

from harness.errors import ConfigError, SensorFailed
from harness.sensors.appliance.command import CommandOptions
from harness.sensors.appliance.extract import Document, TextCounter
from harness.sensors.appliance.options import read
from harness.sensors.appliance.readings import Reading, Tally, number, to_counters
from harness.sensors.appliance.sensor import stood_still


def tally(*values: float, bits: int = 64, name: str = "received") -> Tally:
    found = Tally("probe")
    found.begin(Reading({name: {"a": values[0]}}, {name: bits}))
    for value in values[1:]:
        found.add(Reading({name: {"a": value}}, {name: bits}))
    return found


def test_a_32_bit_counter_may_wrap() -> None:
    assert tally(2**32 - 10, 5, 100, bits=32).totals() == {"received": 110}


def test_a_counter_that_went_back_far_was_reset() -> None:
    # 3,000,000,000 to 100 would be a wrap of 1.3 G; 1,000 to 100 of 4.3 G: nobody counted those.
    assert tally(3_000_000_000, 100, bits=32).totals() == {"received": 2**32 - 3_000_000_000 + 100}
    with pytest.raises(SensorFailed, match="received fell from 1,000 to 100 in mid-trial"):
        tally(1000, 100, bits=32)


def test_a_64_bit_counter_never_wraps() -> None:
    with pytest.raises(SensorFailed, match="bits = 32"):
        tally(2**32 - 10, 5)


def test_a_restart_is_seen_though_counters_grew_past_where_they_were() -> None:
    found = Tally("probe")
    found.begin(Reading({"received": {"a": 10}}, uptime=500))
    with pytest.raises(SensorFailed, match="restarted in mid-trial"):
        found.add(Reading({"received": {"a": 20}}, uptime=3))


def test_places_that_come_and_go() -> None:
    found = Tally("probe")
    found.begin(Reading({"workers": {"one": 5}}))
    found.add(Reading({"workers": {"one": 7, "two": 4}}))
    assert found.places("workers") == {"one": 2, "two": 4}
    with pytest.raises(SensorFailed, match="no longer at one"):
        found.add(Reading({"workers": {"two": 9}}))


@pytest.mark.parametrize(("includes", "received"), [(True, 100), (False, 110)])
def test_received_always_includes_drops(includes: bool, received: int) -> None:
    found = Tally("probe")
    found.begin(Reading({"received": {"": 0}, "dropped": {"": 0}, "odd": {"": 0}}))
    found.add(Reading({"received": {"": 100}, "dropped": {"": 10}, "odd": {"": 3}}))
    counters = to_counters(found, includes)
    assert (counters.received, counters.dropped) == (received, 10)
    assert counters.decoded is None and counters.flows is None  # never zero
    assert counters.raw["odd"] == 3 and not counters.exact


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), (" 1,234,567 ", 1234567), ("1'000", 1000), ("-3", -3), ("1.5e3", 1500.0)],
)
def test_numbers(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize("value", ["", "n/a", "12 pkts", None, True, "0x1f"])
def test_no_numbers(value: object) -> None:
    with pytest.raises(ValueError):
        number(value)


def test_large_counters_stay_exact() -> None:
    assert number("18446744073709551615") == 2**64 - 1


JSON = '{"if": [{"n": "a", "rx": 5, "drop": "1"}, {"n": "b", "rx": 7, "drop": "2"}], "up": 3}'


def find(text: str, **spec: object) -> dict[str, float]:
    return Document(text, "probe").find("received", TextCounter.model_validate(spec))


def test_a_path_may_match_often() -> None:
    assert find(JSON, path="if[*].rx") == {"if.[0].rx": 5, "if.[1].rx": 7}
    assert find(JSON, path="if[?(@.n == 'b')].drop") == {"if.[1].drop": 2}


def test_regular_expressions() -> None:
    text = "eth0: 10 packets, 2 dropped\neth1: 20 packets, 0 dropped\n"
    assert sum(find(text, regex=r"(\d+) packets").values()) == 30
    assert find(text, regex=r"(?<=, )\d+(?= dropped$)") == {"match 1": 2, "match 2": 0}


def test_csv_columns() -> None:
    text = "#timestamp, pkts, drop\n1, 10, 1\n2, 20, 2\n"
    assert find(text, column="pkts") == {"pkts": 20}
    assert find(text, column="pkts", row="sum") == {"pkts": 30}


def test_what_is_not_there_is_an_error_unless_said_otherwise() -> None:
    with pytest.raises(SensorFailed, match="probe: counter received: nothing at path 'rx'"):
        find(JSON, path="rx")
    assert find(JSON, path="rx", absent="zero") == {}
    with pytest.raises(SensorFailed, match="not JSON"):
        find("<html>", path="rx")
    with pytest.raises(SensorFailed, match="'a' is not a number"):
        find(JSON, path="if[0].n")


COMMAND = {"command": ["stat"], "counters": {"received": {"path": "rx"}}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"counters": {}}, "nothing to read"),
        ({"counters": {"recieved": {"path": "rx"}}}, "counters.recieved"),
        ({"counters": {"received": {"path": "a", "regex": "b"}}}, "one of path"),
        ({"counters": {"received": {"regex": "("}}}, "not a regular expression"),
        (
            {"counters": {"received": {"path": "a"}, "dropped": {"path": "b"}}},
            "received_includes_drops = true or false",
        ),
        ({"raw": {"flows": {"path": "a"}}}, "raw.flows"),
        ({"colour": 1}, "colour: no such key"),
        ({"intake": {"port": 514, "format": "cef", "pattern": "(?P<src>.)"}}, "groups"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=r"^inventory: sensor\.options") as error:
        read(CommandOptions, {**COMMAND, **change})
    assert words in str(error.value) and "\n" not in str(error.value)


def test_counters_stand_still() -> None:
    rows = [(0.0, {"received": 100.0, "dropped": 3.0}), (6.0, {"received": 110.0, "dropped": 3.0})]
    assert stood_still(rows, 5)
    assert not stood_still(rows, 7)  # not long enough
    assert not stood_still([rows[0], (6.0, {"received": 110.0, "dropped": 4.0})], 5)
    assert not stood_still([rows[0], (6.0, {"received": 500.0, "dropped": 3.0})], 5)
