"""Is a trial sound? One function a gate, registered with its code, severity and advice.

A gate looks at a trial that was measured and says nothing, or one sentence with its numbers.
"invalid" takes the trial out of the verdict (it is kept, marked and drawn as such), "warning" needs
a reader's judgement, "info" explains. `docs/gates.md` has a section for each code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.model import Capabilities, Counters, GateResult, Ledger, Schedule, Sent, Severity
from harness.results import Trial

__all__ = ["GATES", "Context", "Gate", "evaluate"]

_SENT_SHARE = 0.99
_STEADY_SHARE = 0.5
_WIDE_INTERVAL = 0.10
_FLOW_SHARE = 0.99
_IMBALANCE = 1.5
# RFC 9411's 0.001 %: what a network in good order may lose or add.
_STRAY_SHARE = 1e-5

_MEMORY = (
    "flow.memcap",
    "flow.emerg_mode_entered",
    "tcp.ssn_memcap_drop",
    "tcp.segment_memcap_drop",
    "tcp.reassembly_memcap_drop",
    "http.memcap",
    "ftp.memcap",
    "defrag.max_frag_hits",
    "defrag.max_trackers_reached",
)


@dataclass(frozen=True, slots=True)
class Context:
    """What a gate needs beside the trial. `earlier` are the run's previous trials, if known."""

    capabilities: Capabilities
    co_located: bool = False
    earlier: tuple[Trial, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A gate's sentence and the numbers in it."""

    message: str
    numbers: dict[str, float]


Check = Callable[[Trial, Context], Finding | None]


@dataclass(frozen=True, slots=True)
class Gate:
    """A registered gate."""

    code: str
    severity: Severity
    title: str
    advice: str
    check: Check


GATES: dict[str, Gate] = {}


def _gate(code: str, severity: Severity, title: str, advice: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        GATES[code] = Gate(code, severity, title, advice, check)
        return check

    return register


def evaluate(trial: Trial, context: Context) -> tuple[GateResult, ...]:
    """Every gate that fires, most severe first; none for a trial that failed."""
    if trial.failure is not None:
        return ()
    order: tuple[Severity, ...] = ("invalid", "warning", "info")
    found = [
        GateResult(g.code, g.severity, g.title, finding.message, g.advice, finding.numbers)
        for g in GATES.values()
        if (finding := g.check(trial, context)) is not None
    ]
    return tuple(sorted(found, key=lambda result: order.index(result.severity)))


def _rates(sent: Sent, schedule: Schedule) -> tuple[float, float]:
    """(sent, asked) packets/s over the real and the intended duration."""
    asked = schedule.packets / schedule.seconds if schedule.seconds else schedule.pps
    return (sent.packets / sent.seconds if sent.seconds else 0.0), asked


@_gate(
    "generator-limited",
    "invalid",
    "The generator did not send what was asked",
    "Lower the load, give the generator a faster host or its own CPU, or use one that keeps up.",
)
def _generator_limited(trial: Trial, context: Context) -> Finding | None:
    if trial.sent is None:
        return None
    rate, asked = _rates(trial.sent, trial.schedule)
    share = trial.sent.packets / trial.schedule.packets if trial.schedule.packets else 1.0
    if rate >= _SENT_SHARE * asked and share >= _SENT_SHARE:
        return None
    return Finding(
        f"sent {trial.sent.packets:,} of {trial.schedule.packets:,} packets at {rate:,.0f} "
        f"packets/s; asked were {asked:,.0f} ({100 * rate / asked:.1f} %)",
        {"sent_pps": rate, "asked_pps": asked, "packets_share": share},
    )


@_gate(
    "generator-failed-packets",
    "invalid",
    "The generator could not send some packets",
    "Look for packets longer than the MTU in the corpus, and at the interface's tx errors.",
)
def _generator_failed_packets(trial: Trial, context: Context) -> Finding | None:
    if trial.sent is None or not trial.sent.failed:
        return None
    failed = trial.sent.failed
    return Finding(
        f"{failed:,} packets could not be sent, {trial.sent.packets:,} were",
        {"failed": failed, "sent": trial.sent.packets},
    )


@_gate(
    "ledger-open",
    "invalid",
    "The packets do not add up",
    "Look for other traffic on the link, fragments that the kernel reassembles, stale counters, "
    "or a drop counter that this host does not have.",
)
def _ledger_open(trial: Trial, context: Context) -> Finding | None:
    ledger = trial.ledger
    if ledger is None or ledger.adds_up:
        return None
    return Finding(
        f"{ledger.unexplained:+,} of {ledger.offered:,} packets are unexplained; "
        f"{ledger.tolerance:,} are tolerated",
        {
            "unexplained": ledger.unexplained,
            "offered": ledger.offered,
            "tolerance": ledger.tolerance,
        },
    )


def _raw(counters: Counters | None, name: str) -> float:
    return counters.raw.get(name, 0.0) if counters is not None else 0.0


@_gate(
    "counters-inconsistent",
    "invalid",
    "The sensor's counters contradict each other",
    "Received minus dropped must be what was decoded: wait longer before reading, or read totals "
    "at shutdown.",
)
def _counters_inconsistent(trial: Trial, context: Context) -> Finding | None:
    after = trial.after
    if after is None or None in (after.received, after.dropped, after.decoded):
        return None
    received, dropped, decoded = after.received or 0, after.dropped or 0, after.decoded or 0
    if received - dropped == decoded:
        return None
    return Finding(
        f"received {received:,} - dropped {dropped:,} = {received - dropped:,}, but decoded are "
        f"{decoded:,}",
        {"received": received, "dropped": dropped, "decoded": decoded},
    )


@_gate(
    "not-settled",
    "invalid",
    "The sensor was still working when it was read",
    "Raise settle_timeout in the profile, or look for traffic that does not stop.",
)
def _not_settled(trial: Trial, context: Context) -> Finding | None:
    if trial.settled is not False:
        return None
    return Finding("link, counters and workers did not come to rest in time", {})


@_gate(
    "sensor-state",
    "invalid",
    "The sensor's counters went back during the trial",
    "Something restarted or reset the sensor: keep supervisors and log rotation away from it.",
)
def _sensor_state(trial: Trial, context: Context) -> Finding | None:
    before, after = trial.before, trial.after
    if before is None or after is None:
        return None
    for name in ("received", "dropped", "decoded", "flows", "alerts"):
        first, last = getattr(before, name), getattr(after, name)
        if first is not None and last is not None and last < first:
            return Finding(
                f"{name} fell from {first:,} to {last:,}", {"before": first, "after": last}
            )
    return None


@_gate(
    "background-packets",
    "warning",
    "The sensor's interface received packets that the generator did not send",
    "Quieten the link (IPv6 autoconfiguration, LLDP, ARP), or isolate the mirror port.",
)
def _background_packets(trial: Trial, context: Context) -> Finding | None:
    if trial.sent is None or trial.nic is None:
        return None
    extra = trial.nic.rx_packets - trial.sent.packets
    if extra <= _STRAY_SHARE * trial.sent.packets:
        return None
    return Finding(
        f"the interface received {extra:,} packets more than the {trial.sent.packets:,} sent",
        {"extra": extra, "sent": trial.sent.packets},
    )


@_gate(
    "foreign-alerts",
    "warning",
    "Alerts that the reference does not have",
    "Check that corpus, rules and HOME_NET are those of the reference; alerts for gaps and resets "
    "can come from loss itself.",
)
def _foreign_alerts(trial: Trial, context: Context) -> Finding | None:
    found = trial.detection
    if found is None or trial.method != "fresh" or not (found.unexpected or found.unmapped):
        return None
    return Finding(
        f"{found.unexpected:,} events are not in the reference, {found.unmapped:,} alerts belong "
        f"to no iteration sent (of {found.raised:,} alerts)",
        {"unexpected": found.unexpected, "unmapped": found.unmapped, "raised": found.raised},
    )


@_gate(
    "few-events",
    "warning",
    "Too few events for a sharp detection rate",
    "Send longer, or use a corpus with more events due per iteration.",
)
def _few_events(trial: Trial, context: Context) -> Finding | None:
    found = trial.detection
    if found is None or trial.method != "fresh" or found.high - found.low <= _WIDE_INTERVAL:
        return None
    return Finding(
        f"{found.due:,} events were due: the rate is between {100 * found.low:.1f} % and "
        f"{100 * found.high:.1f} %",
        {"due": found.due, "low": found.low, "high": found.high},
    )


@_gate(
    "short-steady-state",
    "warning",
    "Most of the trial was ramp-up and play-out",
    "Send longer, or cap idle gaps in the corpus (max_gap).",
)
def _short_steady_state(trial: Trial, context: Context) -> Finding | None:
    steady = trial.schedule.steady_fraction
    if steady >= _STEADY_SHARE:
        return None
    return Finding(
        f"all iterations were in flight for {100 * steady:.0f} % of "
        f"{trial.schedule.seconds:.1f} s only",
        {"steady_fraction": steady, "seconds": trial.schedule.seconds},
    )


@_gate(
    "address-reuse",
    "invalid",
    "Iterations were sent to a sensor that knew their addresses",
    "Restart the sensor between trials, or give every trial fresh iterations.",
)
def _address_reuse(trial: Trial, context: Context) -> Finding | None:
    if trial.state == "restarted" or trial.method != "fresh":
        return None
    first = trial.schedule.first_iteration
    last = first + trial.schedule.iterations
    for other in context.earlier:
        begin = other.schedule.first_iteration
        if other.method == "fresh" and begin < last and first < begin + other.schedule.iterations:
            return Finding(
                f"iterations {first:,} to {last - 1:,} overlap with those of {other.name}, and "
                "the sensor was not restarted",
                {"first": first, "last": last - 1},
            )
    return None


@_gate(
    "invalid-checksums",
    "warning",
    "The sensor refused packets for their checksums",
    "Turn checksum offload off on the link (ethtool -K … rx off tx off), and let `corpus expand` "
    "repair the corpus.",
)
def _invalid_checksums(trial: Trial, context: Context) -> Finding | None:
    number = _raw(trial.after, "tcp.invalid_checksum") - _raw(trial.before, "tcp.invalid_checksum")
    if number <= 0:
        return None
    return Finding(f"{number:,.0f} TCP packets had a wrong checksum", {"packets": number})


def _lost(ledger: Ledger | None) -> int | None:
    """Packets dropped before the software, as far as is known; None without a ledger."""
    if ledger is None:
        return None
    return sum(part or 0 for part in (ledger.before_nic, ledger.nic, ledger.kernel))


@_gate(
    "flows-collapsed",
    "warning",
    "The sensor saw fewer flows than were sent, though no packet was dropped",
    "Copies of a flow were taken for one flow: replay with fresh addresses (method `fresh`).",
)
def _flows_collapsed(trial: Trial, context: Context) -> Finding | None:
    if trial.sent is None or trial.after is None or trial.after.flows is None:
        return None
    seen = trial.after.flows - ((trial.before.flows or 0) if trial.before else 0)
    # The packets of raw captures and of naive loops are the same flows over and over; what was
    # meant is in the schedule.
    meant = max(trial.sent.flows, trial.schedule.flows)
    if _lost(trial.ledger) != 0 or seen >= _FLOW_SHARE * meant:
        return None
    return Finding(
        f"{seen:,} flows were seen, {meant:,} were sent, and no packet was dropped",
        {"seen": seen, "sent": meant},
    )


@_gate(
    "software-silent",
    "info",
    "No packet was dropped, but alerts are missing",
    "The loss is inside the sensor's software: look at its memcaps, timeouts and stream gaps.",
)
def _software_silent(trial: Trial, context: Context) -> Finding | None:
    found = trial.detection
    if found is None or _lost(trial.ledger) != 0 or found.detected >= found.due:
        return None
    return Finding(
        f"{found.due - found.detected:,} of {found.due:,} events due were not raised",
        {"missing": found.due - found.detected, "due": found.due},
    )


@_gate(
    "memory-limited",
    "warning",
    "The sensor ran into one of its memory limits",
    'Raise the memcap ([sensor.options] "set.flow.memcap" = "1gb"), or report it as the limit.',
)
def _memory_limited(trial: Trial, context: Context) -> Finding | None:
    grown = {n: _raw(trial.after, n) - _raw(trial.before, n) for n in _MEMORY}
    grown = {name: value for name, value in grown.items() if value > 0}
    if not grown:
        return None
    return Finding(", ".join(f"{n} {v:,.0f}" for n, v in grown.items()), grown)


@_gate(
    "worker-imbalance",
    "warning",
    "The load was spread unevenly over the sensor's workers",
    "See `corpus balance`: the corpus may hold too few flows, or one elephant.",
)
def _worker_imbalance(trial: Trial, context: Context) -> Finding | None:
    if trial.after is None or len(trial.after.workers) < 2:
        return None
    base = trial.before.workers if trial.before else {}
    loads = [count - base.get(name, 0) for name, count in trial.after.workers.items()]
    mean = sum(loads) / len(loads)
    if mean <= 0 or max(loads) <= _IMBALANCE * mean:
        return None
    return Finding(
        f"the busiest of {len(loads)} workers took {max(loads) / mean:.2f} times the mean",
        {"max": max(loads), "mean": mean},
    )


@_gate(
    "co-located",
    "info",
    "Generator and sensor share a machine",
    "Good for trying things out; figures for a report come from two machines.",
)
def _co_located(trial: Trial, context: Context) -> Finding | None:
    if not context.co_located:
        return None
    return Finding("both run on one machine and compete for its CPU and memory", {})
