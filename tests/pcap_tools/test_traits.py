"""The survey against editcap and tshark."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from synth import MS, T0, Frame, Talk, merged, tshark, write_pcap

from pcap_tools.capture import open_capture
from pcap_tools.flows import FlowTable, flow_table
from pcap_tools.table import flow_columns
from pcap_tools.traits import Survey, survey


def read(path: Path) -> tuple[FlowTable, Survey]:
    with open_capture(path) as capture:
        table = flow_table(capture)
        return table, survey(capture, table)


def some(seed: int) -> list[Frame]:
    source = random.Random(seed)
    talks = [
        Talk(client=f"10.0.{i}.1", sport=4000 + i, start=T0 + i * MS, vlan=i % 3).whole()
        for i in range(12)
    ]
    frames = merged(*talks)
    for _ in range(40):  # repeats at every distance
        at = source.randrange(len(frames))
        later = min(len(frames), at + source.randrange(1, 8))
        frames.insert(later, (frames[at][0], frames[at][1]))
    return frames


@pytest.mark.skipif(shutil.which("editcap") is None, reason="needs editcap")
@pytest.mark.parametrize("seed", range(3))
def test_duplicates_are_editcaps(tmp_path: Path, seed: int) -> None:
    path = write_pcap(tmp_path / "d.pcap", some(seed))
    said = subprocess.run(
        ["editcap", "-d", path, tmp_path / "out.pcap"], capture_output=True, text=True, check=True
    ).stderr
    skipped = re.search(r"(\d+) packets skipped with duplicate window of 5", said)
    assert skipped
    assert read(path)[1].duplicates == int(skipped.group(1)) > 10


def test_steps_back_are_counted_across_batches(tmp_path: Path) -> None:
    frames = some(1)
    path = write_pcap(tmp_path / "t.pcap", frames)
    times = np.array([time // 1000 * 1000 for time, _ in frames])
    steps = np.diff(times)
    found = read(path)[1]
    assert found.backwards == int((steps < 0).sum()) > 0
    assert found.worst_ns == -int(steps.min())


def test_sizes_are_of_what_the_mtu_limits(tmp_path: Path) -> None:
    """Behind Ethernet and VLAN tags; also of frames without IP."""
    talk = Talk(vlan=5).whole()
    frames = [*talk.frames, (T0 + 10**9, bytes(12) + b"\x88\xcc" + bytes(100))]
    found = read(write_pcap(tmp_path / "s.pcap", frames))[1]
    sizes = sorted([len(frame) - 18 for _, frame in talk.frames] + [100])
    assert np.repeat(np.arange(len(found.sizes)), found.sizes).tolist() == sizes
    assert found.largest == sizes[-1]
    assert found.larger_than(sizes[-1]) == 0
    assert found.larger_than(sizes[-1] - 1) == sizes.count(sizes[-1])


def test_tls_ssh_and_quic_mark_their_flows(tmp_path: Path) -> None:
    tls = Talk(sport=1, dport=8443).open().tcp(0, "PA", b"\x16\x03\x01\x02\x00").close()
    ssh = Talk(sport=2, dport=2222).open().tcp(1, "PA", b"SSH-2.0-x\r\n").close()
    quic = Talk(sport=3, dport=443).udp(0, b"\xc3\x00\x00\x00\x01" + bytes(20))
    ike = Talk(sport=500, dport=500).udp(0, bytes(28))
    http = Talk(sport=4, dport=443).open().tcp(0, "PA", b"GET / HTTP/1.1\r\n\r\n").close()
    dns = Talk(sport=5, dport=53).udp(0, b"\xc3\x00\x00\x00\x01" + bytes(20))
    talks = (tls, ssh, quic, ike, http, dns)
    table, found = read(write_pcap(tmp_path / "e.pcap", merged(*talks)))
    ports = flow_columns(table)["client_port"]
    marked = {port for port, one in zip(ports, found.encrypted, strict=True) if one}
    assert marked == {1, 2, 3, 500}


def test_tls_flows_are_tsharks() -> None:
    path = Path(__file__).resolve().parents[3] / "shared" / "corpora" / "raw-mix.pcap"
    for parent in Path(__file__).resolve().parents:
        if (parent / "shared" / "corpora").is_dir():
            path = parent / "shared" / "corpora" / "raw-mix.pcap"
    if not path.exists() or shutil.which("tshark") is None:
        pytest.skip("needs the shared corpora and tshark")
    table, found = read(path)
    rows = tshark(path, "tcp.srcport", "tcp.dstport", "tls.record.version")
    expected = {frozenset(row[:2]) for row in rows if row[2]}
    columns = flow_columns(table)
    marked = {
        frozenset((str(c), str(s)))
        for c, s, one in zip(
            columns["client_port"], columns["server_port"], found.encrypted, strict=True
        )
        if one
    }
    assert expected and expected <= marked
