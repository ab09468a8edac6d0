"""The verdict on synthetic trials: each cause alone, two at once, and what cannot be told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_gates import ALERTS, good

from harness import ledger
from harness.bottleneck import judge
from harness.budget import time_budget
from harness.conclusions import conclude
from harness.model import Capabilities, Counters, Failure, InterfaceCounters
from harness.model_host import HostReading, HostTrial
from harness.results import Trial

ALL = Capabilities(True, True, True, True, True, True)
N = 1_000_000
QUIET = {"busiest": 0.3, "writing": 0.0, "cpu_s": 3.0}
BUSY = {"busiest": 1.0, "writing": 0.0, "cpu_s": 9.9}
HELD = {"busiest": 0.1, "writing": 0.6, "cpu_s": 1.0}


def trial(
    drops: tuple[int, ...] = (0, 0),
    facts: tuple[dict[str, float], ...] = (QUIET, QUIET),
    raw: dict[str, float] | None = None,
    rx: int = N,
    missed: int = 0,
    host: HostTrial | None = None,
    **changes: Any,
) -> Trial:
    """A trial of 1,000,000 packets in 10 s over as many workers as there are `facts`."""
    names = [f"W#{i + 1:02d}-rx0" for i in range(len(facts))]
    share = rx // len(names)
    counters: dict[str, float] = dict(raw or {})
    workers = {}
    for name, dropped, fact in zip(names, drops, facts, strict=True):
        workers[name] = share - dropped
        counters[f"threads.{name}.capture.kernel_packets"] = share
        counters[f"threads.{name}.capture.kernel_drops"] = dropped
        counters |= {f"probebench.worker.{name}.{key}": value for key, value in fact.items()}
    lost = sum(drops)
    received = share * len(names)
    after = Counters(received, lost, received - lost, None, 0, 10**5, None, workers, counters, True)
    before = Counters(0, 0, 0, None, 0, 0, None)
    base = replace(good(), after=after, before=before, host=host, **changes)
    nic = InterfaceCounters(rx, 10**8, 0, missed, 0, 0, 0, 0, 0)
    assert base.sent is not None
    account = ledger.build(base.sent, nic, before, after, ALL, host=host)
    return replace(base, nic=nic, ledger=account, drop_rate=ledger.drop_rate(account))


def kinds(one: Trial) -> tuple[str, ...]:
    verdict = judge(one)
    assert verdict is not None
    return verdict.kinds


def part(name: str, **changes: Any) -> Any:
    return replace(getattr(good(), name), **changes)


CASES: dict[str, tuple[Trial, tuple[str, ...]]] = {
    "none": (trial(), ("none",)),
    "one worker of two": (trial((5000, 0), (BUSY, QUIET)), ("one-worker",)),
    "the only worker": (trial((5000,), (BUSY,)), ("one-worker",)),
    "all workers": (trial((5000, 4000), (BUSY, BUSY)), ("all-workers",)),
    "ring": (trial((5000, 0)), ("kernel",)),
    "disk": (trial((5000, 5000), (HELD, HELD)), ("disk",)),
    "no evidence": (trial((5000, 0), ({}, {})), ("unknown",)),
    "disk, and a busy worker": (trial((100, 900), (HELD, BUSY)), ("one-worker", "disk")),
    "memory": (trial(raw={"tcp.ssn_memcap_drop": 7.0}), ("memory",)),
    "memory, no packet": (trial(raw={"flow.emerg_mode_entered": 1.0}), ("memory",)),
    "ring and memory": (
        trial((5000, 0), raw={"tcp.segment_memcap_drop": 70.0}),
        ("kernel", "memory"),
    ),
    "wire": (trial(rx=N - 500), ("wire",)),
    "nic": (trial(rx=N - 500, missed=500), ("nic",)),
    "nic and one worker": (
        trial((5000, 0), (BUSY, QUIET), rx=N - 500, missed=500),
        ("one-worker", "nic"),
    ),
    "generator": (trial(sent=part("sent", seconds=12.0)), ("generator",)),
    "link refuses": (
        trial(sent=part("sent", seconds=12.0, extra={"retried_enobufs": 5e5})),
        ("wire",),
    ),
    "alerts missing": (
        trial(detection=part("detection", detected=9_000, rate=0.9)),
        ("unknown",),
    ),
    "alerts not written": (
        trial(alert_ledger=replace(ALERTS, counted=11_000, unwritten=1_000)),
        ("disk",),
    ),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_each_cause_is_named(name: str) -> None:
    one, expected = CASES[name]
    assert kinds(one) == expected


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_record_with_its_verdict_comes_back_whole(name: str) -> None:
    one = conclude(CASES[name][0])
    assert one.bottleneck is not None
    assert Trial.from_json(one.to_json()) == one
    assert conclude(one) == one


def test_packets_are_shared_out_among_causes() -> None:
    verdict = judge(trial((100, 900), (HELD, BUSY)))
    assert verdict is not None
    assert [b.packets for b in verdict.found] == [900, 100]
    assert verdict.sentence == ("one-worker (W#02-rx0 of 2) and disk (W#01-rx0 held up in writes)")


def test_a_worker_that_others_keep_from_its_cpu_is_told_from_one_that_works() -> None:
    waiting = {**BUSY, "cpu_s": 4.0, "awake_s": 10.0}
    verdict = judge(trial((5000, 4000), (waiting, waiting)))
    assert verdict is not None
    assert verdict.sentence == "all-workers (all 2, kept from the CPU)"
    working = judge(trial((5000, 4000), ({**BUSY, "awake_s": 10.0},) * 2))
    assert working is not None
    assert working.sentence == "all-workers (all 2)"


def test_a_failed_trial_has_no_verdict() -> None:
    assert judge(replace(trial(), failure=Failure("x", "y"))) is None


def test_the_sampler_on_the_host_is_evidence_too() -> None:
    """A sensor whose driver says nothing of its workers: CPU by thread, names cut by the kernel."""
    names = {"W#01-rx0": 9.8, "W#02-rx0": 1.0}
    host = HostTrial(
        HostReading(0.0, 0.0, threads=dict.fromkeys(names, 0.0)),
        HostReading(10.0, 10.0, threads=names),
        10,
        1.0,
        peaks={"thread.W#01-rx0": 0.99, "thread.W#02-rx0": 0.2},
    )
    one = trial((5000, 0), ({}, {}), host=host)
    assert kinds(one) == ("one-worker",)
    budget = time_budget(one)
    assert budget is not None
    assert [w.cpu_s for w in budget.workers] == [9.8, 1.0]


def test_the_backlog_of_a_cpu() -> None:
    host = HostTrial(
        HostReading(0.0, 0.0, softnet={"0": {"dropped": 5}}),
        HostReading(10.0, 10.0, softnet={"0": {"dropped": 705}}),
        10,
        1.0,
    )
    one = trial(host=host, rx=N)
    # The capture method got 700 packets less than the interface received.
    assert one.after is not None
    assert one.sent is not None
    after = replace(one.after, received=N - 700, decoded=N - 700)
    assert one.before is not None
    account = ledger.build(one.sent, one.nic, one.before, after, ALL, host=host)
    assert account.unexplained == 0
    assert account.kernel == 700
    assert kinds(replace(one, after=after, ledger=account)) == ("kernel",)


def test_the_budget_is_time_over_packets() -> None:
    budget = time_budget(trial((5000, 0), (BUSY, QUIET)))
    assert budget is not None
    assert budget.budget_us == pytest.approx(20.0)  # 2 workers, 100,000 packets/s
    busy = budget.workers[0]
    assert busy.budget_us == pytest.approx(20.0)
    assert busy.spent_us == pytest.approx(1e6 * 9.9 / 495_000)
    assert budget.spent_us == pytest.approx(1e6 * 12.9 / 995_000)


def test_drops_that_nobody_counted_by_worker_are_not_divided() -> None:
    """Nobody knows how many a busy worker lost and how many one that was held up."""

    def blind(one: Trial) -> Trial:
        assert one.after is not None
        raw = {k: v for k, v in one.after.raw.items() if not k.endswith("kernel_drops")}
        return replace(one, after=replace(one.after, raw=raw))

    two = judge(blind(trial((100, 900), (HELD, BUSY))))
    assert two is not None
    assert set(two.kinds) == {"disk", "one-worker"}
    assert [b.packets for b in two.found] == [None, None]
    told = [b.evidence[0] for b in two.found]
    assert {(e.value, e.source) for e in told} == {(1000, "capture method, all workers")}
    one = judge(blind(trial((100, 900), (QUIET, BUSY))))
    assert one is not None
    assert (one.kinds, one.primary.packets) == (("one-worker",), 1000)


def test_a_drop_counter_that_never_moved_may_be_missing() -> None:
    """null-values: no. The idle worker's zero is not "unknown": the busy one's drops are all."""
    one = trial((5000, 0), (QUIET, BUSY))
    assert one.after is not None
    raw = {k: v for k, v in one.after.raw.items() if k != "threads.W#02-rx0.capture.kernel_drops"}
    verdict = judge(replace(one, after=replace(one.after, raw=raw)))
    assert verdict is not None
    assert verdict.kinds == ("kernel",)  # the worker that dropped had time to spare


def test_workers_that_poll_are_always_busy_which_says_nothing() -> None:
    """DPDK: a core at 100 % with no packet at all."""
    host = HostTrial(
        HostReading(0.0, 0.0, threads={"W#01-rx0": 0.0, "W#02-rx0": 0.0}),
        HostReading(10.0, 10.0, threads={"W#01-rx0": 10.0, "W#02-rx0": 10.0}),
        10,
        1.0,
        peaks={"thread.W#01-rx0": 1.0, "thread.W#02-rx0": 1.0},
    )
    polling = {"probebench.busy_polling": 1.0}
    one = trial((5000, 4000), (BUSY, BUSY), raw=polling, host=host, sensor_cpu_s=20.0)
    verdict = judge(one)
    assert verdict is not None
    assert verdict.kinds == ("unknown",)
    assert "poll" in verdict.sentence
    budget = time_budget(one)
    assert budget is not None
    assert budget.spent_us is None
    assert [(w.spent_us, w.busiest) for w in budget.workers] == [(None, None)] * 2
    quiet = judge(trial((0, 0), (BUSY, BUSY), raw=polling, host=host))
    assert quiet is not None
    assert quiet.kinds == ("none",)


def test_a_generator_of_flows_is_judged_by_its_flows() -> None:
    """TRex ASTF: how many packets a flow takes is an estimate, and no one's failure."""
    asked = part("schedule", settings={"packets_are_estimates": 1.0}, packets=2 * N)
    assert kinds(trial(schedule=asked)) == ("none",)
    slow = part("sent", flows=90_000)
    verdict = judge(trial(schedule=asked, sent=slow))
    assert verdict is not None
    assert verdict.sentence == "generator (sent 90.0 % of the rate asked)"
    assert [e.what for e in verdict.primary.evidence] == ["flows/s asked", "flows/s sent"]


def test_counters_older_than_the_output_are_no_slow_disk() -> None:
    late = replace(ALERTS, counted=10_001, unwritten=1)
    one = trial(alert_ledger=late)
    assert kinds(one) == ("disk",)
    assert one.after is not None
    assert kinds(replace(one, after=replace(one.after, exact=False))) == ("none",)


def test_a_sensor_that_ran_before_needs_its_first_counts() -> None:
    one = trial()
    assert one.before is not None
    assert one.after is not None
    ran = replace(one, before=replace(one.before, flows=None, alerts=None), state="observed")
    ran = replace(ran, after=replace(one.after, alerts=5))
    found = conclude(ran)
    assert found.flow_ledger is not None
    assert found.alert_ledger is not None
    assert (found.flow_ledger.seen, found.flow_ledger.missing) == (None, None)
    assert (found.alert_ledger.counted, found.alert_ledger.unwritten) == (None, None)
    begun = conclude(replace(ran, state="restarted"))  # it began at zero
    assert begun.flow_ledger is not None
    assert begun.flow_ledger.seen == 10**5
