"""Scoring where the generator chooses the addresses: by template and signature.

A template is one flow of the corpus that the generator plays again and again between addresses out
of pools of its own. The pools of two templates have no address in common, so an alert's addresses
tell its template; which of the template's flows it was, its five-tuple tells from the others. What
is due is the number of flows sent of each template times the signatures that the zero-load
reference raised on it.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.events import canonical_address, event_key
from harness.model import Alert, Detection, Reference, SignatureScore
from harness.stats import wilson

__all__ = ["Pool", "Template", "flows_raised", "score_templates"]


@dataclass(frozen=True, slots=True)
class Pool:
    """IPv4 addresses `first` … `last`, both included, as integers."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many addresses."""
        return self.last - self.first + 1

    def texts(self) -> tuple[str, str]:
        """First and last address as people write them."""
        first, last = ipaddress.IPv4Address(self.first), ipaddress.IPv4Address(self.last)
        return str(first), str(last)


@dataclass(frozen=True, slots=True)
class Template:
    """One flow of the corpus as a generator plays it.

    `proto` to `server_port` are the corpus's own (proto in upper case, as in alerts). `packets` and
    `bytes` (of frames) are those of one flow, `seconds` what it lasts.
    """

    name: str
    proto: str
    client: str
    client_port: int
    server: str
    server_port: int
    packets: int
    bytes: int
    seconds: float
    clients: Pool
    servers: Pool

    @property
    def flow(self) -> tuple[str, str, int, str, int]:
        """The flow as `DueEvent` names it: its ends in sorted order."""
        key = event_key(
            self.proto,
            canonical_address(self.client),
            self.client_port,
            canonical_address(self.server),
            self.server_port,
            0,
        )
        return key[:5]


class _Places:
    """From an address to the template whose pool has it, and on which side."""

    def __init__(self, templates: Sequence[Template]) -> None:
        pools = [
            (pool, number) for number, t in enumerate(templates) for pool in (t.clients, t.servers)
        ]
        pools.sort(key=lambda entry: entry[0].first)
        self._pools = pools
        self._first = [pool.first for pool, _ in pools]
        self._known: dict[str, int | None] = {}

    def template(self, address: str) -> int | None:
        """The number of the template; None for an address of none."""
        if address not in self._known:
            self._known[address] = self._look(address)
        return self._known[address]

    def _look(self, address: str) -> int | None:
        try:
            value = int(ipaddress.IPv4Address(address))
        except ValueError:
            return None
        place = bisect_right(self._first, value) - 1
        if place < 0 or value > self._pools[place][0].last:
            return None
        return self._pools[place][1]


def score_templates(
    alerts: Iterable[Alert],
    reference: Reference,
    templates: Sequence[Template],
    sent: Mapping[str, int],
) -> Detection:
    """Score a trial's alerts; `sent` are the flows sent of each template, by name.

    An event is a distinct (five-tuple, signature). Where a generator tells its flows per template
    only to within one, more may be detected than were due: then so many were. The interval takes
    a flow for one observation, since its events share its fate. raised = detected + repeated +
    unexpected + unmapped, as in `harness.detection.score`.
    """
    due_of = _due(reference, templates)
    places = _Places(templates)
    found: Counter[tuple[int, int]] = Counter()  # (template, signature): distinct flows
    seen: set[tuple[object, ...]] = set()
    raised = repeated = unmapped = unexpected = 0
    for alert in alerts:
        raised += 1
        one, two = places.template(alert.src), places.template(alert.dst)
        if one is None or one != two:
            unmapped += 1
            continue
        event = event_key(
            alert.proto, alert.src, alert.src_port, alert.dst, alert.dst_port, alert.signature_id
        )
        if event in seen:
            repeated += 1
            continue
        seen.add(event)
        if alert.signature_id in due_of[one]:
            found[one, alert.signature_id] += 1
        else:
            unexpected += 1
    due: Counter[int] = Counter()
    detected: Counter[int] = Counter()
    flows = 0
    for number, template in enumerate(templates):
        count = sent.get(template.name, 0)
        flows += count if due_of[number] else 0
        for sid in due_of[number]:
            detected[sid] += found[number, sid]
            due[sid] += max(count, found[number, sid])
    total, hits = sum(due.values()), sum(detected.values())
    low, high = wilson(hits / total * flows, flows) if total and flows else (0.0, 1.0)
    return Detection(
        due=total,
        detected=hits,
        rate=hits / total if total else 0.0,
        low=low,
        high=high,
        raised=raised,
        repeated=repeated,
        unexpected=unexpected,
        unmapped=unmapped,
        by_signature=tuple(
            SignatureScore(sid, reference.signatures.get(sid, ""), due[sid], detected[sid])
            for sid in sorted(due)
        ),
        scored_by="template",
    )


def flows_raised(
    alerts: Iterable[Alert], templates: Sequence[Template]
) -> Counter[tuple[int, int]]:
    """(number of a template, signature) to the distinct flows of it that the signature is on."""
    places = _Places(templates)
    seen: set[tuple[object, ...]] = set()
    found: Counter[tuple[int, int]] = Counter()
    for alert in alerts:
        one = places.template(alert.src)
        event = event_key(
            alert.proto, alert.src, alert.src_port, alert.dst, alert.dst_port, alert.signature_id
        )
        if one is not None and one == places.template(alert.dst) and event not in seen:
            seen.add(event)
            found[one, alert.signature_id] += 1
    return found


def _due(reference: Reference, templates: Sequence[Template]) -> list[set[int]]:
    """The signatures due on each template."""
    by_flow: dict[tuple[str, str, int, str, int], set[int]] = {}
    for event in reference.due:
        flow = (event.proto, event.a, event.a_port, event.b, event.b_port)
        by_flow.setdefault(flow, set()).add(event.signature_id)
    return [by_flow.get(template.flow, set()) for template in templates]
