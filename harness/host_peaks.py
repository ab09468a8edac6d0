"""Extremes of a host's samples: the busiest second, which means over a trial hide.

Names and units of the peaks (each the highest over any interval between two samples):

cpu.N.user, .system, .softirq, .irq, .iowait, .steal, .busy   share of CPU N
thread.NAME                                   share of one core that a thread of the sensor used
sensor                                        cores that all threads of the sensor used together
memory.rss, memory.used                       bytes: of the sensor; of the machine
memory.major_faults_per_s                     pages the sensor had to wait for
disk.written_bytes_per_s, disk.busy           bytes/s; share of the time the disk was busy
disk.write_latency_s                          mean time of one write
softnet.processed_per_s, .dropped_per_s, .time_squeeze_per_s   of all CPUs together
softnet.N.processed_per_s                     of CPU N: which one the packets come in on
interface.NAME_per_s                          counters of the interface that moved
interrupts_per_s                              of the interface's vectors together
sockets.rmem_bytes                            bytes waiting in capture sockets without a ring
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.model_host import HostReading

__all__ = ["MIN_INTERVAL_S", "intervals", "peaks"]

# /proc/stat counts in ticks of 10 ms: over less than this, one tick would look like a peak.
MIN_INTERVAL_S = 0.25
_IDLE = ("idle", "iowait")


def peaks(readings: Sequence[HostReading]) -> dict[str, float]:
    """The highest value of everything in the docstring above; what never moved is left out."""
    found: dict[str, float] = {}
    for before, after in intervals(readings):
        for name, value in _values(before, after, after.t - before.t):
            if value > found.get(name, 0.0):
                found[name] = value
    return {name: round(value, 6) for name, value in sorted(found.items())}


def intervals(readings: Sequence[HostReading]) -> Iterator[tuple[HostReading, HostReading]]:
    """(before, after) of samples far enough apart; when there is one interval only, that one."""
    start = 0
    for at in range(1, len(readings)):
        if readings[at].t - readings[start].t >= MIN_INTERVAL_S:
            yield readings[start], readings[at]
            start = at
    if len(readings) == 2 and start == 0 and readings[1].t > readings[0].t:
        yield readings[0], readings[1]


def _values(before: HostReading, after: HostReading, seconds: float) -> Iterator[tuple[str, float]]:
    for cpu, times in after.cpus.items():
        used = {k: times[k] - before.cpus.get(cpu, times).get(k, times[k]) for k in times}
        for kind in used.keys() - {"idle"}:
            yield f"cpu.{cpu}.{kind}", min(used[kind] / seconds, 1.0)
        total = sum(used.values())
        if total > 0:
            yield f"cpu.{cpu}.busy", 1.0 - sum(used.get(k, 0.0) for k in _IDLE) / total
    spent = {n: s - before.threads[n] for n, s in after.threads.items() if n in before.threads}
    for name, share in spent.items():
        yield f"thread.{name}", share / seconds
    yield "sensor", sum(spent.values()) / seconds
    yield from _memory(before, after, seconds)
    yield from _disk(before, after, seconds)
    for key in ("processed", "dropped", "time_squeeze"):
        yield f"softnet.{key}_per_s", _moved(before.softnet, after.softnet, key) / seconds
    for cpu, row in after.softnet.items():
        if cpu in before.softnet:
            each = row["processed"] - before.softnet[cpu]["processed"]
            yield f"softnet.{cpu}.processed_per_s", each / seconds
    for name, value in after.interface.items():
        if name in before.interface:
            yield f"interface.{name}_per_s", (value - before.interface[name]) / seconds
    names = after.interrupts.keys() & before.interrupts.keys()
    interrupts = sum(
        sum(after.interrupts[n].values()) - sum(before.interrupts[n].values()) for n in names
    )
    yield "interrupts_per_s", interrupts / seconds
    yield "sockets.rmem_bytes", float(after.sockets.get("rmem_bytes", 0))


def _moved(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]], key: str) -> int:
    return sum(after[cpu][key] - before[cpu][key] for cpu in after if cpu in before)


def _memory(before: HostReading, after: HostReading, seconds: float) -> Iterator[tuple[str, float]]:
    now, then = after.memory, before.memory
    if "rss" in now:
        yield "memory.rss", float(now["rss"])
    if "total" in now and "available" in now:
        yield "memory.used", float(now["total"] - now["available"])
    if "major_faults" in now and "major_faults" in then:
        faults = now["major_faults"] - then["major_faults"]
        yield "memory.major_faults_per_s", faults / seconds


def _disk(before: HostReading, after: HostReading, seconds: float) -> Iterator[tuple[str, float]]:
    now, then = after.disk, before.disk
    if "writes" not in now or "writes" not in then:
        return
    yield "disk.written_bytes_per_s", (now["written_bytes"] - then["written_bytes"]) / seconds
    yield "disk.busy", min((now["busy_s"] - then["busy_s"]) / seconds, 1.0)
    writes = now["writes"] - then["writes"]
    if writes > 0:
        yield "disk.write_latency_s", (now["write_s"] - then["write_s"]) / writes
