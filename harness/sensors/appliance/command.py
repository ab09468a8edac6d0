"""Counters from a command's output, run on the sensor's host (over SSH, or locally)."""

from __future__ import annotations

import time

from pydantic import Field

from harness.errors import SensorFailed
from harness.sensors.appliance.extract import Document, TextCounter
from harness.sensors.appliance.options import ApplianceOptions, read
from harness.sensors.appliance.readings import Reading, reading
from harness.sensors.appliance.sensor import ApplianceSensor
from lab.errors import CommandTimeout, MissingTool
from lab.host import Host
from lab.inventory import SensorSpec

__all__ = ["CommandOptions", "CommandSource", "make_command"]


class CommandOptions(ApplianceOptions[TextCounter]):
    """`command` prints the counters; `version_command` what the sensor is. `timeout` in s."""

    command: tuple[str, ...] = Field(min_length=1)
    version_command: tuple[str, ...] = ()
    timeout: float = Field(default=10.0, gt=0)
    sudo: bool = False


class CommandSource:
    """`harness.sensors.appliance.source.Source` by `Host.run`."""

    def __init__(self, host: Host, options: CommandOptions) -> None:
        self._host = host
        self._options = options
        self.where = f"{host.name}: {options.command[0]}"
        self._counters = options.everything()

    def _run(self, argv: tuple[str, ...]) -> str:
        options = self._options
        try:
            done = self._host.run(argv, check=False, timeout=options.timeout, sudo=options.sudo)
        except MissingTool:
            raise SensorFailed(
                f"{self._host.name}: {argv[0]} is not there; see sensor.options.command"
            ) from None
        except CommandTimeout:
            raise SensorFailed(
                f"{self.where} did not end within {options.timeout:g} s; raise "
                "sensor.options.timeout, or ask less of it"
            ) from None
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["nothing on standard error"])[-1]
            raise SensorFailed(f"{self.where} ended with status {done.returncode}: {said[:200]}")
        return done.stdout

    def describe(self) -> str:
        """The first line of `version_command`."""
        if not self._options.version_command:
            return ""
        lines = self._run(self._options.version_command).strip().splitlines()
        return lines[0].strip() if lines else ""

    def read(self) -> Reading:
        """Run the command once for all counters."""
        begun = time.monotonic()
        answer = Document(self._run(self._options.command), self.where)
        values = {name: answer.find(name, spec) for name, spec in self._counters.items()}
        bits = {name: spec.bits for name, spec in self._counters.items()}
        return reading(values, bits, begun)

    def close(self) -> None:
        """Nothing stays open."""


def make_command(host: Host, spec: SensorSpec) -> ApplianceSensor:
    """The `command` driver."""
    options = read(CommandOptions, spec.options)
    return ApplianceSensor("command", host, options, CommandSource(host, options))
