"""From a load to iterations: the arithmetic every generator shares.

One iteration of the corpus has P packets, F flows and lasts T seconds; iterations start every
Δ seconds. In the steady state the packet rate is P/Δ, the rate of new flows F/Δ, the bit rate 8B/Δ,
and as many flows are open as their summed durations over Δ (Little's law), whichever was asked;
with one corpus they cannot be set apart.
"""

from __future__ import annotations

import math

from harness.errors import ConfigError
from harness.model import AMOUNTS, Corpus, Load, Pacing, Schedule

__all__ = ["plan"]


def plan(
    corpus: Corpus, load: Load, first_iteration: int, pacing: Pacing | None = None
) -> Schedule:
    """Translate a load into whole iterations of a corpus.

    Pacing "pps": the generator keeps the packet rate constant from the first packet to the last, so
    N iterations last NΔ seconds; during the ramp-up (and the play-out) of T seconds of due time
    fewer iterations are in flight and that part is passed faster. "timestamps": packets leave at
    their due times, so N iterations last (N - 1)Δ + T seconds. The default is "pps" for a load in
    packets/s and "timestamps" for one in flows/s; a generator that can do only one of them says so.

    Raises ConfigError when the duration is too short for one iteration.
    """
    size, share = corpus.amount(load.axis), AMOUNTS[load.axis]
    if size <= 0:
        raise ConfigError(f"the corpus has no {share}, so it cannot be sent at a load of that axis")
    every = size / load.value
    iterations = math.floor(load.duration / every + 1e-9)
    if iterations < 1:
        raise ConfigError(
            f"load {load.value:g} {load.axis} for {load.duration:g} s is less than one iteration "
            f"of the corpus ({size:g} {share}): it needs at least {every:.3g} s"
        )
    pacing = pacing or ("pps" if load.axis in ("pps", "bps") else "timestamps")
    started = iterations * every
    seconds = started if pacing == "pps" else started - every + corpus.span_s
    steady = max(0.0, (started - corpus.span_s) / seconds) if seconds else 0.0
    return Schedule(
        load=load,
        first_iteration=first_iteration,
        iterations=iterations,
        every_s=every,
        pacing=pacing,
        packets=iterations * corpus.packets,
        bytes=iterations * corpus.bytes,
        flows=iterations * corpus.flows,
        seconds=seconds,
        pps=corpus.packets / every,
        bps=corpus.bytes * 8 / every,
        flows_per_s=corpus.flows / every,
        concurrent_flows=corpus.flow_seconds / every,
        steady_fraction=steady,
    )
