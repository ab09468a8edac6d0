"""What the sampler saw on the sensor's host, second by second, in the trials that matter.

Rates are means over the time between two samples. A value that was not read is missing (NaN).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from harness.host_peaks import MIN_INTERVAL_S, intervals
from harness.host_samples import read_samples
from harness.model_host import HostReading
from harness.nic_names import nic_causes, packets_lost
from harness.report.accounts import Accounts
from harness.report.samples import timeline_frame
from harness.results import RunDir, Trial

__all__ = ["HostLine", "host_lines", "telling_trials"]

_MOST = 6  # threads that get a line of their own
_BUSY = 0.05  # share of a core from which one that is no worker does


@dataclass(frozen=True, slots=True)
class HostLine:
    """One trial on the sensor's host.

    `why` says why it is shown. `samples` has one row an interval: begin and end (s since the first
    reading), received_per_s (packets, by the interface), backlog_per_s and nic_per_s (packets
    dropped), rss (bytes), write_latency_s (mean of the writes that ended; missing where none
    did), softirq (of the busiest CPU in it) and steal (of all CPUs): shares of one core.
    `threads` has the same rows, a column a thread of the sensor: shares of one core, workers (many:
    the busiest, the mean and the idlest at each time) and then those that used most; "other
    threads" is the rest together. `ring` is what the sensor's own counters said meanwhile: begin,
    end, dropped_per_s. `sampler_share` is what the sampler took of one core.
    """

    trial: str
    why: str
    pps: float
    samples: pd.DataFrame
    threads: pd.DataFrame
    ring: pd.DataFrame
    sampler_share: float | None


def telling_trials(accounts: Accounts) -> list[tuple[Trial, str]]:
    """The highest load without loss, the lowest with, and the highest; with the reason in words.

    Valid trials of the sweep, by load really offered; one that is two of these comes once.
    """
    known = [t for t in accounts.sweep if t.valid and t.offered_pps and t.drop_rate is not None]
    if not known:  # loss is not observable: the ends of the curve are what there is
        known = [t for t in accounts.sweep if t.valid and t.offered_pps]
        return list({t.name: (t, "") for t in (*known[:1], *known[-1:])}.values())
    whole = [t for t in known if _lost(t) == 0]
    lossy = [t for t in known if _lost(t) > 0]
    chosen = {}
    for trial, why in (
        (known[-1], "highest load"),
        (lossy[0] if lossy else None, "lowest load with loss"),
        (whole[-1] if whole else None, "highest load without loss"),
    ):
        if trial is not None:
            chosen[trial.name] = (trial, why)
    return sorted(chosen.values(), key=lambda one: one[0].offered_pps or 0.0)


def _lost(trial: Trial) -> float:
    return trial.drop_rate or 0.0


def host_lines(run: RunDir, accounts: Accounts) -> list[HostLine]:
    """Those of `telling_trials` that have samples. Raises ResultsError on a damaged timeline."""
    wanted = telling_trials(accounts)
    readings: dict[str, list[HostReading]] = {trial.name: [] for trial, _ in wanted}
    # A trial that was run again after a crash is there twice: its record has the whole one's begin.
    since = {t.name: t.host.before.wall for t, _ in wanted if t.host and t.host.before}
    for name, reading in read_samples(run.path):
        if name in since and reading.wall >= since[name]:
            readings[name].append(reading)
    if not any(len(own) > 1 for own in readings.values()):
        return []
    timeline = timeline_frame(run)
    return [
        _line(trial, why, readings[trial.name], timeline[timeline["trial"] == trial.name])
        for trial, why in wanted
        if len(readings[trial.name]) > 1
    ]


def _line(
    trial: Trial, why: str, readings: Sequence[HostReading], timeline: pd.DataFrame
) -> HostLine:
    pairs = list(intervals(readings))
    start = readings[0].t
    samples = pd.DataFrame([_row(before, after, start) for before, after in pairs])
    return HostLine(
        trial=trial.name,
        why=why,
        pps=float(trial.offered_pps or 0.0),
        samples=samples,
        threads=_threads(trial, pairs),
        ring=_ring(trial, timeline, readings),
        sampler_share=trial.host.sampler_share if trial.host is not None else None,
    )


def _row(before: HostReading, after: HostReading, start: float) -> dict[str, float | None]:
    seconds = after.t - before.t
    row: dict[str, float | None] = {"begin": before.t - start, "end": after.t - start}
    row["received_per_s"] = _grown(before.interface, after.interface, "rx_packets", seconds)
    row["nic_per_s"] = _nic(before, after, seconds)
    both = before.softnet.keys() & after.softnet.keys()
    lost = sum(after.softnet[c]["dropped"] - before.softnet[c]["dropped"] for c in both)
    row["backlog_per_s"] = lost / seconds if both else None
    row["rss"] = after.memory.get("rss")
    writes = after.disk.get("writes", 0) - before.disk.get("writes", 0)
    slow = after.disk.get("write_s", 0.0) - before.disk.get("write_s", 0.0)
    row["write_latency_s"] = slow / writes if writes > 0 else None
    cpus = before.cpus.keys() & after.cpus.keys()

    def shares(kind: str) -> list[float]:
        return [(after.cpus[c].get(kind, 0) - before.cpus[c].get(kind, 0)) / seconds for c in cpus]

    row["softirq"] = max(shares("softirq"), default=None)
    row["steal"] = sum(shares("steal")) if cpus else None
    return row


def _grown(before: dict[str, int], after: dict[str, int], key: str, seconds: float) -> float | None:
    return (after[key] - before[key]) / seconds if key in before and key in after else None


def _nic(before: HostReading, after: HostReading, seconds: float) -> float | None:
    """Packets/s that the NIC lost: the kernel's counters, or the driver's where they say more."""
    if not before.interface or not after.interface:
        return None
    own = sum(
        _grown(before.interface, after.interface, key, seconds) or 0.0
        for key in ("rx_missed_errors", "rx_errors", "rx_dropped")
    )
    causes = nic_causes(before.interface, after.interface)
    return max(own, packets_lost(causes) / seconds)


def _threads(trial: Trial, pairs: Sequence[tuple[HostReading, HostReading]]) -> pd.DataFrame:
    rows = []
    for before, after in pairs:
        both = before.threads.keys() & after.threads.keys()
        span = after.t - before.t
        rows.append({n: (after.threads[n] - before.threads[n]) / span for n in both})
    every = pd.DataFrame(rows)
    # The kernel cuts names of threads at 15 characters.
    known = {n[:15] for n in (trial.after.workers if trial.after is not None else {})}
    names = [str(name) for name in every]
    workers = sorted(name for name in names if name in known)
    used = sorted((n for n in names if n not in known), key=lambda n: (-every[n].max(), n))
    frame = every[workers].copy()
    if len(workers) > _MOST:
        each, several = every[workers], f"of {len(workers)} workers"
        lines = {"busiest": each.max(axis=1), "mean": each.mean(axis=1), "idlest": each.min(axis=1)}
        frame = pd.DataFrame({f"{name} {several}": values for name, values in lines.items()})
    # Threads of a sensor that does not name its workers, or that work beside them.
    busy = [name for name in used if every[name].max() >= _BUSY][: _MOST - len(frame.columns)]
    frame = frame.join(every[sorted(busy)])
    if rest := [name for name in used if name not in busy]:
        frame["other threads"] = every[rest].sum(axis=1)
    return frame


def _half_way(times: Sequence[float], counts: Sequence[float], target: float) -> float | None:
    """When a growing count passed `target`, between the samples around it."""
    for i in range(1, len(counts)):
        if counts[i] >= target > counts[i - 1]:
            share = (target - counts[i - 1]) / (counts[i] - counts[i - 1])
            return times[i - 1] + share * (times[i] - times[i - 1])
    return None


def _ring(trial: Trial, timeline: pd.DataFrame, readings: Sequence[HostReading]) -> pd.DataFrame:
    """Drops by the sensor's counters, on the host's time.

    The two series have no clock in common, but they count the same packets: they are laid over each
    other where each had counted half of what both did. What the record has beyond the last sample
    was dropped between that and the host's last reading.
    """
    own = timeline[timeline["dropped_per_s"].notna()]
    columns = ["begin", "end", "dropped_per_s"]
    if own.empty:
        return pd.DataFrame(columns=columns, dtype="float64")
    moved = _moved(timeline[timeline["received"].notna()], readings)
    rows = pd.DataFrame(
        {
            "begin": timeline["t_s"].shift()[own.index] + moved,
            "end": own["t_s"] + moved,
            "dropped_per_s": own["dropped_per_s"],
        }
    )
    end, last = float(rows["end"].iloc[-1]), readings[-1].t - readings[0].t
    stages = trial.ledger.stages if trial.ledger is not None else ()
    total = {stage.key: stage.packets for stage in stages}.get("ring")
    if total is not None and last - end > MIN_INTERVAL_S:
        left = max(0.0, total - float(own["dropped"].iloc[-1])) / (last - end)
        rows.loc[len(timeline) + own.index[-1]] = [end, last, left]
    rows = rows[rows["end"] > 0]
    return rows.assign(begin=rows["begin"].clip(lower=0.0))


def _moved(told: pd.DataFrame, readings: Sequence[HostReading]) -> float:
    """Seconds from the timeline's begin to the host's first reading, backwards."""
    if len(told) < 2 or any("rx_packets" not in r.interface for r in readings):
        return 0.0
    first = readings[0]
    arrived = [float(r.interface["rx_packets"] - first.interface["rx_packets"]) for r in readings]
    target = min(float(told["received"].iloc[-1]), arrived[-1]) / 2
    here = _half_way([r.t - first.t for r in readings], arrived, target)
    there = _half_way(list(told["t_s"]), list(told["received"]), target)
    return here - there if here is not None and there is not None else 0.0
