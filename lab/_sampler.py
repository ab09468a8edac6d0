"""The sampler: reads the host under a sensor, once at the start, then every `interval`, then once
more when it is told to end.

It is shipped to the host, with the modules it imports, as one zip file that any Python 3.7 or later
runs; it uses the standard library only. It runs on a leash (`leash.py`), so it ends with its
connection; SIGTERM makes it take one last reading.

One argument, JSON: {"interface": "rx0" or null, "pids": [1, 2], "logs": "/var/log/x" or null,
"interval": 1.0}. A reading is a table of groups (see `lab.sampler.Raw`); what has not changed since
the reading before is left out, and a key that vanished is null. A leash cuts long lines, so a
reading goes out in pieces: "<number> <piece> <pieces> <text>".

Nothing is forked. Files are opened once and read again from their beginning, which makes the kernel
write them anew; the driver's counters come by ioctl, as `ethtool -S` reads them. What a host does
not have is left out, which is not the same as zero.
"""

# A path object for each read would cost more than the read.
# ruff: noqa: PTH110, PTH123
from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any

from lab._sampler_files import File, Files, listed
from lab._sampler_machine import TICK, Disk, cpu_times, memory, online, softnet
from lab._sampler_net import Interface

DEAR = 0.008  # share of a core from which samples are made rarer, so that they stay below 0.01
RAREST = 2.0  # seconds between samples, at most
PIECE = 4000  # characters of a reading in one line; the leash cuts at 8192 bytes


class Processes:
    """Threads and memory of the sensor: its processes and what they started."""

    def __init__(self, pids: list[int], files: Files) -> None:
        self.roots = pids
        self.files = files
        self.pids = []  # type: list[int]

    def find(self) -> None:
        """All of them, by the parents that /proc/<pid>/stat names."""
        children = {}  # type: dict[int, list[int]]
        for name in listed("/proc") if self.roots else []:
            if name.isdigit():
                try:
                    with open("/proc/" + name + "/stat") as file:
                        parent = int(file.read().rpartition(")")[2].split()[1])
                except (OSError, IndexError):
                    continue
                children.setdefault(parent, []).append(int(name))
        todo, found = list(self.roots), []  # type: list[int], list[int]
        while todo:
            pid = todo.pop()
            if pid not in found:
                found.append(pid)
                todo += children.get(pid, [])
        for pid in self.pids:
            if pid not in found:
                self.files.forget(f"/proc/{pid}/")
        self.pids = found

    def read(self, reading: dict[str, Any]) -> None:
        threads = []  # type: list[tuple[str, str, float]]
        rss = faults = 0
        alive = False
        for pid in self.pids:
            base = f"/proc/{pid}"
            stat = self.files.read(base + "/stat")
            cell = (stat or "").rpartition(")")[2].split()
            if len(cell) < 22 or cell[0] in "ZX":
                continue
            alive = True
            rss += int(cell[21]) * os.sysconf("SC_PAGE_SIZE")
            faults += int(cell[9])
            for tid in listed(base + "/task"):
                one = self.thread(base + "/task/" + tid)
                if one is not None:
                    threads.append((one[0], tid, one[1]))
        names = [name for name, _, _ in threads]
        reading["threads"] = {
            name if names.count(name) == 1 else name + "/" + tid: round(seconds, 6)
            for name, tid, seconds in threads
        }
        if alive:
            reading["memory"].update(rss=rss, major_faults=faults)

    def thread(self, base: str) -> tuple[str, float] | None:
        """Name and CPU seconds; to the nanosecond where the scheduler keeps statistics."""
        head, _, tail = (self.files.read(base + "/stat") or "").rpartition(")")
        cell = tail.split()
        if len(cell) < 13:
            self.files.forget(base + "/")
            return None
        seconds = (int(cell[11]) + int(cell[12])) / TICK
        exact = (self.files.read(base + "/schedstat") or "").split()
        if exact and exact[0] != "0":
            seconds = int(exact[0]) / 1e9
        return head.partition("(")[2], seconds


class Host:
    """All of it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.files = Files()
        self.cpus = online(self.files)
        name = config.get("interface")
        self.interface = Interface(name, self.files) if name else None
        self.processes = Processes(list(config.get("pids") or ()), self.files)
        self.disk = Disk(config["logs"], self.files) if config.get("logs") else None
        paths = {
            str(n): f"/sys/devices/system/cpu/cpu{n}/thermal_throttle/core_throttle_count"
            for n in self.cpus
        }
        self.throttles = {n: path for n, path in paths.items() if os.path.exists(path)}
        # The leash that carries what we say costs too, and is there for us alone.
        self.leash = File(f"/proc/{os.getppid()}/schedstat")

    def cost(self) -> float:
        """CPU seconds of this process and of its leash, since they began."""
        word = (self.leash.read() or "").split()
        return time.process_time() + (int(word[0]) / 1e9 if word else 0.0)

    def read(self, number: int, last: bool = False) -> dict[str, Any]:
        files = self.files
        if number % 10 == 0 or last:
            self.processes.find()
        reading = {"t": time.monotonic(), "wall": time.time()}  # type: dict[str, Any]
        reading["memory"] = memory(files.read("/proc/meminfo") or "")
        if self.interface is not None:
            self.interface.read(reading, number == 0 or last)
        reading["softnet"] = softnet(files.read("/proc/net/softnet_stat") or "", self.cpus)
        reading["cpus"] = cpu_times(files.read("/proc/stat") or "")
        self.processes.read(reading)
        if self.disk is not None:
            reading["disk"] = self.disk.read()
        counts = ((cpu, files.number(path)) for cpu, path in self.throttles.items())
        reading["throttled"] = {cpu: count for cpu, count in counts if count is not None}
        reading["cost"] = round(self.cost(), 6)
        return reading


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What `after` has that `before` has not; null for what is gone."""
    found = {}  # type: dict[str, Any]
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            inner = changes(old, value)
            if inner:
                found[key] = inner
        elif value != old:
            found[key] = value
    for key in before:
        if key not in after:
            found[key] = None
    return found


def say(number: int, message: dict[str, Any]) -> None:
    text = json.dumps(message, separators=(",", ":"))
    pieces = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
    for at, piece in enumerate(pieces):
        sys.stdout.write(f"{number} {at} {len(pieces)} {piece}\n")
    sys.stdout.flush()


def spaced(interval: float, spent: float, elapsed: float) -> float:
    """The interval to go on with, after `spent` CPU seconds in `elapsed` ones."""
    if elapsed < 5 or spent <= DEAR * elapsed:
        return interval
    return max(interval, RAREST)


def main() -> None:
    config = json.loads(sys.argv[1])
    # Two files a thread, one an interrupt vector, one a CPU: more than 1024 on a large machine.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGTERM, lambda *_: None)
    host = Host(config)
    interval = float(config.get("interval", 1.0))
    before, first = {}, {}  # type: dict[str, Any], dict[str, Any]
    number = 0
    due = time.monotonic()
    ended = False
    while True:
        reading = host.read(number, ended)
        if "sockets" in reading and "sockets" in before:  # ring sizes are read at both ends only
            for key in ("ring_bytes", "ring_frames"):
                if key in before["sockets"]:
                    reading["sockets"].setdefault(key, before["sockets"][key])
        say(number, changes(before, reading))
        if ended:
            return
        first = first or reading
        interval = spaced(interval, reading["cost"] - first["cost"], reading["t"] - first["t"])
        before = reading
        number += 1
        due = max(due + interval, time.monotonic())
        wait = max(0.0, due - time.monotonic())
        ended = bool(select.select([wake], [], [], wait)[0])


def run() -> None:
    """What the zip file's __main__ calls."""
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)
