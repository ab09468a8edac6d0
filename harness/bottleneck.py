"""What stopped the sensor in a trial: a verdict from measured facts alone.

Loss before the ring has a place and needs no more: wire, nic, backlog. A full ring is a symptom.
Its cause is told by the worker that should have emptied it:

- it was held up in a write → disk (the output);
- it was runnable all the time → one-worker, or all-workers where all of them were;
- it slept between packets → kernel: the ring is too small for the bursts;
- nobody read its CPU time → unknown.

Memory limits are counted by the sensor itself, and a generator that could not follow shows in what
it sent. Several can be true at once: all are named, the one that cost most packets first.
"""

from __future__ import annotations

from dataclasses import replace

from harness.budget import polls, workers_of
from harness.ledger import UNCOUNTED
from harness.ledger_software import MEMORY, grown, unwritten
from harness.model import Ledger
from harness.model_ledger import Bottleneck, Evidence, Kind, Verdict, WorkerBudget
from harness.results import Trial

__all__ = ["SATURATED", "judge"]

SATURATED = 0.9
"""A worker that was runnable for this share of its busiest second had no time to spare."""
_RAN = 0.6  # a busy worker that ran for less of its time was short of CPU, whatever its work
_HELD_UP = 0.2  # share of samples in a write from which the output held a worker up
_DISK_BUSY = 0.9
_SLOW_WRITE_S = 0.02
_SENT_SHARE = 0.99  # as the gate generator-limited
_LEAST_MEMORY = 0.03


def judge(trial: Trial) -> Verdict | None:
    """The verdict of a trial that was measured; None for one that failed.

    `trial` must have its ledger, and gates are not asked. Never raises.
    """
    if trial.failure is not None or trial.sent is None or trial.after is None:
        return None
    workers = workers_of(trial)
    found = [
        *_generator(trial),
        *_front(trial.ledger),
        *_ring(trial, workers),
        *_memory(trial),
        *_output(trial, workers),
        *_open(trial.ledger),
    ]
    if not found:
        return Verdict((_nothing(trial, workers),))
    found.sort(key=lambda one: -(one.packets if one.packets is not None else -1))
    return Verdict(_merged(found))


def _merged(found: list[Bottleneck]) -> tuple[Bottleneck, ...]:
    """One of a kind, its evidence together."""
    kinds: dict[Kind, Bottleneck] = {}
    for one in found:
        had = kinds.get(one.kind)
        if had is None:
            kinds[one.kind] = one
            continue
        packets = [p for p in (had.packets, one.packets) if p is not None]
        kinds[one.kind] = Bottleneck(
            one.kind,
            had.detail or one.detail,
            sum(packets) if packets else None,
            (*had.evidence, *one.evidence),
        )
    return tuple(kinds.values())


def _generator(trial: Trial) -> list[Bottleneck]:
    sent, schedule = trial.sent, trial.schedule
    if sent is None or not schedule.seconds or not sent.seconds:
        return []
    # Where nobody can foretell the packets, flows are what was asked (as in the gate).
    by_flows = bool(schedule.settings.get("packets_are_estimates"))
    meant, did = (schedule.flows, sent.flows) if by_flows else (schedule.packets, sent.packets)
    asked, rate = meant / schedule.seconds, did / sent.seconds
    if rate >= _SENT_SHARE * asked and (by_flows or did >= _SENT_SHARE * meant):
        return []
    unit = "flows/s" if by_flows else "packets/s"
    evidence = [
        Evidence(f"{unit} asked", asked, "schedule"),
        Evidence(f"{unit} sent", rate, "generator"),
    ]
    refused = {
        name: n
        for name, n in sent.extra.items()
        if n > 0 and name in ("retried_enobufs", "queue_full", "m_tx_queue_full", "tx_queue_full")
    }
    evidence += [Evidence(name, n, "generator") for name, n in refused.items()]
    if sum(refused.values()) >= 0.001 * sent.packets:
        detail = "the transmitting interface took no more"
        return [Bottleneck("wire", detail, None, tuple(evidence))]
    detail = f"sent {100 * rate / asked:.1f} % of the rate asked"
    return [Bottleneck("generator", detail, None, tuple(evidence))]


def _front(ledger: Ledger | None) -> list[Bottleneck]:
    """Loss before the ring: its place is its cause."""
    if ledger is None:
        return []
    lost = {stage.key: stage for stage in ledger.stages}
    if not lost:  # a run of version 0.1
        found = []
        if (ledger.before_nic or 0) > ledger.tolerance:
            found.append(_place("wire", "before the NIC", ledger.before_nic or 0, "ledger"))
        if (ledger.nic or 0) > ledger.tolerance:
            found.append(_place("nic", "", ledger.nic or 0, "ledger"))
        return found
    places: tuple[tuple[Kind, str, str], ...] = (
        ("wire", "transmit", "at the transmitting interface"),
        ("wire", "wire", "between the interfaces"),
        ("nic", "nic", ""),
        ("kernel", "backlog", "the backlog of a CPU was full"),
    )
    found = []
    for kind, key, detail in places:
        stage = lost.get(key)
        if stage is None or (stage.packets or 0) <= ledger.tolerance:
            continue
        causes = tuple(Evidence(name, n, "interface") for name, n in stage.causes.items())
        most = max(stage.causes, key=lambda n: stage.causes[n], default="")
        if stage.source == UNCOUNTED:
            detail = "before the sensor's own count: the wire, or its NIC"
        one = _place(kind, detail or most, stage.packets or 0, stage.source)
        found.append(Bottleneck(one.kind, one.detail, one.packets, (*one.evidence, *causes)))
    return found


def _place(kind: Kind, detail: str, packets: int, source: str) -> Bottleneck:
    return Bottleneck(kind, detail, packets, (Evidence("packets lost", packets, source),))


def _ring_loss(ledger: Ledger | None) -> int:
    """Packets that the software did not fetch in time."""
    if ledger is None:
        return 0
    lost = {stage.key: stage.packets or 0 for stage in ledger.stages}
    ring = lost.get("ring", ledger.kernel or 0)
    return ring + max(0, lost.get("undecoded", 0))


def _drops(trial: Trial, workers: tuple[WorkerBudget, ...]) -> dict[str, int]:
    """Packets dropped by worker, where the sensor counts them so and they are all of them."""
    raw = trial.after.raw if trial.after is not None else {}
    first = trial.before.raw if trial.before is not None else {}
    found, known = {}, False
    for worker in workers:
        name = f"threads.{worker.name}.capture.kernel_drops"
        known = known or name in raw
        # Suricata may leave a counter out that never moved (null-values).
        found[worker.name] = int(raw.get(name, 0) - first.get(name, 0))
    return found if known else {}


def _cause(worker: WorkerBudget) -> str:
    if worker.writing is not None and worker.writing >= _HELD_UP:
        return "disk"
    if worker.busiest is None:
        return "unknown"
    return "busy" if worker.busiest >= SATURATED else "ring"


def _ring(trial: Trial, workers: tuple[WorkerBudget, ...]) -> list[Bottleneck]:
    """The cause of a full ring, worker by worker."""
    total = _ring_loss(trial.ledger)
    allowed = trial.ledger.tolerance if trial.ledger is not None else 0
    if total <= allowed:
        return []
    if not workers or all(_cause(w) == "unknown" for w in workers):
        why = "CPU of the workers not read"
        if trial.after is not None and polls(trial.after):
            why = "its workers poll, so their CPU time tells no cause"
        return [_place("unknown", f"ring overflowed; {why}", total, "ledger")]
    drops = _drops(trial, workers)
    if not drops:
        return _undivided(workers, total)
    by_cause: dict[str, list[WorkerBudget]] = {}
    for worker in workers:
        if drops.get(worker.name, 0) > 0:
            by_cause.setdefault(_cause(worker), []).append(worker)
    found = []
    for cause, some in by_cause.items():
        lost = sum(drops[w.name] for w in some)
        if lost > allowed:
            found.append(_blame(cause, some, workers, lost))
    return found or [_place("unknown", "ring overflowed", total, "ledger")]


def _undivided(workers: tuple[WorkerBudget, ...], total: int) -> list[Bottleneck]:
    """Drops not known by worker: those that were held up or busy are to blame. How the packets are
    divided between several causes, nobody has counted."""
    guilty = [w for w in workers if _cause(w) in ("disk", "busy")] or list(workers)
    by_cause: dict[str, list[WorkerBudget]] = {}
    for worker in guilty:
        by_cause.setdefault(_cause(worker), []).append(worker)
    found = [_blame(c, some, workers, total, "all workers") for c, some in by_cause.items()]
    return found if len(found) == 1 else [replace(one, packets=None) for one in found]


def _blame(
    cause: str,
    some: list[WorkerBudget],
    workers: tuple[WorkerBudget, ...],
    lost: int,
    whose: str = "by worker",
) -> Bottleneck:
    names = ", ".join(w.name for w in some)
    evidence = [Evidence("packets dropped in the ring", lost, f"capture method, {whose}")]
    for w in some:
        if w.busiest is not None:
            what = f"{w.name}: share of its busiest second it was runnable"
            evidence.append(Evidence(what, w.busiest, "sampler"))
        if w.writing is not None and cause == "disk":
            what = f"{w.name}: share of samples held up in a write"
            evidence.append(Evidence(what, w.writing, "sampler"))
        if w.budget_us is not None and w.spent_us is not None:
            evidence.append(Evidence(f"{w.name}: µs there are per packet", w.budget_us, "budget"))
            evidence.append(Evidence(f"{w.name}: µs spent per packet", w.spent_us, "CPU time"))
    rest = [w for w in workers if w not in some and w.busiest is not None]
    evidence += [
        Evidence(f"{w.name}: share of its busiest second it was runnable", w.busiest, "sampler")
        for w in rest
        if w.busiest is not None
    ]
    if cause == "busy":
        busy = [w for w in workers if _cause(w) == "busy"]
        waited = _waited(busy)
        evidence += [Evidence("share of its time a busy worker ran", r, "CPU time") for r in waited]
        late = ", kept from the CPU" if waited and min(waited) < _RAN else ""
        if len(busy) == len(workers) > 1:
            detail = f"all {len(workers)}{late}"
            return Bottleneck("all-workers", detail, lost, tuple(evidence))
        which = ("the only worker" if len(workers) == 1 else f"{names} of {len(workers)}") + late
        return Bottleneck("one-worker", which, lost, tuple(evidence))
    kinds: dict[str, tuple[Kind, str]] = {
        "disk": ("disk", f"{names} held up in writes"),
        "ring": ("kernel", "ring too small: its workers had time to spare"),
    }
    kind, detail = kinds.get(cause, ("unknown", f"CPU of {names} not read"))
    return Bottleneck(kind, detail, lost, tuple(evidence))


def _waited(busy: list[WorkerBudget]) -> list[float]:
    """Share of the time it was runnable that each worker ran: below 1 others had its CPU."""
    return [min(1.0, w.cpu_s / w.awake_s) for w in busy if w.cpu_s is not None and w.awake_s]


def _memory(trial: Trial) -> list[Bottleneck]:
    """The sensor's memory limits, and the host's memory."""
    assert trial.after is not None
    before = trial.before if trial.before is not None else trial.after
    more = grown(before, trial.after)
    hit = {name: more[name] for name in MEMORY if name in more}
    evidence = [Evidence(name, n, "sensor") for name, n in hit.items()]
    host = trial.host.after if trial.host is not None else None
    total = host.memory.get("total", 0) if host is not None else 0
    if host is not None and total and host.memory.get("available", total) < _LEAST_MEMORY * total:
        evidence.append(Evidence("bytes of memory left", host.memory["available"], "sampler"))
    if not evidence:
        return []
    packets = sum(hit.get(n, 0) for n in ("flow.memcap", "tcp.ssn_memcap_drop"))
    packets += hit.get("tcp.segment_memcap_drop", 0)
    detail = max(hit, key=lambda n: hit[n]) if hit else "the host has none left"
    return [Bottleneck("memory", detail, packets or None, tuple(evidence))]


def _output(trial: Trial, workers: tuple[WorkerBudget, ...]) -> list[Bottleneck]:
    """Signs of a slow or full disk that are not loss in the ring."""
    evidence: list[Evidence] = []
    alerts = trial.alert_ledger
    exact = trial.after is not None and trial.after.exact
    lossy = alerts is not None and unwritten(alerts, exact) > 0
    if alerts is not None and lossy:
        what = "alerts counted by the sensor and missing in its output"
        evidence.append(Evidence(what, alerts.unwritten or 0, "sensor, output"))
    host = trial.host
    if host is not None and host.before and host.after and host.seconds:
        busy = host.after.disk.get("busy_s", 0.0) - host.before.disk.get("busy_s", 0.0)
        slow = host.peaks.get("disk.write_latency_s", 0.0)
        held = any((w.writing or 0.0) >= _HELD_UP for w in workers)
        if busy / host.seconds >= _DISK_BUSY and (held or slow >= _SLOW_WRITE_S):
            evidence.append(
                Evidence("share of the time the disk was busy", busy / host.seconds, "sampler")
            )
            evidence.append(Evidence("seconds a write took at worst", slow, "sampler"))
    if not evidence:
        return []
    detail = "the output lost alerts" if lossy else "busy, and slow to write"
    return [Bottleneck("disk", detail, None, tuple(evidence))]


def _open(ledger: Ledger | None) -> list[Bottleneck]:
    if ledger is None or ledger.adds_up:
        return []
    lost = abs(ledger.unexplained)
    return [_place("unknown", "packets that no counter accounts for", lost, "ledger")]


def _nothing(trial: Trial, workers: tuple[WorkerBudget, ...]) -> Bottleneck:
    """No sign of a bottleneck: "none" where nothing is missing, "unknown" where something is."""
    evidence = []
    known = [w for w in workers if w.busiest is not None]
    if known:
        top = max(known, key=lambda w: w.busiest or 0.0)
        what = f"{top.name}: share of its busiest second it was runnable"
        evidence.append(Evidence(what, top.busiest or 0.0, "sampler"))
    found, ledger = trial.detection, trial.ledger
    lost = None
    if ledger is not None and ledger.analysed is not None:
        lost = ledger.offered - ledger.analysed
        evidence.append(Evidence("packets not analysed", lost, "ledger"))
    if found is not None and trial.method == "fresh" and found.detected < found.due:
        missing = found.due - found.detected
        evidence.append(Evidence("events due and not raised", missing, "alerts"))
        return Bottleneck(
            "unknown", "alerts are missing, no counter says why", None, tuple(evidence)
        )
    if lost is not None and ledger is not None and lost > ledger.tolerance:
        return Bottleneck("unknown", "packets are missing", lost, tuple(evidence))
    if lost is None and trial.drop_rate is not None:
        share = "share of packets lost before or in the capture"
        evidence.append(Evidence(share, trial.drop_rate, "sensor"))
    elif lost is None and found is None:
        return Bottleneck("unknown", "neither loss nor detection is observable", None, ())
    return Bottleneck("none", "", None, tuple(evidence))
