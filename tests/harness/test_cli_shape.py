"""`corpus mix` and `corpus impair` on the command line: what is printed, written and returned."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "pcap_tools"))
from synth import MS, T0, Talk, merged, write_pcap

from harness import cli
from harness.label import save
from harness.model import DueEvent, Reference

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    talks = [Talk(sport=40000 + i, start=T0 + 50 * i * MS).whole(i % 5) for i in range(20)]
    write_pcap(tmp_path / "in.pcap", merged(*talks, Talk(dport=53).udp(0).udp(1)))
    return tmp_path


@pytest.fixture
def probebench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["probebench", "corpus", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_the_dimensions_come_first_and_a_dry_run_writes_nothing(
    probebench: Run, desk: Path
) -> None:
    target = ("--target", "packets-per-flow=10", "--flows", "200", "--rate", "5kpps")
    code, out, err = probebench("mix", "in.pcap", "--dry-run", *target)
    assert (code, err) == (0, "")
    row = next(line.split() for line in out.splitlines() if line.startswith("packets-per-flow"))
    assert row[1] == "13.4" and abs(float(row[2]) - 10) < 0.1 and row[3] == "10.0"
    assert "at 1 fps: 1 flows/s" in out and "at 5000 pps: 50" in out
    assert [path.name for path in desk.iterdir()] == ["in.pcap"]
    code, written, _ = probebench("mix", "in.pcap", "-o", "out.pcap", *target)
    assert code == 0 and written.startswith(out)
    assert "out.pcap: " in written and "200 flows" in written and "sha256 " in written
    assert sorted(p.name for p in desk.iterdir()) == ["in.pcap", "out.pcap", "out.pcap.mix.json"]


def test_json_and_the_reference(probebench: Run, desk: Path) -> None:
    event = DueEvent("TCP", "10.0.0.1", 40003, "198.51.100.7", 80, 1)
    save(Reference("c", "r", "suricata 7", 1, (event,), {1: "one"}), desk / "reference.json")
    words = ("mix", "in.pcap", "--reference", "reference.json", "--target", "attack=0.2")
    code, out, _ = probebench(*words, "--flows", "100", "--dry-run", "--json")
    plan = json.loads(out)
    assert code == 0 and plan["targets"]["attack"] == {"wanted": 0.2, "achieved": 0.2}
    code, out, _ = probebench(*words, "--flows", "100", "-o", "out.pcap", "--json")
    report = json.loads(out)
    assert report["flows_found"] == 100 and report["after"] == plan["after"]
    stored = json.loads((desk / "out.pcap.mix.json").read_text())
    assert sum(row["label"] == "attack" for row in stored.pop("flows")) == 20
    assert stored == report


def test_whole_flows_that_miss_a_target_are_status_1(probebench: Run, desk: Path) -> None:
    words = ("mix", "in.pcap", "--target", "udp=0.3", "--flows", "2", "-o", "out.pcap")
    code, _, err = probebench(*words)
    assert code == 1 and "warning: udp is 0" in err and (desk / "out.pcap").exists()
    code, _, err = probebench(*words, "--nearest")
    assert code == 0 and "warning: udp is 0" in err


def test_impair(probebench: Run, desk: Path) -> None:
    words = ("impair", "in.pcap", "-o", "out.pcap", "--seed", "3", "--loss", "0.2")
    words += ("--loss-flows", "0.5", "--reorder", "0.1:2", "--truncate", "0.1:60")
    code, out, err = probebench(*words)
    assert (code, err) == (0, "")
    assert "packets touched: loss " in out and "have a new gap" in out
    written = (desk / "out.pcap").read_bytes()
    code, out, _ = probebench(*words, "--json")
    report = json.loads(out)
    assert code == 0 and (desk / "out.pcap").read_bytes() == written
    assert [(f["kind"], f["rate"], f["flows"], f["amount"]) for f in report["faults"]] == [
        ("loss", 0.2, 0.5, 0.0),
        ("reorder", 0.1, 1.0, 2.0),
        ("truncate", 0.1, 1.0, 60.0),
    ]
    stored = json.loads((desk / "out.pcap.impair.json").read_text())
    assert len(stored.pop("flows_touched")) == report["flows"]["touched"]
    assert stored == report and (desk / report["manifest"]).exists()
