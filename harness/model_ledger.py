"""What became of a trial's packets, flows and alerts, and what stopped the sensor: values.

Counts are of one trial (differences of cumulative counters). None is "not observable", never zero.
All are frozen and have an exact JSON form through `dataclasses.asdict`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "AlertLedger",
    "Balance",
    "Bottleneck",
    "ByteLedger",
    "Evidence",
    "FlowLedger",
    "Kind",
    "Stage",
    "StageEvent",
    "TimeBudget",
    "Verdict",
    "WorkerBudget",
]

Kind = Literal[
    "generator",
    "wire",
    "nic",
    "kernel",
    "one-worker",
    "all-workers",
    "memory",
    "disk",
    "none",
    "unknown",
]
"""What stopped the sensor. "one-worker" to "disk" are the software's; "kernel" is the ring or the
backlog in front of a software that had time to spare."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Packets lost at one stage of the way; `source` names the counters that say so.

    `causes` splits `packets` by counter where the counters tell; it may sum to less.
    """

    key: str
    packets: int | None
    source: str
    causes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageEvent:
    """Something counted at a stage that is not packets, and so is in no sum of packets."""

    stage: str
    counter: str
    count: int
    meaning: str


@dataclass(frozen=True, slots=True)
class ByteLedger:
    """The ledger in bytes of frames. offered = analysed + lost + unexplained.

    A capture ring counts the packets it drops and not their bytes, so `lost` is bounded, not
    counted: what is missing (offered - analysed) as far as the packets known to be lost can account
    for it, each of 14 bytes to the corpus's largest frame. `sent` and `received` are the bytes that
    the transmitting and the sensor's interface counted. `analysed` is what the decoder counted.
    """

    offered: int
    sent: int | None
    received: int | None
    analysed: int | None
    lost: int | None
    unexplained: int | None
    tolerance: int = 0

    @property
    def adds_up(self) -> bool:
        """True when `unexplained` is within the tolerance, or not observable."""
        return self.unexplained is None or abs(self.unexplained) <= self.tolerance


@dataclass(frozen=True, slots=True)
class FlowLedger:
    """Flows of a trial, in the sensor's own units of counting.

    `offered` as the sensor counts them at zero load, where the reference has that; `seen` the flows
    it created; `missing` what is left. `without_memory` are connections that got no session,
    `unflowed` packets that got no flow; `evicted` flows that were thrown out early for others.
    `wrong_thread` are packets of a flow on another worker than its first, `gaps` holes in streams,
    `cut` streams that reached the depth limit, `midstream` connections picked up in their middle.
    `left` are flows that still were in the table when the trial began. From flow records, where the
    sensor wrote them: flows ended by force (`forced`), on several workers (`torn`), and with gaps.
    """

    offered: int
    seen: int | None
    missing: int | None
    without_memory: int | None = None
    unflowed: int | None = None
    evicted: int | None = None
    emergencies: int | None = None
    wrong_thread: int | None = None
    gaps: int | None = None
    cut: int | None = None
    midstream: int | None = None
    bypassed: int | None = None
    left: int | None = None
    forced: int | None = None
    torn: int | None = None
    with_gaps: int | None = None


@dataclass(frozen=True, slots=True)
class AlertLedger:
    """Alerts of a trial.

    Events due: due = detected + missed. Alerts written: raised = detected + repeated + unexpected
    (distinct ones that the reference does not have) + unmapped. `counted` is the sensor's own count
    of alerts; `unwritten` = counted - raised is what its output lost. `suppressed` and `overflowed`
    are alerts that it dropped itself, by thresholds and by the limit of alerts per packet.
    """

    due: int
    detected: int
    missed: int
    raised: int
    repeated: int
    unexpected: int
    unmapped: int
    counted: int | None = None
    unwritten: int | None = None
    suppressed: int | None = None
    overflowed: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measured fact: what, how much, and where the number is from."""

    what: str
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """One thing that stopped the sensor: `detail` in a few words, `packets` lost to it (None: its
    loss is not counted in packets)."""

    kind: Kind
    detail: str
    packets: int | None
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What stopped the sensor in a trial: `found`, the one that cost most first; never empty."""

    found: tuple[Bottleneck, ...]

    @property
    def primary(self) -> Bottleneck:
        """The one that cost most."""
        return self.found[0]

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """All of them, by name."""
        return tuple(one.kind for one in self.found)

    @property
    def sentence(self) -> str:
        """For a line of text: "one-worker (W#02 of 4) and memory (tcp.segment_memcap_drop)"."""
        return " and ".join(f"{b.kind} ({b.detail})" if b.detail else b.kind for b in self.found)


@dataclass(frozen=True, slots=True)
class WorkerBudget:
    """A worker's time: `packets` decoded, `arrived` for it (None: not known by worker), CPU seconds
    spent, and seconds that it was runnable (ran or waited for a CPU).

    `budget_us` is the sending time over the packets that arrived for it: what it may spend on one.
    `spent_us` is what it spent on each packet decoded. `busiest` is the largest share of a sampling
    second that it was runnable, or ran where only that is known; `writing` the share of samples
    under load that found it held up in a write.
    """

    name: str
    packets: int
    arrived: int | None
    cpu_s: float | None
    awake_s: float | None
    budget_us: float | None
    spent_us: float | None
    busiest: float | None
    writing: float | None = None


@dataclass(frozen=True, slots=True)
class TimeBudget:
    """Time there is per packet against CPU time spent per packet, in microseconds.

    `budget_us` is 1/pps times the number of workers: what all of them together may spend on a
    packet. `spent_us` is the CPU time of all workers (or of the process) over the packets decoded.
    """

    pps: float
    budget_us: float
    spent_us: float | None
    source: str
    workers: tuple[WorkerBudget, ...] = ()


@dataclass(frozen=True, slots=True)
class Balance:
    """The load of the busiest worker over the mean: measured, and predicted for these addresses.

    The key of the kernel's fanout hash is random, so the prediction is a median over keys and the
    range of 90 % of them. `iterations` is how many were evaluated. `floor` is the least that any
    balancer can do that keeps the largest flow whole.
    """

    workers: int
    measured: float
    predicted: float | None = None
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    iterations: int | None = None

    @property
    def as_predicted(self) -> bool | None:
        """Whether the measured value is not above the predicted range; None without prediction."""
        return None if self.high is None else self.measured <= self.high * 1.02
