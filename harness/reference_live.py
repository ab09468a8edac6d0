"""The zero-load reference of a sensor that cannot read captures: its own alerts, sent slowly.

The sensor is sent a few iterations of the corpus far below its capacity. What it raises on every
one of them is due in a trial; what it raises on some (rate-limited alerts, chance) cannot be scored
and is named. Fresh addresses are thereby rehearsed too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from harness.detection import Invert, events
from harness.errors import ConfigError, SensorFailed
from harness.generators.base import Generator, method_of
from harness.model import Alert, Corpus, Counters, DueEvent, Load, Reference, Sent
from harness.profile import ReferenceSpec
from harness.progress import Progress
from harness.sensors.base import Sensor
from harness.templates import flows_raised

__all__ = ["LiveReference", "live_reference", "no_reference"]

_SHOWN = 10  # notes


@dataclass(frozen=True, slots=True)
class LiveReference:
    """The reference, what was left out of it and why, and the iterations it used up."""

    reference: Reference
    notes: tuple[str, ...]
    iterations: int


def no_reference(corpus: Corpus, sensor: Sensor) -> Reference:
    """For a sensor without alerts, or when they shall not be scored."""
    return Reference(corpus.digest, "", f"{sensor.name} {sensor.version}", 0, (), {}, None)


def live_reference(
    generator: Generator,
    sensor: Sensor,
    corpus: Corpus,
    invert: Invert,
    spec: ReferenceSpec,
    progress: Progress,
    settle_timeout: float,
) -> LiveReference:
    """Send iterations 0 … `spec.iterations` - 1 slowly and keep what is raised on all of them.

    Raises ConfigError when nothing is, SensorFailed when packets were lost even so or the sensor
    did not come to rest, GeneratorFailed.
    """
    if method_of(generator) != "fresh":
        raise ConfigError(
            f"reference: {generator.name} sends the corpus over and over under its own addresses, "
            'so a live reference cannot tell its iterations: use push = "fresh", or '
            'reference.source = "none" in the profile'
        )
    seconds = spec.iterations * corpus.packets / spec.pps
    schedule = generator.plan(Load("pps", spec.pps, seconds * (1 + 1e-9)), 0)
    progress.say(
        f"reference: {schedule.iterations} iteration(s) at {spec.pps:,.0f} packets/s, "
        f"{schedule.seconds:.0f} s"
    )
    try:
        sensor.prepare()
        before = sensor.snapshot()
        generator.start(schedule)
        while not generator.progress().done:
            time.sleep(0.05)
        sent = generator.finish()
        settled = sensor.settle(settle_timeout)
        after = sensor.finish()
        if not settled:
            raise SensorFailed(
                f"reference: {sensor.name} did not come to rest within {settle_timeout:g} s at "
                f"{spec.pps:,.0f} packets/s; raise settle_timeout, or lower reference.pps"
            )
        _nothing_lost(sensor, before, after, sent, spec)
        alerts = list(sensor.alerts())
    finally:
        generator.stop()
        sensor.stop()
    if generator.identity == "template":
        stable, unstable = _of_templates(alerts, generator, sent)
    else:
        stable, unstable = _of_iterations(alerts, invert, schedule.iterations)
    if not stable:
        raise ConfigError(_nothing_due(sensor, alerts, after, schedule.iterations))
    names = {alert.signature_id: alert.signature for alert in alerts}
    flows = _grown(before.flows, after.flows)
    reference = Reference(
        corpus_digest=corpus.digest,
        rules_digest=str(getattr(sensor, "rules_digest", "")),
        sensor=f"{sensor.name} {sensor.version}",
        raised=round(len(alerts) / schedule.iterations),
        due=tuple(sorted(stable)),
        signatures={event.signature_id: names[event.signature_id] for event in sorted(stable)},
        flows=None if flows is None else round(flows / schedule.iterations),
    )
    return LiveReference(reference, _notes(unstable, names), schedule.iterations)


def _grown(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _nothing_lost(
    sensor: Sensor, before: Counters, after: Counters, sent: Sent, spec: ReferenceSpec
) -> None:
    lost = _grown(before.dropped, after.dropped)
    if lost:
        raise SensorFailed(
            f"reference: {sensor.name} dropped {lost:,} of {sent.packets:,} packets at "
            f"{spec.pps:,.0f} packets/s: lower reference.pps until it loses none"
        )
    if gone := after.raw.get("intake.dropped"):
        raise SensorFailed(
            f"reference: {gone:,.0f} alert messages found no room at the intake; raise "
            "sensor.options.intake.buffer"
        )


def _nothing_due(sensor: Sensor, alerts: list[Alert], after: Counters, iterations: int) -> str:
    """Why nothing is due, as far as it can be told."""
    if alerts:
        return (
            f"reference: {sensor.name} raised {len(alerts):,} alerts, but none on all of "
            f"{iterations} iterations: do its rules name addresses of the corpus, does its "
            "HOME_NET cover sensor.home, does it limit alerts?"
        )
    messages = after.raw.get("intake.messages")
    if messages:
        return (
            f"reference: {messages:,.0f} messages came to the intake and none of them is an alert "
            "as sensor.options.intake describes it; see format, pattern and fields"
        )
    heard = " (nothing came to the intake)" if messages is not None else ""
    return (
        f"reference: {sensor.name} raised no alert on the corpus{heard}, so there is no detection "
        'rate to measure; use a corpus with attacks, or reference.source = "none" in the profile'
    )


Found = tuple[set[DueEvent], Counter[int]]


def _of_iterations(alerts: Iterable[Alert], invert: Invert, iterations: int) -> Found:
    """(events raised on every iteration, number of others by signature)."""
    seen: dict[DueEvent, set[int]] = {}
    for found in events(alerts, invert, 0, iterations):
        if found is not None:
            seen.setdefault(DueEvent(*found[1]), set()).add(found[0])
    stable = {event for event, in_ in seen.items() if len(in_) == iterations}
    return stable, Counter(event.signature_id for event in seen.keys() - stable)


def _of_templates(alerts: Iterable[Alert], generator: Generator, sent: Sent) -> Found:
    """The same where the generator chooses addresses: raised on every flow sent of a template.

    A generator may tell its flows only to within one.
    """
    stable: set[DueEvent] = set()
    unstable: Counter[int] = Counter()
    for (number, sid), flows in flows_raised(alerts, generator.templates).items():
        template = generator.templates[number]
        due = sent.templates.get(template.name, 0)
        if due and flows >= due - 1 and flows > 0:
            stable.add(DueEvent(*template.flow, sid))
        else:
            unstable[sid] += 1
    return stable, unstable


def _notes(unstable: Counter[int], names: dict[int, str]) -> tuple[str, ...]:
    rows = sorted(unstable.items())
    notes = [
        f"reference: {count} event(s) of signature {sid} ({names.get(sid, '?')}) were not raised "
        "on every iteration at zero load and are not scored"
        for sid, count in rows[:_SHOWN]
    ]
    if len(rows) > _SHOWN:
        notes.append(f"reference: and {len(rows) - _SHOWN} further signatures likewise")
    return tuple(notes)
