"""What a lab's hosts need, by driver: asked for before a run."""

from __future__ import annotations

from typing import Any

import pytest

from harness import needs
from harness.generators.registry import DRIVERS as GENERATORS
from harness.lab_check import readiness
from harness.needs import libraries_missing, programs
from harness.sensors.registry import DRIVERS as SENSORS
from lab.fake import Call, FakeHost, Reply
from lab.inventory import Inventory


def lab(sensor: dict[str, Any], generator: dict[str, Any] | None = None) -> Inventory:
    both = {"tx0": {"test": True}, "tx1": {"test": True}, "rx0": {}}
    return Inventory.model_validate(
        {
            "name": "l",
            "hosts": {
                "gen": {"connection": "local", "interfaces": both, "python": "/usr/bin/python3.9"},
                "probe": {"connection": "local", "interfaces": both},
                "idle": {"connection": "local"},
            },
            "generator": {"host": "gen", "interface": "tx0", **(generator or {})},
            "sensor": {"host": "probe", "interface": "rx0", **sensor},
        }
    )


COMMAND = {"command": ["vendor-cli", "show"], "counters": {"received": {"path": "a"}}}


@pytest.mark.parametrize(
    ("sensor", "wanted"),
    [
        ({}, {"suricata", "gzip"}),
        ({"binary": "/opt/s/bin/suricata", "cpus": "1"},
         {"/opt/s/bin/suricata", "gzip", "taskset"}),
        ({"options": {"control": "observed", "eve": "/e"}}, set()),
        ({"options": {"control": "systemd", "unit": "s", "eve": "/e"}}, {"systemctl"}),
        ({"driver": "zeek", "cpus": "1"}, {"zeek", "gzip", "taskset"}),
        ({"driver": "snort", "binary": "/opt/snort/bin/snort"}, {"/opt/snort/bin/snort", "gzip"}),
        ({"driver": "zeek-cluster"}, {"/opt/zeek/bin/zeekctl"}),
        ({"driver": "zeek-cluster",
          "options": {"zeekctl": "/z/zeekctl", "restart": ["/z/zeekctl", "restart"]}},
         {"/z/zeekctl"}),
        ({"driver": "capture"}, {"tcpdump"}),
        ({"driver": "capture", "options": {"program": "dumpcap"}, "cpus": "3"},
         {"dumpcap", "taskset"}),
        ({"driver": "command", "options": {**COMMAND, "version_command": ["vendor-version"]}},
         {"vendor-cli", "vendor-version"}),
        ({"driver": "snmp", "options": {"restart": ["reset-probe"]}}, {"reset-probe"}),
        ({"driver": "prometheus"}, set()),
        ({"driver": "rest"}, set()),
    ],
)  # fmt: skip
def test_the_sensor_s_host(sensor: dict[str, Any], wanted: set[str]) -> None:
    assert set(programs(lab(sensor), "probe")) == {"python3", *wanted}
    assert programs(lab(sensor), "idle") == ()


@pytest.mark.parametrize(
    ("driver", "wanted"),
    [
        ("tcpreplay", {"tcpreplay", "stdbuf"}),
        ("trex-stf", {"stdbuf", "tar"}),
        ("trex-stl", set()),
        ("trex-astf", {"tar"}),
    ],
)
def test_the_generator_s_host(driver: str, wanted: set[str]) -> None:
    made = lab({}, {"driver": driver, "cpus": "0"})
    assert set(programs(made, "gen")) == {"/usr/bin/python3.9", "taskset", *wanted}


def test_every_driver_was_thought_of() -> None:
    assert set(needs._GENERATORS) == set(GENERATORS)
    for driver in SENSORS:
        options = {"command": COMMAND}.get(driver, {})
        named = programs(lab({"driver": driver, "options": options}), "probe")
        assert len(named) > 1 or driver in needs._LIBRARIES, driver


def test_one_host_for_both_is_asked_once() -> None:
    made = lab({"host": "gen", "cpus": "1"}, {"cpus": "0"})
    found = programs(made, "gen")
    assert len(found) == len(set(found))
    assert {"tcpreplay", "suricata", "taskset"} <= set(found)


@pytest.mark.parametrize(
    ("sensor", "package"),
    [
        ({"driver": "snmp"}, "probebench[snmp]"),
        ({"driver": "prometheus"}, "probebench[prometheus]"),
        ({"driver": "rest"}, "probebench[rest]"),
        ({"driver": "command", "options": COMMAND}, "probebench[rest]"),
        ({"driver": "command", "options": {"counters": {"received": {"regex": "a"}}}}, None),
        ({}, None),
    ],
)
def test_libraries_are_missing_here_or_are_not(
    monkeypatch: pytest.MonkeyPatch, sensor: dict[str, Any], package: str | None
) -> None:
    assert libraries_missing(lab(sensor).sensor) == ()  # the tests' own environment has all
    monkeypatch.setattr(needs, "find_spec", lambda name: None)
    assert libraries_missing(lab(sensor).sensor) == (() if package is None else (package,))


def test_what_is_missing_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, tuple[str, ...]] = {}

    def host(name: str) -> FakeHost:
        def answer(call: Call) -> Reply:
            if "command -v" in " ".join(call.argv):
                asked[name] = call.argv[4:]
                return Reply("snort\n" if "snort" in call.argv else "")
            return Reply()

        return FakeHost(answer, name=name)

    monkeypatch.setattr("harness.lab_check.check_transmit", lambda *words: None)
    monkeypatch.setattr(needs, "find_spec", lambda name: None)
    made = lab({"driver": "snort"})
    found = list(readiness(made, {name: host(name) for name in made.hosts}))
    (problem,) = [line for line in found if line.level == "problem"]
    assert (problem.host, problem.about) == ("probe", "tools")
    assert problem.text.startswith("snort: not there")
    assert asked["probe"] == ("ip", "ss", "python3", "snort", "gzip")
    closed = lab({"driver": "snmp"})
    found = list(readiness(closed, {name: host(name) for name in closed.hosts}))
    (problem,) = [line for line in found if line.level == "problem"]
    assert (problem.host, problem.about) == ("here", "probebench[snmp]")
