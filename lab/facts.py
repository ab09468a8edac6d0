"""What a host is and has: facts for the report, missing tools, interface counters, sudo."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lab.errors import InventoryError, LabError
from lab.host import Host
from lab.inventory import Inventory

__all__ = [
    "SudoNeed",
    "check_name",
    "facts",
    "interface_statistics",
    "missing_tools",
    "sudo_needs",
]

# Debian leaves these out of the PATH of users other than root.
SBIN = 'PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"; export PATH LC_ALL=C;'

_FACTS = (
    SBIN
    + r"""
say() { printf '%s=%s\n' "$1" "$2"; }
first() { sed -n '1p'; }
say hostname "$(uname -n)"
say kernel "$(uname -r)"
say machine "$(uname -m)"
say distribution "$(. /etc/os-release 2>/dev/null && echo "$PRETTY_NAME")"
say cpu "$(sed -n 's/^\(model name\|Model\|Hardware\)[[:space:]]*: *//p' /proc/cpuinfo | first)"
say cores "$(getconf _NPROCESSORS_ONLN 2>/dev/null)"
say memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"
say numa_nodes "$(ls -d /sys/devices/system/node/node[0-9]* 2>/dev/null | wc -l)"
say cpu_governor "$(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null)"
say mitigations "$(grep -ho 'mitigations=[a-z,]*' /proc/cmdline)"
say virtualisation "$(systemd-detect-virt 2>/dev/null)"
say suricata "$(suricata -V 2>/dev/null | sed -n 's/.*version \([^ ]*\).*/\1/p' | first)"
say tcpreplay "$(tcpreplay -V 2>&1 | sed -n 's/^tcpreplay version: \([^ ]*\).*/\1/p' | first)"
say ethtool "$(ethtool --version 2>/dev/null | sed -n 's/.*version //p' | first)"
say iproute2 "$(ip -V 2>/dev/null | sed -n 's/.*iproute2-\([^,]*\).*/\1/p' | first)"
say python "$("$1" -V 2>&1 | sed -n 's/^Python //p' | first)"
"""
)


def facts(host: Host) -> dict[str, str]:
    """What the host is: kernel, cpu, cores, memory_kib, distribution, tool versions …

    A fact that the host cannot tell is an empty string; a tool that is missing too. Raises
    ConnectionLost, CommandTimeout.
    """
    done = host.run(["sh", "-c", _FACTS, "sh", host.python], check=False)
    pairs = (line.partition("=") for line in done.stdout.splitlines() if "=" in line)
    return {key: value.strip() for key, _, value in pairs}


def missing_tools(host: Host, names: Iterable[str]) -> list[str]:
    """Those of the programs that are not on the host (`sbin` directories are searched too)."""
    script = SBIN + ' for t; do command -v -- "$t" >/dev/null 2>&1 || echo "$t"; done'
    return host.run(["sh", "-c", script, "sh", *names]).stdout.splitlines()


def check_name(host: str, interface: str) -> None:
    """Refuse what cannot be an interface's name (dev_valid_name, net/core/dev.c).

    Raises InventoryError.
    """
    if not re.fullmatch(r"[^\s/:]{1,15}", interface) or interface in (".", ".."):
        raise InventoryError(f"{host}: {interface!r} is not the name of an interface")


def interface_statistics(host: Host, interface: str) -> dict[str, int]:
    """Every counter of an interface, read in one command.

    The names are those of /sys/class/net/<interface>/statistics; the driver's own (`ethtool -S`)
    follow as "ethtool.<name>" where the driver has any. Cumulative since the interface came up.
    Raises LabError when there is no such interface.
    """
    check_name(host.name, interface)
    script = (
        SBIN + ' cd "/sys/class/net/$1/statistics" || exit 9; grep -H . *; ethtool -S "$1" 2>&1'
    )
    done = host.run(["sh", "-c", script, "sh", interface], check=False)
    if done.returncode == 9:
        raise LabError(f"{host.name}: there is no interface {interface}; correct the inventory")
    found: dict[str, int] = {}
    for line in done.stdout.splitlines():
        if match := re.fullmatch(r"(\w+):(\d+)", line):
            found[match[1]] = int(match[2])
        elif match := re.fullmatch(r"\s+(\S.*?):\s*(\d+)", line):
            found[f"ethtool.{match[1]}"] = int(match[2])
    return found


@dataclass(frozen=True, slots=True)
class SudoNeed:
    """One thing that a user other than root needs `sudo -n` for."""

    host: str
    command: str
    why: str


def sudo_needs(inventory: Inventory) -> list[SudoNeed]:
    """What needs passwordless sudo on the hosts that say `sudo = true`; the table of lab/README.md.

    Commands go through `timeout` (short ones) or the leash (long ones, under the host's Python), so
    these two are what a sudoers file has to allow.
    """
    needs: list[SudoNeed] = []
    for name, spec in inventory.hosts.items():
        if not spec.sudo:
            continue
        if spec.connection == "netns":
            needs.append(SudoNeed(name, "ip netns exec", "every command enters the namespace"))
        if name == inventory.generator.host:
            driver = inventory.generator.driver
            needs.append(SudoNeed(name, driver, "raw packets (CAP_NET_RAW)"))
        if name == inventory.sensor.host:
            binary = inventory.sensor.binary
            needs.append(
                SudoNeed(name, binary, "packet capture (CAP_NET_RAW, CAP_NET_ADMIN, CAP_IPC_LOCK)")
            )
            needs.append(SudoNeed(name, "cat", "fetching logs that the sensor wrote as root"))
        needs.append(SudoNeed(name, "timeout", "carries every short command above"))
        needs.append(SudoNeed(name, spec.python, "the leash, which carries every long one"))
    return needs
