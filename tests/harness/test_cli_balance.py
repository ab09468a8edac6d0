"""`corpus balance` as a user runs it, and its figure."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer
from matplotlib.text import Text
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "pcap_tools"))
from synth import Talk, merged, write_pcap

from harness.cli import corpus_balance
from harness.errors import ConfigError
from harness.report.balance_figure import draw, sentence
from pcap_tools.balance import balance
from pcap_tools.errors import PcapError
from pcap_tools.flows import flow_table
from pcap_tools.strategies import Replay, flow_groups, plan_of

app = typer.Typer()
corpus_balance.register(app)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    talks = [Talk(client=f"10.0.{100 + i}.1", sport=4000 + i).whole() for i in range(3)]
    return write_pcap(tmp_path_factory.mktemp("balance") / "in.pcap", merged(*talks))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)


def test_table_json_and_figure(capture: Path, tmp_path: Path) -> None:
    common = (capture, "--workers", "8", "--strategy", "unique-ip", "--iterations", "50")
    shown = run(*common)
    assert shown.exit_code == 0
    for text in ("unique-ip, 50 iterations", "autofp-ippair", "nothing about the sensor"):
        assert text in " ".join(shown.output.split())
    figure = tmp_path / "b.png"
    found = json.loads(run(*common, "--json", "-o", figure, "--balancer", "ebpf-lb").stdout)
    assert [r["name"] for r in found["results"]] == ["ebpf-lb"]
    assert found["flows"] == 150
    assert found["results"][0]["verdict"]
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["b.png"]


def test_a_plan_file_and_a_key_say_the_same(capture: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan_of(flow_groups(flow_table(capture)), "k").save(plan)
    common = (capture, "--workers", "4", "--iterations", "20", "--json")
    by_key = run(*common, "--key", "k").stdout
    assert by_key == run(*common, "--plan", plan).stdout != run(*common, "--key", "l").stdout


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (("--strategy", "other"), PcapError, "strategies are loop"),
        (("--strategy", "loop", "--key", "k"), ConfigError, "belong to the strategies"),
        (("--plan", "p.json", "--key", "k"), ConfigError, "leave out --key"),
        (("--balancer", "x"), PcapError, "unknown balancer"),
        (("-o", "figure.gif"), PcapError, r"ends in \.png"),
        (("--home", "10.0.0.1/8"), PcapError, "--home"),
    ],
)
def test_wrong_use_is_one_of_our_errors(
    capture: Path, arguments: tuple[str, ...], kind: type[Exception], text: str
) -> None:
    done = run(capture, "--workers", "2", *arguments)
    with pytest.raises(kind, match=text):
        raise done.exception or AssertionError(done.output)


def test_the_figure_has_a_panel_a_balancer_and_a_true_title(capture: Path) -> None:
    table = flow_table(capture)
    drowned = balance(table, Replay("unique-ip", 100), 8)
    figure = draw(drowned).figure
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == len(drowned.results)
    for axes, result in zip(panels, drowned.results, strict=True):
        heights = [bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]
        assert heights == pytest.approx(list(result.packets.shares))
        assert any(result.name in t.get_text() for t in axes.findobj(Text))
    assert "overload one worker, autofp-ippair with 8.0× its share" in sentence(drowned)
    plan = plan_of(flow_groups(table), "k")
    even = balance(table, Replay("fresh", 20_000, plan), 2, keys=3)
    assert "every balancer that keeps flows whole spreads the packets evenly" in sentence(even)
    torn = balance(table, Replay("loop", 1), 8, ["af_packet-lb"])
    assert "no balancer keeps flows whole" in sentence(torn)
