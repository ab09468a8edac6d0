"""Values that cross the seams of the harness: loads, what was sent, counters, alerts.

All are frozen; all have an exact JSON form through `dataclasses.asdict`. Rates are per second,
times are seconds (float) or nanoseconds since the epoch where a name ends in `_ns`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from harness.model_ledger import ByteLedger, Stage, StageEvent

__all__ = [
    "AMOUNTS",
    "UNITS",
    "Alert",
    "Capabilities",
    "Corpus",
    "Counters",
    "Detection",
    "DueEvent",
    "Failure",
    "GateResult",
    "Identity",
    "InterfaceCounters",
    "Ledger",
    "Load",
    "LossOf",
    "Reference",
    "Schedule",
    "Sent",
    "SignatureScore",
    "amount_of",
]

Axis = Literal["pps", "flows", "bps", "concurrent"]
Identity = Literal["flow", "template"]
LossOf = Literal["analysed", "capture"]
"""What a loss rate counts: packets that were not analysed, or only those lost up to and in the
capture, for a sensor that does not tell what it analysed."""
UNITS: dict[Axis, str] = {"pps": "pps", "flows": "flows/s", "bps": "bit/s", "concurrent": "flows"}
AMOUNTS: dict[Axis, str] = {
    "pps": "packets",
    "flows": "flows",
    "bps": "bits",
    "concurrent": "flow seconds",
}
Pacing = Literal["pps", "timestamps"]
Severity = Literal["info", "warning", "invalid"]


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the generator during `duration` s: `value` on an axis.

    The axes mean the same for every generator: packets/s, new flows/s, bits/s of frames (without
    FCS, preamble and gap), or concurrent flows in the steady state.
    """

    axis: Axis
    value: float
    duration: float


def amount_of(axis: Axis, packets: int, flows: int, octets: int, flow_seconds: float) -> float:
    """What so much traffic is on a load axis: packets, flows, bits or flow seconds (AMOUNTS)."""
    return {
        "pps": float(packets),
        "flows": float(flows),
        "bps": octets * 8.0,
        "concurrent": flow_seconds,
    }[axis]


@dataclass(frozen=True, slots=True)
class Corpus:
    """A cleaned capture ready to be expanded, and its dimensions.

    `digest` is the SHA-256 of the capture file; it names the copy on the generator host.
    `span_s` is the time from the first to the last packet after `max_gap` was applied.
    `home` lists the CIDRs whose addresses are the home class. `packets`, `bytes` (of frames,
    without FCS) and `flows` count one iteration; `flow_seconds` is the sum of its flows' durations
    and `max_frame` the largest frame in bytes.
    """

    path: str
    digest: str
    packets: int
    bytes: int
    flows: int
    span_s: float
    home: tuple[str, ...]
    key: str
    max_gap: float | None = None
    flow_seconds: float = 0.0
    max_frame: int = 0

    def amount(self, axis: Axis) -> float:
        """What one iteration has of a load axis: packets, flows, bits or flow seconds.

        A load on the axis divided by it is iterations a second ("concurrent": by Little's law).
        """
        return amount_of(axis, self.packets, self.flows, self.bytes, self.flow_seconds)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A load translated into iterations of the corpus: what the generator shall send.

    Iterations `first_iteration` … `first_iteration + iterations - 1` start every `every_s` seconds;
    all are played out whole. `seconds` is the intended duration on the wire. `pacing` is "pps"
    (constant packet rate) or "timestamps" (due times t_j + iΔ). `pps`, `bps` and `flows_per_s` are
    those of the steady state. `steady_fraction` is the share of `seconds` in which the full number
    of iterations is in flight. A generator that counts in other units says in `how` what the load
    became ("multiplier 12.5: 2,000 flows/s of 160 templates") and keeps the numbers in `settings`.
    """

    load: Load
    first_iteration: int
    iterations: int
    every_s: float
    pacing: Pacing
    packets: int
    bytes: int
    flows: int
    seconds: float
    pps: float
    bps: float
    flows_per_s: float
    concurrent_flows: float
    steady_fraction: float
    how: str = ""
    settings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sent:
    """What the generator says it sent, with the time it really took.

    `failed` counts packets that the generator tried and could not send. `wire_packets` is what the
    transmitting interfaces counted (None when it could not be read).
    `templates` gives the flows sent of each template where the addresses are the generator's own;
    `extra` what else it says of itself (queue full, drops, retransmissions), under its own names.
    """

    packets: int
    bytes: int
    flows: int
    seconds: float
    failed: int
    started_ns: int
    ended_ns: int
    wire_packets: int | None = None
    wire_bytes: int | None = None
    templates: dict[str, int] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial has no result: `what` is a short code, e.g. "generator-killed"."""

    what: str
    message: str


@dataclass(frozen=True, slots=True)
class InterfaceCounters:
    """/sys/class/net/<if>/statistics of one interface at one time (cumulative)."""

    rx_packets: int
    rx_bytes: int
    rx_dropped: int
    rx_missed: int
    rx_errors: int
    tx_packets: int
    tx_bytes: int
    tx_dropped: int
    tx_errors: int

    def since(self, earlier: InterfaceCounters) -> InterfaceCounters:
        """Difference to an earlier reading of the same interface."""
        return InterfaceCounters(*(getattr(self, n) - getattr(earlier, n) for n in self.__slots__))

    def __add__(self, other: InterfaceCounters) -> InterfaceCounters:
        """Sum over two interfaces, for generators that send on both sides of a tap."""
        return InterfaceCounters(*(getattr(self, n) + getattr(other, n) for n in self.__slots__))


@dataclass(frozen=True, slots=True)
class Counters:
    """A sensor's own counters at one time, cumulative since its start.

    None means "this sensor cannot tell" and is never to be read as zero. `received` is what
    reached the capture method including drops; `dropped` what it dropped; `decoded` what the
    software decoded. `workers` gives decoded packets per worker thread where known. `raw` holds
    every counter under its own dotted name. `exact` is true for totals read at shutdown.
    """

    received: int | None
    dropped: int | None
    decoded: int | None
    decoded_bytes: int | None
    invalid: int | None
    flows: int | None
    alerts: int | None
    workers: dict[str, int] = field(default_factory=dict)
    raw: dict[str, float] = field(default_factory=dict)
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert as the sensor raised it. Addresses are text as on the wire; ports 0 where none."""

    timestamp: str
    proto: str
    src: str
    src_port: int
    dst: str
    dst_port: int
    signature_id: int
    signature: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a sensor can tell; what is False shows as "not observable".

    `adjacent` says that `decoded` counts right behind the capture, so that received - dropped =
    decoded must hold; a closed sensor may lose packets between the two. `loss` is the loss rate
    that its counters give; None where there is none.
    """

    kernel_drops: bool
    software_drops: bool
    per_worker: bool
    flows: bool
    alerts: bool
    exact_totals: bool
    adjacent: bool = True
    loss: LossOf | None = "analysed"


@dataclass(frozen=True, slots=True, order=True)
class DueEvent:
    """A (flow, signature) that the zero-load reference raised.

    The flow is (proto, a, a_port, b, b_port) with original corpus addresses and the two ends in
    sorted order, so that it does not depend on the direction the sensor prints.
    """

    proto: str
    a: str
    a_port: int
    b: str
    b_port: int
    signature_id: int


@dataclass(frozen=True, slots=True)
class Reference:
    """What is due per iteration: distinct (flow, signature), found at zero load.

    `raised` counts all alerts of the reference run, duplicates included; `flows` the flows as this
    sensor counts them (None: it cannot tell). `corpus_digest` and
    `rules_digest` (SHA-256) tie it to its inputs; `sensor` is the program and version.
    """

    corpus_digest: str
    rules_digest: str
    sensor: str
    raised: int
    due: tuple[DueEvent, ...]
    signatures: dict[int, str]
    flows: int | None = None


@dataclass(frozen=True, slots=True)
class SignatureScore:
    """Detection of one signature in one trial."""

    signature_id: int
    signature: str
    due: int
    detected: int


@dataclass(frozen=True, slots=True)
class Detection:
    """Score of one trial on distinct (iteration, flow, signature).

    `low` and `high` bound `rate` at 95 %. `raised` counts all alerts; `repeated` those for an event
    already counted; `unexpected` distinct events that the reference does not have; `unmapped`
    alerts whose addresses belong to no iteration sent. `scored_by` is "flow" when every event
    is one known flow, "template" when the generator chose the addresses and only (template,
    signature) and the number of flows sent of each template are known.
    """

    due: int
    detected: int
    rate: float
    low: float
    high: float
    raised: int
    repeated: int
    unexpected: int
    unmapped: int
    by_signature: tuple[SignatureScore, ...]
    scored_by: Identity = "flow"


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where every offered packet went. None: not observable with this sensor or host.

    offered = before_nic + nic + kernel + software + analysed + unexplained.
    `offered` is what the generator says it sent. `before_nic` was sent but did not reach the
    sensor's interface (where only a closed sensor's own count of packets received is known: did not
    come to be counted there); `nic` was dropped there; `kernel` was dropped in the capture ring;
    `software` was received but not decoded, decoded as invalid, or refused by the flow or stream
    engine; `analysed` went through. `stages` splits the losses along the way, in order (empty in
    runs of version 0.1); `events` is what was counted there in other units than packets.
    """

    offered: int
    before_nic: int | None
    nic: int | None
    kernel: int | None
    software: int | None
    analysed: int | None
    unexplained: int
    tolerance: int
    stages: tuple[Stage, ...] = ()
    events: tuple[StageEvent, ...] = ()
    bytes: ByteLedger | None = None

    @property
    def adds_up(self) -> bool:
        """True when `unexplained` is within the tolerance, in either direction."""
        return abs(self.unexplained) <= self.tolerance


@dataclass(frozen=True, slots=True)
class GateResult:
    """One finding of a gate: code, severity, the numbers, and what to do."""

    code: str
    severity: Severity
    title: str
    message: str
    advice: str
    numbers: dict[str, float] = field(default_factory=dict)
