"""Gates on the generator, the schedule, the link and the ledger."""

from __future__ import annotations

from harness.gate import Context, Finding, gate
from harness.model import Schedule, Sent
from harness.results import Trial

__all__: list[str] = []

_SENT_SHARE = 0.99
_STEADY_SHARE = 0.5
# RFC 9411's 0.001 %: what a network in good order may lose or add.
_STRAY_SHARE = 1e-5


def _rates(sent: Sent, schedule: Schedule) -> tuple[float, float]:
    """(sent, asked) packets/s over the real and the intended duration."""
    asked = schedule.packets / schedule.seconds if schedule.seconds else schedule.pps
    return (sent.packets / sent.seconds if sent.seconds else 0.0), asked


@gate(
    "generator-limited",
    "invalid",
    "The generator did not send what was asked",
    "Lower the load, give the generator a faster host or its own CPU, or use one that keeps up.",
)
def _generator_limited(trial: Trial, context: Context) -> Finding | None:
    # A calibration asks for more than anything can send, to find out.
    if trial.sent is None or trial.phase == "calibration":
        return None
    if trial.schedule.settings.get("packets_are_estimates"):
        return _too_few_flows(trial.sent, trial.schedule)
    rate, asked = _rates(trial.sent, trial.schedule)
    share = trial.sent.packets / trial.schedule.packets if trial.schedule.packets else 1.0
    if rate >= _SENT_SHARE * asked and share >= _SENT_SHARE:
        return None
    return Finding(
        f"sent {trial.sent.packets:,} of {trial.schedule.packets:,} packets at {rate:,.0f} "
        f"packets/s; asked were {asked:,.0f} ({100 * rate / asked:.1f} %)",
        {"sent_pps": rate, "asked_pps": asked, "packets_share": share},
    )


def _too_few_flows(sent: Sent, schedule: Schedule) -> Finding | None:
    """For generators that open flows at a rate, and whose packets nobody can foretell."""
    rate = sent.flows / sent.seconds if sent.seconds else 0.0
    asked = schedule.flows / schedule.seconds if schedule.seconds else schedule.flows_per_s
    if rate >= _SENT_SHARE * asked:
        return None
    return Finding(
        f"opened {sent.flows:,} of {schedule.flows:,} flows at {rate:,.1f} flows/s; asked were "
        f"{asked:,.1f} ({100 * rate / asked:.1f} %)",
        {"flows_per_s": rate, "asked_flows_per_s": asked},
    )


@gate(
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


@gate(
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


@gate(
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


@gate(
    "short-steady-state",
    "warning",
    "Most of the trial was ramp-up and play-out",
    "Send longer, or cap idle gaps in the corpus (max_gap).",
)
def _short_steady_state(trial: Trial, context: Context) -> Finding | None:
    steady = trial.schedule.steady_fraction
    # Naive loops play one copy after another: they have no such state to reach.
    if steady >= _STEADY_SHARE or trial.method != "fresh":
        return None
    return Finding(
        f"all iterations were in flight for {100 * steady:.0f} % of "
        f"{trial.schedule.seconds:.1f} s only",
        {"steady_fraction": steady, "seconds": trial.schedule.seconds},
    )


@gate(
    "co-located",
    "info",
    "Generator and sensor share a machine",
    "Good for trying things out; figures for a report come from two machines.",
)
def _co_located(trial: Trial, context: Context) -> Finding | None:
    if not context.co_located:
        return None
    return Finding("both run on one machine and compete for its CPU and memory", {})
