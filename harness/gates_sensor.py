"""Gates on the sensor: its counters, its state, its alerts."""

from __future__ import annotations

from harness.gate import Context, Finding, gate
from harness.ledger_software import MEMORY
from harness.model import Counters, Ledger
from harness.results import Trial

__all__: list[str] = []

_WIDE_INTERVAL = 0.10
# Sensors count an ICMP error to the flow it quotes, captures may not: not every flow is a flow.
_FLOW_SHARE = 0.9
_IMBALANCE = 1.5


def _raw(counters: Counters | None, name: str) -> float:
    return counters.raw.get(name, 0.0) if counters is not None else 0.0


@gate(
    "counters-inconsistent",
    "invalid",
    "The sensor's counters contradict each other",
    "Received minus dropped must be what was decoded: wait longer before reading, read totals at "
    "shutdown, or correct what `received` of a closed sensor is said to hold.",
)
def _counters_inconsistent(trial: Trial, context: Context) -> Finding | None:
    for counters, when in ((trial.after, ""), (trial.before, " when the trial began")):
        if counters is None or None in (counters.received, counters.dropped, counters.decoded):
            continue
        received, dropped = counters.received or 0, counters.dropped or 0
        decoded, left = counters.decoded or 0, received - dropped
        # A closed sensor may lose packets in between, but makes none.
        few = trial.ledger.tolerance if trial.ledger is not None else 0
        apart = left != decoded if context.capabilities.adjacent else decoded - left > few
        if apart:
            return Finding(
                f"received {received:,} - dropped {dropped:,} = {left:,}, but decoded are "
                f"{decoded:,}{when}",
                {"received": received, "dropped": dropped, "decoded": decoded},
            )
    return None


@gate(
    "not-settled",
    "invalid",
    "The sensor was still working when it was read",
    "Raise settle_timeout in the profile, or look for traffic that does not stop.",
)
def _not_settled(trial: Trial, context: Context) -> Finding | None:
    if trial.settled is not False:
        return None
    return Finding("link, counters and workers did not come to rest in time", {})


@gate(
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


@gate(
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


@gate(
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


@gate(
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


def _reuse_s(trial: Trial) -> float | None:
    """Seconds until a five-tuple comes back; None where every iteration has addresses of its own.

    A generator with address pools of its own says it in `Schedule.settings`.
    """
    if trial.method in ("loop", "raw-loop") and trial.schedule.iterations > 1:
        return trial.schedule.seconds / trial.schedule.iterations
    return trial.schedule.settings.get("reuse_s")


@gate(
    "reuse-too-soon",
    "warning",
    "Addresses come back while the sensor still remembers them",
    "Replay with fresh addresses, use larger address pools, or a shorter trial.",
)
def _reuse_too_soon(trial: Trial, context: Context) -> Finding | None:
    reuse = _reuse_s(trial)
    if reuse is None or context.flow_timeout is None or reuse > context.flow_timeout:
        return None
    return Finding(
        f"a five-tuple comes back after {reuse:.3g} s, the sensor keeps closed flows for "
        f"{context.flow_timeout:.0f} s",
        {"reuse_s": reuse, "timeout_s": context.flow_timeout},
    )


@gate(
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
    """Packets lost before the software; None where loss there is not observable.

    The NIC's own part may be unknown: then what it lost is in `before_nic`.
    """
    if ledger is None or ledger.before_nic is None or ledger.kernel is None:
        return None
    return ledger.before_nic + (ledger.nic or 0) + ledger.kernel


@gate(
    "flows-collapsed",
    "warning",
    "The sensor saw fewer flows than were sent, though no packet was dropped",
    "Copies of a flow were taken for one flow: replay with fresh addresses (method `fresh`).",
)
def _flows_collapsed(trial: Trial, context: Context) -> Finding | None:
    if trial.sent is None or trial.after is None or trial.after.flows is None:
        return None
    begin = trial.before.flows if trial.before else None
    if begin is None and trial.state == "observed":
        return None
    seen = trial.after.flows - (begin or 0)
    # The packets of raw captures and of naive loops are the same flows over and over; what was
    # meant is in the schedule. Sensors differ in what is a flow (an ICMP error, say): their own
    # count is used where the reference has it for this capture.
    meant = max(trial.sent.flows, trial.schedule.flows)
    if context.reference_flows is not None and trial.method != "raw-loop":
        meant = context.reference_flows * trial.schedule.iterations
    if _lost(trial.ledger) != 0 or seen >= _FLOW_SHARE * meant:
        return None
    return Finding(
        f"{seen:,} flows were seen, {meant:,} were sent, and no packet was dropped",
        {"seen": seen, "sent": meant},
    )


@gate(
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


@gate(
    "memory-limited",
    "warning",
    "The sensor ran into one of its memory limits",
    'Raise the memcap ([sensor.options] "set.flow.memcap" = "1gb"), or report it as the limit.',
)
def _memory_limited(trial: Trial, context: Context) -> Finding | None:
    grown = {n: _raw(trial.after, n) - _raw(trial.before, n) for n in MEMORY}
    grown = {name: value for name, value in grown.items() if value > 0}
    if not grown:
        return None
    return Finding(", ".join(f"{n} {v:,.0f}" for n, v in grown.items()), grown)


@gate(
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
