"""`corpus remap`, `expand` and `invert` as they are typed."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "pcap_tools"))
from rewrite_frames import frames, read_capture, write_capture
from test_hosts import FRAMES, START, five_tuple

from harness import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    timed = [(START + n * 1000, frame) for n, frame in enumerate(FRAMES)]
    write_capture(tmp_path / "in.pcap", timed)
    return tmp_path


@pytest.fixture
def probebench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the program in this process: status, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["probebench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def typed(run: Run, words: str) -> tuple[int, str, str]:
    return run(*words.split())


def test_remap_and_back(desk: Path, probebench: Run) -> None:
    command = "corpus remap in.pcap -o out.pcap --key k --iteration 6 --macs map --map map.csv"
    code, _, err = probebench(*command.split())
    assert (code, err) == (0, "")
    with (desk / "map.csv").open() as stream:
        assert {row["class"] for row in csv.DictReader(stream)} >= {"home4", "external4", "home6"}
    back = "corpus remap out.pcap -o back.pcap --invert out.pcap.plan.json --json"
    code, out, err = probebench(*back.split())
    assert (code, err) == (0, "")
    assert json.loads(out)["packets"] == len(FRAMES)
    assert (desk / "back.pcap").read_bytes() == (desk / "in.pcap").read_bytes()


def test_an_existing_plan_makes_the_same_capture(desk: Path, probebench: Run) -> None:
    pools = 'home_pool = ["10.64.0.0/16"]\nexternal_pool = ["198.18.0.0/15"]\n'
    (desk / "pools.toml").write_text(pools)
    typed(probebench, "corpus remap in.pcap -o a.pcap --key k --pools pools.toml")
    typed(probebench, "corpus remap in.pcap -o b.pcap --plan a.pcap.plan.json")
    assert (desk / "a.pcap").read_bytes() == (desk / "b.pcap").read_bytes()
    options = "--home-pool 10.64.0.0/16 --external-pool 198.18.0.0/15"
    probebench(*f"corpus remap in.pcap -o c.pcap --key k {options}".split())
    assert (desk / "a.pcap").read_bytes() == (desk / "c.pcap").read_bytes()


def test_prefix_preserving_and_back(desk: Path, probebench: Run) -> None:
    code, _, _ = typed(probebench, "corpus remap in.pcap -o out.pcap --key k --prefix-preserving")
    assert code == 0
    assert json.loads((desk / "out.pcap.plan.json").read_text())["mapping"] == "crypto-pan"
    typed(probebench, "corpus remap out.pcap -o back.pcap --invert out.pcap.plan.json")
    assert (desk / "back.pcap").read_bytes() == (desk / "in.pcap").read_bytes()


def test_a_flow_of_a_bounded_population_inverts(desk: Path, probebench: Run) -> None:
    expand = "corpus expand in.pcap -o out.pcap --key k --iterations 20 --hosts home=7,external=12"
    code, _, err = probebench(*expand.split())
    assert code == 0
    assert "a client's port comes back after" in err
    assert "2 flows have no port that moves" in err
    reuse = json.loads((desk / "out.pcap.plan.json").read_text())["run"]["reuse"]
    assert reuse["iterations"] == reuse["by_protocol"]["tcp"] > 10_000
    _, frame = read_capture(desk / "out.pcap")[13 * len(FRAMES) + 7]
    seen, origin = five_tuple(frame), five_tuple(FRAMES[7])
    client, server = f"{seen.source}:{seen.source_port}", f"{seen.target}:{seen.target_port}"
    mine = f"{origin.source}:{origin.source_port}"
    code, out, _ = probebench(
        "corpus", "invert", "out.pcap.plan.json", client, f"tcp:{client}-{server}"
    )
    assert code == 0
    assert out.splitlines() == [
        f"{client} 13 {mine}",
        f"tcp:{client}-{server} 13 {mine}-{origin.target}:{origin.target_port}",
    ]
    code, _, err = probebench("corpus", "invert", "out.pcap.plan.json", seen.source)
    assert code == 2
    assert "five-tuple" in err


def test_payloads_that_quote_addresses_are_warned_of(desk: Path, probebench: Run) -> None:
    tcp = frames()["tcp"]
    body = b"PORT 10,1,2,3,19,136\r\n"
    quoting = bytearray(tcp[:54] + body)
    quoting[36:38] = (21).to_bytes(2, "big")
    quoting[16:18] = (40 + len(body)).to_bytes(2, "big")
    write_capture(desk / "ftp.pcap", [(START, tcp), (START + 1, bytes(quoting))])
    code, out, err = typed(probebench, "corpus remap ftp.pcap -o out.pcap --key k --json")
    assert code == 0
    assert json.loads(out)["mentions"] == {"ftp": {"packets": 1, "first": 2}}
    assert err.count("\n") == 1
    assert "1 FTP packets quote a mapped address in their payload, packet 2 first" in err
