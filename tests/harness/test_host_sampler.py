"""A host over a trial: readings, peaks, host.jsonl, and that no trial fails because of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import make_rig

from harness.host_peaks import peaks
from harness.host_sampler import SampledHost
from harness.host_samples import SampleWriter, read_samples, to_reading
from harness.model import Load
from harness.model_host import HostReading, HostTrial
from harness.results import RunDir, Trial
from harness.sensors.base import Footprint
from harness.trial import TrialSpec, run_trial
from lab.errors import ConnectionLost
from lab.fake import FakeHost, FakeProcess, Reply
from lab.host import Exit


def raw(t: float, **groups: Any) -> dict[str, Any]:
    return {"t": t, "wall": 1000 + t, "cost": t / 1000, **groups}


SECONDS = [
    raw(0.0, cpus={"0": {"user": 1.0, "softirq": 0.0, "idle": 9.0}}, threads={"W#01": 1.0},
        softnet={"0": {"processed": 10, "dropped": 0, "time_squeeze": 0}},
        interface={"rx_packets": 5, "rx_missed_errors": 0}, memory={"rss": 100},
        disk={"writes": 10, "written_bytes": 0, "write_s": 1.0, "busy_s": 0.0}),
    raw(1.0, cpus={"0": {"user": 1.2, "softirq": 0.7, "idle": 9.1}}, threads={"W#01": 1.5},
        softnet={"0": {"processed": 110, "dropped": 4, "time_squeeze": 1}},
        interface={"rx_packets": 105, "rx_missed_errors": 0}, memory={"rss": 300},
        disk={"writes": 14, "written_bytes": 4096, "write_s": 1.2, "busy_s": 0.5}),
    raw(3.0, cpus={"0": {"user": 3.2, "softirq": 0.7, "idle": 9.1}}, threads={"W#01": 3.4},
        softnet={"0": {"processed": 310, "dropped": 6, "time_squeeze": 1}},
        interface={"rx_packets": 305, "rx_missed_errors": 50}, memory={"rss": 200},
        disk={"writes": 14, "written_bytes": 4096, "write_s": 1.2, "busy_s": 0.5}),
]  # fmt: skip


class TestPeaks:
    """The busiest interval, in the units that the module names."""

    def test_each_is_the_highest_of_any_interval(self) -> None:
        found = peaks([to_reading(x) for x in SECONDS])
        assert found["cpu.0.softirq"] == pytest.approx(0.7)
        assert found["cpu.0.user"] == found["cpu.0.busy"] == pytest.approx(1.0)
        assert found["thread.W#01"] == found["sensor"] == pytest.approx(0.95)
        assert found["memory.rss"] == 300
        assert found["softnet.dropped_per_s"] == 4
        assert found["softnet.0.processed_per_s"] == 100
        assert found["interface.rx_missed_errors_per_s"] == 25
        assert found["disk.write_latency_s"] == pytest.approx(0.05)
        assert (found["disk.busy"], found["disk.written_bytes_per_s"]) == (0.5, 4096)

    def test_what_never_moved_is_left_out(self) -> None:
        same = [to_reading(raw(t, interface={"rx_dropped": 7})) for t in (0.0, 1.0)]
        assert peaks(same) == {}
        assert peaks([]) == peaks(same[:1]) == {}

    def test_a_tick_in_a_short_interval_is_no_peak(self) -> None:
        last = raw(3.01, cpus={"0": {"user": 3.21, "softirq": 0.71, "idle": 9.1}})
        found = peaks([to_reading(x) for x in [*SECONDS, last]])
        assert found["cpu.0.softirq"] == pytest.approx(0.7)

    def test_a_thread_or_cpu_that_came_later_is_no_peak_from_zero(self) -> None:
        late = raw(1.0, threads={"new": 50.0}, cpus={"1": {"user": 900.0, "idle": 1.0}})
        assert "thread.new" not in peaks([to_reading(raw(0.0)), to_reading(late)])
        assert "cpu.1.user" not in peaks([to_reading(raw(0.0)), to_reading(late)])


class TestHostJsonl:
    """Small on disk, whole when read."""

    def test_what_is_read_is_what_was_written(self, tmp_path: Path) -> None:
        for trial in ("t01", "t02"):
            writer = SampleWriter(tmp_path, trial)
            for sample in SECONDS:
                writer.write(sample)
            writer.close()
        found = list(read_samples(tmp_path))
        assert [name for name, _ in found] == ["t01"] * 3 + ["t02"] * 3
        assert [reading for _, reading in found] == [to_reading(x) for x in SECONDS] * 2
        second = (tmp_path / "host.jsonl").read_text().splitlines()[1]
        assert "rx_missed_errors" not in second  # it had not changed

    def test_a_torn_line_is_the_last_of_its_trial(self, tmp_path: Path) -> None:
        self.test_what_is_read_is_what_was_written(tmp_path)
        lines = (tmp_path / "host.jsonl").read_text().splitlines(True)
        (tmp_path / "host.jsonl").write_text("".join([*lines[:2], lines[2][:20], "\n", *lines[3:]]))
        assert len(list(read_samples(tmp_path))) == 5

    def test_a_trial_has_nothing_of_the_one_before(self, tmp_path: Path) -> None:
        for trial, sample in (("t01", SECONDS[0]), ("t02", raw(9.0))):
            writer = SampleWriter(tmp_path, trial)
            writer.write(sample)
            writer.close()
        assert [r for _, r in read_samples(tmp_path)][1] == to_reading(raw(9.0))

    def test_a_run_without_any(self, tmp_path: Path) -> None:
        assert list(read_samples(tmp_path)) == []


def lines(*samples: dict[str, Any]) -> list[str]:
    return [f"{n} 0 1 {json.dumps(sample)}" for n, sample in enumerate(samples)]


def watched(tmp_path: Path, process: FakeProcess, interface: str | None = "rx0") -> SampledHost:
    host = FakeHost(lambda call: process if call.leashed else Reply(), name="probe")
    return SampledHost(host, interface, tmp_path)


FOOTPRINT = Footprint((7,), "/var/log/x")


class TestWatch:
    """`HostTrial` from a sampler, or the reason why there is none."""

    def test_a_whole_trial(self, tmp_path: Path) -> None:
        process = FakeProcess(lines(SECONDS[0]))
        watch = watched(tmp_path, process)
        watch.begin(FOOTPRINT, "t01")
        process.emit(*[f"{n} 0 1 {json.dumps(SECONDS[n])}" for n in (1, 2)])
        process.finish(Exit(0, None, "stopped"))
        found = watch.end()
        assert (found.samples, found.failure, found.seconds) == (3, None, 3.0)
        assert found.before == to_reading(SECONDS[0]) and found.after == to_reading(SECONDS[2])
        assert found.sampler_cpu_s == pytest.approx(0.003)
        assert found.sampler_share == pytest.approx(0.001)
        assert found.peaks["interface.rx_missed_errors_per_s"] == 25
        assert [t for t, _ in read_samples(tmp_path)] == ["t01"] * 3

    def test_a_closed_appliance_is_not_observable(self, tmp_path: Path) -> None:
        watch = watched(tmp_path, FakeProcess(lines(SECONDS[0])), None)
        watch.begin(Footprint(), "t01")
        found = watch.end()
        assert found.before is None and found.sampler_cpu_s is None
        assert "not observable" in str(found.failure)

    def test_it_dies_in_mid_trial(self, tmp_path: Path) -> None:
        process = FakeProcess(lines(SECONDS[0]))
        watch = watched(tmp_path, process)
        watch.begin(FOOTPRINT, "t01")
        process.finish(Exit(None, 9, "killed"))
        found = watch.end()
        assert found.before is not None and found.after is None
        assert "ended before it was told to" in str(found.failure)

    def test_the_next_trial_starts_anew(self, tmp_path: Path) -> None:
        processes = [FakeProcess([], Exit(1, None, "exited")), FakeProcess(lines(SECONDS[0]))]
        host = FakeHost(lambda call: processes.pop(0) if call.leashed else Reply(), name="probe")
        watch = SampledHost(host, "rx0", tmp_path)
        watch.begin(FOOTPRINT, "t01")
        assert watch.end().failure is not None
        watch.begin(FOOTPRINT, "t02")
        host.processes[-1].finish(Exit(0, None, "stopped"))
        assert watch.end().failure is None

    def test_a_full_disk_of_ours_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "host.jsonl").mkdir()
        watch = watched(tmp_path, FakeProcess(lines(SECONDS[0])))
        watch.begin(FOOTPRINT, "t01")
        assert "host.jsonl" in str(watch.end().failure)


class Watch:
    """A watch that keeps the order in which it is called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self, footprint: Footprint, trial: str) -> None:
        self.calls.append(f"begin {trial}")

    def end(self) -> HostTrial:
        self.calls.append("end")
        return HostTrial(None, HostReading(1.0, 2.0), 1, 1.0, failure="x")

    def close(self) -> None:
        self.calls.append("close")


def test_a_trial_is_stored_with_its_host(tmp_path: Path) -> None:
    watch = Watch()
    rig = make_rig(tmp_path)
    rig.sensor.footprint = lambda: FOOTPRINT  # type: ignore[method-assign]
    trial = run_trial(replace(rig, watch=watch), TrialSpec("t01", "sweep", Load("pps", 100, 1), 0))
    assert watch.calls == ["begin t01", "end", "close"]
    run = RunDir(tmp_path)
    run.append(trial)
    (stored,) = run.trials()
    assert isinstance(stored, Trial) and stored.host == trial.host is not None


def test_a_lost_connection_of_the_sampler_ends_no_trial(tmp_path: Path) -> None:
    process = FakeProcess(lines(SECONDS[0]))
    watch = watched(tmp_path, process)
    watch.begin(FOOTPRINT, "t01")
    process.fail(ConnectionLost("probe: gone"))
    assert watch.end().failure == "probe: gone"
    watch.close()
