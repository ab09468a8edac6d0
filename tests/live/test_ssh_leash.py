"""The leash over SSH: nothing runs on when the orchestrator, the link or the leash is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssh_server import SSHD, SshServer, start_sshd

from lab.connect import connect
from lab.errors import ConnectionLost, LabError, MissingTool
from lab.host import Exit, Host
from lab.ssh import SshHost

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(SSHD is None, reason="sshd is not installed (openssh-server)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="sshd for tests needs root"),
]

# An orchestrator of its own: connects, starts a pipeline, prints its pid, and stays.
ORCHESTRATOR = """
import sys, time
from pathlib import Path
from lab.connect import connect
from lab.inventory import HostSpec
spec = HostSpec.model_validate_json(Path(sys.argv[1]).read_text())
host = connect("gen", spec)
process = host.start(["sh", "-c", "sleep 97 | sleep 98"], max_seconds=90)
print(process.pid, flush=True)
time.sleep(80)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    found = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield found
    found.stop()


@pytest.fixture
def host(server: SshServer) -> Iterator[Host]:
    found = connect("gen", server.spec())
    yield found
    found.close()


def group(pid: int) -> list[int]:
    """Living processes of the process group `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def seconds_until(condition: Callable[[], bool], limit: float) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit, f"not within {limit} s"
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.fixture
def orchestrator(
    server: SshServer, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    spec = tmp_path / "spec.json"
    spec.write_text(server.spec().model_dump_json())
    process = subprocess.Popen(
        [sys.executable, "-c", ORCHESTRATOR, str(spec)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        pid = int(process.stdout.readline())
        seconds_until(lambda: len(group(pid)) == 3, 5)
        yield process, pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_kill_9_of_the_orchestrator_ends_the_pipeline(
    orchestrator: tuple[subprocess.Popen[bytes], int],
) -> None:
    process, pid = orchestrator
    process.kill()
    assert seconds_until(lambda: not group(pid), 5) < 5


def test_a_silent_orchestrator_counts_as_a_lost_network(
    orchestrator: tuple[subprocess.Popen[bytes], int],
) -> None:
    process, pid = orchestrator
    process.send_signal(signal.SIGSTOP)  # connections stay open, heartbeats stop
    took = seconds_until(lambda: not group(pid), 6)
    assert took > 2, "ended by something else than missing heartbeats"


def test_output_arrives_and_a_log_is_kept(host: Host, tmp_path: Path) -> None:
    process = host.start(
        ["sh", "-c", 'echo "$A"; echo err >&2; printf tail'],
        max_seconds=20,
        log="logs/out.log",
        env={"A": "b c"},
    )
    assert process.wait(10) == Exit(0, None, "exited")
    assert process.lines() == ["b c", "err", "tail"]
    assert process.lines() == []
    host.get("logs/out.log", tmp_path / "out.log")
    assert (tmp_path / "out.log").read_text() == "b c\nerr\ntail"


def test_deadline_stop_and_foreign_kill(host: Host) -> None:
    late = host.start(["sleep", "60"], max_seconds=0.5)
    stopped = host.start(["sleep", "60"], max_seconds=60)
    killed = host.start(["sleep", "60"], max_seconds=60)
    assert stopped.poll() is None
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait(5) == Exit(None, signal.SIGKILL, "killed")
    assert stopped.stop() == stopped.stop() == Exit(None, signal.SIGTERM, "stopped")
    assert late.wait(5) == Exit(None, signal.SIGTERM, "deadline")


def test_a_process_that_ignores_term_is_killed(host: Host) -> None:
    process = host.start(["sh", "-c", "trap '' TERM; echo ready; sleep 60"], max_seconds=60)
    seconds_until(lambda: process.lines() == ["ready"], 5)
    began = time.monotonic()
    assert process.stop(grace=0.5) == Exit(None, signal.SIGKILL, "stopped")
    assert 0.4 < time.monotonic() - began < 3
    assert group(process.pid) == []


def test_killing_the_leash_ends_the_command(host: Host) -> None:
    process = host.start(["sh", "-c", "sleep 60 | sleep 61"], max_seconds=60)
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    os.kill(int(stat[1]), signal.SIGKILL)
    seconds_until(lambda: not group(process.pid), 2)
    with pytest.raises(ConnectionLost, match="gen: "):
        process.wait(5)


def test_closing_the_host_ends_everything(server: SshServer) -> None:
    host = connect("gen", server.spec())
    pids = [host.start(["sleep", "60"], max_seconds=60).pid for _ in range(3)]
    host.close()
    assert [group(pid) for pid in pids] == [[], [], []]
    host.close()
    with pytest.raises(ConnectionLost, match="it was closed"):
        host.run(["true"])


def test_the_session_killed_on_the_host_side(server: SshServer) -> None:
    host = SshHost("gen", server.spec())
    process = host.start(["sleep", "60"], max_seconds=60)
    sshd = int(host.run(["sh", "-c", "ps -o ppid= -p $PPID"]).stdout)
    os.kill(sshd, signal.SIGKILL)
    seconds_until(lambda: not group(process.pid), 5)
    with pytest.raises(ConnectionLost):
        process.wait(5)
    host.close()


def test_what_cannot_start_is_said_so(host: Host, server: SshServer) -> None:
    with pytest.raises(MissingTool, match="gen: cannot run no-such-program"):
        host.start(["no-such-program"], max_seconds=5)
    with connect_with(server, python="no-such-python") as other, pytest.raises(LabError) as failed:
        other.start(["true"], max_seconds=5)
    assert "no-such-python" in str(failed.value) and "python" in str(failed.value)


def connect_with(server: SshServer, **changes: object) -> SshHost:
    return SshHost("gen", server.spec(**changes))
