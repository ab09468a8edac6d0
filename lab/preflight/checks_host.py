"""Checks on hosts: room, clocks, programs, versions, and who else is at work there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lab.preflight.check import Bad, Fine, Outcome, Unseen, check
from lab.preflight.facts import Setup

__all__: list[str] = []

_MIB = 1 << 20
_FULL = 256 * _MIB
_LOW = 4096 * _MIB
_CLOCK_S = 0.1
_BUSY = 0.1
_SWAPPED = 0.1
_OBSERVING = ("ethtool", "tc", "date")


@check(
    "co-located",
    "info",
    "Generator and sensor are one machine",
    fakes="every bottleneck of the sensor: they compete for CPU, cache and memory",
    remedy="Good for trying things out; figures for a report come from two machines.",
)
def _co_located(setup: Setup) -> Iterator[Outcome]:
    where = f"{setup.generator.name}, {setup.sensor.name}"
    if setup.receive is None:
        yield Unseen(where, "the sensor is closed: nobody can see what it runs on")
    elif setup.co_located is None:
        yield Unseen(where, "a host does not say which boot it is")
    elif setup.co_located:
        yield Bad(where, "both were booted as one", {"machines": 1})
    else:
        yield Fine(where, "two machines")


@check(
    "clock-offset",
    "warning",
    "The hosts' clocks differ",
    fakes="nothing in the ledger; alerts and samples cannot be put beside what was sent",
    remedy="Run chrony or ntpd on both hosts, against one server.",
)
def _clock_offset(setup: Setup) -> Iterator[Outcome]:
    ours, theirs = (setup.clocks.get(h.name) for h in (setup.generator, setup.sensor))
    where = f"{setup.generator.name}, {setup.sensor.name}"
    if ours is None or theirs is None:
        yield Unseen(where, "a host does not tell its time")
        return
    low, high = (theirs.minus(ours).low, theirs.minus(ours).high)
    numbers = {"low_s": round(low, 4), "high_s": round(high, 4)}
    told = f"the sensor's minus the generator's is between {low:+.3f} and {high:+.3f} s"
    if low > _CLOCK_S or high < -_CLOCK_S:
        yield Bad(where, told, numbers)
    elif high - low > 2 * _CLOCK_S:
        yield Unseen(where, f"{told}: round trips are too slow to tell more")
    else:
        yield Fine(where, told)


@check(
    "disk-space",
    "invalid",
    "A disk is nearly full",
    fakes="a disk bottleneck, then a sensor that fails",
    remedy="Make room there, or set hosts.H.workdir to another volume.",
)
def _disk_space(setup: Setup) -> Iterator[Outcome]:
    for host in setup.hosts:
        if not host.volumes:
            yield Unseen(host.name, "no volume could be read")
        for path, volume in host.volumes.items():
            where = f"{host.name}: {path}"
            numbers = {"free_bytes": volume.free, "total_bytes": volume.total}
            told = f"{volume.free / _MIB:,.0f} MiB free of {volume.total / _MIB:,.0f}"
            if volume.free < _FULL:
                yield Bad(where, told, numbers)
            elif volume.free < _LOW:
                yield Bad(where, told, numbers, "warning")
            else:
                yield Fine(where, told)


@check(
    "missing-tools",
    "invalid",
    "A program that a run needs is missing",
    fakes="nothing: the run would end there",
    remedy="Install it on that host; ethtool, tc and date cost only what they would have told.",
)
def _missing_tools(setup: Setup) -> Iterator[Outcome]:
    for host in setup.hosts:
        if host.missing is None:
            yield Unseen(host.name, "its programs were not looked for")
            continue
        needed = [name for name in host.missing if name not in _OBSERVING]
        if needed:
            yield Bad(host.name, f"missing: {', '.join(needed)}", {"missing": len(needed)})
        elif host.missing:
            numbers = {"missing": len(host.missing)}
            yield Bad(host.name, f"missing: {', '.join(host.missing)}", numbers, "warning")
        else:
            yield Fine(host.name, "everything is there")
        old = re.match(r"(\d+)\.(\d+)", host.tools.get("python", ""))
        if old is not None and (int(old[1]), int(old[2])) < (3, 7):
            yield Bad(host.name, f"Python {host.tools['python']}; 3.7 is the oldest that does")


@check(
    "versions",
    "info",
    "The hosts do not run the same software",
    fakes="nothing by itself; a difference between two runs may be one between two versions",
    remedy="Keep versions fixed over what is to be compared; every run stores them.",
)
def _versions(setup: Setup) -> Iterator[Outcome]:
    one, other = setup.generator, setup.sensor
    if one.name == other.name or setup.co_located:
        return
    for key in ("kernel", "distribution", "ethtool", "iproute2"):
        mine, theirs = one.tools.get(key), other.tools.get(key)
        where = f"{one.name}, {other.name}"
        if not mine or not theirs:
            yield Unseen(where, f"{key} is not readable on both")
        elif mine != theirs:
            yield Bad(where, f"{key}: {mine} and {theirs}")
        else:
            yield Fine(where, f"{key}: {mine}")


@check(
    "busy-host",
    "warning",
    "A host was at work while nothing was asked of it",
    fakes="slow software: something else takes its CPU time",
    remedy="Find it (top), and stop it for the time of the run.",
)
def _busy_host(setup: Setup) -> Iterator[Outcome]:
    for host in setup.hosts:
        quiet = setup.quiet.get(host.name)
        if quiet is None or quiet.busy is None:
            yield Unseen(host.name, "its CPU times were not read twice at rest")
        elif quiet.busy > _BUSY:
            yield Bad(
                host.name,
                f"{100 * quiet.busy:.0f} % of its CPU time in {quiet.seconds:.1f} s",
                {"busy": round(quiet.busy, 3), "seconds": round(quiet.seconds, 2)},
            )
        else:
            yield Fine(host.name, f"{100 * quiet.busy:.1f} % of its CPU time")


@check(
    "irqbalance",
    "warning",
    "irqbalance moves interrupts during the run",
    fakes="kernel loss that comes and goes, and differs between repeats",
    remedy="systemctl stop irqbalance, and set the affinities yourself.",
)
def _irqbalance(setup: Setup) -> Iterator[Outcome]:
    for host in setup.hosts:
        if host.processes is None:
            yield Unseen(host.name, "its processes are not readable")
        elif "irqbalance" in host.processes:
            yield Bad(host.name, "it runs")
        else:
            yield Fine(host.name, "it does not run")


@check(
    "conntrack",
    "warning",
    "The kernel tracks connections on the sensor's host",
    fakes="a kernel bottleneck: replayed packets may fill its table and cost a lookup each",
    remedy="Remove the rules that load it (nft list ruleset), or exempt the interface (notrack).",
)
def _conntrack(setup: Setup) -> Iterator[Outcome]:
    host = setup.sensor
    if host.conntrack is None and host.conntrack_loaded is False:
        yield Fine(host.name, "the module is not loaded")
    elif host.conntrack is None:
        yield Unseen(host.name, "how many connections it tracks is not readable")
    elif host.conntrack:
        yield Bad(host.name, f"{host.conntrack} connections now", {"connections": host.conntrack})
    else:
        yield Fine(host.name, "no connections")


@check(
    "swap",
    "warning",
    "The host swaps",
    fakes="a memory or disk bottleneck",
    remedy="Give it memory, or swapoff -a.",
)
def _swap(setup: Setup) -> Iterator[Outcome]:
    for host in setup.hosts:
        if host.swap_used is None or host.swap_total is None:
            yield Unseen(host.name, "/proc/meminfo is not readable")
        elif host.swap_used:
            share = host.swap_used / host.swap_total
            yield Bad(
                host.name,
                f"{host.swap_used / _MIB:,.0f} of {host.swap_total / _MIB:,.0f} MiB are used",
                {"used_bytes": host.swap_used, "total_bytes": host.swap_total},
                "warning" if share > _SWAPPED else "info",
            )
        else:
            yield Fine(host.name, "not used")


@check(
    "netem",
    "info",
    "Impairments cannot be made on the link",
    fakes="nothing; `corpus impair` makes them in the capture instead",
    remedy="Install the kernel's sch_netem module (often in a package of extra modules).",
)
def _netem(setup: Setup) -> Iterator[Outcome]:
    host = setup.generator
    if host.netem is None:
        yield Unseen(host.name, "whether the kernel has netem is not readable")
    elif not host.netem:
        yield Bad(host.name, "the kernel has no netem")
    else:
        yield Fine(host.name, "the kernel has netem")
