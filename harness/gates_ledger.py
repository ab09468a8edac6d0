"""Gates on what the ledgers say: bytes, the wire, alerts that were not written, memory of flows."""

from __future__ import annotations

from harness.gate import Context, Finding, gate
from harness.ledger_software import unwritten
from harness.results import Trial

__all__: list[str] = []

_STRAY_SHARE = 1e-5  # as for background packets
_STRETCHED, _LIMITED = 1.005, 1 / 0.99
_LEAST_EVENTS = 100
_IDLE_FLOWS = 0.01


@gate(
    "duration-stretched",
    "warning",
    "The sending took longer than intended",
    "The load really offered is lower than asked: read the offered column, or lower the load.",
)
def _duration_stretched(trial: Trial, context: Context) -> Finding | None:
    if trial.sent is None or trial.phase == "calibration" or not trial.schedule.seconds:
        return None
    longer = trial.sent.seconds / trial.schedule.seconds
    # From 1 % of the rate on the gate generator-limited has the word.
    if not _STRETCHED < longer <= _LIMITED:
        return None
    return Finding(
        f"sending took {trial.sent.seconds:.2f} s instead of {trial.schedule.seconds:.2f} s",
        {"seconds": trial.sent.seconds, "intended": trial.schedule.seconds},
    )


@gate(
    "wire-disagrees",
    "invalid",
    "Generator and transmitting interface count different numbers of packets",
    "Find out who else sends there, whether drivers count late, or whether the interface dropped "
    "what the generator took for sent.",
)
def _wire_disagrees(trial: Trial, context: Context) -> Finding | None:
    sent, port = trial.sent, trial.port
    if sent is None or sent.wire_packets is None:
        return None
    dropped = port.tx_dropped if port is not None else 0
    more = sent.wire_packets - sent.packets
    # What the interface admits to have dropped is in the ledger, and is no disagreement.
    if more < 0:
        more = min(0, more + dropped)
    if abs(more) <= _STRAY_SHARE * sent.packets:
        return None
    return Finding(
        f"the generator says {sent.packets:,} packets, its interface {sent.wire_packets:,} and "
        f"{dropped:,} dropped",
        {"sent": sent.packets, "transmitted": sent.wire_packets, "dropped": dropped},
    )


@gate(
    "bytes-open",
    "invalid",
    "The bytes do not add up",
    "Look for offloads that cut, join or strip frames (vlan, gro, lro), for frames cut by the "
    "sensor's snap length, and for other traffic on the link.",
)
def _bytes_open(trial: Trial, context: Context) -> Finding | None:
    found = trial.ledger.bytes if trial.ledger is not None else None
    if found is None or found.adds_up or found.unexplained is None:
        return None
    # Packets that do not add up take their bytes with them: that gate has said it.
    if trial.ledger is not None and not trial.ledger.adds_up:
        return None
    return Finding(
        f"{found.unexplained:+,} of {found.offered:,} bytes are unexplained by the packets lost; "
        f"{found.tolerance:,} are tolerated",
        {"unexplained": found.unexplained, "offered": found.offered},
    )


@gate(
    "alerts-unwritten",
    "invalid",
    "The sensor raised alerts that are missing in its output",
    "Look at the disk and at the sensor's log: the output lost what the engine had found.",
)
def _alerts_unwritten(trial: Trial, context: Context) -> Finding | None:
    found = trial.alert_ledger
    exact = trial.after is not None and trial.after.exact
    if found is None or found.counted is None or not unwritten(found, exact):
        return None
    return Finding(
        f"the sensor counts {found.counted:,} alerts, its output has {found.raised:,}",
        {"counted": found.counted, "written": found.raised},
    )


@gate(
    "thresholds-active",
    "warning",
    "Thresholds or limits of the sensor held alerts back",
    "Take thresholds, detection_filter and suppress out of the rules, or raise packet-alert-max: "
    "alert counts that depend on load measure the load.",
)
def _thresholds_active(trial: Trial, context: Context) -> Finding | None:
    found = trial.alert_ledger
    if found is None or not ((found.suppressed or 0) + (found.overflowed or 0)):
        return None
    numbers = {"suppressed": found.suppressed or 0, "overflowed": found.overflowed or 0}
    return Finding(
        f"{numbers['suppressed']:,} alerts were suppressed by thresholds, "
        f"{numbers['overflowed']:,} were beyond the limit of one packet",
        {name: float(n) for name, n in numbers.items()},
    )


@gate(
    "thresholds-in-rules",
    "warning",
    "Rules of events that are due count or limit",
    "Take threshold, detection_filter and rate_filter out of the rules under test: such an alert "
    "depends on what came before it, so on the load.",
)
def _thresholds_in_rules(trial: Trial, context: Context) -> Finding | None:
    found = trial.detection
    if found is None or not context.limited:
        return None
    for_all = 0 in context.limited
    rows = [s for s in found.by_signature if for_all or s.signature_id in context.limited]
    due = sum(row.due for row in rows)
    if not due:
        return None
    some = ", ".join(str(row.signature_id) for row in rows[:5])
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return Finding(
        f"{len(rows)} of {len(found.by_signature)} signatures due ({some}{more}) count or limit: "
        f"{due:,} of {found.due:,} events due",
        {"signatures": len(rows), "events": due, "due": found.due},
    )


@gate(
    "few-due",
    "warning",
    "Few events were due",
    "Send longer, or use a corpus with more alerts due: a rate of few events cannot tell a small "
    "loss from none.",
)
def _few_due(trial: Trial, context: Context) -> Finding | None:
    found = trial.detection
    if found is None or trial.method != "fresh" or found.due >= _LEAST_EVENTS:
        return None
    return Finding(
        f"{found.due:,} events were due; a loss of one is {100 / max(1, found.due):.1f} %",
        {"due": found.due},
    )


@gate(
    "state-carried-over",
    "warning",
    "Flows of earlier traffic were still in the sensor's table",
    "Wait for the sensor's timeouts between trials, or restart it: old flows take memory and are "
    "evicted at the new ones' expense.",
)
def _state_carried_over(trial: Trial, context: Context) -> Finding | None:
    found = trial.flow_ledger
    if found is None or not found.left or found.left <= _IDLE_FLOWS * found.offered:
        return None
    return Finding(
        f"{found.left:,} flows were active when the trial began; it offers {found.offered:,}",
        {"left": found.left, "offered": found.offered},
    )


@gate(
    "wrong-thread",
    "warning",
    "Packets of a flow reached several workers",
    "Use a symmetric hash on the NIC (RSS key 6D5A…) and cluster_flow, and look for VLAN or tunnel "
    "differences between the directions: no worker sees such a flow whole.",
)
def _wrong_thread(trial: Trial, context: Context) -> Finding | None:
    found = trial.flow_ledger
    if found is None or not found.wrong_thread:
        return None
    return Finding(
        f"{found.wrong_thread:,} packets came to another worker than the first of their flow",
        {"packets": found.wrong_thread},
    )


@gate(
    "imbalance-unpredicted",
    "warning",
    "Workers were loaded less evenly than the hash model predicts",
    "Not the kernel's fanout hash decides, but RSS or another balancer: see `corpus balance`.",
)
def _imbalance_unpredicted(trial: Trial, context: Context) -> Finding | None:
    found = trial.balance
    if found is None or found.as_predicted is not False:
        return None
    assert found.predicted is not None
    assert found.high is not None
    return Finding(
        f"the busiest worker got {found.measured:.2f} times the mean, predicted were "
        f"{found.predicted:.2f} (up to {found.high:.2f} for 95 % of keys)",
        {"measured": found.measured, "predicted": found.predicted, "high": found.high},
    )


@gate(
    "template-scoring",
    "info",
    "Detection is scored by template, not by flow",
    "Good for a rate; which flow was missed is not known, because the generator chose the "
    "addresses.",
)
def _template_scoring(trial: Trial, context: Context) -> Finding | None:
    found = trial.detection
    if found is None or found.scored_by != "template":
        return None
    return Finding(f"{found.due:,} events due are known by template and signature", {})
