"""The `snmp` driver against net-snmp's own agent."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from snmp_agent import BASE, SNMPD, Agent, snmpd

from harness.errors import ConfigError, SensorFailed
from harness.sensors.appliance.sensor import ApplianceSensor
from harness.sensors.registry import make_sensor
from lab.fake import FakeHost
from lab.inventory import SensorSpec

needs_agent = pytest.mark.skipif(SNMPD is None, reason="needs snmpd (Debian: snmpd)")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with snmpd(tmp_path_factory.mktemp("snmpd")) as running:
        yield running


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("COMMUNITY", "lab"), ("AUTH", "authsecret"), ("PRIV", "privsecret")):
        monkeypatch.setenv(f"PROBE_{name}", value)


def made(port: int, **options: Any) -> ApplianceSensor:
    base: dict[str, Any] = {
        "address": "127.0.0.1",
        "port": port,
        "community": {"env": "PROBE_COMMUNITY"},
        "refresh": 0,
        "live_interval": 0,
        "timeout": 1.0,
        "retries": 1,
        "received_includes_drops": True,
        "counters": {"received": {"oid": f"{BASE}.1"}, "dropped": {"oid": f".{BASE}.2"}},
    }
    spec = SensorSpec(driver="snmp", host="probe", options={**base, **options})
    found = make_sensor(FakeHost(), spec)
    assert isinstance(found, ApplianceSensor)
    return found


USER = {
    "name": "eva",
    "auth": {"env": "PROBE_AUTH"},
    "privacy": {"env": "PROBE_PRIV"},
}


@needs_agent
@pytest.mark.parametrize("version", ["2c", "3"])
def test_a_trial_by_snmp(agent: Agent, version: str) -> None:
    """A Counter32 wraps in the trial; columns of a table are the workers."""
    agent.set(
        {1: ("counter", 2**32 - 500), 2: ("counter", 9), 11: ("counter", 5), 12: ("counter", 7)}
    )
    who: dict[str, Any] = {} if version == "2c" else {"community": None, "user": USER}
    sensor = made(agent.port, workers={"oid": BASE, "walk": True}, **who)
    try:
        sensor.check()
        assert sensor.version == "Closed Probe 3000, release 4.2"
        sensor.prepare()
        assert sensor.snapshot().received == 0
        agent.set(
            {1: ("counter", 500), 2: ("counter", 19), 11: ("counter", 505), 12: ("counter", 507)}
        )
        assert sensor.settle(5)
        after = sensor.finish()
    finally:
        sensor.stop()
    assert (after.received, after.dropped, after.decoded) == (1000, 10, None)
    assert {place.removeprefix(BASE): n for place, n in after.workers.items()} == {
        ".1": 1000, ".2": 10, ".11": 500, ".12": 500,
    }  # fmt: skip
    assert after.raw["probebench.readings"] >= 3


@needs_agent
def test_a_sum_and_a_number_as_text(agent: Agent) -> None:
    agent.set({1: ("string", 100), 2: ("counter", 1), 3: ("counter", 2)})
    counters = {"received": {"oid": f"{BASE}.1"}, "dropped": {"oid": [f"{BASE}.2", f"{BASE}.3"]}}
    sensor = made(agent.port, counters=counters)
    sensor.prepare()
    agent.set({1: ("string", 350), 2: ("counter", 11), 3: ("counter", 22)})
    after = sensor.finish()
    sensor.stop()
    assert (after.received, after.dropped) == (250, 30)


@needs_agent
def test_an_object_that_is_not_there(agent: Agent) -> None:
    agent.set({1: ("counter", 1)})
    sensor = made(agent.port)
    with pytest.raises(SensorFailed, match=rf"counter dropped: the agent has nothing at {BASE}\.2"):
        sensor.check()
    sensor.stop()


@needs_agent
def test_a_wrong_secret_is_said_and_not_shown(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBE_AUTH", "geheimgeheim")
    sensor = made(agent.port, community=None, user=USER)
    with pytest.raises(SensorFailed, match=r"\(SNMP\): .*; see ") as error:
        sensor.check()
    assert "geheim" not in str(error.value)
    sensor.stop()


def test_no_agent_there() -> None:
    sensor = made(9, timeout=0.2, retries=0)
    with pytest.raises(SensorFailed, match=r"^127\.0\.0\.1:9 \(SNMP\): .*; see address"):
        sensor.check()
    sensor.stop()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"community": None}, "community (SNMPv2c) or user (SNMPv3)"),
        ({"user": USER}, "community (SNMPv2c) or user (SNMPv3)"),
        ({"community": "geheim"}, "a secret is not written into the inventory"),
        ({"community": None, "user": {"name": "e", "privacy": {"env": "X"}}}, "no privacy without"),
        ({"counters": {"flows": {"oid": "ifInOctets.1"}}}, "give the number"),
    ],
)
def test_options_that_make_no_sense(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        made(161, **change)
    assert words in str(error.value) and "geheim" not in str(error.value)


@pytest.mark.parametrize(
    ("driver", "module", "options"),
    [
        ("snmp", "pysnmp", {"address": "127.0.0.1", "community": {"env": "PROBE_COMMUNITY"}}),
        ("prometheus", "prometheus_client", {"url": "http://127.0.0.1:9/"}),
    ],
)
def test_a_missing_package_is_one_line(
    monkeypatch: pytest.MonkeyPatch, driver: str, module: str, options: dict[str, Any]
) -> None:
    from harness.sensors.appliance import prometheus, web

    importlib.import_module(module)
    for name in [n for n in sys.modules if n.partition(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(prometheus.Web, "get", lambda *a: web.Answer("", ""))
    place = {"oid": "1.3.6.1"} if driver == "snmp" else {"metric": "m"}
    options = {**options, "counters": {"received": place}}
    sensor = make_sensor(FakeHost(), SensorSpec(driver=driver, host="p", options=options))
    with pytest.raises(ConfigError, match=rf"pip install 'probebench\[{driver}\]'$"):
        sensor.check()
