"""Tables of what became of packets, flows and alerts, and of what stopped the sensor, by trial.

Runs of version 0.1 have no verdict in their records; it is then drawn from what they measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.conclusions import conclude
from harness.model_host import HostTrial
from harness.model_ledger import Evidence, TimeBudget
from harness.report import words
from harness.report.grids import Grid, Row
from harness.report.tables import status_of
from harness.results import RunDir, Trial

__all__ = [
    "KIND_NAMES",
    "STAGE_NAMES",
    "Accounts",
    "alert_grid",
    "bottleneck_grid",
    "bottleneck_sentence",
    "budget_grid",
    "event_grid",
    "flow_grid",
    "host_grid",
    "read_accounts",
    "stage_grid",
]

STAGE_NAMES = {
    "transmit": "sender's interface",
    "wire": "wire",
    "nic": "NIC",
    "backlog": "CPU backlog",
    "ring": "capture ring",
    "undecoded": "not decoded",
    "decoder": "invalid",
    "flow": "no flow",
    "stream": "stream engine",
}
KIND_NAMES = {
    "generator": "generator",
    "wire": "wire",
    "nic": "NIC",
    "kernel": "kernel",
    "one-worker": "software: one worker",
    "all-workers": "software: all workers",
    "memory": "software: memory",
    "disk": "software: disk",
    "none": "none",
    "unknown": "unknown",
}


@dataclass(frozen=True, slots=True)
class Accounts:
    """The trials of a run that were measured, with everything that follows from them."""

    trials: tuple[Trial, ...]

    @property
    def sweep(self) -> tuple[Trial, ...]:
        """Those of the sweep, by load really offered."""
        some = [t for t in self.trials if t.phase == "sweep"]
        return tuple(sorted(some, key=lambda t: t.offered_pps or 0.0))


def read_accounts(run: RunDir) -> Accounts:
    """Every measured trial of a run, in order of execution. Raises ResultsError."""
    flows = run.info().reference.get("flows")
    measured = (t for t in run.trials() if t.failure is None and t.sent is not None)
    return Accounts(tuple(conclude(trial, flows) for trial in measured))


def _grid(
    heads: Sequence[str], rows: Iterable[tuple[str, ...]], text: Sequence[int], marks: Sequence[str]
) -> Grid:
    made = tuple(Row(cells, mark) for cells, mark in zip(rows, marks, strict=True))
    numeric = frozenset(i for i in range(len(heads)) if i not in text)
    return Grid(tuple(heads), made, numeric)


def _marks(trials: Sequence[Trial]) -> list[str]:
    return [status_of(trial) for trial in trials]


def _load(trial: Trial) -> str:
    return "–" if trial.offered_pps is None else words.amount(trial.offered_pps)


def stage_grid(accounts: Accounts) -> Grid:
    """Packets lost at each stage, and the bytes."""
    trials = [t for t in accounts.trials if t.ledger is not None and t.ledger.stages]
    rows = []
    for trial in trials:
        ledger = trial.ledger
        assert ledger is not None
        lost = {stage.key: stage.packets for stage in ledger.stages}
        size = ledger.bytes
        rows.append(
            (
                trial.name,
                words.count(ledger.offered),
                *(words.count(lost.get(key)) for key in STAGE_NAMES),
                words.count(ledger.analysed),
                words.count(ledger.unexplained),
                words.count(size.offered if size else None),
                words.count(size.analysed if size else None),
                words.count(size.unexplained if size else None),
            )
        )
    heads = ["trial", "offered", *STAGE_NAMES.values(), "analysed", "unexplained"]
    heads += ["bytes offered", "bytes decoded", "bytes unexplained"]
    return _grid(heads, rows, (0,), _marks(trials))


def event_grid(accounts: Accounts) -> Grid:
    """What was counted along the way in other units than packets lost."""
    found = [
        (trial, event)
        for trial in accounts.trials
        if trial.ledger is not None
        for event in trial.ledger.events
    ]
    rows = [(t.name, e.stage, e.counter, words.count(e.count), e.meaning) for t, e in found]
    heads = ("trial", "stage", "counter", "count", "what it counts")
    return _grid(heads, rows, (0, 1, 2, 4), _marks([t for t, _ in found]))


def bottleneck_sentence(run: RunDir) -> str | None:
    """What stopped the sensor as the load grew; None where no valid trial's record says it."""
    told = [
        t
        for t in run.trials()
        if t.phase == "sweep" and t.valid and t.bottleneck is not None and t.offered_pps
    ]
    spans: list[tuple[str, float, float]] = []
    for trial in sorted(told, key=lambda t: t.offered_pps or 0.0):
        assert trial.bottleneck is not None
        name = words.series([KIND_NAMES.get(kind, kind) for kind in trial.bottleneck.kinds])
        load = float(trial.offered_pps or 0.0)
        if spans and spans[-1][0] == name:
            spans[-1] = (name, spans[-1][1], load)
        else:
            spans.append((name, load, load))
    if not spans:
        return None
    parts = [
        f"{name} at {words.load(low, 'pps')}"
        if low == high
        else f"{name} at {words.amount(low)} to {words.load(high, 'pps')}"
        for name, low, high in spans
    ]
    return f"Bottleneck: {'; '.join(parts)}."


def evidence_text(one: Evidence) -> str:
    """ "packets dropped in the ring 1,156 (capture method)"."""
    value = one.value
    number = f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 2 else f"{value:.3g}"
    return f"{one.what}: {number} ({one.source})"


def bottleneck_grid(accounts: Accounts) -> Grid:
    """The verdict of each trial, one row a bottleneck, with its evidence."""
    rows, marks = [], []
    for trial in accounts.trials:
        if trial.bottleneck is None:
            continue
        for number, one in enumerate(trial.bottleneck.found):
            first = number == 0
            rows.append(
                (
                    trial.name if first else "",
                    _load(trial) if first else "",
                    KIND_NAMES.get(one.kind, one.kind),
                    one.detail,
                    "–" if one.packets is None else words.count(one.packets),
                    "; ".join(evidence_text(e) for e in one.evidence) or "–",
                )
            )
            marks.append(status_of(trial))
    heads = ("trial", "packets/s", "bottleneck", "which", "packets lost to it", "evidence")
    return _grid(heads, rows, (0, 2, 3, 5), marks)


def _us(value: float | None) -> str:
    return words.NOT_OBSERVABLE if value is None else f"{value:,.2f}"


def budget_grid(accounts: Accounts) -> Grid:
    """Time per packet: what there was, what was spent, for all workers and for each."""
    rows, marks = [], []
    for trial in accounts.trials:
        budget = trial.budget
        if budget is None:
            continue
        rows.append((trial.name, "all", _load(trial), *_whole(budget), "", _balance(trial)))
        marks.append(status_of(trial))
        for worker in budget.workers if len(budget.workers) > 1 else ():
            came = worker.packets if worker.arrived is None else worker.arrived
            busy = words.percent(worker.busiest)
            cells = (_us(worker.budget_us), _us(worker.spent_us), busy)
            rows.append(("", worker.name, _share(came, budget), *cells, ""))
            marks.append(status_of(trial))
    heads = ("trial", "worker", "packets/s, or packets", "µs there are", "µs spent")
    return _grid((*heads, "busiest second", "max/mean of workers"), rows, (0, 1, 6), marks)


def _share(packets: int, budget: TimeBudget) -> str:
    """A worker's packets, and their share of all workers'."""
    every = sum(w.packets if w.arrived is None else w.arrived for w in budget.workers)
    return f"{packets:,} ({words.percent(packets / every)})" if every > 0 else f"{packets:,}"


def _whole(budget: TimeBudget) -> tuple[str, str]:
    return _us(budget.budget_us), _us(budget.spent_us)


def _balance(trial: Trial) -> str:
    found = trial.balance
    if found is None:
        return "–"
    text = f"{found.measured:.2f}"
    if found.predicted is not None and found.low is not None and found.high is not None:
        text += f" (predicted {found.predicted:.2f}, {found.low:.2f} – {found.high:.2f})"
    return text


def flow_grid(accounts: Accounts) -> Grid:
    """The flow ledger of each trial."""
    trials = [t for t in accounts.trials if t.flow_ledger is not None]
    names = ["offered", "seen", "missing", "without_memory", "unflowed", "evicted", "emergencies"]
    names += ["wrong_thread", "gaps", "cut", "midstream", "forced", "torn", "with_gaps"]
    heads = ["trial", "offered", "seen", "missing", "no session", "packets without flow", "evicted"]
    heads += (
        "emergencies",
        "packets on wrong worker",
        "gaps",
        "cut at depth",
        "midstream",
        "forced out",
        "torn",
        "flows with gaps",
    )
    rows = [(t.name, *(words.count(getattr(t.flow_ledger, n)) for n in names)) for t in trials]
    return _grid(heads, rows, (0,), _marks(trials))


def alert_grid(accounts: Accounts) -> Grid:
    """The alert ledger of each trial."""
    trials = [t for t in accounts.trials if t.alert_ledger is not None]
    names = ["due", "detected", "missed", "raised", "repeated", "unexpected", "unmapped"]
    names += ["counted", "unwritten", "suppressed", "overflowed"]
    heads = ["trial", "due", "detected", "missed", "written", "repeated", "not in reference"]
    heads += (
        "of no iteration",
        "counted by the sensor",
        "lost in output",
        "suppressed",
        "over limit",
    )
    rows = [(t.name, *(words.count(getattr(t.alert_ledger, n)) for n in names)) for t in trials]
    return _grid(heads, rows, (0,), _marks(trials))


def host_grid(accounts: Accounts) -> Grid:
    """What the sampler saw at worst in each trial: CPU shares, memory, disk, its own cost."""
    trials = [t for t in accounts.trials if t.host is not None and t.host.failure is None]
    rows = []
    for trial in trials:
        host = trial.host
        assert host is not None
        peaks, after = host.peaks, host.after
        softirq = [v for k, v in peaks.items() if k.startswith("cpu.") and k.endswith(".softirq")]
        threads = [v for k, v in peaks.items() if k.startswith("thread.")]
        # What was read and never moved has no peak: that is zero, and not "not observable".
        idle = 0.0 if after is not None and after.cpus else None
        asleep = 0.0 if after is not None and after.threads else None
        rss = peaks.get("memory.rss")
        rows.append(
            (
                trial.name,
                words.percent(max(threads, default=asleep)),
                words.percent(max(softirq, default=idle)),
                words.NOT_OBSERVABLE if rss is None else f"{rss / 2**20:,.0f} MiB",
                _slowest_write(host),
                words.count(host.samples),
                words.percent(host.sampler_share),
            )
        )
    heads = ["trial", "busiest thread", "busiest CPU in softirq", "sensor's memory, peak"]
    heads += ("slowest disk writes", "samples", "sampler's share of a core")
    return _grid(heads, rows, (0,), _marks(trials))


def _slowest_write(host: HostTrial) -> str:
    latency = host.peaks.get("disk.write_latency_s")
    if latency is not None:
        return f"{1e3 * latency:.1f} ms"
    if host.before is None or host.after is None or "writes" not in host.after.disk:
        return words.NOT_OBSERVABLE
    ended = host.after.disk["writes"] - host.before.disk.get("writes", 0)
    return "0.0 ms" if ended > 0 else "no write"
