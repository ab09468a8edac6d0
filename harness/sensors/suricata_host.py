"""What the live sensor and the offline reference both need to know of a Suricata on a host."""

from __future__ import annotations

import re
from itertools import pairwise

from harness.errors import SensorFailed
from harness.sensors.suricata_capture import support_line
from harness.sensors.suricata_options import Options
from harness.signals import signal_name
from lab.errors import MissingTool
from lab.host import Exit, Host
from lab.inventory import SensorSpec

__all__ = [
    "check_support",
    "first_error",
    "how_ended",
    "last_log_line",
    "parse_version",
    "read_version",
    "shutdown_totals",
]


def parse_version(text: str) -> str:
    """`7.0.10` from "This is Suricata version 7.0.10 RELEASE"; empty when it is not there."""
    for word, following in pairwise(text.split()):
        if word.lower() == "version" and following[:1].isdigit():
            return following
    return ""


def read_version(host: Host, spec: SensorSpec) -> str:
    """Version of `spec.binary` on the host. Raises SensorFailed when it is missing or unknown."""
    try:
        answer = host.run([spec.binary, "-V"], check=False)
    except MissingTool:
        answer = None
    if answer is None or answer.returncode in (126, 127):
        raise SensorFailed(
            f"{host.name}: {spec.binary} is not installed; install Suricata 7 or 8 there, or "
            "give sensor.binary in the inventory"
        )
    version = parse_version(answer.stdout + answer.stderr)
    if not version.startswith(("7.", "8.")):
        raise SensorFailed(
            f"{host.name}: {spec.binary} says it is version {version or 'unknown'}; "
            "this driver knows Suricata 7 and 8"
        )
    return version


def check_support(host: Host, spec: SensorSpec, options: Options) -> None:
    """Raise SensorFailed when the binary was built without the capture mode that is asked for."""
    if options.capture == "af-packet":
        return
    said = host.run([spec.binary, "--build-info"], check=False).stdout
    if support_line(options, said) is False:
        raise SensorFailed(
            f"{host.name}: {spec.binary} was built without {options.capture} "
            "(suricata --build-info); use another build or another sensor.options.capture"
        )


def first_error(text: str) -> str:
    """The first error in Suricata's console or log output, without its time stamps."""
    for line in text.splitlines():
        for mark in ("E: ", "Error: "):
            if mark in line:
                return line.partition(mark)[2].strip()
    return ""


def last_log_line(text: str) -> str:
    """The last error of a suricata.log's tail, or else its last line."""
    lines = [x.strip() for x in text.splitlines() if x.strip()]
    worse = [x for x in lines if "Error:" in x]
    return (worse or lines or ["(none)"])[-1]


def shutdown_totals(log: str, interface: str) -> tuple[int, int] | None:
    """(packets, drops) of the interface as the log gives them at shutdown; None where it does not.

    The line: `rx0: packets: 5772000, drops: 192072 (3.33%), invalid chksum: 0` (util-device.c).
    """
    found = re.findall(rf"{re.escape(interface)}: packets: (\d+), drops: (\d+)", log)
    return (int(found[-1][0]), int(found[-1][1])) if found else None


def how_ended(exit_: Exit) -> str:
    """The end of a process in words that follow its name."""
    if exit_.reason == "deadline":
        return "reached its time limit"
    if exit_.reason == "orphaned":
        return "was ended because its connection was lost"
    if exit_.signal is not None:
        return f"was killed by {signal_name(exit_.signal)}"
    return f"ended with status {exit_.returncode}"
