"""Figures are made for each case, say the truth in their titles, and are labelled right."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.figure import Figure
from synthetic_run import LOADS, Options, make_run

from harness.report import figures, figures_more, style, tables, titles, words
from harness.report.build import build_report
from harness.report.samples import timeline_frame
from harness.results import RunDir


def texts(figure: Figure) -> list[str]:
    """All text in the figure, legends and tick labels included."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    return [t.get_text().replace("\xa0", " ") for t in figure.findobj(Text) if t.get_text()]


def sweep(run: RunDir) -> pd.DataFrame:
    trials = tables.trials_frame(run)
    return trials[trials["phase"] == "sweep"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_run(tmp_path_factory.mktemp("figures") / "run")


class TestDetection:
    def drawn(self, run: RunDir) -> style.Drawn:
        with style.plotting():
            return figures.detection_vs_load(tables.curves_frame(run), sweep(run), "x")

    def test_draws_the_pooled_points_at_the_load_really_offered(self, run: RunDir) -> None:
        curves = tables.curves_frame(run)
        lines = self.drawn(run).figure.axes[0].get_lines()
        line = next(one for one in lines if list(one.get_xdata()) == list(curves["offered"]))
        assert list(line.get_ydata()) == list(curves["detection_rate"])

    def test_draws_unsound_trials_hollow_and_names_them(self, run: RunDir) -> None:
        drawn = self.drawn(run)
        lines = {str(line.get_label()): line for line in drawn.figure.axes[0].get_lines()}
        for label in ("invalid (pps-open)", "generator-limited (pps-limited)"):
            assert lines[label].get_markerfacecolor() == "none"
            assert label in texts(drawn.figure)
        assert "load asked, where it was not met" in texts(drawn.figure)

    @pytest.mark.parametrize(("axis", "unit"), [("pps", "packets/s"), ("flows", "new flows/s")])
    def test_names_the_unit(self, tmp_path: Path, axis: str, unit: str) -> None:
        run = make_run(tmp_path / "run", Options(axes=(axis,), bias=False))
        assert f"Load really offered ({unit})" in texts(self.drawn(run).figure)

    def test_title_is_true(self, run: RunDir, tmp_path: Path) -> None:
        title = self.drawn(run).title.replace("\xa0", " ")
        assert title.startswith("Every alert due was raised up to 59.82 k packets/s; at 159.8 k")
        easy = make_run(tmp_path / "easy", Options(loads=LOADS[:3], specials=False))
        title = self.drawn(easy).title.replace("\xa0", " ")
        assert title.startswith("Every alert due was raised at every load tested, up to 39.88 k")
        hard = make_run(tmp_path / "hard", Options(loads=LOADS[4:], specials=False))
        assert "at every load" in self.drawn(hard).title
        assert self.drawn(hard).title.startswith("Alerts were missing")


class TestLedger:
    def test_bars_hold_the_ledger_and_unexplained_goes_below_zero(self, run: RunDir) -> None:
        with style.plotting():
            drawn = figures.where_packets_went(tables.curves_frame(run), sweep(run), "x")
        bars = [p for p in drawn.figure.axes[0].patches if hasattr(p, "get_height")]
        hatched = [bar for bar in bars if bar.get_hatch()]
        assert [bar.get_height() < 0 for bar in hatched] == [True]
        kernel = [
            bar.get_height()
            for bar in bars
            if colors.to_hex(bar.get_facecolor()) == style.COLOURS["vermillion"]
            and bar.get_alpha() == 1
        ]
        curves = tables.curves_frame(run)
        lost = (curves["kernel"] / curves["offered_packets"])[curves["kernel"] > 0]
        assert kernel == pytest.approx([float(share) for share in lost])
        assert any("pps-open" in text for text in texts(drawn.figure))

    def test_says_what_is_not_observable(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", Options(observable=False, bias=False))
        with style.plotting():
            drawn = figures.where_packets_went(tables.curves_frame(run), sweep(run), "x")
        assert "kernel ring (not observable)" in texts(drawn.figure)
        assert "does not tell" in drawn.title


class TestBias:
    def title(self, run: RunDir, **changes: dict[str, int | None]) -> str:
        frame = tables.bias_frame(run).set_index("method")
        for column, values in changes.items():
            for method, value in values.items():
                frame.loc[method, column] = value
        return titles.bias_sentence(frame.reset_index())

    def test_title_follows_the_data(self, run: RunDir) -> None:
        no_loss = "No packet was lost in any of the four replays; "
        assert self.title(run) == (
            no_loss + "only --unique-ip and fresh addresses raised every alert due: "
            "the uncleaned capture looped raised 190 of 1,500"
        )
        everything = {"raw-loop": 1500, "loop": 1500}
        assert self.title(run, detected=everything) == no_loss + "every one raised all alerts due"
        nothing = {"unique-ip": 1499, "fresh": 1498}
        assert no_loss + "none raised every" in self.title(run, detected=nothing)
        assert self.title(run, lost={"loop": 3}).startswith(
            "Packets were lost by the clean corpus looped; "
        )
        unknown = dict.fromkeys(tables.BIAS_METHODS)
        assert self.title(run, lost=unknown).startswith("Loss is not observable; ")

    def test_shows_both_numbers(self, run: RunDir) -> None:
        with style.plotting():
            shown = texts(figures_more.bias(tables.bias_frame(run), "bias").figure)
        for text in ("0 of 481,000", "9 of 9,000", "502 of 1,500", "1,500 of 1,500"):
            assert text in shown


class TestOthers:
    def test_many_workers_are_a_band(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", Options(workers=12, bias=False))
        with style.plotting():
            drawn = figures_more.workers(tables.workers_frame(run), "workers")
        assert {"busiest", "idlest", "even share"} <= set(texts(drawn.figure))

    def test_one_worker_is_no_figure(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", Options(workers=1, loads=LOADS[:1], bias=False))
        assert not any("workers" in path.name for path in build_report(run.path).figures)

    def test_timeline_rates(self, run: RunDir) -> None:
        frame = timeline_frame(run)
        own = frame[frame["trial"] == "pps-t01-1"]
        sent = 39442
        assert own["sent_per_s"].dropna().mean() == pytest.approx(sent / 4, rel=1e-3)
        assert own["sent_per_s"].isna().sum() == 1

    def test_a_restarted_counter_gives_no_rate(self, tmp_path: Path) -> None:
        run = RunDir(tmp_path)
        run.timeline_path.write_text(
            "trial,t_s,sent,received,dropped,alerts\nt1,0,10,10,,1\nt1,1,20,5,,2\n"
        )
        last = timeline_frame(run).iloc[-1]
        assert (last["sent_per_s"], last["alerts_per_s"]) == (10, 1)
        assert pd.isna(last["received_per_s"]) and pd.isna(last["dropped_per_s"])

    def test_files_are_png_and_svg_of_every_figure(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", Options(axes=("pps", "flows"), loads=LOADS[-2:]))
        names = {path.name for path in build_report(run.path).figures}
        for axis in ("pps", "flows"):
            for kind in (
                "detection_vs_load",
                "where_packets_went",
                "by_signature",
                "timeline",
                "workers",
            ):
                assert {f"{kind}_{axis}.png", f"{kind}_{axis}.svg"} <= names
        png = (run.path / "figures" / "bias.png").read_bytes()
        assert struct.unpack(">I", png[16:20]) == (1200,)
        svg = (run.path / "figures" / "bias.svg").read_text()
        assert not re.search(r"<dc:date>|\d{4}-\d\d-\d\dT", svg)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.999996, "> 99.999 %"),
        (0.99995, "99.995 %"),
        (0.000004, "< 0.001 %"),
        (0.00123, "0.12 %"),
        (0.000987, "0.099 %"),
        (0.4126, "41.3 %"),
        (-0.02, "−2.0 %"),
        (None, "not observable"),
        (float("nan"), "not observable"),
        (pd.NA, "not observable"),
    ],
)
def test_percent_never_rounds_onto_all_or_nothing(share: float | None, text: str) -> None:
    assert words.percent(share).replace("\xa0", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1 k"), (999_999, "1 M"), (42_137, "42.14 k")],
)
def test_amount(value: float, text: str) -> None:
    assert words.amount(value).replace("\xa0", " ") == text
