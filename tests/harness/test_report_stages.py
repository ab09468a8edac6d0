"""Every stage of the ledger in picture and table, the bottleneck on the curve, flows seen."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.patches import Rectangle
from synthetic_host import make_host_run
from synthetic_run import LOADS, Options, make_run
from test_accounts import at
from test_bottleneck import BUSY, HELD, QUIET, trial
from test_figures import texts
from test_report import Page

from harness.report import figures, style, tables
from harness.report.accounts import STAGE_NAMES, read_accounts
from harness.report.build import build_report
from harness.report.stages import STAGE_PARTS, stages_frame, stops_frame, stops_text
from harness.report.stages_figure import ledger_stages
from harness.results import RunDir, Trial

SPECIAL = Options(bias=False, calibration=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_host_run(tmp_path_factory.mktemp("stages") / "run", SPECIAL)


def drawn(run: RunDir) -> style.Drawn:
    with style.plotting():
        return ledger_stages(stages_frame(read_accounts(run)), "x")


def heights(made: style.Drawn, panel: int = 0) -> dict[int, list[tuple[float, str, str | None]]]:
    """(height, colour, hatch) of the filled bars of a panel, by bar."""
    found: dict[int, list[tuple[float, str, str | None]]] = defaultdict(list)
    for bar in made.figure.axes[panel].patches:
        assert isinstance(bar, Rectangle)
        if bar.get_facecolor()[3] or bar.get_hatch():
            colour = colors.to_hex(bar.get_facecolor())
            found[round(bar.get_x() + bar.get_width() / 2)].append(
                (bar.get_height(), colour, bar.get_hatch())
            )
    return found


def record(run: RunDir) -> list[dict[str, Any]]:
    """The trials, read without the package."""
    lines = [json.loads(line) for line in run.trials_path.read_text().splitlines()]
    return [t for t in lines if t["ledger"] is not None]


class TestPicture:
    def test_the_parts_of_every_bar_are_all_that_was_offered(self, run: RunDir) -> None:
        bars = heights(drawn(run))
        assert len(bars) == len(LOADS) + 2  # and the invalid trials
        for parts in bars.values():
            assert sum(height for height, *_ in parts) == pytest.approx(1)

    def test_a_part_is_as_high_as_its_share_in_the_records(self, run: RunDir) -> None:
        top = [t for t in record(run) if t["load"]["value"] == LOADS[-1] and not t["gates"]]
        offered = sum(t["ledger"]["offered"] for t in top)
        expected = {
            key: sum(s["packets"] for t in top for s in t["ledger"]["stages"] if s["key"] == key)
            / offered
            for key in STAGE_NAMES
        }
        shown = heights(drawn(run))[len(LOADS) + 1]
        assert len(shown) == len(STAGE_NAMES) + 1  # analysed; nothing is unexplained
        got = [height for height, *_ in shown[1:]]
        assert got == pytest.approx([expected[key] for key in reversed(STAGE_NAMES)])
        assert len({colour for _, colour, _ in shown}) == len(shown)

    def test_unexplained_has_a_look_of_its_own_and_hangs_below_zero(self, run: RunDir) -> None:
        below = [one for parts in heights(drawn(run)).values() for one in parts if one[0] < 0]
        assert [hatch for _, _, hatch in below] == ["////"]
        others = {c for parts in heights(drawn(run)).values() for h, c, _ in parts if h > 0}
        assert below[0][1] not in others

    def test_none_lost_is_told_apart_from_not_observable(self, tmp_path: Path) -> None:
        calm = Options(loads=LOADS[:2], specials=False, bias=False, calibration=False)
        one = make_host_run(tmp_path / "run", calm, blind=("nic", "backlog"))
        said = texts(drawn(one).figure)
        assert "NIC (not observable)" in said
        assert "wire (none)" in said
        assert drawn(one).title.endswith("NIC and CPU backlog not observable")

    def test_a_stage_that_some_trials_cannot_tell_is_partly_so(self, tmp_path: Path) -> None:
        def blind(one: Trial) -> Trial:
            assert one.ledger is not None
            if one.load.value > LOADS[0]:
                return one
            kept = [replace(s, packets=None) if s.key == "nic" else s for s in one.ledger.stages]
            return replace(one, ledger=replace(one.ledger, stages=tuple(kept)))

        calm = Options(loads=LOADS[:2], specials=False, bias=False, calibration=False)
        one = make_host_run(tmp_path / "run", calm, change=blind)
        assert "NIC (partly not observable)" in texts(drawn(one).figure)
        frame = stages_frame(read_accounts(one))
        assert list(frame["nic"].isna()) == [True, False]

    def test_what_arrives_and_is_not_told_of_fills_the_bar(self, tmp_path: Path) -> None:
        def closed(one: Trial) -> Trial:
            assert one.ledger is not None
            stages = tuple(
                s if s.key in ("transmit", "wire") else replace(s, packets=None)
                for s in one.ledger.stages
            )
            lost = sum(s.packets or 0 for s in stages)
            empty = replace(one.ledger, nic=None, kernel=None, software=None, analysed=None)
            kept = replace(empty, before_nic=lost, unexplained=0, stages=stages)
            return replace(one, ledger=kept, drop_rate=None)

        options = Options(loads=LOADS[-2:], specials=False, bias=False, calibration=False)
        one = make_host_run(tmp_path / "run", options, change=closed)
        made = drawn(one)
        for parts in heights(made).values():
            assert sum(height for height, *_ in parts) == pytest.approx(1)
            assert "...." in {hatch for *_, hatch in parts}
        assert "arrived; analysed or not:\nnot observable" in texts(made.figure)
        assert "does not tell" in made.title

    def test_title_names_the_stages_that_lost_most(self, run: RunDir) -> None:
        title = drawn(run).title.replace("\xa0", " ")
        assert ": 60.0 % capture ring, " in title
        assert "the rest at 6 other stages; none is unexplained" in title

    def test_flows_and_events_stand_below(self, run: RunDir) -> None:
        made = drawn(run)
        titles = [axes.get_title(loc="left") for axes in made.figure.axes[1:]]
        assert titles == ["Flows seen, of those offered", "Events raised, of those due"]
        top = [t for t in record(run) if t["load"]["value"] == LOADS[-1] and not t["gates"]]
        detected = sum(t["detection"]["detected"] for t in top)
        due = sum(t["detection"]["due"] for t in top)
        assert heights(made, 2)[len(LOADS) + 1][-1][0] == pytest.approx(detected / due)


class TestTables:
    def test_every_load_has_its_stages_and_its_bytes(self, run: RunDir) -> None:
        page = Page(build_report(run.path).html.read_text())
        rows = page.table("asked", "offered", "capture ring")
        assert len(rows) == len(LOADS)
        for row in rows:
            parts = [row[name] for name in (*STAGE_NAMES.values(), "analysed", "unexplained")]
            assert sum(int(n.replace(",", "")) for n in parts) == int(
                row["offered"].replace(",", "")
            )
        more = page.table("asked", "bytes offered", "flows seen")
        good = [t for t in record(run) if t["load"]["value"] == LOADS[0] and not t["gates"]]
        whole = sum(t["ledger"]["bytes"]["offered"] for t in good)
        assert more[0]["bytes offered"] == f"{whole:,}"

    def test_an_old_run_keeps_its_six_parts(self, tmp_path: Path) -> None:
        old = make_run(tmp_path / "run", Options(bias=False, loads=LOADS[:2]))
        assert stages_frame(read_accounts(old)).empty
        page = Page(build_report(old.path).html.read_text())
        assert page.table("asked", "offered", "kernel ring")

    def test_parts_have_columns(self, run: RunDir) -> None:
        assert set(STAGE_PARTS) <= set(stages_frame(read_accounts(run)))


class TestBottleneck:
    @pytest.fixture
    def stopped(self, tmp_path: Path) -> RunDir:
        made = make_run(tmp_path / "run", Options(bias=False, calibration=False))
        made.trials_path.unlink()
        for one in (
            at(1e4, "t01", trial()),
            at(2e4, "t02", trial((5000, 0), (BUSY, QUIET))),
            at(2e4, "t03", trial()),
            at(3e4, "t04", trial((900, 100), (BUSY, HELD))),
        ):
            made.append(one)
        return made

    def test_every_load_says_what_stopped_the_sensor(self, stopped: RunDir) -> None:
        cell = stops_text(stops_frame(read_accounts(stopped)))
        said = [cell({"axis": "pps", "asked": asked}) for asked in (1e4, 2e4, 3e4, 4e4)]
        assert said == [
            "none",
            "software: one worker (1 of 2); none (1 of 2)",
            "software: one worker + software: disk",
            "–",
        ]
        page = Page(build_report(stopped.path).html.read_text())
        assert page.table("asked", "bottleneck")[0]["bottleneck"] == "none"

    def test_the_curve_has_a_row_a_kind(self, stopped: RunDir) -> None:
        stops = stops_frame(read_accounts(stopped))
        with style.plotting():
            curves, trials = tables.curves_frame(stopped), tables.trials_frame(stopped)
            made = figures.detection_vs_load(curves, trials, "x", stops)
        strip = made.figure.axes[2]
        names = [label.get_text() for label in strip.get_yticklabels()]
        assert names == ["one worker", "disk", "none"]
        marks = {
            (names[int(line.get_ydata()[0])], line.get_markerfacecolor() == "none"): [
                round(float(x)) for x in line.get_xdata()
            ]
            for line in strip.get_lines()
        }
        offered = {t.name: round(t.offered or 0) for t in stopped.trials()}
        assert marks == {
            ("one worker", False): [offered["t02"], offered["t04"]],
            ("disk", True): [offered["t04"]],
            ("none", False): sorted([offered["t01"], offered["t03"]]),
        }


class TestFlowsSeen:
    """A sensor that ran before the trial has counted flows before it, too."""

    def frames(self, path: Path, before: int | None, state: str) -> list[Any]:
        options = Options(loads=LOADS[:1], repeats=1, specials=False, calibration=False)
        made = make_run(path / "run", options)
        trials = list(made.trials())
        made.trials_path.unlink()
        for one in trials:
            assert one.before is not None and one.after is not None and one.after.flows is not None
            first = replace(one.before, flows=before)
            last = replace(one.after, flows=one.after.flows + (before or 0))
            made.append(replace(one, before=first, after=last, state=state))
        bias = tables.bias_frame(made).set_index("method")["flows_seen"]
        every = tables.trials_frame(made).set_index("trial")["flows_seen"]
        return [bias["loop"], every["b-loop"]]

    @pytest.mark.parametrize("state", ["restarted", "observed"])
    def test_is_what_was_added(self, tmp_path: Path, state: str) -> None:
        assert self.frames(tmp_path, 1_000_000, state) == [9, 9]

    def test_without_a_first_count_an_observed_sensor_tells_nothing(self, tmp_path: Path) -> None:
        assert all(value is pd.NA for value in self.frames(tmp_path, None, "observed"))

    def test_a_restarted_one_began_at_zero(self, tmp_path: Path) -> None:
        assert self.frames(tmp_path, None, "restarted") == [9, 9]
