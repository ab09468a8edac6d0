"""What runs on the sensor host beside Suricata: standard library only, Python 3.7 and later.

It is shipped as a file, so it imports nothing of this project. Every mode takes one JSON argument
and prints JSON lines.

  reset {run, mark}            end a leftover Suricata of ours, empty the run directory
  ask   {path, commands}       one line: the answers of the unix socket, in order
  watch {path, interface, netdev, log, alerts, workers, interval, timeout, sockets}
                               `{"event": "ready"}` once the capture runs, then samples until
                               Suricata is gone

The unix socket's protocol: JSON messages, the first one a version handshake; from version 0.2 on
every message ends in a newline (Suricata user guide, "Interacting via Unix Socket").
"""

# It samples /proc beside a packet sensor; a path object per read is not free.
# ruff: noqa: PTH103, PTH115, PTH123, PTH208

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import sys
import time
from typing import Any, BinaryIO

STARTUP_POLL_S = 0.02
# System calls that write or wait for a write, by architecture (asm/unistd.h): write, writev,
# pwrite64, sendto, sendmsg, fsync, fdatasync.
WRITES = {
    "x86_64": ("1", "20", "18", "44", "46", "74", "75"),
    "aarch64": ("64", "66", "68", "206", "211", "82", "83"),
}
# A configuration without a log file: how long the captures must run to be taken as reading.
UNLOGGED_S = 1.0


class Socket:
    """The unix command socket of one Suricata. Raises OSError when nobody answers."""

    def __init__(self, path: str, timeout: float = 5.0) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.sock.connect(path)
        peer = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.pid: int = struct.unpack("3i", peer)[0]
        if self._exchange({"version": "0.2"}).get("return") != "OK":
            raise OSError("the socket refused protocol version 0.2")

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        self.sock.sendall(json.dumps(message).encode() + b"\n")
        data = b""
        while not data.endswith(b"\n"):
            part = self.sock.recv(1 << 18)
            if not part:
                raise OSError("the socket was closed")
            data += part
        answer: dict[str, Any] = json.loads(data.decode("utf-8", "replace"))
        return answer

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """One command; its whole answer {"return": "OK"|"NOK", "message": …}."""
        message: dict[str, Any] = {"command": command}
        if arguments:
            message["arguments"] = arguments
        return self._exchange(message)


def interface_index(name: str) -> int:
    with open(f"/sys/class/net/{name}/ifindex") as file:
        return int(file.read())


def rx_packets(name: str) -> int | None:
    """Packets the interface received, from /proc/net/dev (always of this network namespace)."""
    with open("/proc/net/dev") as file:
        for line in file:
            key, _, rest = line.partition(":")
            if key.strip() == name:
                return int(rest.split()[1])
    return None


def running_captures(pid: int, ifindex: int) -> int:
    """AF_PACKET sockets of process `pid` that are bound to the interface and running.

    /proc/<pid>/net/packet: sk RefCnt Type Proto Iface R Rmem User Inode (net/packet/af_packet.c,
    packet_seq_show); R is 1 once the protocol hook is attached.
    """
    mine = set()
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{entry}")
        except OSError:
            continue
        if target.startswith("socket:["):
            mine.add(target[8:-1])
    count = 0
    with open(f"/proc/{pid}/net/packet") as file:
        next(file)
        for line in file:
            field = line.split()
            if int(field[4]) == ifindex and field[5] == "1" and field[8] in mine:
                count += 1
    return count


def capture_threads(pid: int) -> int:
    """Threads of process `pid` that capture: `RX#..` where there are any, else `W#..`."""
    names = []
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{tid}/comm") as file:
                names.append(file.read())
        except OSError:
            continue
    receivers = sum(name.startswith("RX#") for name in names)
    return receivers or sum(name.startswith("W#") for name in names)


def read_schedstat(path: str) -> float | None:
    """Seconds a thread has run or waited for a CPU, exact; None where the kernel keeps no such.

    Two numbers of nanoseconds (Documentation/scheduler/sched-stats.rst). What is neither is sleep.
    """
    try:
        with open(path) as file:
            field = file.read().split()
        ran, waited = int(field[0]), int(field[1])
    except (OSError, ValueError, IndexError):
        return None
    return (ran + waited) / 1e9 if ran else None


def held_up(pid: int) -> list[str]:
    """Capture workers that are held up in a write just now (/proc/<pid>/task/<tid>/syscall).

    A running thread reads "running"; one that sleeps in a system call gives its number first.
    """
    numbers = WRITES.get(os.uname().machine, ())
    names = []
    base = f"/proc/{pid}/task"
    for tid in os.listdir(base):
        try:
            with open(f"{base}/{tid}/comm") as file:
                name = file.read().strip()
            if name[:2] not in ("W#", "RX"):
                continue
            with open(f"{base}/{tid}/syscall") as file:
                if file.read().split(" ", 1)[0] in numbers:
                    names.append(name)
        except OSError:
            continue
    return names


def cpu_seconds(pid: int) -> tuple[float, dict[str, float], dict[str, float]]:
    """CPU seconds (user + system) of the process and of each capture worker by name.

    The third value holds, by worker, the seconds of `read_schedstat` where there are any.
    """
    tick = float(os.sysconf("SC_CLK_TCK"))
    workers = {}
    awake = {}
    base = f"/proc/{pid}"
    for tid in os.listdir(base + "/task"):
        try:
            with open(f"{base}/task/{tid}/stat") as file:
                head, _, tail = file.read().rpartition(")")
        except OSError:
            continue
        name = head.partition("(")[2]
        if name[:2] in ("W#", "RX"):
            field = tail.split()
            workers[name] = (int(field[11]) + int(field[12])) / tick
            seconds = read_schedstat(f"{base}/task/{tid}/schedstat")
            if seconds is not None:
                awake[name] = seconds
    with open(base + "/stat") as file:
        field = file.read().rpartition(")")[2].split()
    return (int(field[11]) + int(field[12])) / tick, workers, awake


class LineCounter:
    """Lines of a growing file, reading each byte once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file: BinaryIO | None = None
        self.lines = 0

    def count(self) -> int:
        if self.file is None:
            try:
                self.file = open(self.path, "rb")  # noqa: SIM115 - lives as long as the counter
            except OSError:
                return 0
        while True:
            data = self.file.read(1 << 20)
            if not data:
                return self.lines
            self.lines += data.count(b"\n")


def alive(pid: int) -> bool:
    """True while the process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def reset(run: str, mark: str) -> dict[str, Any]:
    """End a Suricata that an earlier session left (recognised by its pid file and arguments)."""
    ended = None
    try:
        with open(f"{run}/suricata.pid") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            ours = mark.encode() in file.read()
    except (OSError, ValueError):
        ours = False
    if ours:
        ended = pid
        for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 2.0)):
            try:
                os.kill(pid, number)
            except OSError:
                break
            end = time.monotonic() + patience
            while alive(pid) and time.monotonic() < end:
                time.sleep(0.02)
            if not alive(pid):
                break
    shutil.rmtree(run, ignore_errors=True)
    os.makedirs(run)
    return {"ended": ended}


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def engine_started(log: str) -> bool | None:
    """Whether the log says that every thread reads packets; None when there is no log file.

    A running capture socket is not enough: Suricata throws away what arrives before all its
    threads are there (source-af-packet.c, AFPSynchronizeStart), and counts it nowhere.
    """
    try:
        with open(log, "rb") as file:
            return b"Engine started" in file.read()
    except OSError:
        return None


def wait_ready(
    path: str,
    interface: str,
    netdev: str,
    log: str,
    workers: int,
    timeout: float,
    sockets: bool,
) -> tuple[Socket | None, int]:
    """Poll until the socket answers, `workers` captures run (0: at least one) and read packets.

    Captures are AF_PACKET sockets on `netdev`, or threads where the capture method has no such
    `sockets` (DPDK, AF_XDP, netmap).
    """
    end = time.monotonic() + timeout
    link: Socket | None = None
    count = 0
    running_since = None
    ifindex = interface_index(netdev) if sockets else 0
    while time.monotonic() < end:
        try:
            if link is None:
                link = Socket(path)
            count = running_captures(link.pid, ifindex) if sockets else capture_threads(link.pid)
            answer = link.ask("iface-stat", iface=interface)
            if count >= max(1, workers) and answer.get("return") == "OK":
                running_since = running_since or time.monotonic()
                started = engine_started(log)
                if started is None:
                    started = time.monotonic() - running_since > UNLOGGED_S
                if started:
                    return link, count
        except OSError:
            link = None
        time.sleep(STARTUP_POLL_S)
    return None, count


def sample(link: Socket, interface: str, netdev: str, counter: LineCounter) -> dict[str, Any]:
    answer = link.ask("iface-stat", iface=interface)
    message = answer["message"]
    total, workers, awake = cpu_seconds(link.pid)
    return {
        "event": "sample",
        "t": time.monotonic(),
        "pid": link.pid,
        "rx": rx_packets(netdev),
        "pkts": message["pkts"],
        "drop": message["drop"],
        "alerts": counter.count(),
        "cpu": total,
        "workers": workers,
        "awake": awake,
        "writing": held_up(link.pid),
        "own_cpu": time.process_time(),
    }


def watch(
    path: str,
    interface: str,
    netdev: str,
    log: str,
    alerts: str,
    workers: int,
    interval: float,
    timeout: float,
    sockets: bool,
) -> None:
    link, count = wait_ready(path, interface, netdev, log, workers, timeout, sockets)
    if link is None:
        say({"event": "not-ready", "captures": count})
        return
    counter = LineCounter(alerts)
    say(dict(sample(link, interface, netdev, counter), event="ready", captures=count))
    due = time.monotonic()
    while True:
        due += interval
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            say(sample(link, interface, netdev, counter))
        except (OSError, KeyError, ValueError) as error:
            say({"event": "gone", "why": str(error)})
            return


def ask(path: str, commands: list[Any]) -> dict[str, Any]:
    link = Socket(path)
    return {"pid": link.pid, "answers": [link.ask(c[0], **c[1]) for c in commands]}


def main() -> None:
    mode, argument = sys.argv[1], json.loads(sys.argv[2])
    if mode == "watch":
        watch(**argument)
        return
    try:
        say(reset(**argument) if mode == "reset" else ask(**argument))
    except OSError as error:
        say({"error": str(error)})


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)
