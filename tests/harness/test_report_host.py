"""The host under the sensor over time: what was sampled is drawn, and nothing else."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_host import lab_check, make_host_run
from synthetic_run import LOADS, Options, make_run
from test_figures import texts
from test_report import Page

from harness.host_samples import FILE
from harness.model_host import HostReading
from harness.preflight import FILE as PREFLIGHT
from harness.report import style
from harness.report.accounts import host_grid, read_accounts
from harness.report.build import build_report
from harness.report.checked import NO_CHECK, check_sentence, sessions
from harness.report.host_figure import host_timeline
from harness.report.host_frame import HostLine, _nic, host_lines, telling_trials
from harness.results import RunDir, Trial

PLAIN = Options(bias=False, specials=False, calibration=False, repeats=1)


def lines(run: RunDir) -> list[HostLine]:
    return host_lines(run, read_accounts(run))


def drawn(run: RunDir) -> style.Drawn:
    with style.plotting():
        made = host_timeline(lines(run), "host_timeline")
    assert made is not None
    return made


def panels(made: style.Drawn) -> list[str]:
    return [t for axes in made.figure.axes if (t := axes.get_title(loc="left"))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_host_run(tmp_path_factory.mktemp("host") / "run", PLAIN)


class TestTrials:
    def test_the_knee_and_the_top(self, run: RunDir) -> None:
        told = [(t.load.value, why) for t, why in telling_trials(read_accounts(run))]
        assert told == [
            (60_000, "highest load without loss"),
            (80_000, "lowest load with loss"),
            (160_000, "highest load"),
        ]

    def test_no_loss_at_all(self, tmp_path: Path) -> None:
        run = make_host_run(tmp_path / "run", replace(PLAIN, loads=LOADS[:3]))
        told = [(t.load.value, why) for t, why in telling_trials(read_accounts(run))]
        assert told == [(40_000, "highest load without loss")]

    def test_loss_that_nobody_can_see(self, tmp_path: Path) -> None:
        run = make_host_run(tmp_path / "run", replace(PLAIN, observable=False))
        told = [t.load.value for t, _ in telling_trials(read_accounts(run))]
        assert told == [LOADS[0], LOADS[-1]]


class TestNumbers:
    def test_rates_agree_with_the_file(self, run: RunDir) -> None:
        """Recomputed from the raw lines; rx_packets stands in each of them."""
        last = lines(run)[-1]
        rows = [json.loads(line) for line in (run.path / FILE).read_text().splitlines()]
        own = [row for row in rows if row["trial"] == last.trial]
        rx, rate = 0, []
        for before, after in itertools.pairwise(own):
            rx = before.get("interface", {}).get("rx_packets", rx)
            now = after.get("interface", {}).get("rx_packets", rx)
            rate.append((now - rx) / (after["t"] - before["t"]))
        assert list(last.samples["received_per_s"]) == pytest.approx(rate)
        assert list(last.threads) == ["W#01-rx0", "W#02-rx0", "other threads"]
        assert list(last.threads["W#01-rx0"]) == pytest.approx([1.0] * 5)
        assert list(last.threads["other threads"]) == pytest.approx([0.011] * 5)
        assert list(last.samples["softirq"]) == pytest.approx([0.1] * 5)
        assert list(last.samples["write_latency_s"]) == pytest.approx([0.002] * 5)
        assert last.samples["rss"].iloc[0] == 2**27 + int(rows_at(own, 1)) * 100

    def test_drops_of_the_ring_are_laid_over_the_hosts_time(self, tmp_path: Path) -> None:
        """The timeline counts from 0 s on, the interface from 0.5 s: half a second between them.

        The record has 1,000 drops more than the timeline's last sample: they came after it.
        """

        def more(one: Trial) -> Trial:
            assert one.ledger is not None
            sampled = sum(s.packets or 0 for s in one.ledger.stages)
            kept = [
                replace(s, packets=sampled + 1000) if s.key == "ring" else s
                for s in one.ledger.stages
            ]
            return replace(one, ledger=replace(one.ledger, stages=tuple(kept)))

        run = make_host_run(tmp_path / "run", replace(PLAIN, loads=LOADS[-1:]), change=more)
        (last,) = lines(run)
        (trial,) = run.trials()
        assert trial.ledger is not None
        ring = next(s.packets for s in trial.ledger.stages if s.key == "ring")
        assert last.ring["begin"].iloc[0] == pytest.approx(0.5, abs=0.01)
        spans = last.ring["end"] - last.ring["begin"]
        assert float((spans * last.ring["dropped_per_s"]).sum()) == pytest.approx(ring)
        assert float(spans.iloc[-1] * last.ring["dropped_per_s"].iloc[-1]) == pytest.approx(1000)

    def test_a_trial_run_twice_counts_once(self, run: RunDir, tmp_path: Path) -> None:
        again = make_host_run(tmp_path / "run", PLAIN)
        text = (again.path / FILE).read_text()
        earlier = [json.loads(line) for line in text.splitlines()]
        for row in earlier:
            row["wall"] -= 9_000.0
            row["t"] -= 900.0
        old = "".join(json.dumps(row) + "\n" for row in earlier)
        (again.path / FILE).write_text(old + text)
        for one, other in zip(lines(again), lines(run), strict=True):
            pd.testing.assert_frame_equal(one.samples, other.samples)

    def test_many_workers_are_three_lines(self, tmp_path: Path) -> None:
        run = make_host_run(tmp_path / "run", replace(PLAIN, workers=12))
        names = [f"{what} of 12 workers" for what in ("busiest", "mean", "idlest")]
        assert list(lines(run)[-1].threads) == [*names, "other threads"]
        assert "the busiest of 12 workers used up to 100" in drawn(run).title


def rows_at(own: list[dict[str, Any]], number: int) -> int:
    return int(own[number]["interface"]["rx_packets"])


class TestPicture:
    def test_has_a_panel_for_everything_sampled(self, run: RunDir) -> None:
        made = drawn(run)
        assert panels(made) == [
            "Packets/s received by the interface",
            "CPU, as a share of one core",
            "Packets/s dropped",
            "Memory of the sensor, MiB",
            "Mean time of a write to the log disk, ms",
        ]
        assert len(made.figure.axes) == 15
        said = texts(made.figure)
        assert "NIC (none)" in said
        assert "CPU backlog" in said
        assert "not observable" not in made.title
        assert made.title.endswith("the sampler took at most 0.20\xa0% of one core in these trials")

    def test_leaves_out_what_was_not_sampled_and_says_so(self, tmp_path: Path) -> None:
        def poor(sample: dict[str, Any]) -> dict[str, Any]:
            return {**sample, "disk": {}, "memory": {}, "softnet": {}}

        made = drawn(make_host_run(tmp_path / "run", PLAIN, raw=poor))
        assert panels(made) == [
            "Packets/s received by the interface",
            "CPU, as a share of one core",
            "Packets/s dropped",
        ]
        assert "CPU backlog\n(not observable)" in texts(made.figure)
        assert made.title.endswith(
            "not observable: memory of the sensor and mean time of a write to the log disk"
        )

    def test_a_closed_box_has_no_picture(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", replace(PLAIN, loads=LOADS[:2]))
        assert lines(run) == []
        made = build_report(run.path)
        assert "host_timeline.png" not in {path.name for path in made.figures}
        assert "The sensor's host was not sampled in this run." in Page(made.html.read_text()).text

    def test_the_page_has_it_with_its_cost(self, run: RunDir) -> None:
        page = Page(build_report(run.path).html.read_text())
        assert "figure-host_timeline" in page.ids
        assert "Sampled in 7 trials every 1 s, 42 samples in all" in page.text
        assert "the sampler took 0.20\xa0% of one core at most" in page.text

    def test_samples_that_were_lost_are_said_to_be(self, tmp_path: Path) -> None:
        run = make_host_run(tmp_path / "run", replace(PLAIN, loads=LOADS[:2]))
        (run.path / FILE).unlink()
        text = Page(build_report(run.path).html.read_text()).text
        assert "host.jsonl has none of them: there is no picture over time." in text


def test_what_never_moved_is_zero_and_not_unobservable(tmp_path: Path) -> None:
    def idle(sample: dict[str, Any]) -> dict[str, Any]:
        cpus = {cpu: {**times, "softirq": 0.0} for cpu, times in sample["cpus"].items()}
        disk = {**sample["disk"], "writes": 4, "write_s": 1.0}
        return {**sample, "cpus": cpus, "disk": disk}

    def heads(raw: Any) -> dict[str, str]:
        run = make_host_run(tmp_path / raw.__name__, replace(PLAIN, loads=LOADS[:1]), raw=raw)
        grid = host_grid(read_accounts(run))
        return dict(zip(grid.heads, grid.rows[0].cells, strict=True))

    def blind(sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "cpus": {}, "disk": {}}

    assert heads(idle)["busiest CPU in softirq"].replace("\xa0", " ") == "0 %"
    assert heads(idle)["slowest disk writes"] == "no write"
    assert heads(blind)["busiest CPU in softirq"] == "not observable"
    assert heads(blind)["slowest disk writes"] == "not observable"


class TestLabCheck:
    def test_what_was_found_comes_first_most_severe_on_top(self, run: RunDir) -> None:
        page = Page(build_report(run.path).html.read_text())
        rows = page.table("severity", "code", "remedy")
        assert [(row["severity"], row["code"]) for row in rows] == [
            ("invalid", "receive-offloads"),
            ("warning", "rss-queues"),
            ("info", "virtual-link"),
        ]
        assert rows[1]["numbers"] == "queues = 1, workers = 2"
        assert rows[1]["would look like"] == "what rss-queues fakes"
        assert rows[1]["remedy"] == "remedy of rss-queues"
        assert rows[2]["where"] == "generator: tx0; sensor: rx0"

    def test_the_rest_is_folded(self, run: RunDir) -> None:
        html = build_report(run.path).html.read_text()
        section = html[html.index('id="check"') : html.index('id="curves"')]
        folded = section[section.index("<details>") :]
        assert "1 not observable, 1 found good" in folded
        assert "not &lt;controlled&gt; here" in folded
        assert "governor" not in section[: section.index("<details>")]

    def test_the_verdict_counts_it(self, run: RunDir) -> None:
        html = build_report(run.path).html.read_text()
        assert (
            "Lab check before the run: invalidating: receive-offloads; warning: rss-queues; "
            "2 notes; 1 not observable; 1 found good." in html
        )

    def test_a_run_without_one_says_so(self, tmp_path: Path) -> None:
        old = make_run(tmp_path / "run", replace(PLAIN, loads=LOADS[:1]))
        text = Page(build_report(old.path).html.read_text()).text
        assert text.count(NO_CHECK) == 2  # in the verdict, and in its section

    def test_every_session_has_its_own(self, tmp_path: Path) -> None:
        run = make_host_run(tmp_path / "run", replace(PLAIN, loads=LOADS[:1]))
        failed = {"at": "2026-02-04T00:00:00+00:00", "failure": "sensor: no python3 there"}
        (run.path / PREFLIGHT).write_text(
            json.dumps({"schema": 1, "checks": [lab_check(), failed]})
        )
        text = Page(build_report(run.path).html.read_text()).text
        assert "Checked 2026-02-03T04:05:00+00:00; the quiet link was watched for 5.2 s." in text
        assert "Checked 2026-02-04T00:00:00+00:00." in text
        assert "The lab check before the run failed: sensor: no python3 there" in text

    def test_nothing_found(self) -> None:
        clean = {**lab_check(), "findings": [], "unseen": []}
        assert sessions([clean])[0].findings is None
        assert check_sentence([clean]) == "Lab check before the run: 1 found good."

    def test_entries_of_another_make_do_not_break_it(self) -> None:
        assert sessions([{"findings": [{"code": "x"}, "y"], "fine": None}])[0].findings is not None


def test_a_packet_under_several_names_is_drawn_once() -> None:
    """igb: rx_fifo_errors counts again what rx_missed_errors and the queues have."""
    names = ("rx_missed_errors", "rx_fifo_errors", "rx_queue_0_drops")
    first = HostReading(0.0, 0.0, interface={f"ethtool.{name}": 0 for name in names})
    last = HostReading(
        2.0, 2.0, interface={f"ethtool.{n}": v for n, v in zip(names, (60, 100, 40), strict=True)}
    )
    assert _nic(first, last, 2.0) == pytest.approx(50.0)
