"""From a host to its facts: what is asked in one round trip, and what the answers mean."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from lab.errors import LabError
from lab.facts import check_name, facts, missing_tools
from lab.host import Host
from lab.preflight import parse_ethtool as ethtool
from lab.preflight import parse_system as system
from lab.preflight.facts import HostFacts, Irq, LinkFacts, Quiet, Volume

__all__ = ["Answers", "Wish", "ask", "host_facts", "quiet"]

_CPU = "/sys/devices/system/cpu"
_FILES = (
    "/proc/cmdline",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/modules",
    "/proc/net/packet",
    "/proc/stat",
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/net/netfilter/nf_conntrack_count",
    f"{_CPU}/online",
    f"{_CPU}/cpu[0-9]*/topology/thread_siblings_list",
    f"{_CPU}/cpu[0-9]*/cpufreq/scaling_governor",
    f"{_CPU}/cpu[0-9]*/thermal_throttle/core_throttle_count",
    f"{_CPU}/vulnerabilities/*",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    "/sys/devices/system/node/node[0-9]*/cpulist",
)
_LINK_FILES = (
    "mtu", "flags", "speed", "duplex", "operstate", "carrier", "ifindex",
    "statistics/rx_packets", "statistics/tx_packets",
    "device/numa_node", "device/iommu_group/type",
)  # fmt: skip
_LINK_COMMANDS = ("-k", "-g", "-l", "-x", "-a", "-i")
_NETEM = "CONFIG_NET_SCH_NETEM"


@dataclass(frozen=True, slots=True)
class Wish:
    """What to look at on a host: interfaces of the kernel, paths whose volumes matter, programs."""

    interfaces: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answers:
    """What `_collect.py` printed. Files and commands that gave nothing are not in it."""

    monotonic: float
    files: Mapping[str, str]
    lists: Mapping[str, list[str]]
    commands: Mapping[str, dict[str, Any]]
    volumes: Mapping[str, dict[str, Any]]
    interrupts: Mapping[str, dict[str, dict[str, str]]]
    config: Mapping[str, str]
    processes: tuple[str, ...]

    def out(self, *words: str) -> str | None:
        """Standard output of a command that succeeded."""
        done = self.commands.get(" ".join(words))
        return None if done is None or done["status"] != 0 else str(done["out"])

    def said(self, *words: str) -> str:
        """What a command printed however it ended: ethtool fails when one part of many does."""
        done = self.commands.get(" ".join(words))
        return "" if done is None else str(done["out"])

    def number(self, path: str) -> int | None:
        """A file that is one number."""
        try:
            return int(self.files[path])
        except (KeyError, ValueError):
            return None

    def word(self, path: str) -> str | None:
        """A file that is one word; None when it is empty."""
        return self.files.get(path, "").strip() or None


def ask(host: Host, wish: Wish, *, counters_only: bool = False) -> Answers:
    """Read a host, in one round trip. Raises LabError."""
    for name in wish.interfaces:
        check_name(host.name, name)
    bases = [f"/sys/class/net/{name}" for name in wish.interfaces]
    asked: dict[str, Any] = {
        "files": ["/proc/stat", *(f"{base}/statistics/[rt]x_packets" for base in bases)]
    }
    if not counters_only:
        asked = {
            "files": [*_FILES, *(f"{base}/{name}" for base in bases for name in _LINK_FILES)],
            "lists": ["/sys/class/iommu", "/sys/module/sch_netem", f"{_CPU}/cpufreq", *bases],
            "commands": [
                ["modprobe", "-n", "-q", "sch_netem"],
                *(["ethtool", flag, name] for name in wish.interfaces for flag in _LINK_COMMANDS),
                *(["tc", "-j", "qdisc", "show", "dev", name] for name in wish.interfaces),
                *(["ip", "-j", "-d", "link", "show", "dev", name] for name in wish.interfaces),
            ],
            "volumes": list(wish.paths),
            "interfaces": list(wish.interfaces),
            "options": [_NETEM],
        }
    script = resources.files("lab.preflight").joinpath("_collect.py").read_bytes()
    done = host.run(
        [host.python, "-I", "-S", "-", json.dumps(asked)], input=script, timeout=90, check=False
    )
    try:
        found = json.loads(done.stdout)
        return Answers(**{**found, "processes": tuple(found["processes"])})
    except (ValueError, TypeError, KeyError):
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise LabError(
            f"{host.name}: {host.python} cannot run the preflight ({last[0]}); set "
            f"hosts.{host.name}.python to a Python 3.7 or later of that host"
        ) from None


def host_facts(host: Host, wish: Wish, answers: Answers) -> HostFacts:
    """A host's facts; versions and missing programs take two more round trips.

    Raises LabError.
    """
    swap = system.swap(answers.files.get("/proc/meminfo", ""))
    online = answers.word(f"{_CPU}/online")
    modules = answers.files.get("/proc/modules")
    tracked = answers.number("/proc/sys/net/netfilter/nf_conntrack_count")
    governors = _by_cpu(answers, "cpufreq/scaling_governor")
    throttles = _by_cpu(answers, "thermal_throttle/core_throttle_count")
    iommus = answers.lists.get("/sys/class/iommu")
    return HostFacts(
        name=host.name,
        boot_id=answers.word("/proc/sys/kernel/random/boot_id"),
        cmdline=answers.word("/proc/cmdline"),
        cpus=None if online is None else system.cpu_list(online),
        siblings={
            cpu: system.cpu_list(text)
            for cpu, text in _by_cpu(answers, "topology/thread_siblings_list").items()
        },
        nodes={
            int(path.split("/node")[-1].split("/")[0]): system.cpu_list(text)
            for path, text in answers.files.items()
            if path.startswith("/sys/devices/system/node/node") and text.strip()
        },
        governors=governors if online is not None else None,
        throttled=sum(int(text) for text in throttles.values()) if throttles else None,
        vulnerabilities={
            path.rpartition("/")[2]: text.strip()
            for path, text in answers.files.items()
            if path.startswith(f"{_CPU}/vulnerabilities/")
        }
        or None,
        hypervisor=_hypervisor(answers),
        clocksource=answers.word(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        ),
        iommus=None if iommus is None else tuple(iommus),
        netem=_netem(answers, modules),
        conntrack=tracked,
        conntrack_loaded=True
        if tracked is not None
        else None
        if modules is None
        else "nf_conntrack " in modules,
        processes=frozenset(answers.processes) or None,
        swap_used=None if swap is None else swap[0],
        swap_total=None if swap is None else swap[1],
        volumes={p: Volume(v["total"], v["free"]) for p, v in answers.volumes.items()},
        tools=facts(host),
        missing=tuple(missing_tools(host, wish.programs)),
        links={name: _link(name, answers) for name in wish.interfaces},
    )


def quiet(before: Answers, after: Answers, interfaces: Iterable[str], *, rest: bool) -> Quiet:
    """What happened between two readings; `rest` says that nothing of ours ran meanwhile."""

    def moved(name: str, which: str) -> int | None:
        path = f"/sys/class/net/{name}/statistics/{which}"
        first, last = before.number(path), after.number(path)
        return None if first is None or last is None else last - first

    received = {name: moved(name, "rx_packets") for name in interfaces}
    sent = {name: moved(name, "tx_packets") for name in received}
    stat = "/proc/stat"
    busy = system.cpu_busy(before.files.get(stat, ""), after.files.get(stat, "")) if rest else None
    return Quiet(
        seconds=after.monotonic - before.monotonic,
        received={name: count for name, count in received.items() if count is not None},
        sent={name: count for name, count in sent.items() if count is not None},
        busy=busy,
    )


def _by_cpu(answers: Answers, name: str) -> dict[int, str]:
    """Files of /sys/devices/system/cpu/cpu<N>/…, by N."""
    start, end = f"{_CPU}/cpu", f"/{name}"
    return {
        int(path[len(start) : -len(end)]): text.strip()
        for path, text in answers.files.items()
        if path.startswith(start) and path.endswith(end)
    }


def _hypervisor(answers: Answers) -> bool | None:
    flags = answers.files.get("/proc/cpuinfo")
    return " hypervisor" in flags if flags and "\nflags" in flags else None


def _netem(answers: Answers, modules: str | None) -> bool | None:
    if "/sys/module/sch_netem" in answers.lists or "sch_netem " in (modules or ""):
        return True
    configured = answers.config.get(_NETEM)
    if configured == "n":
        return False
    probed = answers.commands.get("modprobe -n -q sch_netem")
    if probed is not None:
        return bool(probed["status"] == 0)
    return True if configured == "y" else None


def _link(name: str, answers: Answers) -> LinkFacts:
    base = f"/sys/class/net/{name}"
    if base not in answers.lists:
        return LinkFacts(name, exists=False)
    said = answers.said
    driver = ethtool.driver(said("ethtool", "-i", name))
    speed = answers.number(f"{base}/speed")
    ifindex = answers.number(f"{base}/ifindex")
    sockets = answers.files.get("/proc/net/packet")
    # `carrier` cannot be read while the interface is down (EINVAL); `operstate` says so then.
    carrier, state = answers.number(f"{base}/carrier"), answers.word(f"{base}/operstate")
    qdiscs = answers.out("tc", "-j", "qdisc", "show", "dev", name)
    details = answers.out("ip", "-j", "-d", "link", "show", "dev", name)
    on_iommu = answers.word(f"{base}/device/iommu_group/type")
    return LinkFacts(
        name=name,
        up=carrier == 1 if carrier is not None else None if state is None else state == "up",
        mtu=answers.number(f"{base}/mtu"),
        speed=speed if speed is not None and speed > 0 else None,
        duplex=answers.word(f"{base}/duplex"),
        promiscuous=system.link_flags(answers.files.get(f"{base}/flags", "")),
        captures=None if sockets is None or ifindex is None else system.captures(sockets, ifindex),
        driver=driver.get("driver"),
        driver_version=driver.get("version"),
        firmware=driver.get("firmware-version"),
        features=ethtool.features(said("ethtool", "-k", name)),
        rings=ethtool.rings(said("ethtool", "-g", name)),
        channels=ethtool.channels(said("ethtool", "-l", name)),
        rss=ethtool.rss(said("ethtool", "-x", name)),
        pause=ethtool.pause(said("ethtool", "-a", name)),
        numa=answers.number(f"{base}/device/numa_node"),
        iommu=on_iommu,
        irqs=tuple(
            Irq(one["name"], system.cpu_list(one["effective"]))
            for one in answers.interrupts.get(name, {}).values()
        ),
        qdiscs=None if qdiscs is None else system.qdiscs(qdiscs),
        xdp=None if details is None else system.xdp(details),
    )
