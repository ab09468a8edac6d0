"""The leash by pipes, on this machine: ends, floods, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.errors import CommandTimeout, ConnectionLost, LabError, MissingTool
from lab.host import Exit
from lab.inventory import HostSpec
from lab.local import LocalHost

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the leash needs Linux")

LEASH = Path(__file__).parents[2] / "lab" / "leash.py"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalHost]:
    with LocalHost("here", HostSpec(connection="local", workdir=str(tmp_path / "work"))) as found:
        yield found


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def gone_within(pid: int, limit: float) -> bool:
    until = time.monotonic() + limit
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not alive(pid)


def lines_until(process: Any, count: int, limit: float = 5.0) -> list[str]:
    found: list[str] = []
    until = time.monotonic() + limit
    while len(found) < count and time.monotonic() < until:
        found += process.lines()
        time.sleep(0.01)
    assert len(found) >= count
    return found


class Bare:
    """The leash without its orchestrator: we say and hear the lines ourselves."""

    def __init__(self, argv: list[str], **config: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LEASH), "x"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.say(json.dumps({"argv": argv, "max_seconds": 30, **config}).encode())

    def say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def hear(self, kind: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        while True:
            event: dict[str, Any] = json.loads(self.process.stdout.readline())
            if event["event"] == kind:
                return event

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def test_no_heartbeat_is_an_orphan() -> None:
    leash = Bare(["sleep", "60"], silence=0.4, orphan_grace=0.2)
    pid = leash.hear("started")["pid"]
    for _ in range(4):
        time.sleep(0.2)
        leash.say(b"")
        leash.hear("beat")
    assert alive(pid), "ended although there were heartbeats"
    assert leash.hear("exit")["reason"] == "orphaned"
    assert not alive(pid)
    leash.close()


def test_end_of_file_is_an_orphan_even_if_it_ignores_term() -> None:
    leash = Bare(["sh", "-c", "trap '' TERM; echo on; while :; do sleep 1; done"])
    pid = leash.hear("started")["pid"]
    leash.hear("line")
    began = time.monotonic()
    assert leash.process.stdin is not None
    leash.process.stdin.close()
    event = leash.hear("exit")
    assert time.monotonic() - began < 3
    assert (event["reason"], event["signal"]) == ("orphaned", signal.SIGKILL)
    assert not alive(pid)
    leash.close()


def test_a_flood_that_nobody_reads_does_not_block_the_command(tmp_path: Path) -> None:
    done, lines = tmp_path / "done", 400_000
    script = f"yes 0123456789abcdef | head -n {lines}; echo > {done}; echo last"
    leash = Bare(["sh", "-c", script], silence=30)
    until = time.monotonic() + 20
    while not done.exists():  # and nothing is read meanwhile
        assert time.monotonic() < until, "the command waits for its reader"
        time.sleep(0.02)
    assert leash.process.stdout is not None
    heard = dropped = 0
    for line in leash.process.stdout:
        event = json.loads(line)
        heard += event["event"] == "line"
        if event["event"] == "exit":
            dropped = event["dropped"]
            assert (event["returncode"], event["reason"]) == (0, "exited")
    assert dropped > 0
    assert heard + dropped == lines + 1
    leash.close()


def test_every_line_of_a_flood_is_counted_or_delivered(host: LocalHost) -> None:
    lines = 300_000
    process = host.start(["sh", "-c", f"seq {lines}; seq 3"], max_seconds=30, log="flood.log")
    total = 0
    while process.poll() is None:
        total += len(process.lines())
        time.sleep(0.001)
    total += len(process.lines())
    assert process.wait() == Exit(0, None, "exited")
    assert total + process.dropped <= lines + 3  # `lines()` itself keeps the last 20,000
    assert len((Path(host.workdir) / "flood.log").read_bytes().splitlines()) == lines + 3


def test_long_lines_are_cut_and_bytes_replaced(host: LocalHost) -> None:
    script = "head -c 300000 /dev/zero | tr '\\0' x; echo; printf 'a\\377b\\n'; printf end"
    process = host.start(["sh", "-c", script], max_seconds=10)
    process.wait(10)
    first, second, third = process.lines()
    assert len(first) == 8192 and set(first) == {"x"}
    assert (second, third) == ("a�b", "end")


def test_reasons(host: LocalHost) -> None:
    assert host.start(["sh", "-c", "exit 5"], max_seconds=9).wait(5) == Exit(5, None, "exited")
    suicide = host.start(["sh", "-c", "kill -SEGV $$"], max_seconds=9)
    assert suicide.wait(5) == Exit(None, signal.SIGSEGV, "killed")
    late = host.start(["sleep", "9"], max_seconds=0.2)
    assert late.wait(5) == Exit(None, signal.SIGTERM, "deadline")
    polite = host.start(["sh", "-c", "trap 'exit 4' TERM; echo; sleep 9 & wait"], max_seconds=9)
    lines_until(polite, 1)
    assert polite.stop() == Exit(4, None, "stopped")
    done = host.start(["true"], max_seconds=9)
    done.wait(5)
    assert done.stop() == Exit(0, None, "exited")


def test_the_whole_group_has_the_grace(host: LocalHost, tmp_path: Path) -> None:
    out = tmp_path / "out"
    inner = (
        f"trap 'sleep 0.4; echo done > {out}; exit' TERM; echo ready; while :; do sleep 0.05; done"
    )
    process = host.start(["sh", "-c", f'(sh -c "{inner}") | cat'], max_seconds=9)
    lines_until(process, 1)
    assert process.stop(grace=3).reason == "stopped"
    assert out.read_text() == "done\n"


def test_a_flood_that_ignores_term_is_ended_all_the_same(host: LocalHost) -> None:
    # The leader obeys TERM, another of its group does not and keeps printing.
    process = host.start(["sh", "-c", "(trap '' TERM; yes) & sleep 60"], max_seconds=60)
    lines_until(process, 1)
    began = time.monotonic()
    assert process.stop(grace=0.5).reason == "stopped"
    assert 0.4 < time.monotonic() - began < 3


def test_a_stopped_process_is_ended(host: LocalHost) -> None:
    process = host.start(["sleep", "60"], max_seconds=60)
    os.kill(process.pid, signal.SIGSTOP)
    assert process.stop(grace=1).reason == "stopped"
    assert not alive(process.pid)


def test_nothing_is_left_behind(host: LocalHost) -> None:
    script = "sleep 71 & echo $!; setsid sleep 72 & echo $!; sleep 0.2; exit 0"
    process = host.start(["sh", "-c", script], max_seconds=9)
    assert process.wait(5) == Exit(0, None, "exited")
    pids = [int(line) for line in process.lines()]
    assert len(pids) == 2
    assert [alive(pid) for pid in pids] == [False, False]


def test_killing_the_leash_kills_the_command(host: LocalHost) -> None:
    process = host.start(["sh", "-c", "sleep 73 & echo $!; wait"], max_seconds=60)
    inner = int(lines_until(process, 1)[0])
    parent = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    assert gone_within(process.pid, 2) and gone_within(inner, 2)
    with pytest.raises(ConnectionLost, match=r"^here: .* while sh ran"):
        process.wait(5)
    with pytest.raises(ConnectionLost):
        process.poll()


def test_wait_has_a_limit(host: LocalHost) -> None:
    process = host.start(["sleep", "60"], max_seconds=60)
    with pytest.raises(CommandTimeout, match=r"here: sleep \(pid \d+\) still runs"):
        process.wait(0.1)
    assert process.poll() is None


def test_what_cannot_be_started(host: LocalHost, tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match="cannot run /no/such"):
        host.start(["/no/such"], max_seconds=5)
    plain = tmp_path / "plain"
    plain.write_text("no program")
    with pytest.raises(MissingTool, match="Permission denied"):
        host.start([str(plain)], max_seconds=5)
    with pytest.raises(LabError, match="not started"):
        host.start(["true"], max_seconds=5, log="/proc/no/log")


def test_the_leash_costs_next_to_nothing(host: LocalHost) -> None:
    process = host.start(["sleep", "3"], max_seconds=10)
    parent = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])

    def ticks() -> int:
        fields = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    process_lines = [process.lines() for _ in range(1)]
    time.sleep(2.2)
    assert ticks() - before <= 2  # of 220: hundredths of a second of CPU
    assert process_lines == [[]]


def test_it_keeps_to_the_standard_library_and_old_syntax() -> None:
    import ast

    tree = ast.parse(LEASH.read_text(), feature_version=(3, 7))
    names = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names <= set(sys.stdlib_module_names)
