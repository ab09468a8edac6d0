"""The example inventories and the guide's TOML are read by the code they are for."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from harness.profile import Profile
from harness.sensors.registry import DRIVERS, make_sensor
from lab.fake import FakeHost
from lab.inventory import SensorSpec, load_inventory

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "your-probe.md").read_text()
BLOCKS = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)]


def test_the_example_inventory() -> None:
    inventory = load_inventory(ROOT / "lab" / "example-appliance.toml")
    sensor = make_sensor(FakeHost(), inventory.sensor)
    assert (sensor.name, inventory.sensor.interface) == ("Probe 3000", None)
    assert sensor.capabilities.alerts and sensor.capabilities.kernel_drops


def driver_of(sensor: dict[str, Any]) -> str:
    """The guide leaves the driver away where its heading names it."""
    options = sensor.get("options", {})
    if "driver" in sensor:
        return str(sensor["driver"])
    if "command" in options:
        return "command"
    return "prometheus" if "/metrics" in options.get("url", "") else "rest"


SENSORS = [block["sensor"] for block in BLOCKS if "sensor" in block]


@pytest.mark.parametrize("sensor", SENSORS, ids=driver_of)
def test_every_sensor_in_the_guide_is_accepted(sensor: dict[str, Any]) -> None:
    driver = driver_of(sensor)
    spec = SensorSpec.model_validate(
        {**sensor, "driver": driver, "host": sensor.get("host", "here")}
    )
    if "ca_file" in spec.options:  # the one file that has to be there
        spec.options.pop("ca_file")
    made = make_sensor(FakeHost(), spec)
    assert made.capabilities is not None


def test_the_guide_names_every_driver() -> None:
    assert {driver_of(sensor) for sensor in SENSORS} >= {
        "snmp", "prometheus", "rest", "command", "zeek", "snort", "capture",
    }  # fmt: skip
    for driver in DRIVERS:
        assert f"| `{driver}` |" in GUIDE


def test_the_profile_in_the_guide() -> None:
    (reference,) = [block["reference"] for block in BLOCKS if "reference" in block]
    found = Profile.model_validate({"name": "p", "reference": reference}).reference
    assert found == Profile(name="p").reference  # what it shows is the default


def test_drivers_are_imported_when_they_are_asked_for() -> None:
    """A run needs one of them; all have to be there."""
    code = (
        "import sys, harness.sensors.registry as r; "
        "print([m for m in sys.modules if m.startswith('harness.sensors.')])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(said.stdout) == ["harness.sensors.base", "harness.sensors.registry"]
    for factory in DRIVERS.values():
        module, _, name = factory.partition(":")
        assert callable(getattr(importlib.import_module(f"harness.sensors.{module}"), name))
