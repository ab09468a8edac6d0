"""How evenly a replay of a capture loads a sensor's workers, under each load balancer.

A balancer sends all packets of a flow to one worker. If the flows of a replay hash to few workers,
these drown while the others idle, and the loss measured is the replay's, not the sensor's.

>>> balance(table, Replay("loop", 100), workers=4)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pcap_tools.balancers import Balancer, pick
from pcap_tools.errors import EmptyCapture, PcapError
from pcap_tools.flows import FlowTable
from pcap_tools.hashes import reversed_tuples
from pcap_tools.kernels import I64, kernel
from pcap_tools.strategies import Block, FlowGroup, Replay, flow_groups

__all__ = ["EVEN", "HOPELESS", "UNEVEN", "Balance", "BalancerResult", "Spread", "balance"]

EVEN = 1.1
"""Up to this max/mean a load is called even."""
UNEVEN = 1.5
"""Beyond this one a sensor's limit is not what is measured; the gate worker-imbalance agrees."""
HOPELESS = 2.0
"""Beyond this one the busiest worker drops while the others together idle more than half."""

_MOST_WORKERS = 1024
_MOST_KEYS, _LEAST_KEYS = 200, 12
_EVALUATIONS = 60_000_000  # hashes a keyed balancer is worth


@dataclass(frozen=True, slots=True)
class Spread:
    """How one quantity spreads over the workers.

    `shares` (they sum to 1) are by worker; with a random key, worker names mean nothing, so they
    are the medians over the keys of the largest share, the second, … . `peak` is max/mean: 1 is
    even, the number of workers is all on one; the median over the keys, `low` and `high` their
    5th and 95th percentiles.
    """

    shares: tuple[float, ...]
    peak: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BalancerResult:
    """One balancer. `whole` is the share of flows of which every packet goes to one worker."""

    name: str
    used_by: str
    source: str
    keyed: bool
    packets: Spread
    bytes: Spread
    flows: Spread
    whole: float

    @property
    def idle(self) -> int:
        """Workers that get no packet."""
        return sum(share == 0 for share in self.packets.shares)


@dataclass(frozen=True, slots=True)
class Balance:
    """The prediction for one capture, strategy and number of workers.

    `packets`, `bytes` and `flows` are those of all iterations; `outside` counts packets of the
    capture that belong to no flow (not predicted). `largest` is the largest flow's share of the
    packets of all iterations and `floor` the max/mean that it alone forces on any balancer that
    keeps flows whole.
    """

    strategy: str
    iterations: int
    workers: int
    flows: int
    packets: int
    bytes: int
    outside: int
    keys: int
    largest: float
    floor: float
    results: tuple[BalancerResult, ...]

    def verdict(self, result: BalancerResult) -> str:
        """What a result means for a measurement, in words."""
        if result.whole < 0.5:
            return (
                f"flows are torn: {100 * (1 - result.whole):.0f} % of them reach several workers, "
                "none of which sees them whole"
            )
        peak = result.packets.peak
        spread = f" (5-95 %: {result.packets.low:.2f}-{result.packets.high:.2f})"
        text = f"one worker gets {peak:.1f}× its share{spread if result.keyed else ''}"
        if result.idle:
            text += f" and {result.idle} of {self.workers} idle"
        if peak <= EVEN:
            return "even"
        if peak <= UNEVEN:
            return f"uneven: {text}"
        if self.floor > EVEN and peak <= 1.25 * self.floor:
            return (
                f"{text}: the largest flow alone is {100 * self.largest:.0f} % of the packets, no "
                "balancer that keeps flows whole can do better"
            )
        if peak <= HOPELESS:
            return f"{text}: the limit found is the balancer's, not the sensor's"
        return f"{text}: a loss measured with this replay says nothing about the sensor"

    def as_json(self) -> dict[str, Any]:
        """The JSON form: the attributes by their names, and each result's verdict."""
        value = asdict(self)
        for result, made in zip(self.results, value["results"], strict=True):
            made["verdict"] = self.verdict(result)
        return value


def balance(
    table: FlowTable,
    replay: Replay,
    workers: int,
    names: Sequence[str] = (),
    keys: int | None = None,
) -> Balance:
    """Predict the spread of a replay of the capture behind `table` over `workers` workers.

    `names` limits it to some balancers. Random-keyed ones are evaluated for `keys` keys, always the
    same; by default 200, and fewer (at least 12) when flows × iterations are many. Raises PcapError
    and EmptyCapture.
    """
    if not 1 <= workers <= _MOST_WORKERS:
        raise PcapError(f"--workers {workers}: give 1 to {_MOST_WORKERS}")
    if keys is not None and keys < 1:
        raise PcapError(f"--keys {keys}: at least one is needed")
    groups = flow_groups(table)
    if not groups:
        raise EmptyCapture("no flow in the capture: there is nothing to balance")
    flows = sum(map(len, groups))
    distinct = flows * (replay.iterations if replay.strategy in ("fresh", "unique-ip") else 1)
    keys = keys or max(_LEAST_KEYS, min(_MOST_KEYS, _EVALUATIONS // distinct))
    balancers = pick(list(names))
    tallies = [_Tally(one, workers, keys) for one in balancers]
    for group in groups:
        for block in replay.blocks(group):
            for tally in tallies:
                tally.add(group, block)
    total = sum(group.weights.sum(axis=(0, 1)) for group in groups) * replay.iterations
    most = max(int(group.weights[:, :, 0].sum(axis=1).max()) for group in groups)
    # Iterations with the same addresses are the same flow to a balancer.
    copies = replay.iterations if distinct == flows else 1
    largest = most * copies / int(total[0])
    return Balance(
        strategy=replay.strategy,
        iterations=replay.iterations,
        workers=workers,
        flows=int(total[2]),
        packets=int(total[0]),
        bytes=int(total[1]),
        outside=table.packets - int(total[0]) // replay.iterations,
        keys=keys,
        largest=largest,
        floor=max(1.0, largest * workers),
        results=tuple(tally.result(total) for tally in tallies),
    )


@kernel
def _count(worker: I64, weights: I64, end: int, repeats: int, totals: I64) -> None:
    """Add flows' weights to their workers; `end` 0 or 1 is one direction, −1 is both."""
    flows = weights.shape[0]
    flow = 0
    for row in range(worker.size):
        at = worker[row]
        for unit in range(3):
            if end < 0:
                value = weights[flow, 0, unit] + weights[flow, 1, unit]
            else:
                value = weights[flow, end, unit]
            totals[at, unit] += repeats * value
        flow += 1
        if flow == flows:
            flow = 0


class _Tally:
    """Packets, bytes and flows by key and worker of one balancer, block by block."""

    def __init__(self, balancer: Balancer, workers: int, keys: int) -> None:
        self.balancer, self.workers = balancer, workers
        self.totals = np.zeros((keys if balancer.keyed else 1, workers, 3), np.int64)
        self.whole = 0

    def add(self, group: FlowGroup, block: Block) -> None:
        """Account a block of a group."""
        prepare = self.balancer.prepare
        rows = len(block.tuples)
        if prepare is None:
            packets = group.weights[:, :, 0].sum(axis=1)
            self.whole += block.repeats * int((packets == 1).sum()) * (rows // len(group))
            return
        choose = prepare(block.tuples, self.workers)
        if self.balancer.symmetric:
            for key, totals in enumerate(self.totals):
                _count(choose(key), group.weights, -1, block.repeats, totals)
            self.whole += block.repeats * rows
            return
        back = prepare(reversed_tuples(block.tuples), self.workers)
        for key, totals in enumerate(self.totals):
            there, home = choose(key), back(key)
            _count(there, group.weights, 0, block.repeats, totals)
            _count(home, group.weights, 1, block.repeats, totals)
        answered = (group.weights[:, :, 0] > 0).all(axis=1)
        one = (there == home) | ~np.tile(answered, rows // len(group))
        self.whole += block.repeats * int(one.sum())

    def result(self, total: I64) -> BalancerResult:
        """The shares of what was accounted."""
        one = self.balancer
        shares = self.totals / np.maximum(total, 1)
        if one.per_packet:
            shares = np.full((1, self.workers, 3), 1 / self.workers)
        packets, octets, flows = (self._spread(shares[:, :, unit]) for unit in range(3))
        return BalancerResult(
            name=one.name,
            used_by=one.used_by,
            source=one.source,
            keyed=one.keyed,
            packets=packets,
            bytes=octets,
            flows=flows,
            whole=self.whole / int(total[2]),
        )

    def _spread(self, shares: np.ndarray[Any, np.dtype[np.float64]]) -> Spread:
        peaks = shares.max(axis=1) * self.workers
        low, middle, high = np.quantile(peaks, (0.05, 0.5, 0.95)).tolist()
        if self.balancer.keyed:
            ranked = np.median(-np.sort(-shares, axis=1), axis=0)
            shares = (ranked / ranked.sum())[None, :]
        return Spread(tuple(shares[0].tolist()), middle, low, high)
