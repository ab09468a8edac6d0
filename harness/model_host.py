"""What the host under the sensor counted during a trial: values that cross the `HostWatch` seam.

Times are seconds, sizes bytes; counters are cumulative, so that only differences mean something. A
group that the host does not have (no ethtool, no cpufreq) is empty, which is not the same as zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["HostReading", "HostTrial"]


@dataclass(frozen=True, slots=True)
class HostReading:
    """One reading of a sensor host.

    `t` is the host's monotonic clock, `wall` its time of day (s since the epoch). `interface`: the
    names of /sys/class/net/<if>/statistics, and "ethtool.<name>" for the driver's own. `softnet`:
    by CPU, processed, dropped, time_squeeze, received_rps, flow_limit (/proc/net/softnet_stat).
    `sockets`: capture sockets on the interface (/proc/net/packet): number, running, rmem_bytes,
    and ring_bytes, ring_frames of their rings together (sock_diag). `cpus`: by CPU, seconds of
    user (nice included), system, softirq, irq, idle, iowait, steal (/proc/stat). `threads`: CPU
    seconds by thread of the sensor, named "<name>" or "<name>/<tid>" where names repeat.
    `interrupts`: of the interface's vectors, by name then CPU; a CPU that took none is left out.
    `memory`: rss and major_faults (sensor), available, total, swap_free. `disk`: of the volume with
    the sensor's logs, written_bytes, writes, write_s (time spent), in_flight, busy_s, free_bytes.
    `throttled`: by CPU, the kernel's count of thermal throttling events. `cost`: CPU seconds that
    the sampler and its leash have used since they were started.
    """

    t: float
    wall: float
    interface: dict[str, int] = field(default_factory=dict)
    sockets: dict[str, int] = field(default_factory=dict)
    softnet: dict[str, dict[str, int]] = field(default_factory=dict)
    cpus: dict[str, dict[str, float]] = field(default_factory=dict)
    threads: dict[str, float] = field(default_factory=dict)
    interrupts: dict[str, dict[str, int]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    disk: dict[str, float] = field(default_factory=dict)
    throttled: dict[str, int] = field(default_factory=dict)
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class HostTrial:
    """A host over one trial: readings around it, and extremes of the samples between.

    `peaks` maps a dotted name ("cpu.3.softirq", "thread.W#01-rx0", "memory.rss",
    "disk.write_latency_s", "softnet.dropped_per_s") to its highest value over any interval between
    samples; CPU figures are shares of one core (see `harness.host_peaks`). `sampler_cpu_s` is what
    the sampler and its leash used between the two readings. `failure` says why readings are
    missing, where they are.
    """

    before: HostReading | None
    after: HostReading | None
    samples: int
    interval_s: float
    peaks: dict[str, float] = field(default_factory=dict)
    sampler_cpu_s: float | None = None
    failure: str | None = None

    @property
    def seconds(self) -> float | None:
        """Time between the two readings."""
        if self.before is None or self.after is None:
            return None
        return self.after.t - self.before.t

    @property
    def sampler_share(self) -> float | None:
        """What the sampler cost, as a share of one core."""
        if self.sampler_cpu_s is None or not self.seconds:
            return None
        return self.sampler_cpu_s / self.seconds
