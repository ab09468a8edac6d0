"""The flags of `corpus flows` and `corpus clean` reach the policy, and nonsense is one line."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.corpus import app
from pcap_tools.errors import PcapError

RUN = CliRunner()


def segment(end: int, flags: int, seq: int, ack: int, wrong: int = 0) -> bytes:
    """A TCP segment in IPv4 in GRE in IPv4 in Ethernet; its inner checksum is 0, or `wrong`."""
    hosts = [b"\n\0\0\1", b"\n\0\0\2"]
    ports = [40000, 80]
    tcp = struct.pack(
        ">HHIIBBHHH", ports[end], ports[1 - end], seq, ack, 0x50, flags, 9000, wrong, 0
    )
    inner = ip(6, hosts[end], hosts[1 - end], tcp)
    return bytes(12) + b"\x08\0" + inner


def ip(proto: int, source: bytes, target: bytes, payload: bytes) -> bytes:
    head = struct.pack(">BBHHHBBH", 69, 0, 20 + len(payload), 0, 0, 64, proto, 0)
    return head + source + target + payload


def capture(path: Path, frames: list[bytes]) -> str:
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for i, frame in enumerate(frames):
        parts.append(struct.pack("<IIII", 1_700_000_000, i, len(frame), len(frame)) + frame)
    path.write_bytes(b"".join(parts))
    return str(path)


OPEN = [segment(0, 2, 1, 0), segment(1, 18, 8, 2), segment(0, 16, 2, 9)]


def test_clean_closes_and_tells(tmp_path: Path) -> None:
    raw, out = capture(tmp_path / "raw.pcap", OPEN), str(tmp_path / "out.pcap")
    done = RUN.invoke(app, ["clean", raw, "-o", out, "--close", "rst", "--checksums", "fix"])
    assert done.exit_code == 0, done.output
    assert "closed 1 flows by rst: appended 1 packets, 54 bytes" in done.output
    assert "put right the checksums of 3 packets" in done.output
    report = json.loads((tmp_path / "out.pcap.clean.json").read_text())
    assert report["closed"]["flows"][0]["closed"] == "rst"
    assert (report["policy"]["close"], report["policy"]["checksums"]) == ("rst", "fix")


def test_flows_inside_tunnels_and_wrong_checksums(tmp_path: Path) -> None:
    wrapped = [
        frame[:14] + ip(47, b"\1\1\1\1", b"\2\2\2\2", b"\0\0\x08\0" + frame[14:]) for frame in OPEN
    ]
    raw = capture(tmp_path / "raw.pcap", wrapped)
    for by, expected in (("outer", ("gre", "edge")), ("inner", ("tcp", "checksum"))):
        out = str(tmp_path / f"{by}.csv")
        command = ["flows", raw, "-o", out, "--flows-by", by, "--checksums", "drop"]
        done = RUN.invoke(app, [*command, "--keep", "unterminated"])
        assert done.exit_code == 0, done.output
        rows = list(csv.DictReader((tmp_path / f"{by}.csv").open()))
        assert [(row["proto"], row["reason"]) for row in rows] == [expected]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--flows-by", "both"], "--flows-by both: give outer or inner"),
        (["--checksums", "mend"], "--checksums mend: give keep, fix or drop"),
        (["--close", "syn"], "--close syn: connections are closed by fin or by rst"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, flags: list[str], message: str) -> None:
    raw = capture(tmp_path / "raw.pcap", OPEN)
    done = RUN.invoke(app, ["clean", raw, "-o", str(tmp_path / "out.pcap"), *flags])
    assert isinstance(done.exception, PcapError)
    assert str(done.exception) == message
