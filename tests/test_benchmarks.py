"""The benchmarks' captures are what they claim to be, and the measuring sees what it measures."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pcap_tools.connstate import STATES
from pcap_tools.flows import flow_table

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def traffic(path: Path, profile: str, megabytes: int) -> Path:
    command = [sys.executable, str(BENCHMARKS / "traffic.py"), profile, str(megabytes), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.mark.parametrize(("profile", "mean", "flows"), [("mix", 530, 215), ("small", 110, 2600)])
def test_traffic_is_as_described(tmp_path: Path, profile: str, mean: int, flows: int) -> None:
    path = traffic(tmp_path / "t.pcap", profile, 2)
    table = flow_table(path)
    assert len(table) == flows
    assert abs(path.stat().st_size - 2e6) < 2e5
    assert abs(table.bytes / table.packets - mean) < 0.1 * mean
    tcp = table.rows["proto"] == 6
    ended = np.isin(table.state[tcp], [STATES.index("SF")])
    begun = table.rows["syn"][tcp] > 0
    assert 0.05 < 1 - (ended & begun).mean() < 0.15
    assert (table.missing == 0).all()
    assert path.read_bytes() == traffic(tmp_path / "again.pcap", profile, 2).read_bytes()


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is the oracle")
def test_traffic_has_right_checksums_and_no_gaps(tmp_path: Path) -> None:
    path = traffic(tmp_path / "t.pcap", "mix", 1)
    wrong = (
        "ip.checksum.status == 0 or tcp.checksum.status == 0 or udp.checksum.status == 0 or "
        "tcp.analysis.retransmission or tcp.analysis.lost_segment or tcp.analysis.out_of_order"
    )
    checks = [f"{layer}.check_checksum:TRUE" for layer in ("ip", "tcp", "udp")]
    command = ["tshark", "-n", "-r", str(path), *(x for c in checks for x in ("-o", c))]
    done = subprocess.run([*command, "-Y", wrong], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import measure

    made = tmp_path / "out"
    code = (
        f"import time; b = bytes(range(256)) * 200_000; open({str(made)!r}, 'w'); time.sleep(0.2)"
    )
    hungry = measure.Command("hungry", [sys.executable, "-c", code], [made])
    slow = measure.Command("slow", [sys.executable, "-c", "import time; time.sleep(0.5)"])
    results = measure.compare([hungry, slow], 1)
    assert results.ratio("slow", "hungry") > 1.2
    assert not made.exists()
    peak = measure.memory(hungry)
    assert 51e6 < peak.anonymous < 100e6
    assert peak.resident > peak.anonymous
    with pytest.raises(SystemExit, match="division by zero"):
        measure.run(measure.Command("fails", [sys.executable, "-c", "1 / 0"]))


def test_claims(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import measure

    fast = measure.Claim("a", 5.0, 4, 6)
    slow = measure.Claim("b", 2.0, 1.3, most=True)
    assert measure.report([fast]) == 0
    assert measure.report([fast, slow]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "a: 5.00 x (must be at least 4: holds; aim at least 6: not reached)"
    assert told[-1] == "b: 2.00 x (must be at most 1.3: FAILS)"
