"""The time budget: what there is for a packet, and what a packet took.

At N packets/s there are 1/N s for each. A worker that gets a share of the packets has the longer
for one of its own; what it spent is its CPU time over the packets it decoded. Where the spent time
reaches the budget, the next packet finds the worker busy, and the ring fills.

Workers that poll without ever sleeping (DPDK) use all of their time with or without packets: what
they spent on one is not observable, nor whether they had time to spare.

CPU time by worker comes from the sampler on the sensor's host, or from the sensor driver's own
("probebench.worker.<name>.…" in `Counters.raw`), which is read over the loaded time alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.model import Counters
from harness.model_host import HostTrial
from harness.model_ledger import TimeBudget, WorkerBudget
from harness.results import Trial

__all__ = ["polls", "time_budget", "workers_of"]

_WORKS = 0.05  # share of a core from which a thread of a sensor without named workers is one


def _grown(trial: Trial, name: str) -> float | None:
    after, before = trial.after, trial.before
    if after is None or name not in after.raw:
        return None
    return after.raw[name] - (before.raw.get(name, 0.0) if before is not None else 0.0)


def polls(counters: Counters) -> bool:
    """Whether the sensor's workers never sleep."""
    return counters.raw.get("probebench.busy_polling", 0.0) > 0


def _threads(host: HostTrial | None) -> dict[str, float]:
    """CPU seconds in the trial by thread of the sensor."""
    if host is None or host.before is None or host.after is None:
        return {}
    first = host.before.threads
    return {name: value - first.get(name, 0.0) for name, value in host.after.threads.items()}


def _peaks(host: HostTrial | None) -> dict[str, float]:
    if host is None:
        return {}
    return {k.removeprefix("thread."): v for k, v in host.peaks.items() if k.startswith("thread.")}


def _of(name: str, values: Mapping[str, float]) -> float | None:
    """A worker's value in a table by thread, whose names the kernel cuts at 15 characters."""
    if name in values:
        return values[name]
    return values.get(name[:15])


def _decoded(before: Counters | None, after: Counters) -> dict[str, int]:
    first = before.workers if before is not None else {}
    return {name: n - first.get(name, 0) for name, n in after.workers.items()}


def workers_of(trial: Trial) -> tuple[WorkerBudget, ...]:
    """The sensor's workers in a trial; empty where neither packets nor CPU are known by worker."""
    if trial.sent is None or trial.after is None:
        return ()
    packets = _decoded(trial.before, trial.after)
    cpu, peaks = _threads(trial.host), _peaks(trial.host)
    if polls(trial.after):
        cpu, peaks = {}, {}
    seconds = trial.host.seconds if trial.host is not None else None
    if not packets and seconds:
        packets = {name: 0 for name, used in cpu.items() if used / seconds >= _WORKS}
    return tuple(_worker(trial, name, packets[name], cpu, peaks) for name in sorted(packets))


def _worker(
    trial: Trial, name: str, packets: int, cpu: dict[str, float], peaks: dict[str, float]
) -> WorkerBudget:
    arrived = _grown(trial, f"threads.{name}.capture.kernel_packets")
    own = {key: _grown(trial, f"probebench.worker.{name}.{key}") for key in ("cpu_s", "awake_s")}
    raw = trial.after.raw if trial.after is not None else {}
    if trial.after is not None and polls(trial.after):
        own, raw = dict.fromkeys(own), {}
    spent = own["cpu_s"] if own["cpu_s"] is not None else _of(name, cpu)
    known = [
        share
        for share in (raw.get(f"probebench.worker.{name}.busiest"), _of(name, peaks))
        if share is not None
    ]
    seconds = trial.sent.seconds if trial.sent is not None else 0.0
    came = int(arrived) if arrived is not None else packets
    return WorkerBudget(
        name=name,
        packets=packets,
        arrived=None if arrived is None else int(arrived),
        cpu_s=spent,
        awake_s=own["awake_s"],
        budget_us=1e6 * seconds / came if came > 0 and seconds else None,
        spent_us=1e6 * spent / packets if spent is not None and packets > 0 else None,
        busiest=max(known) if known else None,
        writing=raw.get(f"probebench.worker.{name}.writing"),
    )


def time_budget(trial: Trial) -> TimeBudget | None:
    """The time budget of a trial; None where nothing was sent."""
    sent = trial.sent
    if sent is None or not sent.packets or not sent.seconds:
        return None
    workers = workers_of(trial)
    decoded = sum(w.packets for w in workers)
    used = [w.cpu_s for w in workers if w.cpu_s is not None]
    spent: float | None = None
    source = "CPU time of the workers was not read"
    if trial.after is not None and polls(trial.after):
        source = "its workers poll: their CPU time is not spent on packets alone"
    elif workers and len(used) == len(workers) and decoded:
        spent, source = 1e6 * sum(used) / decoded, "CPU time of the workers"
    elif trial.sensor_cpu_s is not None and trial.ledger and trial.ledger.analysed:
        spent = 1e6 * trial.sensor_cpu_s / trial.ledger.analysed
        source = "CPU time of the sensor's process, all threads"
    pps = sent.packets / sent.seconds
    return TimeBudget(
        pps=pps,
        budget_us=1e6 / pps * max(1, len(workers)),
        spent_us=spent,
        source=source,
        workers=workers,
    )
