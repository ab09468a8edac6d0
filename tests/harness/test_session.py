"""A run is continued with what it was begun with, or not at all."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
from fakes import CORPUS, REFERENCE

from harness.errors import ConfigError
from harness.profile import CorpusSpec, LoadSpec, Profile
from harness.results import RunDir, RunInfo
from harness.sensors.registry import make_sensor
from harness.session import _limited, _predictor, _same, _same_reference, run_name
from lab.fake import FakeHost
from lab.inventory import Inventory, SensorSpec

PROFILE = Profile(name="p", load=LoadSpec(values=(1.0, 2.0)), corpus=CorpusSpec(max_gap=0.2))
WHERE = Path("results/x")


def inventory(**sensor: Any) -> Inventory:
    host = {"connection": "local", "interfaces": {"tx0": {"test": True}, "rx0": {}}}
    return Inventory.model_validate(
        {
            "name": "l",
            "hosts": {"one": host},
            "generator": {"host": "one", "interface": "tx0"},
            "sensor": {"host": "one", "interface": "rx0", "rules": ["a.rules"], **sensor},
        }
    )


@pytest.fixture
def earlier(tmp_path: Path) -> RunInfo:
    """As it comes back from `run.json`."""
    run = RunDir(tmp_path)
    run.write_info(
        RunInfo(
            profile=PROFILE.model_dump(mode="json"),
            inventory=inventory().model_dump(mode="json"),
            corpus=asdict(CORPUS),
            reference=asdict(REFERENCE),
            hosts={},
            tools={},
            seeds={"permutation_key": "k"},
            started="now",
            sensor="suricata 7.0.10",
        )
    )
    return run.info()


def test_the_same_is_continued(earlier: RunInfo) -> None:
    _same(earlier, PROFILE, inventory(rules=["elsewhere/a.rules"]), CORPUS, WHERE)
    _same_reference(earlier, REFERENCE, "suricata 7.0.10", WHERE)


def test_another_corpus(earlier: RunInfo) -> None:
    with pytest.raises(ConfigError, match=r"results/x: was made with corpus dddddddddddd…"):
        _same(earlier, PROFILE, inventory(), replace(CORPUS, digest="e" * 64), WHERE)


def test_another_profile(earlier: RunInfo) -> None:
    changed = PROFILE.model_copy(update={"load": LoadSpec(values=(1.0, 3.0)), "strict": True})
    with pytest.raises(ConfigError, match=r"profile has changed since \(load, strict\)"):
        _same(earlier, changed, inventory(), CORPUS, WHERE)


def test_another_size_of_the_sensor(earlier: RunInfo) -> None:
    changed = inventory(workers=2, ring_size=4096)
    with pytest.raises(ConfigError, match=r"changed since \(sensor\.ring_size, sensor\.workers\)"):
        _same(earlier, PROFILE, changed, CORPUS, WHERE)


def test_other_rules_or_another_version(earlier: RunInfo) -> None:
    with pytest.raises(ConfigError, match="rules have changed"):
        _same_reference(earlier, replace(REFERENCE, rules_digest="x"), "suricata 7.0.10", WHERE)
    with pytest.raises(ConfigError, match=r"measured on suricata 7\.0\.10, this is suricata 8"):
        _same_reference(earlier, REFERENCE, "suricata 8.0.0", WHERE)


def test_the_name_of_a_run() -> None:
    stamp, name, sensor = run_name(PROFILE, inventory()).split("-")
    assert (name, sensor, len(stamp), stamp[-1]) == ("p", "suricata", 16, "Z")


def test_only_signatures_due_are_limited(tmp_path: Path) -> None:
    rules = tmp_path / "t.rules"
    text = 'alert ip any any -> any any (msg:"x"; sid:{}; threshold: type limit, track by_src, '
    text += "count 1, seconds 60;)\n"
    rules.write_text(text.format(1) + text.format(77) + "alert ip any any -> any any (sid:2;)\n")
    lab = inventory(rules=[str(rules)])
    assert _limited(lab, REFERENCE) == (1,)  # 1 and 2 are due
    rules.write_text(rules.read_text() + "event_filter gen_id 1, type limit, count 1\n")
    assert _limited(lab, REFERENCE) == (0, 1)
    assert _limited(inventory(rules=[]), REFERENCE) == ()


@pytest.mark.parametrize(
    ("driver", "options", "predicted"),
    [
        ("suricata", {}, True),
        ("suricata", {"capture": "netmap"}, False),
        ("zeek", {}, True),
        ("zeek", {"capture": "pcap"}, False),
        ("snort", {}, True),
        ("snort", {"fanout": "lb"}, False),
        ("capture", {}, False),
    ],
)
def test_only_what_the_fanout_hash_divides_is_predicted_by_it(
    driver: str, options: dict[str, str], predicted: bool
) -> None:
    spec = SensorSpec(host="sen", driver=driver, interface="rx0", workers=1, home=("10.0.0.0/8",),
                      options=options)  # fmt: skip
    sensor = make_sensor(FakeHost("sen"), spec)
    plan = cast("Any", None)  # asked for with the first prediction
    assert (_predictor(sensor, Path("corpus.pcap"), plan) is not None) == predicted
