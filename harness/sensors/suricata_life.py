"""Whose Suricata it is: ours, systemd's, or one that runs already (`sensor.options.control`)."""

from __future__ import annotations

from harness.sensors.base import Sensor
from harness.sensors.suricata import SuricataSensor
from harness.sensors.suricata_foreign import ObservedSuricata
from harness.sensors.suricata_options import read_options
from harness.sensors.suricata_systemd import SystemdSuricata
from lab.host import Host
from lab.inventory import SensorSpec

__all__ = ["make_suricata"]


def make_suricata(host: Host, spec: SensorSpec) -> Sensor:
    """The driver for the life cycle that the inventory asks for. Raises ConfigError."""
    drivers: dict[str, type[SuricataSensor] | type[ObservedSuricata] | type[SystemdSuricata]] = {
        "own": SuricataSensor,
        "systemd": SystemdSuricata,
        "observed": ObservedSuricata,
    }
    return drivers[read_options(spec.options).control](host, spec)
