"""The report says what the run holds, and nothing else."""

from __future__ import annotations

import csv
import json
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from synthetic_run import LOADS, Options, make_run, run_info
from typer.testing import CliRunner

from harness.cli.report import register
from harness.errors import ResultsError
from harness.report import tables
from harness.report.build import build_report
from harness.report.frames import read_frames
from harness.report.samples import timeline_frame
from harness.report.verdict import verdict
from harness.results import RunDir


class Page(HTMLParser):
    """Tables as lists of rows, ids, and everything that could load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self._cell: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action") and value:
                self.references.append(value)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append("".join(self._cell).strip())
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell is not None:
            self._cell.append(data)

    def table(self, *heads: str) -> list[dict[str, str]]:
        """Rows of the one table that has all these heads."""
        found = [t for t in self.tables if set(heads) <= set(t[0])]
        assert len(found) == 1, heads
        return [dict(zip(found[0][0], row, strict=True)) for row in found[0][1:]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = make_run(tmp_path_factory.mktemp("report") / "run", Options(axes=("pps", "flows")))
    build_report(run.path)
    return run


@pytest.fixture(scope="module")
def page(run: RunDir) -> Page:
    return Page((run.path / "report.html").read_text())


def recorded(run: RunDir, axis: str, asked: float) -> list[dict]:
    """Valid trials of a load that met it, read without the package."""
    lines = [json.loads(line) for line in run.trials_path.read_text().splitlines()]
    return [
        t
        for t in lines
        if t["phase"] == "sweep"
        and t["load"]["axis"] == axis
        and t["load"]["value"] == asked
        and t["failure"] is None
        and not t["gates"]
    ]


class TestCurves:
    @pytest.mark.parametrize("axis", ["pps", "flows"])
    def test_agrees_with_the_trials_recomputed(self, run: RunDir, axis: str) -> None:
        with (run.path / "curves.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["axis"] == axis]
        assert [float(row["asked"]) for row in rows] == list(LOADS)
        for row in rows:
            good = recorded(run, axis, float(row["asked"]))
            assert int(row["valid"]) == len(good) == 2
            due = sum(t["detection"]["due"] for t in good)
            detected = sum(t["detection"]["detected"] for t in good)
            assert (int(row["due"]), int(row["detected"])) == (due, detected)
            assert float(row["detection_rate"]) == pytest.approx(detected / due)
            lows = [t["detection"]["low"] for t in good]
            highs = [t["detection"]["high"] for t in good]
            assert float(row["detection_low"]) == pytest.approx(min(lows))
            assert float(row["detection_high"]) == pytest.approx(max(highs))
            drops = [1 - t["ledger"]["analysed"] / t["ledger"]["offered"] for t in good]
            assert float(row["drop_rate_median"]) == pytest.approx(statistics.median(drops))
            assert float(row["drop_rate_max"]) == pytest.approx(max(drops))
            key = "pps" if axis == "pps" else "flows_per_s"
            rates = [
                t["schedule"][key]
                * (t["sent"]["packets"] / t["schedule"]["packets"])
                * (t["schedule"]["seconds"] / t["sent"]["seconds"])
                for t in good
            ]
            assert float(row["offered"]) == pytest.approx(statistics.median(rates))
            for part in tables.LEDGER_PARTS:
                assert int(row[part]) == sum(t["ledger"][part] for t in good)
            sums = sum(int(row[part]) for part in tables.LEDGER_PARTS)
            assert sums == int(row["offered_packets"])

    def test_columns_are_the_documented_ones(self, run: RunDir) -> None:
        header = (run.path / "curves.csv").read_text().splitlines()[0]
        assert header.split(",") == list(tables.CURVE_COLUMNS)
        assert list(tables.trials_frame(run)) == list(tables.TRIAL_COLUMNS)

    def test_unsound_trials_are_counted_but_not_pooled(self, run: RunDir) -> None:
        curves = tables.curves_frame(run).set_index(["axis", "asked"])
        lowest, highest = curves.loc[("pps", LOADS[0])], curves.loc[("pps", LOADS[-1])]
        assert (lowest["trials"], lowest["valid"]) == (3, 2)
        assert lowest["unexplained"] == 0  # the invalid trial's is -1500
        assert (highest["trials"], highest["valid"]) == (4, 2)

    def test_a_load_without_a_valid_trial_has_no_number(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", Options(bias=False))
        kept = [t for t in run.trials() if not (t.load.value == LOADS[-1] and not t.gates)]
        run.trials_path.unlink()
        for trial in kept:
            run.append(trial)
        last = tables.curves_frame(run).iloc[-1]
        assert (last["asked"], last["trials"], last["valid"]) == (LOADS[-1], 1, 0)
        assert last.drop(["axis", "asked", "trials", "valid"]).isna().all()
        text = " ".join(verdict(read_frames(run))).replace("\xa0", " ")
        assert "At the highest load offered, 119.6 k packets/s" in text

    def test_what_is_not_observable_is_missing_not_zero(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", Options(observable=False, bias=False))
        curves = tables.curves_frame(run)
        assert curves[["kernel", "analysed", "nic", "drop_rate_median"]].isna().all(axis=None)
        build_report(run.path)
        page = Page((run.path / "report.html").read_text())
        rows = page.table("asked", "offered", "kernel ring")
        assert {row["kernel ring"] for row in rows} == {"not observable"}
        assert {row["before the NIC"] for row in rows} == {"0"}
        assert "Packet loss is not observable in this run." in page.text


class TestPage:
    def test_shows_the_numbers_of_the_curve(self, run: RunDir, page: Page) -> None:
        rows = page.table("asked", "valid / trials")
        assert len(rows) == 2 * len(LOADS)
        shown = {(r["asked"].replace("\xa0", " "), r["due"], r["detected"]) for r in rows}
        for axis, unit in (("pps", "packets/s"), ("flows", "new flows/s")):
            for asked in LOADS:
                good = recorded(run, axis, asked)
                due = sum(t["detection"]["due"] for t in good)
                detected = sum(t["detection"]["detected"] for t in good)
                assert (f"{asked / 1000:g} k {unit}", f"{due:,}", f"{detected:,}") in shown

    def test_shows_every_trial_with_its_status(self, run: RunDir, page: Page) -> None:
        rows = {row["trial"]: row for row in page.table("trial", "phase")}
        assert list(rows) == [trial.name for trial in run.trials()]
        assert rows["pps-open"]["status"] == "invalid"
        assert rows["pps-limited"]["status"] == "generator-limited"
        assert rows["pps-failed"]["status"] == "failed"
        assert rows["pps-failed"]["drop rate"] == "–"
        assert "tcpreplay was killed by signal 9" in page.text
        ledger = {row["trial"]: row for row in page.table("trial", "tolerance")}
        assert ledger["pps-open"]["unexplained"] == "-1,500"

    def test_names_every_gate_most_severe_first(self, page: Page) -> None:
        order = [page.text.index(code) for code in ("ledger-open The", "co-located One")]
        assert order == sorted(order)
        assert "Look for background traffic on the sensor's interface." in page.text

    def test_loads_nothing(self, run: RunDir, page: Page) -> None:
        assert page.references
        assert all(ref.startswith("#") for ref in page.references)
        assert not page.tags & {"script", "link", "iframe", "img", "object", "embed"}
        text = (run.path / "report.html").read_text()
        assert "@import" not in text
        assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))

    def test_ids_are_unique_and_links_lead_somewhere(self, page: Page) -> None:
        assert len(page.ids) == len(set(page.ids))
        assert {ref[1:] for ref in page.references} <= set(page.ids)

    def test_text_from_the_run_is_escaped(self, run: RunDir, page: Page) -> None:
        assert "EICAR test file in a download <b>" in page.text
        assert "<b>PROBEBENCH" not in (run.path / "report.html").read_text()
        assert "b" in page.tags  # the page's own

    def test_the_same_directory_gives_the_same_bytes(self, run: RunDir) -> None:
        def content() -> dict[str, bytes]:
            return {str(p): p.read_bytes() for p in sorted(run.path.rglob("*")) if p.is_file()}

        before = content()
        build_report(run.path)
        assert content() == before
        assert not [name for name in before if "partial" in name]

    def test_bias_table(self, page: Page) -> None:
        rows = page.table("method", "flows seen", "alerts raised")
        assert [row["method"] for row in rows] == ["raw-loop", "loop", "unique-ip", "fresh"]
        assert [row["alerts raised"] for row in rows] == ["190", "502", "1,500", "1,500"]
        assert {row["lost"] for row in rows} == {"0"}

    def test_naive_replays_have_no_detection_rate(self, page: Page) -> None:
        rows = {row["trial"]: row for row in page.table("trial", "unmapped")}
        assert rows["b-loop"]["detection"] == rows["b-loop"]["95 % interval"] == "–"
        assert rows["b-loop"]["raised"] == "502"


class TestVerdict:
    def sentences(self, path: Path, **options: object) -> str:
        run = make_run(path / "run", Options(**options))  # type: ignore[arg-type]
        return " ".join(verdict(read_frames(run))).replace("\xa0", " ")

    def test_of_a_curve_that_bends(self, tmp_path: Path) -> None:
        text = self.sentences(tmp_path)
        assert "19 of 22 trials are valid" in text
        assert (
            "Highest load tested with no packet lost at it and at every lower one: 59.82 k" in text
        )
        assert "next load tested was 79.77 k packets/s" in text
        assert "invalidating: generator-limited ×1, ledger-open ×1" in text
        assert "does not add up in pps-open" in text

    def test_of_a_curve_that_does_not(self, tmp_path: Path) -> None:
        text = self.sentences(tmp_path, loads=LOADS[:3], specials=False, bias=False)
        assert "39.88 k packets/s, the highest load of the sweep." in text
        assert "No gate fired in any trial." in text
        assert "Replay methods" not in text

    def test_of_loss_from_the_start(self, tmp_path: Path) -> None:
        text = self.sentences(tmp_path, loads=LOADS[5:], specials=False)
        assert "No load tested had no packet lost" not in text
        assert "Packets were lost already at the lowest load tested, 119.6 k packets/s." in text

    def test_gates_that_fired_are_never_called_none(self, tmp_path: Path) -> None:
        assert "No gate fired" not in self.sentences(tmp_path)


class TestEdges:
    def test_one_trial(self, tmp_path: Path) -> None:
        options = Options(
            loads=(20_000.0,), repeats=1, specials=False, bias=False, calibration=False
        )
        run = make_run(tmp_path / "run", options)
        build_report(run.path)
        rows = Page((run.path / "report.html").read_text()).table("asked", "valid / trials")
        assert [row["valid / trials"] for row in rows] == ["1 / 1"]

    def test_all_failed(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", Options(bias=False, timeline=False))
        failed = [trial for trial in run.trials() if trial.failure]
        run.trials_path.unlink()
        for trial in failed:
            run.append(trial)
        files = build_report(run.path)
        assert files.figures == ()
        text = Page(files.html.read_text()).text
        assert "0 of 1 trial are valid" in text
        assert "No load in packets/s has a valid trial: there is no curve." in text
        assert "No trial has a ledger." in text

    def test_only_bias(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", Options(axes=(), calibration=False, timeline=False))
        files = build_report(run.path)
        assert {path.name for path in files.figures} == {"bias.png", "bias.svg"}
        assert "This run has no trial of a sweep" in files.html.read_text()

    def test_figures_of_an_earlier_report_do_not_linger(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", Options(loads=LOADS[:1]))
        build_report(run.path)
        kept = [trial for trial in run.trials() if trial.phase == "sweep"]
        run.trials_path.unlink()
        for trial in kept:
            run.append(trial)
        files = build_report(run.path)
        assert not (run.path / "figures" / "bias.png").exists()
        assert set((run.path / "figures").iterdir()) == set(files.figures)

    def test_no_trial_says_so(self, tmp_path: Path) -> None:
        RunDir(tmp_path).write_info(run_info(Options()))
        with pytest.raises(ResultsError, match="no trial was recorded") as caught:
            build_report(tmp_path)
        assert caught.value.exit_status == 2
        assert "\n" not in str(caught.value)

    def test_not_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(ResultsError, match=r"not a run directory"):
            build_report(tmp_path)

    def test_damaged_timeline(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", Options(loads=LOADS[:1], bias=False))
        run.timeline_path.write_text("nonsense\n1\n")
        with pytest.raises(ResultsError, match=r"timeline\.csv"):
            build_report(run.path)

    def test_torn_timeline_tail_is_no_number(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", Options(loads=LOADS[:1], bias=False))
        whole = timeline_frame(run)
        with run.timeline_path.open("a") as out:
            out.write("pps-t01-1,")
        assert len(timeline_frame(run)) == len(whole)


class TestCommand:
    @pytest.fixture
    def app(self) -> typer.Typer:
        app = typer.Typer()
        app.callback()(lambda: None)
        register(app)
        return app

    def test_json(self, app: typer.Typer, tmp_path: Path) -> None:
        options = Options(loads=LOADS[-2:], bias=False, observable=False)
        runs = [make_run(tmp_path / name, options).path for name in ("a", "b")]
        result = CliRunner().invoke(app, ["report", *map(str, runs), "--json"])
        assert result.exit_code == 0, result.output
        data = json.loads(result.stdout)
        assert [entry["run"] for entry in data] == [str(path) for path in runs]
        assert all(Path(path).exists() for path in data[0]["figures"])
        assert data[0]["curves"][0]["asked"] == LOADS[-2]
        assert data[0]["curves"][0]["kernel"] is None

    def test_terminal(self, app: typer.Typer, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", Options(loads=LOADS[-2:], bias=False))
        result = CliRunner().invoke(app, ["report", str(run.path)])
        assert result.exit_code == 0, result.output
        assert "report.html" in result.stdout
        lines = result.stdout.replace("\xa0", " ").splitlines()
        assert any(line.startswith("120 k  119.6 k  packets/s") for line in lines)
        assert max(map(len, lines[:3])) <= 80

    def test_help_has_an_example(self, app: typer.Typer) -> None:
        assert "Example" in CliRunner().invoke(app, ["report", "--help"]).stdout
