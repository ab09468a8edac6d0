"""The local host by pipes, the in-memory one, and what both promise."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.connect import connect, connect_lab
from lab.errors import (
    CommandFailed,
    CommandTimeout,
    ConnectionLost,
    LabError,
    MissingTool,
    TransferFailed,
)
from lab.fake import Call, FakeHost, FakeProcess, Reply
from lab.host import Exit, Host
from lab.inventory import GeneratorSpec, HostSpec, InterfaceSpec, Inventory, SensorSpec
from lab.local import LocalHost


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalHost]:
    with LocalHost("here", HostSpec(connection="local", workdir=str(tmp_path / "work"))) as found:
        yield found


def gone(pid: int) -> None:
    """Wait until a process is dead (whoever has to reap it may take a moment)."""
    until = time.monotonic() + 2
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until, f"{pid} still runs"
        time.sleep(0.02)


def test_run(host: LocalHost) -> None:
    done = host.run(
        ["sh", "-c", 'cat; echo "$A" >&2; exit 3'], input=b"x\xff", env={"A": "b c"}, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("x�", "b c\n", 3)
    assert done.argv[:2] == ("sh", "-c") and 0 < done.seconds < 5


def test_what_goes_wrong_is_one_line(host: LocalHost) -> None:
    with pytest.raises(CommandFailed, match=r"^here: `false` ended with status 1$"):
        host.run(["false"])
    with pytest.raises(MissingTool, match=r"^here: cannot run no-such: not found"):
        host.run(["no-such"], check=False)
    with pytest.raises(MissingTool, match="no-such"):
        host.run(["no-such"], env={"A": "b"}, timeout=None)
    with pytest.raises(CommandFailed, match="signal"):
        host.run(["sh", "-c", "kill -9 $$"])


def test_a_command_s_own_124_is_no_timeout(host: LocalHost) -> None:
    assert host.run(["sh", "-c", "exit 124"], check=False).returncode == 124


def test_a_timeout_ends_the_whole_command(host: LocalHost, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"trap '' TERM; sh -c 'echo $$ > {pid}; exec sleep 30'; sleep 30"
    began = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"within 0\.3 s"):
        host.run(["sh", "-c", script], timeout=0.3)
    assert time.monotonic() - began < 4
    gone(int(pid.read_text()))


def test_ctrl_c_does_not_reach_commands(host: LocalHost) -> None:
    done = host.run(["sh", "-c", "ps -o sid= -p $$"])
    assert int(done.stdout) != os.getsid(0)
    process = host.start(["sleep", "9"], max_seconds=9)
    assert os.getsid(process.pid) == process.pid
    process.stop()


def test_an_interrupted_run_ends_its_command(host: LocalHost, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    timer = threading.Timer(0.4, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        host.run(["sh", "-c", f"echo $$ > {pid}; exec sleep 30"])
    timer.join()
    gone(int(pid.read_text()))


def test_files(host: LocalHost, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.write_bytes(b"data")
    host.put(source, "a/b")
    host.get("a/b", tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == b"data"
    assert [p.name for p in Path(host.workdir, "a").iterdir()] == ["b"]
    with pytest.raises(TransferFailed, match=r"^here: cannot copy .*/none to "):
        host.get("none", tmp_path / "u")
    assert not (tmp_path / "u").exists()


def test_a_workdir_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    host = LocalHost("here", HostSpec(connection="local", workdir=str(shared)))
    with pytest.raises(LabError, match=r"hosts\.here\.workdir"):
        host.start(["true"], max_seconds=5)
    assert list(shared.iterdir()) == []


def test_the_leash_is_shipped_once(host: LocalHost) -> None:
    host.start(["true"], max_seconds=5).wait(5)
    (leash,) = Path(host.workdir).glob("leash-*.py")
    before = leash.stat().st_mtime_ns
    with LocalHost("again", host.spec) as other:
        other.start(["true"], max_seconds=5).wait(5)
    assert leash.stat().st_mtime_ns == before


def test_a_damaged_leash_is_replaced(host: LocalHost) -> None:
    host.start(["true"], max_seconds=5).wait(5)
    (leash,) = Path(host.workdir).glob("leash-*.py")
    leash.write_text("garbage(")
    with LocalHost("again", host.spec) as other:
        assert other.start(["true"], max_seconds=5).wait(5).returncode == 0


def test_connect_lab_closes_what_it_opened(tmp_path: Path) -> None:
    eth = {"eth1": InterfaceSpec(test=True)}
    local = HostSpec(connection="local", workdir=str(tmp_path / "w"), interfaces=eth)
    inventory = Inventory(
        name="x",
        hosts={"a": local, "b": local},
        generator=GeneratorSpec(host="a", interface="eth1"),
        sensor=SensorSpec(host="b", interface="eth1"),
    )
    with connect_lab(inventory) as hosts:
        assert set(hosts) == {"a", "b"}
        process = hosts["a"].start(["sleep", "60"], max_seconds=60)
    assert process.wait(1).reason == "stopped"


def test_connecting_locally_gives_a_host(tmp_path: Path) -> None:
    host: Host = connect("here", HostSpec(connection="local", workdir=str(tmp_path)))
    assert (host.name, host.python, host.workdir) == ("here", "python3", str(tmp_path))


# --- the fake ------------------------------------------------------------------------------------


def test_a_fake_host_answers_as_it_is_told(tmp_path: Path) -> None:
    def handler(call: Call) -> Reply | FakeProcess:
        if call.leashed:
            return FakeProcess(["one", "two"], seconds=0.05)
        if call.argv == ("lost",):
            raise ConnectionLost("fake: the connection was lost")
        return Reply(stdout="hi\n", returncode=int(call.argv[-1]))

    fake = FakeHost(handler)
    host: Host = fake
    assert host.run(["x", "0"], sudo=True).stdout == "hi\n"
    assert fake.calls[0].sudo
    with pytest.raises(CommandFailed, match="status 4"):
        host.run(["x", "4"])
    with pytest.raises(ConnectionLost):
        host.run(["lost"])
    process = host.start(["y"], max_seconds=3, log="l")
    assert process.poll() is None and process.lines() == ["one", "two"]
    assert process.wait(2) == Exit(0, None, "exited")
    (tmp_path / "s").write_bytes(b"1")
    host.put(tmp_path / "s", "s")
    host.get("/var/tmp/probebench/s", tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == b"1"
    with pytest.raises(TransferFailed):
        host.get("none", tmp_path / "t")


def test_a_fake_process_can_be_stopped_finished_and_lost() -> None:
    process = FakeProcess()
    with pytest.raises(CommandTimeout):
        process.wait(0.01)
    assert process.stop() == process.stop() == Exit(None, 15, "stopped")
    lost = FakeProcess()
    lost.fail(ConnectionLost("fake: lost"))
    with pytest.raises(ConnectionLost):
        lost.poll()
