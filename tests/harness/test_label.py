"""Reference files, and rules whose alerts depend on load. (Suricata itself: tests/live.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.events import canonical_address, event_key
from harness.label import load, load_dependent, save
from harness.model import DueEvent, Reference

REFERENCE = Reference(
    "c" * 64,
    "r" * 64,
    "suricata 7.0.10",
    3,
    (DueEvent("TCP", "10.0.0.1", 1, "20.0.0.1", 80, 7),),
    {7: "seven"},
)


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    save(REFERENCE, path)
    assert load(path) == REFERENCE
    assert [p.name for p in tmp_path.iterdir()] == ["reference.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable reference"),
        ("[]", "schema None"),
        ('{"schema": 99}', "schema 99, this version reads 1"),
        ('{"schema": 1}', "damaged reference"),
    ],
)
def test_load_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "reference.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(path)
    with pytest.raises(ConfigError, match="not a readable reference"):
        load(tmp_path / "none.json")


def test_a_damaged_event(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    save(REFERENCE, path)
    data = json.loads(path.read_text())
    data["due"][0]["colour"] = "red"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="damaged reference"):
        load(path)


def test_save_into_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the reference"):
        save(REFERENCE, tmp_path / "no" / "reference.json")


def test_rules_that_depend_on_load(tmp_path: Path) -> None:
    rules = tmp_path / "x.rules"
    rules.write_text(
        'alert tcp any any -> any any (msg:"threshold: in words; no"; sid:1;)\n'
        '# alert tcp any any -> any any (msg:"off"; threshold: type limit, count 1; sid:2;)\n'
        'alert tcp any any -> any any (msg:"a"; threshold: type limit, count 1; sid:3;)\n'
        'alert tcp any any -> any any (msg:"b"; detection_filter:track by_src, count 9; sid:4;)\n'
    )
    found = load_dependent([rules])
    assert [(f.line, f.signature_id, f.keyword) for f in found] == [
        (3, 3, "threshold"),
        (4, 4, "detection_filter"),
    ]
    assert str(found[0]).startswith(f"{rules}:3: sid 3 has threshold")
    with pytest.raises(ConfigError, match=r"none\.rules: cannot read"):
        load_dependent([tmp_path / "none.rules"])


def test_an_event_is_the_same_from_both_sides() -> None:
    there = event_key("TCP", "10.0.0.1", 5, "20.0.0.1", 80, 7)
    back = event_key("TCP", "20.0.0.1", 80, "10.0.0.1", 5, 7)
    assert there == back == ("TCP", "10.0.0.1", 5, "20.0.0.1", 80, 7)
    assert event_key("UDP", "10.0.0.1", 9, "10.0.0.1", 5, 1)[2] == 5


def test_addresses_in_one_form() -> None:
    assert canonical_address("2001:0db8:0000:0000:0000:0000:0000:0001") == "2001:db8::1"
    assert canonical_address("10.0.0.1") == "10.0.0.1"
