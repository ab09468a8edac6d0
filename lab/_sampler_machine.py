"""What the sampler reads of a machine: CPUs, packet backlog, memory, and the disk with the logs.

Shipped to the host with `_sampler.py`: standard library only, Python 3.7 and later.
"""

# A path object for each read would cost more than the read.
# ruff: noqa: PTH110, PTH116, PTH120, PTH123
from __future__ import annotations

import os

from lab._sampler_files import Files

TICK = float(os.sysconf("SC_CLK_TCK"))
SECTOR = 512  # of /sys/dev/block/*/stat, whatever the disk's own is


def online(files: Files) -> list[int]:
    """CPUs that are there, from a list as "0-3,8"."""
    found = []  # type: list[int]
    for part in (files.read("/sys/devices/system/cpu/online") or "").strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found += range(int(first), int(last or first) + 1)
    return found


def softnet(text: str, cpus: list[int]) -> dict[str, dict[str, int]]:
    """/proc/net/softnet_stat by CPU.

    A row a CPU that is online, hexadecimal; kernels before 5.10 do not say which CPU a row is of
    (column 13), and then the order of the rows has to do.
    """
    found = {}
    for number, line in enumerate(text.splitlines()):
        cell = [int(word, 16) for word in line.split()]
        if len(cell) < 3:
            continue
        cpu = cell[12] if len(cell) > 12 else cpus[number] if number < len(cpus) else number
        row = {"processed": cell[0], "dropped": cell[1], "time_squeeze": cell[2]}
        if len(cell) > 10:
            row["received_rps"], row["flow_limit"] = cell[9], cell[10]
        found[str(cpu)] = row
    return found


def cpu_times(text: str) -> dict[str, dict[str, float]]:
    """/proc/stat by CPU, in seconds; nice counts as user."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("cpu"):
            break
        name, *rest = line.split()
        if name != "cpu" and len(rest) >= 8:
            user, nice, system, idle, iowait, irq, soft, steal = (int(word) for word in rest[:8])
            found[name[3:]] = {
                "user": (user + nice) / TICK,
                "system": system / TICK,
                "softirq": soft / TICK,
                "irq": irq / TICK,
                "idle": idle / TICK,
                "iowait": iowait / TICK,
                "steal": steal / TICK,
            }
    return found


def memory(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    wanted = {"MemTotal": "total", "MemAvailable": "available", "SwapFree": "swap_free"}
    found = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if key in wanted:
            found[wanted[key]] = int(rest.split()[0]) * 1024
    return found


def existing(path: str) -> str:
    """The path, or the nearest directory above it that is there already."""
    while path and not os.path.exists(path):
        path = os.path.dirname(path.rstrip("/"))
    return path or "/"


def block_device(path: str) -> str | None:
    """The disk under a file, as "major:minor"; None where there is none (tmpfs, a network)."""
    try:
        device = os.stat(path).st_dev
    except OSError:
        return None
    name = f"{os.major(device)}:{os.minor(device)}"
    if os.path.exists("/sys/dev/block/" + name):
        return name
    # btrfs and overlay give numbers of their own; the mount names the device.
    try:
        with open("/proc/self/mountinfo") as file:
            for line in file:
                cell = line.split()
                source = cell[cell.index("-") + 2]
                if cell[2] == name and source.startswith("/dev/"):
                    real = os.stat(source).st_rdev
                    return f"{os.major(real)}:{os.minor(real)}"
    except (OSError, ValueError, IndexError):
        pass
    return None


class Disk:
    """Writes of the volume with the sensor's logs (Documentation/admin-guide/iostats.rst)."""

    def __init__(self, path: str, files: Files) -> None:
        self.path = existing(path)
        self.files = files
        device = block_device(self.path)
        self.stat = None if device is None else "/sys/dev/block/" + device + "/stat"

    def read(self) -> dict[str, float]:
        found = {}
        cell = (self.files.read(self.stat) or "").split() if self.stat else []
        if len(cell) >= 11:
            found = {
                "writes": int(cell[4]),
                "written_bytes": int(cell[6]) * SECTOR,
                "write_s": int(cell[7]) / 1000,
                "in_flight": int(cell[8]),
                "busy_s": int(cell[9]) / 1000,
            }
        try:
            volume = os.statvfs(self.path)
            found["free_bytes"] = volume.f_bavail * volume.f_frsize
        except OSError:
            pass
        return found
