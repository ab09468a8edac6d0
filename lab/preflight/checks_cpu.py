"""Checks on CPUs: which, how many, how fast, and shared with whom."""

from __future__ import annotations

from collections.abc import Iterator

from lab.preflight.check import Bad, Fine, Outcome, Unseen, check
from lab.preflight.facts import HostFacts, Setup

__all__: list[str] = []

_SLOW_CLOCKS = {"hpet", "acpi_pm", "jiffies", "refined-jiffies"}


def _shown(cpus: frozenset[int]) -> str:
    return ",".join(str(cpu) for cpu in sorted(cpus))


def _roles(setup: Setup) -> Iterator[tuple[str, HostFacts, frozenset[int] | None]]:
    yield "generator", setup.generator, setup.generator_cpus
    yield "sensor", setup.sensor, setup.sensor_cpus


@check(
    "cpu-list",
    "invalid",
    "The inventory names CPUs that are not there, or too few",
    fakes="slow software: workers share a CPU",
    remedy="Correct sensor.cpus or generator.cpus; a worker needs a CPU of its own.",
)
def _cpu_list(setup: Setup) -> Iterator[Outcome]:
    for role, host, cpus in _roles(setup):
        if host.cpus is None:
            yield Unseen(host.name, "the CPUs that are online are not readable")
            continue
        gone = (cpus or frozenset()) - host.cpus
        if gone:
            yield Bad(host.name, f"{role}.cpus has {_shown(gone)}, which are not online",
                      {"missing": len(gone), "online": len(host.cpus)})  # fmt: skip
            continue
        have = len(host.cpus if cpus is None else cpus)
        if role == "sensor" and setup.workers > have:
            yield Bad(
                host.name,
                f"{setup.workers} workers on {have} CPUs",
                {"workers": setup.workers, "cpus": have},
                "warning",
            )
        else:
            yield Fine(host.name, f"{role}: {have} CPUs")


@check(
    "cpu-shared",
    "warning",
    "Generator and sensor, or two workers, share a core",
    fakes="slow software: two hyperthreads of one core do far less than two cores",
    remedy="Give workers one hyperthread of each core (lscpu -e), and generator and sensor "
    "different cores.",
)
def _cpu_shared(setup: Setup) -> Iterator[Outcome]:
    sensor, cpus = setup.sensor, setup.sensor_cpus
    if cpus is None:
        yield Unseen(sensor.name, "sensor.cpus is not given, so workers may share cores")
    elif not sensor.siblings:
        yield Unseen(sensor.name, "which CPUs are of one core is not readable")
    else:
        cores = {sensor.siblings.get(cpu, frozenset({cpu})) & cpus for cpu in cpus}
        twice = [core for core in cores if len(core) > 1]
        if twice:
            pairs = "; ".join(sorted(_shown(core) for core in twice))
            yield Bad(sensor.name, f"hyperthreads of one core are both the sensor's: {pairs}",
                      {"cores": len(cores), "shared": len(twice), "cpus": len(cpus)})  # fmt: skip
        else:
            yield Fine(sensor.name, f"{len(cpus)} CPUs on {len(cores)} cores")
    if not setup.co_located:
        return
    others = setup.generator_cpus
    if cpus is None or others is None:
        yield Unseen(sensor.name, "generator and sensor may share CPUs: not both have a list")
        return
    touched = others.union(*(sensor.siblings.get(cpu, frozenset()) for cpu in others))
    both = touched & cpus
    if both:
        yield Bad(sensor.name, f"generator and sensor share the cores of CPU {_shown(both)}",
                  {"shared": len(both)})  # fmt: skip
    else:
        yield Fine(sensor.name, "generator and sensor are on different cores")


@check(
    "governor",
    "warning",
    "The CPUs' frequency follows the load",
    fakes="slow software at low loads, and curves that depend on what ran before",
    remedy="cpupower frequency-set -g performance.",
)
def _governor(setup: Setup) -> Iterator[Outcome]:
    for host in setup.hosts:
        if host.governors is None:
            yield Unseen(host.name, "frequency scaling is not readable")
        elif not host.governors:
            yield Unseen(host.name, "the kernel does not control the frequency here")
        else:
            other = {cpu: g for cpu, g in host.governors.items() if g != "performance"}
            if other:
                kinds = ", ".join(sorted(set(other.values())))
                yield Bad(host.name, f"{kinds} on {len(other)} of {len(host.governors)} CPUs",
                          {"cpus": len(other)})  # fmt: skip
            else:
                yield Fine(host.name, "performance on every CPU")


@check(
    "throttled",
    "warning",
    "CPUs were throttled for heat since the host was started",
    fakes="slow software, at the loads that come last",
    remedy="Improve the cooling; compare the trials' own counts of throttling.",
)
def _throttled(setup: Setup) -> Iterator[Outcome]:
    for host in setup.hosts:
        if host.throttled is None:
            yield Unseen(host.name, "the kernel does not count thermal throttling here")
        elif host.throttled:
            yield Bad(host.name, f"{host.throttled} times", {"events": host.throttled})
        else:
            yield Fine(host.name, "never")


@check(
    "virtual-machine",
    "info",
    "The host is a virtual machine",
    fakes="slow software: CPU time that the hypervisor gives to others",
    remedy="Figures for a report come from real machines; watch the trials' steal time.",
)
def _virtual_machine(setup: Setup) -> Iterator[Outcome]:
    for host in setup.hosts:
        if host.hypervisor is None:
            yield Unseen(host.name, "the CPU's flags are not readable")
        elif host.hypervisor:
            yield Bad(host.name, host.tools.get("virtualisation") or "there is a hypervisor")
        else:
            yield Fine(host.name, "none")


@check(
    "mitigations",
    "info",
    "The kernel mitigates faults of the CPU",
    fakes="slow software and a slow kernel: every system call and interrupt costs more",
    remedy="Nothing, if the probe in production has them too; say in the report which it was.",
)
def _mitigations(setup: Setup) -> Iterator[Outcome]:
    for host in setup.hosts:
        if host.vulnerabilities is None:
            yield Unseen(host.name, "/sys/devices/system/cpu/vulnerabilities is not readable")
            continue
        on = sorted(k for k, v in host.vulnerabilities.items() if v.startswith("Mitigation"))
        if on:
            yield Bad(host.name, f"{len(on)} mitigations: {', '.join(on)}", {"on": len(on)})
        else:
            yield Fine(host.name, "none")


@check(
    "clock-source",
    "warning",
    "Reading the time is slow",
    fakes="slow software: sensors take a timestamp a packet",
    remedy="Find out why the kernel gave up the TSC (dmesg | grep -i tsc); clocksource=tsc.",
)
def _clock_source(setup: Setup) -> Iterator[Outcome]:
    for host in setup.hosts:
        if not host.clocksource:
            yield Unseen(host.name, "the clock source is not readable")
        elif host.clocksource in _SLOW_CLOCKS:
            yield Bad(host.name, host.clocksource)
        else:
            yield Fine(host.name, host.clocksource)
