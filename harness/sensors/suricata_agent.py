"""Our end of the sensor agent: its sample lines, read as they come."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lab.host import Process

__all__ = ["Sample", "Watch", "is_quiet", "worker_facts"]

# AF_PACKET counters are moved into iface-stat once a second (source-af-packet.c, ReceiveAFPLoop):
# what is stable for longer than that is stable.
_QUIET_S = 1.3
# A live link is never silent (LLDP, ARP): below this rate it counts as quiet.
_QUIET_PPS = 10.0
# Share of a core per worker. An idle worker polls ten times a second and stays near 0.001.
_IDLE_CPU = 0.05
# Where the kernel tells how long each worker slept, that decides, and sooner. A worker sleeps only
# in poll(2), which returns at once while its ring holds a block, and blocks close after 10 ms: one
# that slept through four of its poll timeouts (0.1 s) has nothing left to read. One that is kept
# from the CPU is not asleep. What reads the counters later (`finish`) must still reconcile.
_ASLEEP_S = 0.45
_AWAKE = 0.1  # share of the time; an idle worker's wake-ups may have to wait for a busy CPU


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading on the sensor host. `t` is its monotonic clock; CPU times are in seconds.

    `rx` counts the interface's received packets, `received` and `dropped` are iface-stat's.
    `awake` is how long each worker has run or waited for a CPU; empty where the kernel does not
    tell. `writing` names workers that were held up in a write.
    """

    t: float
    rx: int | None
    received: int
    dropped: int
    alerts: int
    cpu: float
    workers: dict[str, float]
    own_cpu: float
    awake: dict[str, float]
    writing: tuple[str, ...] = ()


class Watch:
    """The agent's stream. Samples are kept: four a second for a trial are few."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._samples: list[Sample] = []
        self.ready = False
        self.ended = False
        self.pid: int | None = None  # Suricata's own, from its command socket
        self.last_words = "the command socket does not answer"

    def read(self) -> None:
        """Take in what the agent has printed."""
        ended = self._process.poll() is not None
        for line in self._process.lines():
            try:
                message = json.loads(line)
            except ValueError:
                self.last_words = line.strip() or self.last_words
                continue
            if isinstance(message, dict):
                self._take(message)
        self.ended = self.ended or ended

    def _take(self, message: dict[str, Any]) -> None:
        event = message.get("event")
        if event in ("ready", "sample"):
            self.pid = message.get("pid", self.pid)
            self._samples.append(
                Sample(
                    t=message["t"],
                    rx=message["rx"],
                    received=message["pkts"],
                    dropped=message["drop"],
                    alerts=message["alerts"],
                    cpu=message["cpu"],
                    workers=message["workers"],
                    own_cpu=message["own_cpu"],
                    awake=message.get("awake", {}),
                    writing=tuple(message.get("writing", ())),
                )
            )
            self.ready = True
        elif event == "not-ready":
            self.last_words = f"{message['captures']} captures are running"
            self.ended = True
        elif event == "gone":
            self.last_words = message["why"]
            self.ended = True

    def await_first(self, timeout: float) -> bool:
        """Wait for the first sample; False when the agent gave up or `timeout` (s) passed."""
        end = time.monotonic() + timeout
        while self.latest is None:
            if self.ended or time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    @property
    def count(self) -> int:
        """Samples so far."""
        return len(self._samples)

    @property
    def latest(self) -> Sample | None:
        """The last sample."""
        self.read()
        return self._samples[-1] if self._samples else None

    def since(self, mark: int) -> list[Sample]:
        """Samples after the first `mark` ones."""
        self.read()
        return self._samples[mark:]

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time of the process between the first and the last sample."""
        if not self._samples:
            return None
        return self._samples[-1].cpu - self._samples[0].cpu

    def facts(self) -> dict[str, float]:
        """What the samples say of the workers under load (see `worker_facts`), and their cost.

        "probebench.sampler_cpu_s" is the CPU time of the agent itself between the first and the
        last sample, "probebench.sampler_s" the time between them.
        """
        if not self._samples:
            return {}
        first, last = self._samples[0], self._samples[-1]
        cost = {"cpu_s": last.own_cpu - first.own_cpu, "s": last.t - first.t}
        own = {f"probebench.sampler_{name}": value for name, value in cost.items()}
        return {**worker_facts(self._samples), **own}

    def stop(self) -> None:
        """End the agent; idempotent."""
        self._process.stop(1.0)


def _before(window: list[Sample], seconds: float) -> Sample | None:
    """The latest sample that is at least `seconds` older than the last."""
    last = window[-1]
    return next((s for s in reversed(window) if last.t - s.t >= seconds), None)


def _asleep(window: list[Sample]) -> bool:
    """True when the link was silent and every worker slept through the last `_ASLEEP_S`."""
    last, first = window[-1], _before(window, _ASLEEP_S)
    if first is None or last.rx is None or first.rx is None:
        return False
    if not last.workers or not (last.workers.keys() == last.awake.keys() == first.awake.keys()):
        return False
    span = last.t - first.t
    return last.rx - first.rx <= _QUIET_PPS * span and all(
        last.awake[name] - first.awake[name] <= _AWAKE * span for name in last.awake
    )


def is_quiet(window: list[Sample], counters_too: bool = False) -> bool:
    """True when the last samples show a worked-off, idle sensor.

    Either the workers are known to have slept (`_ASLEEP_S`), or nothing that is counted has moved
    for `_QUIET_S`. `counters_too` asks for the latter: then iface-stat is up to date as well, which
    matters where no exact totals follow.
    """
    if not counters_too and _asleep(window):
        return True
    last, first = window[-1], _before(window, _QUIET_S)
    if first is None:
        return False
    span = last.t - first.t
    few = _QUIET_PPS * span
    arrived = 0 if last.rx is None or first.rx is None else last.rx - first.rx
    if arrived > few or last.received - first.received > few or last.dropped != first.dropped:
        return False
    busy = [last.workers[n] - first.workers.get(n, 0.0) for n in last.workers]
    return all(seconds <= _IDLE_CPU * span for seconds in busy)


_WINDOW_S = 0.9  # a share of less than about a second is a burst's


def worker_facts(samples: list[Sample]) -> dict[str, float]:
    """Facts of the intervals in which packets arrived, by name, for `Counters.raw`.

    "probebench.loaded_s" is their length; "probebench.worker.<name>.…" are "cpu_s" and "awake_s"
    (ran, or waited for a CPU) within them, "busiest" the largest share of about a second that the
    worker was awake (or ran, where only that is known), and "writing" the share of samples that
    found it held up in a write.
    """
    pairs = [
        (a, b)
        for a, b in pairwise(samples)
        if b.received - a.received > _QUIET_PPS * (b.t - a.t)
        or (a.rx is not None and b.rx is not None and b.rx - a.rx > _QUIET_PPS * (b.t - a.t))
    ]
    if not pairs:
        return {}
    facts = {"probebench.loaded_s": sum(b.t - a.t for a, b in pairs)}
    for name in samples[-1].workers:
        awake = all(name in s.awake for s in samples)
        key = f"probebench.worker.{name}."
        facts[key + "cpu_s"] = sum(b.workers[name] - a.workers.get(name, 0.0) for a, b in pairs)
        if awake:
            facts[key + "awake_s"] = sum(b.awake[name] - a.awake[name] for a, b in pairs)
        times = [(s.t, (s.awake if awake else s.workers).get(name, 0.0)) for s in samples]
        facts[key + "busiest"] = _busiest(times)
        facts[key + "writing"] = sum(name in b.writing for _, b in pairs) / len(pairs)
    return facts


def _busiest(times: list[tuple[float, float]]) -> float:
    """The largest growth per second over any window of at least `_WINDOW_S` (or the whole)."""
    best, first = 0.0, 0
    for last in range(1, len(times)):
        while times[last][0] - times[first + 1][0] >= _WINDOW_S:
            first += 1
        span = times[last][0] - times[first][0]
        if span >= _WINDOW_S or (last == len(times) - 1 and best == 0.0 and span > 0):
            best = max(best, (times[last][1] - times[first][1]) / span)
    return min(1.0, best)  # a name and its times are not read in one instant
