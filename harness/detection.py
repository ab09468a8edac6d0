"""Scoring a trial's alerts against the reference: distinct (iteration, flow, signature).

Alert totals are no rate: one flow can raise a signature many times, and thresholds make totals
depend on load. What counts is whether an event that is due was raised at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple
from itertools import islice

from harness.events import Key, canonical_address, event_key
from harness.model import Alert, Detection, Reference, SignatureScore
from harness.stats import rate_interval

__all__ = ["Invert", "events", "score"]

Invert = Callable[[list[str]], list[tuple[int, str] | None]]

_BATCH = 50_000
# Fresh addresses seldom come back after their iteration: a bounded memory of them is enough.
_REMEMBERED = 400_000


class _Origins:
    """From an address on the wire to (iteration, original), asked for in batches."""

    def __init__(self, invert: Invert) -> None:
        self._invert = invert
        self._known: dict[str, tuple[int | None, str]] = {}

    def learn(self, addresses: Iterable[str]) -> dict[str, tuple[int | None, str]]:
        """Origins of all `addresses`; iteration None for one that the plan leaves as it is."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        wanted = list(dict.fromkeys(a for a in addresses if a not in self._known))
        plain = [canonical_address(a) for a in wanted]
        for text, address, found in zip(wanted, plain, self._invert(plain), strict=True):
            if found is None:
                self._known[text] = (None, address)
            else:
                self._known[text] = (found[0], canonical_address(found[1]))
        return self._known


def _batches(alerts: Iterable[Alert]) -> Iterator[list[Alert]]:
    source = iter(alerts)
    while batch := list(islice(source, _BATCH)):
        yield batch


def events(
    alerts: Iterable[Alert], invert: Invert, first: int, iterations: int
) -> Iterator[tuple[int, Key] | None]:
    """(iteration counted from 0, event) of each alert; None where no iteration can be told.

    An end that the plan leaves alone (multicast, link-local) says nothing about the iteration:
    then the other end decides. Ends of different iterations, or of one that was not sent, are not
    of this trial.
    """
    origins = _Origins(invert)
    for batch in _batches(alerts):
        known = origins.learn(a for alert in batch for a in (alert.src, alert.dst))
        for alert in batch:
            src_iteration, src = known[alert.src]
            dst_iteration, dst = known[alert.dst]
            iteration = dst_iteration if src_iteration is None else src_iteration
            if (
                iteration is None
                or (dst_iteration is not None and dst_iteration != iteration)
                or not 0 <= iteration - first < iterations
            ):
                yield None
                continue
            yield (
                iteration - first,
                event_key(
                    alert.proto, src, alert.src_port, dst, alert.dst_port, alert.signature_id
                ),
            )


def score(
    alerts: Iterable[Alert],
    reference: Reference,
    invert: Invert,
    first: int,
    iterations: int,
) -> Detection:
    """Score the alerts of a trial that sent iterations `first` … `first + iterations - 1`.

    `invert` maps addresses on the wire to (iteration, original address), or None for one that the
    address plan leaves alone. Every alert is counted once:
    raised = detected + repeated + unexpected + unmapped.
    """
    index = {astuple(due): number for number, due in enumerate(reference.due)}
    width = len(index)
    seen = bytearray(iterations * width)
    per_iteration = [0] * iterations
    by_signature: Counter[int] = Counter()
    unexpected: set[tuple[int, Key]] = set()
    raised = repeated = unmapped = 0
    for found in events(alerts, invert, first, iterations):
        raised += 1
        if found is None:
            unmapped += 1
            continue
        iteration, what = found
        number = index.get(what)
        if number is None:
            repeated += found in unexpected
            unexpected.add(found)
        elif seen[iteration * width + number]:
            repeated += 1
        else:
            seen[iteration * width + number] = 1
            per_iteration[iteration] += 1
            by_signature[what[-1]] += 1
    interval = rate_interval(per_iteration, width)
    due_by_signature = Counter(due.signature_id for due in reference.due)
    return Detection(
        due=iterations * width,
        detected=sum(per_iteration),
        rate=interval.rate,
        low=interval.low,
        high=interval.high,
        raised=raised,
        repeated=repeated,
        unexpected=len(unexpected),
        unmapped=unmapped,
        by_signature=tuple(
            SignatureScore(
                signature_id=sid,
                signature=reference.signatures.get(sid, ""),
                due=count * iterations,
                detected=by_signature[sid],
            )
            for sid, count in sorted(due_by_signature.items())
        ),
    )
