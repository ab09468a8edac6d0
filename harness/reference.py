"""The reference of a run: made anew, then rehearsed with fresh addresses at zero load."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness import label
from harness.corpus import CorpusFiles
from harness.detection import events
from harness.errors import ConfigError
from harness.model import Alert, Corpus, DueEvent, Reference
from harness.progress import Progress
from lab.host import Host
from lab.inventory import SensorSpec
from pcap_tools.expand import ExpandOptions, expand
from pcap_tools.plan import AddressPlan, invert_many

__all__ = ["reference_for", "rehearse"]

REHEARSED = 2


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
