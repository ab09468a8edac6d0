"""Which sensors there are: one line a driver, imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from harness.sensors.base import Sensor
from lab.host import Host
from lab.inventory import SensorSpec

__all__ = ["DRIVERS", "OFFLINE", "make_sensor"]

# "module:factory" below harness.sensors; a run needs one of them, and together they cost 0.1 s.
DRIVERS: dict[str, str] = {
    "suricata": "suricata_life:make_suricata",
    "capture": "capture:BareCapture",
    "command": "appliance.command:make_command",
    "snmp": "appliance.snmp:make_snmp",
    "prometheus": "appliance.prometheus:make_prometheus",
    "rest": "appliance.rest:make_rest",
    "snort": "snort:SnortSensor",
    "zeek": "zeek:ZeekSensor",
    "zeek-cluster": "zeek_cluster:make_zeek_cluster",
}

if TYPE_CHECKING:  # that each keeps to the seam is still checked
    from harness.sensors.appliance.command import make_command
    from harness.sensors.appliance.prometheus import make_prometheus
    from harness.sensors.appliance.rest import make_rest
    from harness.sensors.appliance.snmp import make_snmp
    from harness.sensors.capture import BareCapture
    from harness.sensors.snort import SnortSensor
    from harness.sensors.suricata_life import make_suricata
    from harness.sensors.zeek import ZeekSensor
    from harness.sensors.zeek_cluster import make_zeek_cluster

    _CHECKED: tuple[Callable[[Host, SensorSpec], Sensor], ...] = (
        *(make_suricata, make_command, make_prometheus, make_rest, make_snmp, make_zeek_cluster),
        *(BareCapture, SnortSensor, ZeekSensor),
    )

# Those whose program reads captures with the live sensor's rules (see harness.label).
OFFLINE = frozenset({"suricata"})


def make_sensor(host: Host, spec: SensorSpec) -> Sensor:
    """The sensor an inventory names. Raises ConfigError for an unknown driver."""
    if spec.driver not in DRIVERS:
        known = ", ".join(sorted(DRIVERS))
        raise ConfigError(f"sensor.driver = {spec.driver!r} is not known; known drivers: {known}")
    module, _, name = DRIVERS[spec.driver].partition(":")
    driver: Callable[[Host, SensorSpec], Sensor] = getattr(
        import_module(f"harness.sensors.{module}"), name
    )
    return driver(host, spec)
