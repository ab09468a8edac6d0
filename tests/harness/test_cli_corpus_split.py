"""`corpus split | merge | sides` on the command line: outputs, texts, JSON, exit statuses."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import pytest

from harness.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["probebench", "corpus", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A UDP request with a TTL of 255, its answer, and an ARP request."""
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for time, (src, dst) in enumerate((((1, 2)), ((2, 1)))):
        ports = (4000, 53) if src == 1 else (53, 4000)
        udp = struct.pack(">HHHH", *ports, 12, 0) + b"data"
        ip = struct.pack(">BBHHHBBH4B4B", 69, 0, 32, 0, 0, 255, 17, 0, 10, 0, 0, src, 10, 0, 0, dst)
        frame = bytes(12) + b"\x08\0" + ip + udp
        parts += [struct.pack("<IIII", time, 0, len(frame), len(frame)), frame]
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    parts += [struct.pack("<IIII", 2, 0, len(arp), len(arp)), arp]
    path = tmp_path / "in.pcap"
    path.write_bytes(b"".join(parts))
    return path


def test_split_and_back(
    capture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "split", capture, "-d", tmp_path / "flows") == 0
    told = capsys.readouterr().out
    assert "2 files, 3 packets" in told
    assert "1 packets have no flow: in other.pcap" in told
    assert "TRex STF: ttl-rewritten 1" in told
    assert "TRex ASTF: every flow fits as it is" in told
    assert (tmp_path / "flows" / "0-udp-53.pcap").exists()
    for arguments in (
        ["merge", tmp_path / "flows", "-o", tmp_path / "again.pcap"],
        ["split", "--merge", tmp_path / "flows", "-o", tmp_path / "again.pcap"],
    ):
        assert run(monkeypatch, *arguments) == 0
        done = capsys.readouterr()
        assert "3 packets" in done.out and not done.err
        assert (tmp_path / "again.pcap").read_bytes() == capture.read_bytes()
        (tmp_path / "again.pcap").unlink()


def test_for_trex(
    capture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--for", "stf", "--min-reply-gap", "2"]
    assert run(monkeypatch, "split", capture, "-d", tmp_path / "flows", *options) == 0
    told = capsys.readouterr().out
    assert "1 packets have no flow: left out" in told
    assert "adapted 2 packets, ttl-rewritten" in told
    assert "adapted 1 packets, reply-gap" in told
    assert run(monkeypatch, "merge", tmp_path / "flows", "-o", tmp_path / "again.pcap") == 0
    assert "not the capture that was split" in capsys.readouterr().err
    assert run(monkeypatch, "split", capture, "-d", tmp_path / "f2", *options, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "f2" / "split.json").read_text())
    assert report["adapted"]["ttl-rewritten"] == 2


def test_sides(
    capture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outputs = ["--client", tmp_path / "c.pcap", "--cache", tmp_path / "k"]
    assert run(monkeypatch, "sides", capture, *outputs, "--outside", "drop") == 0
    told = capsys.readouterr().out
    assert f"client side: 1 packets, 46 bytes, {tmp_path / 'c.pcap'}" in told
    assert "server side: 1 packets, 46 bytes, in no file of its own" in told
    assert "1 packets have no flow: dropped" in told
    assert f"tcpreplay --cachefile={tmp_path / 'k'}" in told
    assert run(monkeypatch, "sides", capture, *outputs, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["client"]["packets"], report["server"]["packets"]) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split", "IN"], "give the directory for the files"),
        (["split", "IN", "-d", "DIR", "-o", "OUT"], "give the directory for the files"),
        (["split", "IN", "-d", "DIR", "--for", "ixia"], "the targets are any, stf, astf"),
        (["split", "IN", "-d", "DIR", "--min-reply-gap", "1"], "is for stf only"),
        (["split", "IN", "-d", "."], "is not empty"),
        (["split", "IN", "IN", "-d", "DIR"], "is given twice"),
        (["split", "--merge", "IN"], "--merge takes one directory and -o OUT"),
        (["merge", "IN", "-o", "OUT"], "cannot be read: Not a directory"),
        (["sides", "IN"], "no output was asked for"),
        (["sides", "IN", "--client", "IN"], "is also an input"),
        (["sides", "IN", "--client", "OUT", "--outside", "left"], "client, server or drop"),
    ],
)
def test_errors_are_one_line(
    capture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    places = {"IN": capture, "DIR": tmp_path / "new", "OUT": tmp_path / "out", ".": tmp_path}
    assert run(monkeypatch, *[places.get(part, part) for part in arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("probebench") and told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.pcap"]
