"""The whole main job through the command line: every step a command of its own, on a lab."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dpkt
import pytest
from sweeping import good, trials

from lab import virtual
from lab.virtual_layout import layout

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.skipif(shutil.which("suricata") is None, reason="needs suricata"),
    pytest.mark.skipif(shutil.which("tcpreplay") is None, reason="needs tcpreplay"),
]

PROFILE = """\
name = "job"
[load]
axis = "{axis}"
values = {values}
duration = 3
[corpus]
max_gap = 0.05
"""


@pytest.fixture(scope="module")
def lab_name() -> Iterator[str]:
    name = f"job{os.getpid()}"
    yield name
    virtual.down(name)  # what a failed test has left


def frames(path: Path) -> int:
    """Packets of a capture, by a reader that is not ours."""
    with path.open("rb") as file:
        return sum(1 for _ in dpkt.pcap.Reader(file))


def adds_up(trial: dict[str, Any]) -> None:
    """Every offered packet is in exactly one place, and Suricata's own counters agree."""
    ledger, raw = trial["ledger"], trial["after"]["raw"]
    parts = ("before_nic", "nic", "kernel", "software", "analysed", "unexplained")
    assert ledger["offered"] == sum(ledger[part] for part in parts)
    assert ledger["offered"] == trial["sent"]["packets"] == trial["schedule"]["packets"]
    assert ledger["unexplained"] == 0
    assert raw["capture.kernel_packets"] - raw["capture.kernel_drops"] == raw["decoder.pkts"]


def all_detected(trial: dict[str, Any], reference: dict[str, Any]) -> None:
    """Nothing was missed, nothing was raised that is not due."""
    found = trial["detection"]
    assert found["due"] == trial["schedule"]["iterations"] * len(reference["due"]) > 0
    assert found["detected"] == found["due"]
    assert found["unexpected"] == found["unmapped"] == 0
    assert trial["drop_rate"] == 0


def test_the_main_job(lab_name: str, tmp_path: Path) -> None:
    """Lab up, record, clean, label, expand, sweep both axes, report, lab down."""
    lab = good("lab", "up", "--name", lab_name).strip().splitlines()[-1]
    raw, corpus = tmp_path / "raw.pcap", tmp_path / "corpus.pcap"
    good("lab", "record", "--name", lab_name, "-o", raw, "--seconds", "8")
    good("corpus", "clean", raw, "-o", corpus)
    cleaned(raw, corpus)

    good("corpus", "label", corpus, "-o", tmp_path / "reference.json", *label_options(lab))
    labelled = json.loads((tmp_path / "reference.json").read_text())
    assert labelled["due"]

    expanded = tmp_path / "expanded.pcap"
    good("corpus", "expand", corpus, "-o", expanded, "--key", "k", "--iterations", "3")
    assert frames(expanded) == 3 * frames(corpus)

    run = swept(tmp_path, lab, corpus, "pps", [2000, 4000])
    assert [t["name"] for t in trials(run)] == ["t01", "t02"]
    reference = json.loads((run / "run.json").read_text())["reference"]
    assert reference["due"] == labelled["due"]
    for trial in trials(run):
        adds_up(trial)
        all_detected(trial, reference)
    reported(run)

    run = swept(tmp_path, lab, corpus, "flows", [150])
    (trial,) = trials(run)
    adds_up(trial)
    all_detected(trial, reference)
    sent, schedule = trial["sent"], trial["schedule"]
    assert schedule["flows_per_s"] == pytest.approx(150)
    assert sent["seconds"] == pytest.approx(schedule["seconds"], rel=0.01)
    assert trial["after"]["flows"] == schedule["iterations"] * reference["flows"]

    good("lab", "down", "--name", lab_name)
    assert traces(lab_name) == []


def cleaned(raw: Path, corpus: Path) -> None:
    """Packets in are packets kept and packets dropped, by three counts."""
    report = json.loads(corpus.with_name("corpus.pcap.clean.json").read_text())
    assert report["in"]["packets"] == frames(raw)
    assert report["kept"]["packets"] == frames(corpus)
    assert report["in"]["packets"] == report["kept"]["packets"] + sum(
        reason["packets"] for reason in report["dropped"].values()
    )
    assert report["dropped"]["midstream"]["flows"] > 0  # the capture began late


def swept(tmp: Path, lab: str, corpus: Path, axis: str, values: list[float]) -> Path:
    profile, run = tmp / f"{axis}.toml", tmp / axis
    profile.write_text(PROFILE.format(axis=axis, values=values))
    out = good("sweep", profile, "--lab", lab, "--corpus", corpus, "-o", run, "--json")
    told = json.loads(out)
    assert told == {"run": str(run), "trials": len(values), "marked": 0, "failed": 0}
    command = json.loads((run / "run.json").read_text())["extra"]["command"]
    assert command[:2] == ["probebench", "sweep"] and command[-2:] == ["-o", str(run)]
    return run


def reported(run: Path) -> None:
    good("report", run)
    html = (run / "report.html").read_text()
    assert "<html" in html and "http://" not in html.replace("http://www.w3.org/", "")
    with (run / "curves.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    for suffix in ("png", "svg"):
        assert list((run / "figures").glob(f"*.{suffix}"))


def label_options(lab: str) -> list[str]:
    from lab.inventory import load_inventory

    sensor = load_inventory(Path(lab)).sensor
    return [*(f"--rules={rules}" for rules in sensor.rules), f"--home={','.join(sensor.home)}"]


def traces(name: str) -> list[str]:
    """What of a lab is still on the machine."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    found = [line for line in listed.stdout.splitlines() if name in line]
    found += [path.name for path in Path("/sys/class/net").iterdir() if name in path.name]
    found += [str(p) for p in (Path("/run/probebench"), Path("/etc/netns")) if (p / name).exists()]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(layout(name).link) + "/" in command:
                found.append(command)
    return found
