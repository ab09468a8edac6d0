"""Which sensors there are: one line a driver."""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import ConfigError
from harness.sensors.base import Sensor
from harness.sensors.suricata_life import make_suricata
from lab.host import Host
from lab.inventory import SensorSpec

__all__ = ["DRIVERS", "make_sensor"]

DRIVERS: dict[str, Callable[[Host, SensorSpec], Sensor]] = {
    "suricata": make_suricata,
}


def make_sensor(host: Host, spec: SensorSpec) -> Sensor:
    """The sensor an inventory names. Raises ConfigError for an unknown driver."""
    try:
        driver = DRIVERS[spec.driver]
    except KeyError:
        known = ", ".join(sorted(DRIVERS))
        raise ConfigError(
            f"sensor.driver = {spec.driver!r} is not known; known drivers: {known}"
        ) from None
    return driver(host, spec)
