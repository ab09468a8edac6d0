"""Gates on what the run's preflight found: it holds for every trial of the session.

The preflight is made once, before the first trial, and stored in `preflight.json`; these mark the
trials that ran on such a lab.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.gate import Context, Finding, gate
from harness.results import Trial
from lab.preflight.check import Finding as Noticed

__all__: list[str] = []

_CLOCK = ("clock-offset",)
_OFFLOADS = ("receive-offloads", "transmit-offloads", "vlan-offload")


def _of(context: Context, codes: Sequence[str]) -> list[Noticed]:
    return [f for f in context.preflight if f.code in codes and f.severity != "info"]


@gate(
    "clock",
    "warning",
    "The clocks of generator and sensor differ",
    "Run chrony or ntpd on both hosts, against one server: times of alerts and samples cannot be "
    "put beside what was sent.",
)
def _clock(trial: Trial, context: Context) -> Finding | None:
    found = _of(context, _CLOCK)
    if not found:
        return None
    return Finding("; ".join(f.message for f in found), dict(found[0].numbers))


@gate(
    "offloads",
    "warning",
    "An interface of the test link merges, cuts or strips packets",
    "ethtool -K IF gro off lro off at the sensor, tso off gso off at the generator: what is "
    "analysed is not what was sent (docs/preflight.md).",
)
def _offloads(trial: Trial, context: Context) -> Finding | None:
    found = _of(context, _OFFLOADS)
    if not found:
        return None
    text = "; ".join(f"{f.where}: {f.code} {f.message}" for f in found)
    return Finding(text, {f.code: f.numbers.get("on", 1) for f in found})


@gate(
    "preflight",
    "warning",
    "The preflight check found something that can fake a result",
    "See `probebench lab check` and docs/preflight.md for each code.",
)
def _preflight(trial: Trial, context: Context) -> Finding | None:
    found = [
        f.code
        for f in context.preflight
        if f.severity != "info" and f.code not in _CLOCK + _OFFLOADS
    ]
    if not found:
        return None
    codes = list(dict.fromkeys(found))
    return Finding(f"findings of the preflight check: {', '.join(codes)}", {"findings": len(found)})
