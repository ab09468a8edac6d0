"""When a sensor counts as worked off: by the sleep of its workers, or by counters at rest."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.sensors import _suricata_agent
from harness.sensors.suricata_agent import Sample, is_quiet

IDLE = Sample(0.0, 100, 100, 0, 3, 1.0, {"W#01": 1.0, "W#02": 1.0}, 0.0, {"W#01": 5.0, "W#02": 5.0})


def after(seconds: float, **changes: object) -> Sample:
    return replace(IDLE, t=seconds, **changes)  # type: ignore[arg-type]


def test_sleeping_workers_are_believed_after_half_a_second() -> None:
    assert not is_quiet([IDLE])
    assert not is_quiet([IDLE, after(0.25)])
    assert is_quiet([IDLE, after(0.25), after(0.5)])


@pytest.mark.parametrize(
    "awake", [{"W#01": 5.0, "W#02": 5.45}, {"W#01": 5.08, "W#02": 5.0}, {"W#01": 5.0}]
)
def test_a_worker_that_runs_or_waits_for_a_cpu_is_not_done(awake: dict[str, float]) -> None:
    """All of 0.5 s, a sixth of it, and a worker that is not told of."""
    assert not is_quiet([IDLE, after(0.5, awake=awake)])


def test_wake_ups_of_an_idle_worker_are_no_work() -> None:
    assert is_quiet([IDLE, after(0.5, awake={"W#01": 5.004, "W#02": 5.03})])


def test_a_link_that_still_delivers_is_not_quiet() -> None:
    assert not is_quiet([IDLE, after(0.5, rx=200)])
    assert is_quiet([IDLE, after(0.5, rx=103)])  # LLDP and the like


def test_late_counters_do_not_matter_where_sleep_is_known() -> None:
    """Suricata moves its ring's counters once a second; the final ones are exact anyway."""
    assert is_quiet([IDLE, after(0.5, received=200, dropped=7)])


def test_without_exact_totals_the_counters_must_rest_as_well() -> None:
    """What is only observed has no later reading: iface-stat must have been renewed."""
    window = [IDLE, after(0.5), after(1.0)]
    assert is_quiet(window) and not is_quiet(window, counters_too=True)
    assert is_quiet([*window, after(1.4)], counters_too=True)
    assert not is_quiet([*window, after(1.4, received=200)], counters_too=True)


def test_without_scheduler_statistics_the_counters_must_rest_longer() -> None:
    first = replace(IDLE, awake={})
    assert not is_quiet([first, after(0.5, awake={})])
    assert is_quiet([first, after(1.4, awake={})])
    assert not is_quiet([first, after(1.4, awake={}, dropped=7)])
    assert not is_quiet([first, after(1.4, awake={}, workers={"W#01": 1.0, "W#02": 1.5})])


@pytest.mark.parametrize("text", ["0 0 0\n", "", "1\n", "x y z\n"])
def test_a_kernel_without_scheduler_statistics(tmp_path: Path, text: str) -> None:
    (tmp_path / "schedstat").write_text(text)
    assert _suricata_agent.read_schedstat(str(tmp_path / "schedstat")) is None
    assert _suricata_agent.read_schedstat(str(tmp_path / "none")) is None


def test_a_sleeping_thread_is_told_from_a_working_one() -> None:
    """Against the kernel: this thread works for 0.2 s while another sleeps."""
    ready, done = threading.Event(), threading.Event()
    number = 0

    def sleeper() -> None:
        nonlocal number
        number = threading.get_native_id()
        ready.set()
        done.wait(30)

    thread = threading.Thread(target=sleeper)
    thread.start()
    ready.wait(30)
    time.sleep(0.05)
    paths = [f"/proc/{os.getpid()}/task/{n}/schedstat" for n in (number, threading.get_native_id())]
    before = [_suricata_agent.read_schedstat(path) for path in paths]
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        pass
    now = [_suricata_agent.read_schedstat(path) for path in paths]
    done.set()
    thread.join()
    if None in before or None in now:
        pytest.skip("this kernel keeps no scheduler statistics")
    slept, worked = (b - a for a, b in zip(before, now, strict=True) if a is not None and b)
    assert slept < 0.02
    assert worked == pytest.approx(0.2, abs=0.05)
