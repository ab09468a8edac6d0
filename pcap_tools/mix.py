"""Mix: a capture made of another one's flows, some left out and some copied, to set its dimensions.

Flows are taken whole, so that a probe can analyse each; what changes is how many there are of which
kind. Packets per flow, bytes per flow, encryption and attacks thereby move on purpose, and at one
rate of packets the rate of new flows is another.

>>> with open_capture("corpus.pcap") as capture:  # doctest: +SKIP
...     plan = plan_mix(capture, MixOptions(targets={"packets-per-flow": 20, "encrypted": 0.4}))
...     print(plan.after.packets_per_flow)
...     report = write_mix(capture, plan, "mixed.pcap")
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pcap_tools.assemble import assembled
from pcap_tools.capture import Capture, open_capture
from pcap_tools.classes import Mix, class_weights, classify
from pcap_tools.dimensions import Dimensions, Rate, dimensions, ratio
from pcap_tools.errors import MixError
from pcap_tools.flows import IDLE_S
from pcap_tools.forecast import Progress, read_table
from pcap_tools.labels import Event, flows_of_events, read_labels
from pcap_tools.output import open_output
from pcap_tools.replicas import place
from pcap_tools.table import write_atomically
from pcap_tools.traits import ATTACK, Traits, read_traits
from pcap_tools.weights import Target, copies_of, tilt
from pcap_tools.write import refuse_inputs

__all__ = ["MixOptions", "MixPlan", "MixReport", "plan_mix", "write_mix"]

FORMAT = "probebench-mix"
FORMAT_VERSION = 1

_FEASIBLE = 1e-3  # of the value: how near the fractional optimum must come
_CLOSE = 0.05  # … and the whole numbers of copies, before the report says so


@dataclass(frozen=True, slots=True)
class MixOptions:
    """What is wanted.

    `mix` are classes with shares or weights, `targets` dimensions by name (see
    `pcap_tools.dimensions`), `flows` how many to make (None: what the mix says). Two `rates` of
    different units are a target too: their quotient. `labels` is a CSV (see `pcap_tools.labels`);
    the flows that `events` name are labelled attack. `nearest` accepts targets that cannot be met.
    """

    mix: Mix = field(default_factory=Mix)
    targets: dict[str, float] = field(default_factory=dict)
    flows: int | None = None
    rates: tuple[Rate, ...] = ()
    labels: Path | None = None
    events: tuple[Event, ...] | None = None
    seed: int = 0
    idle_s: float = IDLE_S
    nearest: bool = False


@dataclass(frozen=True, eq=False)
class MixPlan:
    """How often each flow is taken (`copies`), and what that makes of the dimensions.

    `classes` indexes `names`, one a flow. `outside` counts packets of the input in no flow, which
    are left out. `targets` has name, wanted and achieved of each.
    """

    options: MixOptions
    traits: Traits
    classes: npt.NDArray[np.int64]
    names: tuple[str, ...]
    copies: npt.NDArray[np.int64]
    before: Dimensions
    after: Dimensions
    targets: tuple[tuple[str, float, float], ...]
    outside: int

    def missed(self) -> list[str]:
        """The targets that whole flows miss by more than 5 %, in words."""
        return [
            f"{name} is {got:.4g}, {wanted:.4g} was wanted"
            for name, wanted, got in self.targets
            if abs(got - wanted) > max(_CLOSE * wanted, 1e-6)
        ]

    def as_json(self) -> dict[str, Any]:
        """The plan's JSON form, without the flows."""
        rates = self.options.rates
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "seed": self.options.seed,
            "targets": {n: {"wanted": w, "achieved": a} for n, w, a in self.targets},
            "before": self.before.as_json(),
            "after": self.after.as_json(),
            "at_rate": self.after.at(rates[0]) if rates else None,
            "packets_outside_flows": self.outside,
        }


@dataclass(frozen=True, eq=False)
class MixReport:
    """What was written. `replicas` are the output's flows (REPLICA rows, in order of start);
    `flows_found` how many the flow table finds in the output: fewer or more when copies meet."""

    inputs: tuple[str, ...]
    output: str
    sha256: str
    plan: MixPlan
    replicas: npt.NDArray[np.void]
    packets: int
    flows_found: int
    ignored_bytes: int

    def as_json(self) -> dict[str, Any]:
        """The report's JSON form, without the flows."""
        return {
            **self.plan.as_json(),
            "inputs": list(self.inputs),
            "output": self.output,
            "sha256": self.sha256,
            "flows_found": self.flows_found,
            "ignored_bytes": self.ignored_bytes,
        }


def plan_mix(capture: Capture, options: MixOptions, progress: Progress | None = None) -> MixPlan:
    """Find how often to take each flow of an open capture. Raises MixError and CaptureError."""
    traits = _labelled(read_traits(capture, options.idle_s, progress), options)
    mix = options.mix
    classes = classify(traits, mix)
    base = class_weights(traits, mix, classes)
    if options.flows is not None:
        base *= options.flows / base.sum()
    targets = _targets(traits, options)
    most = np.where(traits.single, 1.0, np.inf)
    weights = tilt(base, targets, most)
    _require(targets, weights, base > 0, options.nearest)
    # Neighbours in this order are alike in everything that may be a target.
    order = np.lexsort((traits.bytes, traits.attack, traits.encrypted, classes))
    copies = copies_of(weights, order, most, targets, options.seed)
    if not copies.any():
        raise MixError("the mix comes to less than one flow; ask for more with --flows")
    once = np.ones(len(traits), np.int64)
    return MixPlan(
        options=options,
        traits=traits,
        classes=classes,
        names=mix.names,
        copies=copies,
        before=dimensions(traits, once, classes, mix.names),
        after=dimensions(traits, copies, classes, mix.names),
        targets=tuple((t.name, t.value, t.achieved(copies)) for t in targets),
        outside=int(traits.table.frames[:4, 0].sum()),
    )


def write_mix(
    capture: Capture, plan: MixPlan, output: Path | str, progress: Progress | None = None
) -> MixReport:
    """Write the planned capture, and OUT.mix.json beside it. Raises OutputError and MixError."""
    output = Path(output)
    refuse_inputs(output, capture.paths)
    unit = 1 if capture.nanoseconds else 1000
    replicas = place(plan.traits.table, plan.copies, plan.options.seed, unit)
    with open_output(output, capture, digest=True) as writer:
        for batch in assembled(capture, plan.traits, replicas, output, progress):
            writer.write(batch)
    with open_capture(output) as written:
        found = read_table(written, plan.options.idle_s, progress)
    report = MixReport(
        inputs=tuple(str(path) for path in capture.paths),
        output=str(output),
        sha256=writer.digest,
        plan=plan,
        replicas=replicas,
        packets=found.packets,
        flows_found=len(found),
        ignored_bytes=capture.ignored_bytes,
    )
    beside = output.with_name(f"{output.name}.mix.json")
    write_atomically(beside, lambda stream: stream.write(_text(report)))
    return report


def _labelled(traits: Traits, options: MixOptions) -> Traits:
    if options.labels is not None:
        traits = traits.labelled(*read_labels(options.labels, len(traits)))
    if options.events is not None:
        named = flows_of_events(traits.table, options.events)
        if options.events and not len(named):
            raise MixError(
                "the reference names no flow of this capture; make it of the same capture with "
                "`probebench corpus label`"
            )
        traits = traits.labelled(dict.fromkeys(named.tolist(), ATTACK))
    return traits


def _targets(traits: Traits, options: MixOptions) -> list[Target]:
    wanted = dict(options.targets)
    units = {rate.unit: rate.value for rate in options.rates}
    if len(units) < len(options.rates):
        raise MixError("two rates are in the same unit; give one of fps, pps and bps each")
    for name, above, below, each in _QUOTIENTS:
        if above in units and below in units:
            value = units[above] / units[below] / each
            if wanted.setdefault(name, value) != value:
                raise MixError(f"{name} is given, and the rates say {value:g}; give one of them")
            break
    targets = []
    for name, value in wanted.items():
        column, per = ratio(name, traits)
        size = name in ("packets-per-flow", "bytes-per-flow", "frame-size")
        if not (0 < value < 1e15 if size else 0 <= value <= 1):
            allowed = "above 0" if size else "a share from 0 to 1"
            raise MixError(f"target {name}={value:g}: wanted is a number {allowed}")
        if name == "attack" and value > 0 and not traits.attack.any():
            raise MixError("target attack: no flow is labelled attack; give a reference or labels")
        targets.append(Target(name, value, column, per))
    return targets


_QUOTIENTS = (
    ("packets-per-flow", "pps", "fps", 1),
    ("bytes-per-flow", "bps", "fps", 8),
    ("frame-size", "bps", "pps", 8),
)


def _require(
    targets: list[Target],
    weights: npt.NDArray[np.float64],
    taken: npt.NDArray[np.bool_],
    nearest: bool,
) -> None:
    if nearest or all(target.met(weights, _FEASIBLE) for target in targets):
        return
    parts = []
    for target in targets:
        least, most = target.bounds(taken)
        parts.append(
            f"{target.name}={target.value:g} (nearest {target.achieved(weights):.4g}; flows have "
            f"{least:.4g} to {most:.4g})"
        )
    raise MixError(
        f"no mix of these flows has {' and '.join(parts)}; ask for less, or accept the nearest "
        "with --nearest"
    )


def _text(report: MixReport) -> bytes:
    """The report, a flow of the output a line."""
    plan, replicas = report.plan, report.replicas
    traits = plan.traits
    flow = replicas["flow"]
    ports = np.where(replicas["port"] > 0, replicas["port"], traits.table.rows["port"][flow, 0])
    columns = {
        "flow": range(len(replicas)),
        "source": flow.tolist(),
        "copy": replicas["copy"].tolist(),
        "client_port": ports.tolist(),
        "shift_ns": replicas["shift_ns"].tolist(),
        "class": [plan.names[number] for number in plan.classes[flow].tolist()],
        "label": [traits.labels[number] for number in traits.label[flow].tolist()],
    }
    rows = ",\n  ".join(
        json.dumps(dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    )
    opened = json.dumps(report.as_json(), indent=1).removesuffix("\n}")
    return f'{opened},\n "flows": [\n  {rows}\n ]\n}}\n'.encode()
