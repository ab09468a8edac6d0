"""Checks on what the profile's loads make of the capture, before this sensor."""

from __future__ import annotations

from collections import Counter

from harness.lint.check import Finding, check
from harness.lint.rules import rate_rules
from harness.lint.subject import Subject
from harness.model import Schedule
from harness.report.words import axis_unit
from pcap_tools.balance import EVEN, UNEVEN, Balance, balance
from pcap_tools.strategies import Replay

__all__: list[str] = []

_SIMULATED = 400_000  # flows × iterations that the prediction is worth here
_FEW_PACKETS = 5
_STEADY = 0.5


def _at(subject: Subject, schedule: Schedule) -> str:
    """The load in words."""
    unit = axis_unit(schedule.load.axis)
    guess = " (the calibration's probe: the profile leaves its loads open)"
    return f"{schedule.load.value:,.0f} {unit}{guess if subject.assumed else ''}"


@check(
    "below-one-iteration",
    "A load is too low for one iteration of the capture",
    "Take a smaller capture, or send longer (load.duration).",
)
def _below_one_iteration(subject: Subject) -> Finding | None:
    short = [load for load in subject.loads if subject.schedule(load) is None]
    if not short:
        return None
    load = short[0]
    size = subject.corpus.amount(load.axis)
    need = size / load.value
    return Finding(
        "error",
        f"{load.value:g} {load.axis} for {load.duration:g} s is less than one iteration of "
        f"{size:,.0f}: it needs {need:,.1f} s",
        {"loads": len(short), "needed_s": need, "duration_s": load.duration},
    )


@check(
    "short-steady-state",
    "Most of a trial would be ramp-up and play-out",
    "Send longer (load.duration), or cap silences (corpus.max_gap).",
)
def _short_steady_state(subject: Subject) -> Finding | None:
    bad = [s for s in subject.schedules if s.steady_fraction < _STEADY]
    if not bad:
        return None
    worst = min(bad, key=lambda s: s.steady_fraction)
    return Finding(
        "warning",
        f"at {_at(subject, worst)} all iterations are in flight for "
        f"{100 * worst.steady_fraction:.0f} % of {worst.seconds:.1f} s only: one iteration takes "
        f"{subject.corpus.span_s:.1f} s",
        {
            "steady_fraction": worst.steady_fraction,
            "seconds": worst.seconds,
            "span_s": subject.corpus.span_s,
        },
    )


@check(
    "address-reuse",
    "Addresses come back while the sensor still remembers them",
    "Give wider home networks, send shorter, or restart the sensor between trials.",
)
def _address_reuse(subject: Subject) -> Finding | None:
    timeout = subject.sensor.timeouts.longest
    capacity = subject.plan.capacity
    if not subject.schedules or capacity >= 1 << 62:
        return None
    fastest = min(subject.schedules, key=lambda s: s.every_s)
    reuse = capacity * fastest.every_s
    run = sum(s.iterations for s in subject.schedules) * subject.profile.load.repeats
    numbers = {
        "capacity_iterations": capacity,
        "run_iterations": run,
        "reuse_s": reuse,
        "timeout_s": timeout,
    }
    if run > capacity:
        return Finding(
            "error",
            f"the pools hold fresh addresses for {capacity:,} iterations, the run needs {run:,}",
            numbers,
        )
    if reuse < timeout:
        return Finding(
            "warning",
            f"at {_at(subject, fastest)} the pools last {reuse:,.0f} s, less than the sensor's "
            f"longest timeout of {timeout:g} s: a longer run would bring addresses back too early",
            numbers,
        )
    return None


@check(
    "loop-period",
    "Looped without fresh addresses, the capture returns within the sensor's timeouts",
    "Replay with fresh addresses (a sweep does); never with a plain `--loop`.",
)
def _loop_period(subject: Subject) -> Finding | None:
    limits = subject.sensor.timeouts
    if not subject.schedules:
        return None
    period = min(s.every_s for s in subject.schedules)
    if period > limits.longest:
        return None
    what = "closed" if period < limits.tcp_closed else "established"
    return Finding(
        "info",
        f"a plain loop at these loads brings every five-tuple back after {period:.3g} s, within "
        f"the sensor's timeouts (closed {limits.tcp_closed:g} s, longest {limits.longest:g} s): "
        f"copies would be taken for the {what} flows of before",
        {"period_s": period, "closed_s": limits.tcp_closed, "longest_s": limits.longest},
    )


@check(
    "flow-rate",
    "The packet rate is not what would be tested",
    "Use a profile for new flows (axis flows), or a capture with longer flows.",
)
def _flow_rate(subject: Subject) -> Finding | None:
    mean = subject.table.packets / len(subject.table)
    pps = [s for s in subject.schedules if s.load.axis == "pps"]
    if not pps or mean >= _FEW_PACKETS:
        return None
    top = max(pps, key=lambda s: s.pps)
    return Finding(
        "warning",
        f"flows have {mean:.1f} packets on average: {_at(subject, top)} are "
        f"{top.flows_per_s:,.0f} new flows/s, and a verdict would be about flows",
        {"packets_per_flow": mean, "flows_per_s": top.flows_per_s, "pps": top.pps},
    )


@check(
    "flow-table",
    "More flows at a time than the sensor can hold",
    "Lower the load, raise the sensor's flow memory (Suricata: flow.memcap, flow.hash-size), or "
    "make the flow table what the profile measures.",
)
def _flow_table(subject: Subject) -> Finding | None:
    sensor = subject.sensor
    if sensor.flow_limit is None or not subject.schedules:
        return None
    top = max(subject.schedules, key=lambda s: s.flows_per_s)
    # A flow stays for its duration and then until it times out, or until the trial is over.
    mean_s = subject.corpus.flow_seconds / len(subject.table)
    rows = subject.table.rows
    tcp = rows["proto"] == 6
    open_ended = (subject.reasons == "unterminated") | (subject.reasons == "midstream")
    limits = sensor.timeouts
    kept_s = (
        float((tcp & ~open_ended).sum()) * limits.tcp_closed
        + float((tcp & open_ended).sum()) * limits.tcp_established
        + float((~tcp).sum()) * limits.udp_established
    ) / len(subject.table)
    held = top.flows_per_s * min(mean_s + kept_s, top.seconds)
    load = held / sensor.hash_size if sensor.hash_size else 0.0
    numbers = {
        "concurrent_flows": top.concurrent_flows,
        "flows_per_s": top.flows_per_s,
        "held_flows": held,
        "flow_limit": sensor.flow_limit,
        "flows_per_bucket": load,
    }
    text = (
        f"at {_at(subject, top)}: {top.flows_per_s:,.0f} new flows/s, {top.concurrent_flows:,.0f} "
        f"at a time, and with timeouts {held:,.0f} held at the end of a trial"
    )
    if held > sensor.flow_limit:
        return Finding(
            "error",
            f"{text}; the sensor holds {sensor.flow_limit:,}: flows are evicted, and the verdict "
            "is about memory",
            numbers,
        )
    if load > 4:
        return Finding(
            "warning",
            f"{text}: {load:.1f} a bucket of the sensor's {sensor.hash_size:,}",
            numbers,
        )
    return Finding("info", f"{text} of {sensor.flow_limit:,} that the sensor holds", numbers)


def _predicted(subject: Subject) -> Balance | None:
    sensor = subject.sensor
    if not subject.schedules or sensor.workers == 1:
        return None
    iterations = min(s.iterations for s in subject.schedules)
    iterations = max(1, min(iterations, _SIMULATED // len(subject.table), subject.plan.capacity))
    replay = Replay("fresh", iterations, subject.plan)
    return balance(subject.table, replay, sensor.workers, [sensor.balancer], keys=50)


@check(
    "predicted-imbalance",
    "One worker would get much more than the others",
    "See `probebench corpus balance`; take another balancer, or a capture without elephant flows.",
)
def _predicted_imbalance(subject: Subject) -> Finding | None:
    made = _predicted(subject)
    if made is None:
        return None
    (result,) = made.results
    if result.packets.peak <= EVEN or result.whole < 0.5:
        return None
    return Finding(
        "error" if result.packets.peak > UNEVEN else "warning",
        f"{made.iterations:,} iterations under {result.name}: {made.verdict(result)}",
        {
            "peak": result.packets.peak,
            "low": result.packets.low,
            "high": result.packets.high,
            "workers": made.workers,
            "iterations": made.iterations,
        },
    )


@check(
    "torn-flows",
    "The sensor's balancer sends the two directions of a flow to different workers",
    "Use a symmetric hash: cluster_flow, or the RSS key 6D:5A:… (docs/balance.md).",
)
def _torn_flows(subject: Subject) -> Finding | None:
    made = _predicted(subject)
    if made is None or made.results[0].whole >= 0.99:
        return None
    whole = made.results[0].whole
    return Finding(
        "error",
        f"under {made.results[0].name} {100 * (1 - whole):.0f} % of the flows are torn: no worker "
        "sees them whole",
        {"whole": whole, "workers": made.workers},
    )


@check(
    "rate-dependent-rules",
    "Rules whose number of alerts depends on the load",
    "Score distinct (iteration, flow, signature), as a sweep does; take thresholds out of the "
    "rules under test.",
)
def _rate_dependent_rules(subject: Subject) -> Finding | None:
    count, found = rate_rules(subject.rules)
    if not found:
        return None
    kinds = Counter(rule.kind for rule in found)
    some = ", ".join(str(rule.signature) for rule in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    what = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    return Finding(
        "warning",
        f"{len(found):,} of {count:,} rules count or limit ({what}): {some}{more}; fewer alerts "
        "are then no proof of fewer detections",
        {"rules": count, "rate_dependent": len(found), **kinds},
    )
