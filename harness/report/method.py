"""What the terms in a report mean, and the commands that repeat its run."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from harness.report import words
from harness.report.accounts import Accounts
from harness.report.host_frame import HostLine
from harness.results import RunInfo

__all__ = ["METHOD", "commands", "host_note", "method"]

METHOD: tuple[tuple[str, str], ...] = (
    (
        "Offered load",
        "Packets, flows or bits a second that were really offered while iterations were being "
        "started: the schedule's steady rate, times the share of its packets that were sent, times "
        "the intended over the real duration. Not what was asked of the generator. Bits are those "
        "of frames, without FCS, preamble and gap.",
    ),
    (
        "Drop rate",
        "1 − analysed / offered: every packet offered that the sensor did not analyse, wherever "
        "it was lost. It includes what is unexplained.",
    ),
    (
        "Capture loss",
        "Takes the drop rate's place where the sensor does not tell what it analysed: (lost before "
        "the capture + dropped by it) / offered. What was lost behind the capture is not in it, so "
        "it is a lower bound of the drop rate.",
    ),
    (
        "Ledger",
        "offered = before the NIC + NIC + kernel ring + software + analysed + unexplained. "
        "Before the NIC: sent, but not received by the sensor's interface. NIC: dropped there. "
        "Kernel ring: dropped by the capture method. Software: captured, but not decoded, or "
        "decoded as invalid. Unexplained is what remains; a negative one means that more came out "
        "than went in.",
    ),
    (
        "Stages",
        "Sender's interface: the generator counted it as sent, its interface did not. Wire: "
        "transmitted and not received. CPU backlog: dropped between the driver and the ring. "
        "Capture ring: the software did not fetch it in time. Invalid: could not be decoded. No "
        "flow, stream engine: decoded and then refused there, for want of memory or a wrong "
        "checksum. Bytes of packets that a ring dropped are counted by nobody; bytes unexplained "
        "are those that the packets known to be lost cannot weigh, at 14 bytes to the corpus's "
        "largest frame each.",
    ),
    (
        "Bottleneck",
        "What stopped the sensor, from measured facts alone. Loss before the ring has its place. A "
        "full ring is put down to its worker: held up in a write (disk), runnable for 90 % of its "
        "busiest second (one worker, all workers), or neither (kernel: the ring is too small for "
        "the bursts). Memory: counters of the sensor's limits grew. Unknown: nothing measured "
        "tells.",
    ),
    (
        "Host",
        "Values over a trial's time are means between two samples of the sensor's host; a peak is "
        "the highest of them. Drops in the ring are the sensor's own count; its samples and the "
        "host's have no clock in common and are laid over each other where each had counted half "
        "of the packets. A disk's write time is known only where writes ended.",
    ),
    (
        "Time budget",
        "Time there is for a packet: the number of workers over the packets a second. Time spent: "
        "CPU time of the workers over the packets decoded. The prediction of max/mean is that of "
        "the kernel's fanout hash for the addresses sent: its key is random, so it is the median "
        "over keys, and the range of 90 % of them.",
    ),
    (
        "Detection rate",
        "Distinct (iteration, flow, signature) that were raised, divided by those due. What is "
        "due is what the same sensor raises on the same corpus at zero load, once for each "
        "iteration. Totals of alerts are not used: thresholds and repeats make them depend "
        "on load.",
    ),
    (
        "How flows are identified",
        "Every iteration of the corpus is sent under addresses of its own, drawn by a keyed "
        "permutation; an alert's addresses are inverted to the iteration and the original flow.",
    ),
    (
        "Interval",
        "Each trial's detection rate has a 95 % interval, computed when the trial was scored.",
    ),
    (
        "Repeats",
        "Repeats of a load are pooled: counts are summed, detection is the ratio of the sums, and "
        "its interval is the envelope of the trials' 95 % intervals (lowest low, highest high). "
        "Offered load and drop rate are medians, with minimum and maximum. Invalid "
        "(also generator-limited) and failed trials enter no pooled number.",
    ),
    (
        "Invalid, generator-limited, failed",
        "Invalid: measured, but a gate says that the measurement is not sound. Generator-limited: "
        "invalid only because less was sent than asked. Failed: not measured. All stay in the "
        "table; those with numbers are drawn hollow or pale.",
    ),
    (
        "Not observable",
        "The sensor or host has no counter for it. It is not zero.",
    ),
)

_BY_TEMPLATE: tuple[tuple[str, str], ...] = (
    (
        "Detection rate",
        "Distinct (five-tuple, signature) that were raised on flows of a template on which the "
        "signature is due, divided by the flows sent of these templates. What is due is what the "
        "same sensor raises on the template's flow at zero load. The interval takes a flow for one "
        "observation; where loss came in bursts it is too narrow.",
    ),
    (
        "How flows are identified",
        "The generator draws addresses itself. Each template (one flow of the corpus) has address "
        "pools of its own, so an alert's addresses tell the template. How many flows of each were "
        "sent is the generator's total divided by the templates, which all have one rate.",
    ),
)


def method(scored_by: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The terms as they are used in a run whose trials were scored by flow, or by template."""
    if "template" not in scored_by:
        return METHOD
    other = dict(_BY_TEMPLATE)
    return tuple((term, other.get(term, text)) for term, text in METHOD)


def commands(info: RunInfo) -> list[str]:
    """Shell lines that repeat the run: the recorded one where there is one."""
    recorded = info.extra.get("command")
    if isinstance(recorded, list | tuple):
        first = shlex.join(str(part) for part in recorded)
    elif recorded:
        first = str(recorded)
    else:
        first = "probebench sweep PROFILE --lab LAB.toml --corpus CORPUS -o RUN"
    return [
        first,
        "probebench report RUN",
    ]


def host_note(accounts: Accounts, drawn: Sequence[HostLine]) -> str:
    """What was sampled on the sensor's host, at what cost; or that nothing was, and why."""
    sampled = [t.host for t in accounts.trials if t.host is not None and t.host.failure is None]
    failed = [(t.name, t.host.failure) for t in accounts.trials if t.host and t.host.failure]
    if not sampled:
        why = f": {failed[0][1]}" if failed else ""
        return f"The sensor's host was not sampled in this run{why}."
    shares = [host.sampler_share for host in sampled if host.sampler_share is not None]
    cost = "what the sampler took was not read"
    if shares:
        cost = f"the sampler took {words.percent(max(shares))} of one core at most"
    parts = [
        f"Sampled in {words.plural(len(sampled), 'trial')} every "
        f"{max(host.interval_s for host in sampled):g} s, "
        f"{sum(host.samples for host in sampled):,} samples in all; {cost}."
    ]
    if not drawn:
        parts.append("host.jsonl has none of them: there is no picture over time.")
    if failed:
        names = ", ".join(name for name, _ in failed)
        parts.append(f"Not sampled in {names}: {failed[0][1]}.")
    return " ".join(parts)
