"""Which sensors there are: one line a driver."""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import ConfigError
from harness.sensors.appliance.command import make_command
from harness.sensors.appliance.prometheus import make_prometheus
from harness.sensors.appliance.rest import make_rest
from harness.sensors.appliance.snmp import make_snmp
from harness.sensors.base import Sensor
from harness.sensors.capture import BareCapture
from harness.sensors.snort import SnortSensor
from harness.sensors.suricata_life import make_suricata
from harness.sensors.zeek import ZeekSensor
from harness.sensors.zeek_cluster import make_zeek_cluster
from lab.host import Host
from lab.inventory import SensorSpec

__all__ = ["DRIVERS", "OFFLINE", "make_sensor"]

DRIVERS: dict[str, Callable[[Host, SensorSpec], Sensor]] = {
    "suricata": make_suricata,
    "capture": BareCapture,
    "command": make_command,
    "snmp": make_snmp,
    "prometheus": make_prometheus,
    "rest": make_rest,
    "snort": SnortSensor,
    "zeek": ZeekSensor,
    "zeek-cluster": make_zeek_cluster,
}

# Those whose program reads captures with the live sensor's rules (see harness.label).
OFFLINE = frozenset({"suricata"})


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
