"""The reference of a run: made anew, then rehearsed with fresh addresses at zero load.

Offline where the sensor can read captures (Suricata); else live, see `reference_live`.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from harness import label
from harness.corpus import CorpusFiles
from harness.detection import events
from harness.errors import ConfigError
from harness.generators.base import Generator
from harness.model import Alert, Corpus, DueEvent, Reference
from harness.profile import Profile
from harness.progress import Progress
from harness.reference_live import live_reference, no_reference
from harness.sensors.base import Sensor
from harness.sensors.registry import OFFLINE
from lab.host import Host
from lab.inventory import Inventory, SensorSpec
from pcap_tools.expand import ExpandOptions, expand
from pcap_tools.plan import AddressPlan, invert_many

__all__ = ["Due", "find_due", "reference_for", "rehearse", "sends_reference", "source_of"]

REHEARSED = 2
KEPT = "reference.json"
Source = Literal["offline", "live", "none"]


@dataclass(frozen=True, slots=True)
class Due:
    """What is due, how that is known, and how many iterations were sent to find out."""

    reference: Reference
    notes: tuple[str, ...]
    source: Source
    iterations: int = 0


def source_of(profile: Profile, driver: str, sensor: Sensor) -> Source:
    """How the reference is made. Raises ConfigError for a way this sensor does not have."""
    asked = profile.reference.source
    if asked == "auto":
        if not sensor.capabilities.alerts:
            return "none"
        return "offline" if driver in OFFLINE else "live"
    if asked == "offline" and driver not in OFFLINE:
        raise ConfigError(
            f'profile {profile.name}: reference.source = "offline", but {driver} is not read '
            f'offline here (only {", ".join(sorted(OFFLINE))}); use "live"'
        )
    if asked != "none" and not sensor.capabilities.alerts:
        raise ConfigError(
            f'profile {profile.name}: reference.source = "{asked}", but this sensor gives no '
            'alerts; give it [sensor.options.intake], or use "none"'
        )
    return asked


def sends_reference(profile: Profile, driver: str, sensor: Sensor, run: Path) -> bool:
    """Whether `find_due` will send packets. Raises ConfigError as `source_of`."""
    return source_of(profile, driver, sensor) == "live" and not (run / KEPT).exists()


def find_due(
    profile: Profile,
    inventory: Inventory,
    files: CorpusFiles,
    corpus: Corpus,
    plan: AddressPlan,
    run: Path,
    generator: Generator,
    sensor: Sensor,
    host: Host,
    progress: Progress,
) -> Due:
    """The reference of a run, by whichever way fits its sensor.

    One that was sent for is kept as the run's `reference.json`: a resumed run must not send the
    same addresses again. Raises ConfigError, SensorFailed, GeneratorFailed.
    """
    source = source_of(profile, inventory.sensor.driver, sensor)
    if source == "none":
        progress.say("reference: none; detection is not observable, only loss is measured")
        return Due(no_reference(corpus, sensor), (), source)
    if source == "offline":
        reference = reference_for(files, host, inventory.sensor, progress)
        reference, notes = rehearse(corpus, plan, reference, host, inventory.sensor)
        return Due(reference, notes, source)
    kept = run / KEPT
    wanted = profile.reference
    if kept.exists():
        return Due(label.load(kept), (), source, wanted.iterations)
    found = live_reference(
        generator,
        sensor,
        corpus,
        partial(invert_many, plan),
        wanted,
        progress,
        profile.settle_timeout,
    )
    run.mkdir(parents=True, exist_ok=True)
    label.save(found.reference, kept)
    return Due(found.reference, found.notes, source, found.iterations)


def reference_for(
    files: CorpusFiles, host: Host, spec: SensorSpec, progress: Progress
) -> Reference:
    """The zero-load reference of a corpus, made with this sensor's program, rules and HOME_NET.

    It is always made anew (it costs a second or two) and kept beside the corpus, so that it can
    never belong to other rules. Raises ConfigError when nothing is due: nothing could be missed.
    """
    for finding in label.load_dependent(spec.rules):
        progress.say(f"warning: {finding}")
    progress.say("reference: Suricata offline over the corpus, at zero load")
    reference = label.label(host, spec, files.capture)
    if not reference.due:
        raise ConfigError(
            f"{files.capture}: Suricata raises no alert on it with these rules, so there is no "
            "detection rate to measure; use a corpus with attacks, or rules that match it"
        )
    label.save(reference, files.reference)
    return reference


def rehearse(
    corpus: Corpus, plan: AddressPlan, reference: Reference, host: Host, spec: SensorSpec
) -> tuple[Reference, tuple[str, ...]]:
    """Check at zero load that fresh addresses change nothing of what is due.

    Expands iterations, has Suricata read them offline, and maps its alerts back. Events that do
    not come back in every iteration (a rule that names an address, say) cannot be scored: they are
    taken out of the reference, and the notes say which. Raises ConfigError when none is left.
    """
    options = ExpandOptions(
        key=corpus.key,
        iterations=REHEARSED,
        home=corpus.home,
        every=max(corpus.span_s / 4, 1e-3),
        max_gap=corpus.max_gap,
    )
    with tempfile.TemporaryDirectory(prefix="probebench-rehearsal-") as scratch:
        path = Path(scratch) / "rehearsal.pcap"
        expand([Path(corpus.path)], str(path), options)
        seen = _by_iteration(label.label(host, spec, path).due, plan)
    stable = set(reference.due).intersection(*(seen.get(i, set()) for i in range(REHEARSED)))
    gone = Counter(due.signature_id for due in set(reference.due) - stable)
    if not stable:
        raise ConfigError(
            "rehearsal: with fresh addresses Suricata raises none of the due alerts at zero load; "
            "do the rules name addresses of the corpus, or does HOME_NET not cover them?"
        )
    notes = tuple(
        f"rehearsal: {count} event(s) of sid {sid} ({reference.signatures.get(sid, '?')}) are not "
        "raised with fresh addresses at zero load and are not scored"
        for sid, count in sorted(gone.items())
    )
    return replace(reference, due=tuple(sorted(stable))), notes


def _by_iteration(due: tuple[DueEvent, ...], plan: AddressPlan) -> dict[int, set[DueEvent]]:
    """Events on mapped addresses, back on the corpus's own, per iteration."""
    raised = (Alert("", e.proto, e.a, e.a_port, e.b, e.b_port, e.signature_id, "") for e in due)
    found: dict[int, set[DueEvent]] = {}
    for event in events(raised, partial(invert_many, plan), 0, REHEARSED):
        if event is not None:
            found.setdefault(event[0], set()).add(DueEvent(*event[1]))
    return found
