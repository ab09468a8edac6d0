"""What an eve output gained since a mark, through every way that logs rotate; its flow records."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import SensorFailed
from harness.sensors import _eve_agent
from harness.sensors.eve_flows import read_flows, summarise


def alert(number: int) -> str:
    return json.dumps({"event_type": "alert", "n": number}, separators=(",", ":")) + "\n"


def gained(eve: str, marks: list[dict[str, Any]], into: Path) -> list[int]:
    _eve_agent.since(eve, marks, str(into), ["alert"])
    with gzip.open(into, "rt") as lines:
        return [json.loads(line)["n"] for line in lines]


def nothing(eve: Path) -> None:
    pass


def rename(eve: Path) -> None:
    eve.rename(eve.with_name("eve.json.1"))
    eve.touch()


def rename_and_compress(eve: Path) -> None:
    packed = eve.with_name("eve.json-20260101.gz")
    packed.write_bytes(gzip.compress(eve.read_bytes()))
    os.utime(packed, (eve.stat().st_mtime,) * 2)
    eve.unlink()


def copy_and_truncate(eve: Path) -> None:
    shutil.copy2(eve, eve.with_name("eve.json.1"))
    os.truncate(eve, 0)


@pytest.mark.parametrize("rotate", [nothing, rename, rename_and_compress, copy_and_truncate])
@pytest.mark.parametrize("old", [0, 1, 500])
def test_each_record_once_and_in_order(
    tmp_path: Path, rotate: Callable[[Path], None], old: int
) -> None:
    eve = tmp_path / "eve.json"
    (tmp_path / "eve.json.3").write_text(alert(-2))  # long ago
    (tmp_path / "eve.json.4.gz").write_bytes(gzip.compress(alert(-3).encode()))
    (tmp_path / "fast.log").write_text(alert(-4))
    (tmp_path / "eve-other.json").write_text(alert(-5))
    eve.write_text("".join(alert(-1) for _ in range(old)))
    marks = json.loads(json.dumps(_eve_agent.mark(str(eve))))["marks"]
    with eve.open("a") as out:
        out.write(alert(1) + '{"event_type":"stats"}\n' + alert(2))
    rotate(eve)
    with eve.open("a") as out:
        out.write(alert(3) + alert(4)[:-3])  # still being written
    os.utime(eve, (2e9, 2e9))
    assert gained(str(eve), marks, tmp_path / "out.gz") == [1, 2, 3]


def test_names_with_a_date(tmp_path: Path) -> None:
    """rotate-interval: every file has a name of its own."""
    for number, name in enumerate(("eve-2026-01-01-10:00.json", "eve-2026-01-01-10:01.json")):
        (tmp_path / name).write_text(alert(-1))
        os.utime(tmp_path / name, (1e9 + number,) * 2)
    eve = str(tmp_path / "eve-%Y-%m-%d-%H:%M.json")
    marks = _eve_agent.mark(eve)["marks"]
    assert len(marks) == 2
    with (tmp_path / "eve-2026-01-01-10:01.json").open("a") as out:
        out.write(alert(1))
    os.utime(tmp_path / "eve-2026-01-01-10:01.json", (1e9 + 2,) * 2)
    (tmp_path / "eve-2026-01-01-10:02.json").write_text(alert(2))
    assert gained(eve, marks, tmp_path / "out.gz") == [1, 2]


def test_threaded_output(tmp_path: Path) -> None:
    (tmp_path / "eve.1.json").write_text(alert(1))
    (tmp_path / "eve.2.json").write_text(alert(2))
    assert sorted(gained(str(tmp_path / "eve.json"), [], tmp_path / "o.gz")) == [1, 2]


@pytest.mark.parametrize("kind", ["unix_dgram", "unix_stream"])
def test_the_intake_as_a_program(tmp_path: Path, kind: str) -> None:
    """Against a socket of our own: lines in, the same lines in the file, then told to stop."""
    path, into = tmp_path / "a.sock", tmp_path / "alerts.json"
    argument = {"path": str(path), "kind": kind, "into": str(into), "interval": 0.05}
    process = subprocess.Popen(
        [sys.executable, _eve_agent.__file__, "intake", json.dumps(argument)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["lines"] == 0
        family = socket.SOCK_DGRAM if kind == "unix_dgram" else socket.SOCK_STREAM
        lines = [alert(n) for n in range(2000)]
        with socket.socket(socket.AF_UNIX, family) as sender:
            sender.connect(str(path))
            if kind == "unix_dgram":
                for line in lines:
                    sender.send(line.encode())
            else:
                text = "".join(lines).encode() + b'{"cut'
                sender.sendall(text)
        process.terminate()
        last = json.loads(process.stdout.read().splitlines()[-1])
        assert process.wait(10) == 0 and last["ended"]
        assert into.read_text() == "".join(lines)
        assert last["lines"] == 2000 and last["torn"] == (kind == "unix_stream")
        assert not path.exists()
    finally:
        process.kill()
        process.wait()
        process.stdout and process.stdout.close()


def test_a_record_larger_than_a_datagram_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    source = _eve_agent.Intake(str(path), "unix_dgram", str(tmp_path / "out"))
    with source.server, source.out, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sender.connect(str(path))
        try:
            sender.send(b"x" * (_eve_agent.DATAGRAM + 1))
        except OSError:
            pytest.skip("this kernel's send buffers are smaller than the largest record")
        threading.Timer(0.0, sender.send, (alert(1).encode(),)).start()
        while source.lines == 0:
            source.serve(1.0)
        assert (source.torn, source.lines) == (1, 1)


# -- flow records -------------------------------------------------------------------------------


def flow(reason: str, state: str = "closed", tcp: dict[str, Any] | None = None, **more: Any) -> str:
    counts = {"pkts_toserver": 5, "pkts_toclient": 4, "bytes_toserver": 500, "bytes_toclient": 400}
    record = {
        "event_type": "flow", "proto": "TCP",
        "flow": {**counts, "state": state, "reason": reason, "alerted": False, **more},
        "tcp": tcp or {},
    }  # fmt: skip
    return json.dumps(record, separators=(",", ":")) + "\n"


def test_flow_records_are_summed(tmp_path: Path) -> None:
    lines = [
        flow("timeout"), flow("timeout", wrong_thread=True, alerted=True), alert(1),
        flow("forced", "established", emergency=True, tcp={"tc_gap": True, "ts_gap": True}),
        flow("shutdown", "bypassed", bypass="local"), flow("shutdown", "new"), '{"torn',
    ]  # fmt: skip
    path = tmp_path / "flows.json"
    path.write_text("".join(lines))
    records = read_flows(path)
    assert records.by_reason == {"forced": 1, "shutdown": 2, "timeout": 2} and records.flows == 5
    assert records.by_state == {"bypassed": 1, "closed": 2, "established": 1, "new": 1}
    assert (records.wrong_thread, records.with_gaps, records.alerted) == (1, 1, 1)
    assert (records.evicted, records.bypassed, records.emergency) == (1, 1, 1)
    assert (records.packets, records.bytes) == (45, 4500)
    packed = tmp_path / "flows.gz"
    packed.write_bytes(gzip.compress("".join(lines).encode()))
    assert read_flows(packed) == records


def test_damage_in_the_middle_is_said() -> None:
    with pytest.raises(SensorFailed, match=r"flows\.json: line 1 is not a JSON flow record"):
        summarise([b'{"event_type":"flow","flow":\n', flow("timeout").encode()], "flows.json")
