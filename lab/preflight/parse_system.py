"""What /proc, /sys, `ip` and `tc` say, as values."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["captures", "cpu_busy", "cpu_list", "link_flags", "qdiscs", "swap"]

_PROMISC = 0x100  # IFF_PROMISC, linux/if.h


def cpu_list(text: str) -> frozenset[int]:
    """CPUs of a list as taskset and the kernel write it: "0-3,8", "0-10:2". Raises ValueError."""
    found: set[int] = set()
    for part in text.replace("\n", ",").split(","):
        if not part.strip():
            continue
        span, _, step = part.strip().partition(":")
        first, _, last = span.partition("-")
        found.update(range(int(first), int(last or first) + 1, int(step or 1)))
    return frozenset(found)


def link_flags(text: str) -> bool | None:
    """/sys/class/net/<if>/flags: whether promiscuous mode is on."""
    try:
        return bool(int(text, 16) & _PROMISC)
    except ValueError:
        return None


def captures(text: str, ifindex: int) -> int:
    """/proc/net/packet: AF_PACKET sockets bound to an interface, or to all (0), and running."""
    rows = (line.split() for line in text.splitlines()[1:])
    return sum(1 for row in rows if len(row) >= 6 and row[5] == "1" and int(row[4]) in (ifindex, 0))


def qdiscs(text: str) -> tuple[str, ...] | None:
    """`tc -j qdisc show dev <if>`: the kinds on it."""
    try:
        return tuple(str(one["kind"]) for one in json.loads(text or "[]"))
    except (ValueError, KeyError, TypeError):
        return None


def swap(meminfo: str) -> tuple[int, int] | None:
    """/proc/meminfo: swap used and there, in bytes."""
    found: dict[str, int] = {}
    for line in meminfo.splitlines():
        key, _, rest = line.partition(":")
        if key in ("SwapTotal", "SwapFree"):
            found[key] = int(rest.split()[0]) * 1024
    if len(found) < 2:
        return None
    return found["SwapTotal"] - found["SwapFree"], found["SwapTotal"]


def cpu_busy(before: str, after: str) -> float | None:
    """Share of all CPUs' time that was used between two readings of /proc/stat."""
    first, last = _cpu_times(before), _cpu_times(after)
    if first is None or last is None:
        return None
    spent = [b - a for a, b in zip(first, last, strict=True)]
    total = sum(spent)
    return 1.0 - (spent[3] + spent[4]) / total if total > 0 else None


def _cpu_times(text: str) -> list[int] | None:
    """user, nice, system, idle, iowait, irq, softirq, steal (guest is in user)."""
    words = text.partition("\n")[0].split()
    return [int(word) for word in words[1:9]] if words[:1] == ["cpu"] and len(words) > 8 else None


def xdp(text: str) -> bool | None:
    """`ip -j -d link show dev <if>`: whether an XDP program is attached."""
    try:
        (link,) = json.loads(text)
    except ValueError:
        return None
    attached: Any = link.get("xdp")
    return bool(attached)
