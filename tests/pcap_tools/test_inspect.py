"""`corpus inspect | flows | clean` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from scapy.layers.l2 import ARP, Ether
from synth import MS, T0, Talk, merged, tshark, write_pcap
from typer.testing import CliRunner, Result

from harness.cli import corpus_clean, corpus_flows
from pcap_tools.errors import PcapError
from pcap_tools.inspect import inspect

app = typer.Typer()
corpus_clean.register(app)
corpus_flows.register(app)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    talks = [
        Talk(sport=1, start=T0).whole(),
        Talk(sport=2, start=T0 + 40 * MS).open(),
        Talk(client="2001:db8::1", server="2001:db8::2", sport=3, start=T0 + 80 * MS).whole(),
        Talk(sport=4, dport=53, start=T0 + 60 * MS).udp(0).udp(1),
    ]
    frames = [*merged(*talks), (T0 + 900 * MS, bytes(Ether() / ARP(pdst="10.0.0.1")))]
    return write_pcap(tmp_path / "raw.pcap", frames)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)


def test_the_facts_are_tsharks(raw: Path) -> None:
    found = inspect(raw)
    rows = tshark(raw, "frame.len", "ip.version", "ipv6.version")
    assert (found.packets, found.bytes) == (len(rows), sum(int(row[0]) for row in rows))
    assert found.span_s == pytest.approx(0.9)
    assert found.pps == pytest.approx(len(rows) / 0.9)
    assert found.versions == {"IPv4": 3, "IPv6": 1}
    assert found.states == {"S1": 1, "SF": 2}
    assert {name: tally.flows for name, tally in found.protocols.items()} == {"tcp": 3, "udp": 1}
    assert found.forecast.kept.flows == 3
    assert found.forecast.dropped["unterminated"].flows == 1
    assert found.forecast.dropped["non-ip"].packets == 1


def test_inspect_prints_a_summary_or_json(raw: Path) -> None:
    shown = run("inspect", raw)
    assert shown.exit_code == 0
    for text in ("pcap, Ethernet", "tcp", "unterminated", "established, not terminated"):
        assert text in shown.output
    found = json.loads(run("inspect", raw, "--json").stdout)
    assert found["forecast"]["all"]["packets"] == found["packets"]


def test_flows_then_clean(raw: Path, tmp_path: Path) -> None:
    assert "4 flows, 3 to keep" in run("flows", raw, "-o", tmp_path / "f.csv").output
    assert len((tmp_path / "f.csv").read_text().splitlines()) == 5
    done = run("clean", raw, "-o", tmp_path / "out.pcap", "--json")
    report = json.loads(done.stdout)
    assert report["kept"]["flows"] == 3
    assert (tmp_path / "out.pcap.clean.json").exists()
    assert "3 flows" in run("clean", raw, "-o", tmp_path / "out.pcap").output
    kept = run("clean", raw, "-o", tmp_path / "o2.pcap", "--keep", "unterminated", "--json")
    assert json.loads(kept.stdout)["kept"]["flows"] == 4


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("inspect", "RAW", "--keep", "foo"), "unknown rule 'foo'"),
        (("flows", "RAW", "-o", "f.txt"), "ends in .csv, .jsonl, .parquet"),
        (("clean", "RAW", "-o", "RAW"), "also an input"),
        (("inspect", "none.pcap"), "No such file"),
    ],
)
def test_wrong_use_is_one_of_our_errors(raw: Path, arguments: tuple[str, ...], text: str) -> None:
    done = run(*(str(raw) if a == "RAW" else a for a in arguments))
    assert isinstance(done.exception, PcapError)
    assert text in str(done.exception)
    assert done.exception.exit_status == 2
