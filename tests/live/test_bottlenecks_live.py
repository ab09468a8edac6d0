"""Every bottleneck that this machine can have is induced on purpose, and the verdict names it.

The drivers of real NICs are not here: loss in a NIC is tested on made-up counters only. A slow disk
is a second alert output into a pipe whose reader is slow: it holds a worker up in write(2), as a
disk that cannot keep up does. (Control groups of version 1 throttle direct writes only, and the
kernel this was written on has no device mapper.)
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from bottleneck_bench import (
    CHATTY,
    COSTLY,
    QUIET,
    Bench,
    Bursts,
    bench,
    connections,
    datagrams,
    run,
    write,
)
from foreign_suricata import foreign_suricata

from harness.bottleneck import judge
from harness.generators.tcpreplay import TcpreplayGenerator
from harness.model import Load
from harness.results import Trial

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("suricata") is None, reason="needs suricata"),
    pytest.mark.skipif(shutil.which("tcpreplay") is None, reason="needs tcpreplay"),
]
SECOND = 1.0  # shares are of about a second: nothing shorter has any
SMALL_STREAMS = {"set.stream.memcap": "16kb", "set.stream.prealloc-sessions": 10}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("bottleneck"), "pbn") as made:
        yield made


@pytest.fixture(scope="module")
def small(lab: Bench) -> Path:
    return write(lab.tmp / "small.pcap", datagrams(20, 10, 200))


@pytest.fixture(scope="module")
def big(lab: Bench) -> Path:
    return write(lab.tmp / "big.pcap", datagrams(20, 20, 1400))


@pytest.fixture(scope="module")
def tcp(lab: Bench) -> Path:
    return write(lab.tmp / "tcp.pcap", connections(20, 20))


def kinds(trial: Trial) -> tuple[str, ...]:
    """The verdict, once the ledger is known to be closed."""
    assert trial.failure is None, trial.failure
    assert trial.bottleneck is not None
    assert trial.ledger is not None
    assert trial.ledger.unexplained == 0, trial.ledger
    assert trial.ledger.bytes is not None
    assert trial.ledger.bytes.unexplained == 0, trial.ledger
    assert all(one.evidence for one in trial.bottleneck.found)
    assert Trial.from_json(trial.to_json()) == trial
    # On a machine that others use the generator may fall behind too, and the verdict says so; it is
    # not what these tests are about.
    return tuple(kind for kind in trial.bottleneck.kinds if kind != "generator")


def stage(trial: Trial, key: str) -> int | None:
    assert trial.ledger is not None
    return next(s.packets for s in trial.ledger.stages if s.key == key)


def test_no_bottleneck_and_a_ledger_that_others_count_too(lab: Bench, small: Path) -> None:
    before = lab.counters()
    trial = lab.trial(small, Load("pps", 4000, SECOND))
    after = lab.counters()
    assert kinds(trial) == ("none",)
    ledger = trial.ledger
    assert ledger is not None
    assert ledger.bytes is not None
    # Oracle: `ip -s link`, and the alerts counted by the engine.
    assert after["tx0.tx"] - before["tx0.tx"] == ledger.offered == ledger.analysed
    assert after["rx0.rx"] - before["rx0.rx"] == ledger.offered
    assert after["rx0.rx_bytes"] - before["rx0.rx_bytes"] == ledger.bytes.analysed
    assert trial.alert_ledger is not None
    assert trial.alert_ledger.missed == trial.alert_ledger.unwritten == 0
    assert trial.alert_ledger.due == 20 * trial.schedule.iterations
    assert trial.flow_ledger is not None
    assert trial.flow_ledger.missing == 0
    assert trial.budget is not None
    assert trial.budget.spent_us is not None
    assert trial.budget.spent_us < trial.budget.budget_us


def test_a_tiny_ring(lab: Bench, big: Path) -> None:
    class Gusts(Bursts):
        burst = 400

    trial = lab.trial(big, Load("pps", 8000, SECOND), generator=Gusts, ring_size=64)
    assert kinds(trial) == ("kernel",)
    assert trial.bottleneck is not None
    assert trial.bottleneck.primary.packets == stage(trial, "ring")


@pytest.fixture(scope="module")
def overloaded(lab: Bench, big: Path) -> Trial:
    """One worker, and rules that cost it more than there is time for."""
    return lab.trial(big, Load("pps", 20000, SECOND), rules=QUIET + COSTLY)


def test_an_expensive_rule_saturates_the_only_worker(overloaded: Trial) -> None:
    trial = overloaded
    assert kinds(trial) == ("one-worker",)
    assert trial.bottleneck is not None
    assert trial.bottleneck.primary.detail.startswith("the only worker")
    assert trial.budget is not None
    (worker,) = trial.budget.workers
    assert worker.busiest is not None
    assert worker.busiest > 0.95
    # Oracle: a packet cost more than there was time for, or another process had the CPU.
    assert trial.budget.spent_us is not None
    assert trial.budget.spent_us > trial.budget.budget_us


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")
def test_an_expensive_rule_saturates_all_workers(lab: Bench, big: Path) -> None:
    trial = lab.trial(big, Load("pps", 20000, SECOND), rules=QUIET + COSTLY, workers=2)
    assert kinds(trial) == ("all-workers",)
    assert trial.balance is not None
    assert trial.balance.high is not None
    assert trial.balance.measured <= trial.balance.high * 1.02


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")
def test_an_elephant_flow_saturates_one_of_two_workers(lab: Bench) -> None:
    elephant = write(lab.tmp / "elephant.pcap", datagrams(1, 6000, 1000))
    trial = lab.trial(elephant, Load("pps", 6000, SECOND), rules=QUIET + COSTLY, workers=2)
    assert kinds(trial) == ("one-worker",)
    assert trial.bottleneck is not None
    assert "of 2" in trial.bottleneck.primary.detail
    # It was foreseen: no balancer that keeps flows whole can do better.
    assert trial.balance is not None
    assert trial.balance.measured == trial.balance.predicted == trial.balance.floor == 2.0
    assert trial.balance.as_predicted


def test_a_starved_stream_memcap(lab: Bench, tcp: Path) -> None:
    trial = lab.trial(tcp, Load("pps", 5000, SECOND), options=SMALL_STREAMS)
    assert kinds(trial) == ("memory",)
    assert trial.bottleneck is not None
    assert trial.bottleneck.primary.detail == "tcp.ssn_memcap_drop"
    assert trial.flow_ledger is not None
    assert trial.flow_ledger.without_memory == stage(trial, "stream")


def test_a_starved_flow_memcap(lab: Bench, small: Path) -> None:
    options = {"set.flow.memcap": "300kb", "set.flow.hash-size": 1024, "set.flow.prealloc": 100}
    trial = lab.trial(small, Load("pps", 8000, SECOND), options=options)
    assert kinds(trial) == ("memory",)
    assert trial.flow_ledger is not None
    assert trial.flow_ledger.emergencies


@contextmanager
def slow_reader(path: Path) -> Iterator[None]:
    """A pipe whose reader takes about 200 KB/s."""
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            os.read(end, 4096)
            stop.wait(0.02)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        os.write(end, b"\n" * 4096)  # nobody waits for ever
        thread.join(5)
        os.close(end)


def test_a_slow_disk(lab: Bench, big: Path) -> None:
    pipe = lab.tmp / "slow.fifo"
    node = "set.outputs.9"
    options = {
        node: "eve-log",
        f"{node}.eve-log.enabled": "yes",
        f"{node}.eve-log.filetype": "regular",
        f"{node}.eve-log.filename": str(pipe),
        f"{node}.eve-log.types.0": "alert",
    }
    with slow_reader(pipe):
        trial = lab.trial(
            big, Load("pps", 6000, SECOND), rules=QUIET + CHATTY, options=options, ring_size=256
        )
    assert kinds(trial) == ("disk",)
    assert trial.budget is not None
    assert (trial.budget.workers[0].busiest or 0) < 0.9


def test_a_throttled_link(lab: Bench, big: Path) -> None:
    space = lab.spaces[0]
    qdisc = ("tc", "-n", space, "qdisc")
    run(*qdisc, "add", "dev", "tx0", "root", "tbf", "rate", "30mbit", "burst", "32kbit", "limit",
        "60000")  # fmt: skip
    try:
        trial = lab.trial(big, Load("pps", 6000, SECOND))
        said = run(*qdisc[:3], "-s", *qdisc[3:], "show", "dev", "tx0")
    finally:
        run(*qdisc, "del", "dev", "tx0", "root")
    assert kinds(trial) == ("wire",)
    assert trial.bottleneck is not None
    assert trial.sent is not None
    # Oracle: what the shaper turned away is what the generator had to offer again.
    assert f"(dropped {trial.sent.extra['retried_enobufs']:.0f}," in said
    assert {g.code for g in trial.gates} >= {"generator-limited", "generator-queue-full"}
    assert "generator" not in trial.bottleneck.kinds


def test_a_generator_that_is_too_slow(lab: Bench, small: Path) -> None:
    """Two million packets/s are beyond tcpreplay on any veth pair."""
    trial = lab.trial(small, Load("pps", 2_000_000, 0.15))
    kinds(trial)
    assert trial.bottleneck is not None
    (slow,) = [one for one in trial.bottleneck.found if one.kind == "generator"]
    asked, sent = (fact.value for fact in slow.evidence)
    assert sent < asked == pytest.approx(2_000_000)
    assert "generator-limited" in {g.code for g in trial.gates}


def test_two_bottlenecks_at_once(lab: Bench, tcp: Path) -> None:
    class Gusts(Bursts):
        burst = 600

    trial = lab.trial(
        tcp, Load("pps", 8000, SECOND), generator=Gusts, ring_size=64, options=SMALL_STREAMS
    )
    assert set(kinds(trial)) == {"kernel", "memory"}
    assert trial.bottleneck is not None
    costs = [one.packets or 0 for one in trial.bottleneck.found]
    assert costs == sorted(costs, reverse=True)


def test_a_sensor_restarted_in_mid_trial_has_no_verdict(lab: Bench, small: Path) -> None:
    """What restarts a sensor first kills it: there is no number then, and no verdict."""
    space = lab.spaces[1]

    class Killing(TcpreplayGenerator):
        def finish(self):  # type: ignore[no-untyped-def]
            for pid in run("ip", "netns", "pids", space).split():
                name = Path(f"/proc/{pid}/comm")
                if name.exists() and name.read_text().startswith("Suricata"):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.1)
            return super().finish()

    trial = lab.trial(small, Load("pps", 4000, SECOND), generator=Killing)
    assert trial.failure is not None
    assert trial.failure.what == "sensor-failed"
    assert trial.bottleneck is None
    assert trial.ledger is None


def test_an_observed_sensor_restarted_in_mid_trial_is_named(lab: Bench, small: Path) -> None:
    """Somebody else's Suricata, stopped and started again by somebody else while it is loaded."""
    rules = lab.tmp / "foreign.rules"
    rules.write_text(QUIET)
    with foreign_suricata(lab.spaces[1], rules) as foreign:
        sending: list[bool] = []

        class Restarting(TcpreplayGenerator):
            def progress(self):  # type: ignore[no-untyped-def]
                state = super().progress()
                if not sending and state.packets:
                    foreign.stop()
                    foreign.start()
                    sending.append(not super().progress().done)
                return state

        trial = lab.trial(
            small, Load("pps", 2000, 4.0), generator=Restarting, options=foreign.options
        )
        assert sending == [True], "the restart was not in mid-trial"
        assert trial.failure is not None
        assert trial.failure.what == "sensor-restarted"
        assert "suricata restarted in mid-trial (pid " in trial.failure.message
        assert trial.bottleneck is None and trial.ledger is None and trial.detection is None
        assert not trial.valid
        # The next one, on the process that runs now, is whole.
        after = lab.trial(small, Load("pps", 2000, SECOND), options=foreign.options)
        assert kinds(after) == ("none",) and after.state == "observed"


def test_without_the_evidence_the_verdict_is_unknown(overloaded: Trial) -> None:
    trial = overloaded
    assert trial.after is not None
    raw = {k: v for k, v in trial.after.raw.items() if not k.startswith("probebench.")}
    blind = replace(trial, after=replace(trial.after, raw=raw), host=None)
    verdict = judge(replace(blind, bottleneck=None))
    assert verdict is not None
    assert verdict.kinds == ("unknown",)
