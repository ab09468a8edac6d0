"""The preflight of a lab, in two steps with quiet time between them.

`begin` reads both hosts; `finish` reads the counters again, so that what was on the link meanwhile
is known, and judges. Nothing is changed on any host, and nothing is sent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.host import Host
from lab.inventory import Inventory
from lab.preflight import checks_cpu, checks_host, checks_link, checks_nic
from lab.preflight.check import Report, examine
from lab.preflight.clock import offsets
from lab.preflight.facts import HostFacts, Setup
from lab.preflight.gather import Answers, Wish, ask, host_facts, quiet
from lab.preflight.parse_system import cpu_list

__all__ = ["CHECKED_IN", "Asked", "Preflight"]

CHECKED_IN = (checks_link, checks_nic, checks_cpu, checks_host)
"""The modules whose import registers the checks."""

# What the preflight and the seam themselves need; the roles' own programs are asked for elsewhere.
_TOOLS = ("ethtool", "tc", "ip", "timeout", "sha256sum", "date")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run will ask of the lab, as far as it is known.

    `max_frame` is in bytes, `peak_bps` what the highest load takes of the link in bits/s; `logs`
    is where the sensor writes (None: its host's workdir). `bypass` and `observed` are those of
    `Setup`.
    """

    max_frame: int | None = None
    peak_bps: float | None = None
    logs: str | None = None
    bypass: bool = False
    observed: bool = False


class Preflight:
    """One look at a lab; `hosts` are its open connections by name. Raises LabError."""

    def __init__(self, inventory: Inventory, hosts: dict[str, Host], asked: Asked) -> None:
        self._inventory = inventory
        self._asked = asked
        roles = {inventory.generator.host, inventory.sensor.host}
        self._hosts = {name: hosts[name] for name in sorted(roles)}
        self._wishes = {name: self._wish(name) for name in self._hosts}
        self._before: dict[str, Answers] = {}
        self._facts: dict[str, HostFacts] = {}
        self._begun = 0.0

    def begin(self) -> None:
        """Read both hosts."""
        for name, host in self._hosts.items():
            answers = ask(host, self._wishes[name])
            self._facts[name] = host_facts(host, self._wishes[name], answers)
        # Counters are read again: the quiet time begins when we have stopped asking.
        for name, host in self._hosts.items():
            self._before[name] = ask(host, self._wishes[name], counters_only=True)
        self._begun = time.monotonic()

    def finish(self, *, at_least: float = 0.0, rest: bool = False) -> tuple[Setup, Report]:
        """Judge, not before `at_least` seconds after `begin`.

        `rest` says that nothing of ours ran on the hosts meanwhile, so that their CPU time is
        somebody else's.
        """
        if not self._before:
            self.begin()
        time.sleep(max(0.0, self._begun + at_least - time.monotonic()))
        seen = {}
        for name, host in self._hosts.items():
            after = ask(host, self._wishes[name], counters_only=True)
            interfaces = self._wishes[name].interfaces
            seen[name] = quiet(self._before[name], after, interfaces, rest=rest)
        inventory, asked = self._inventory, self._asked
        generator, sensor = inventory.generator, inventory.sensor
        setup = Setup(
            generator=self._facts[generator.host],
            sensor=self._facts[sensor.host],
            transmit=generator.interfaces,
            receive=sensor.interface,
            generator_cpus=None if generator.cpus is None else cpu_list(generator.cpus),
            sensor_cpus=None if sensor.cpus is None else cpu_list(sensor.cpus),
            workers=sensor.workers,
            bypass=asked.bypass,
            observed=asked.observed,
            max_frame=asked.max_frame,
            peak_bps=asked.peak_bps,
            clocks=offsets(self._hosts),
            quiet=seen,
        )
        return setup, examine(setup)

    def _wish(self, name: str) -> Wish:
        inventory = self._inventory
        generator, sensor = inventory.generator, inventory.sensor
        interfaces: tuple[str, ...] = ()
        paths = [inventory.hosts[name].workdir]
        if name == generator.host:
            # DPDK names its ports by PCI address: the kernel knows none of them.
            interfaces += tuple(n for n in generator.interfaces if ":" not in n)
        if name == sensor.host:
            interfaces += () if sensor.interface is None else (sensor.interface,)
            paths += [] if self._asked.logs is None else [self._asked.logs]
        return Wish(interfaces, tuple(dict.fromkeys(paths)), _TOOLS)
