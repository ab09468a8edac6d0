"""A cut cable between orchestrator and host, a user without root, and hosts that are namespaces.

The sshd runs in a network namespace of its own behind a veth pair; cutting it is `ip link set
down`, so that neither side hears of it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ssh_server import SSHD, SshServer, start_sshd

from lab.errors import ConnectionLost, GuardError, MissingTool
from lab.facts import interface_statistics
from lab.guards import check_transmit
from lab.host import Exit
from lab.inventory import HostSpec, InterfaceSpec
from lab.netns import NetnsHost
from lab.ssh import SshHost

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(SSHD is None, reason="sshd is not installed (openssh-server)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed"),
]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Behind:
    """An sshd in a namespace, and the two names needed to cut it off."""

    server: SshServer
    netns: str
    near: str
    address: str


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Behind]:
    tag = secrets.token_hex(3)
    netns, near, far = f"pbt-{tag}", f"pbt{tag}a", f"pbt{tag}b"
    third, fourth = secrets.randbelow(250), 4 * secrets.randbelow(63)
    ours, theirs = f"198.18.{third}.{fourth + 1}", f"198.18.{third}.{fourth + 2}"
    ip("netns", "add", netns)
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", netns)
        ip("addr", "add", f"{ours}/30", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", netns, "addr", "add", f"{theirs}/30", "dev", far)
        ip("-n", netns, "link", "set", far, "up")
        ip("-n", netns, "link", "set", "lo", "up")
        server = start_sshd(tmp_path / "sshd", address=theirs, netns=netns)
        try:
            yield Behind(server, netns, near, theirs)
        finally:
            server.stop()
    finally:
        for pid in subprocess.run(
            ["ip", "netns", "pids", netns], capture_output=True, text=True
        ).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        ip("netns", "del", netns)  # its end of the pair, and with it ours, goes too


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_cut_cable_ends_the_generator_and_is_noticed(behind: Behind) -> None:
    host = SshHost("gen", behind.server.spec(address=behind.address))
    process = host.start(["sh", "-c", "sleep 71 | sleep 72"], max_seconds=60)
    waiting: list[BaseException] = []

    def work() -> None:
        try:
            host.run(["sleep", "50"], timeout=None)
        except ConnectionLost as error:
            waiting.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.5)
    began = time.monotonic()
    ip("link", "set", behind.near, "down")
    while alive(process.pid):
        assert time.monotonic() - began < 6
        time.sleep(0.02)
    with pytest.raises(ConnectionLost, match=r"^gen: "):
        process.wait(12)
    thread.join(12)
    assert [str(e).startswith("gen: ") for e in waiting] == [True]
    began = time.monotonic()
    with pytest.raises(ConnectionLost):
        host.run(["true"])
    host.close()
    assert time.monotonic() - began < 3


def test_the_interface_of_the_ssh_session_is_refused(behind: Behind) -> None:
    names = subprocess.run(
        ["ip", "-n", behind.netns, "-br", "link"], capture_output=True, text=True
    ).stdout.split()
    far = next(n for n in names if n.startswith("pbt")).partition("@")[0]
    ip("-n", behind.netns, "link", "add", "tx0", "type", "veth", "peer", "name", "rx0")
    test = {n: InterfaceSpec(test=True) for n in (far, "tx0")}
    spec = behind.server.spec(address=behind.address, interfaces=test)
    with SshHost("gen", spec) as host:
        with pytest.raises(GuardError, match="SSH"):
            check_transmit(host, spec, far)
        check_transmit(host, spec, "tx0")
        # And from within, without an SSH session of ours.
        inside = NetnsHost("gen", HostSpec(connection="netns", netns=behind.netns))
        with pytest.raises(GuardError, match="SSH connection"):
            check_transmit(inside, spec, far)


def test_a_namespace_is_a_host(behind: Behind, tmp_path: Path) -> None:
    spec = HostSpec(connection="netns", netns=behind.netns, workdir=str(tmp_path / "w"))
    with NetnsHost("gen", spec) as host:
        addresses = host.run(["ip", "-br", "addr"]).stdout
        assert behind.address in addresses and behind.near not in addresses
        assert interface_statistics(host, "lo")["rx_packets"] == 0
        process = host.start(["sh", "-c", "ls /sys/class/net; sleep 60"], max_seconds=60)
        inode = Path(f"/proc/{process.pid}/ns/net").stat().st_ino
        assert inode != Path("/proc/self/ns/net").stat().st_ino
        assert process.stop() == Exit(None, 15, "stopped")
    gone = NetnsHost("gen", HostSpec(connection="netns", netns="no-such-ns"))
    with pytest.raises(Exception, match=r"gen: .*no-such-ns"):
        gone.run(["true"])


@pytest.fixture
def evaluator() -> Iterator[str]:
    """A user without root; with passwordless sudo by a file of its own."""
    if shutil.which("sudo") is None or shutil.which("useradd", path="/usr/sbin:/sbin") is None:
        pytest.skip("sudo is not installed")
    name = f"pbt{secrets.token_hex(3)}"
    subprocess.run(["/usr/sbin/useradd", "-m", "-s", "/bin/sh", name], check=True)
    # sshd refuses a locked account ("!"); "*" is no password, and not locked.
    subprocess.run(["/usr/sbin/usermod", "-p", "*", name], check=True)
    rule = Path("/etc/sudoers.d") / name
    try:
        rule.write_text(f"{name} ALL=(root) NOPASSWD: ALL\n")
        rule.chmod(0o440)
        yield name
    finally:
        rule.unlink(missing_ok=True)
        # userdel refuses while a process of the user's is left, e.g. a session about to end.
        for _ in range(100):
            left = subprocess.run(["ps", "-o", "pid=", "-u", name], capture_output=True, text=True)
            if not left.stdout.split():
                break
            time.sleep(0.05)
        subprocess.run(["/usr/sbin/userdel", "-r", name], check=True, capture_output=True)


def test_a_user_with_passwordless_sudo(
    evaluator: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("sudo")
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o055)
    home = Path(pwd.getpwnam(evaluator).pw_dir)
    server = start_sshd(directory / "sshd")
    try:
        workdir = str(home / "work")
        spec = server.spec(user=evaluator, sudo=True, workdir=workdir)
        with SshHost("gen", spec) as host:
            assert host.run(["id", "-un"]).stdout == f"{evaluator}\n"
            done = host.run(["sh", "-c", 'id -un; echo "$A"'], sudo=True, env={"A": "b c"})
            assert done.stdout == "root\nb c\n"
            process = host.start(
                ["sh", "-c", "umask 77; id -un; id -un > secret; sleep 60"],
                max_seconds=60,
                sudo=True,
                log="x.log",
            )
            while not (home / "work" / "secret").exists():
                time.sleep(0.02)
            assert Path(f"/proc/{process.pid}").stat().st_uid == 0
            host.get("secret", directory / "secret")  # root's, mode 0600
            assert (directory / "secret").read_text() == "root\n"
            assert process.stop() == Exit(None, 15, "stopped")
            assert process.lines() == ["root"]
            orphan = host.start(["sleep", "60"], max_seconds=60, sudo=True)
            assert host._link is not None
            host._link.transport.close()
            until = time.monotonic() + 5
            while alive(orphan.pid):
                assert time.monotonic() < until
                time.sleep(0.02)
        rule = Path("/etc/sudoers.d") / evaluator
        rule.unlink()
        with SshHost("gen", spec) as host:
            for ask in (
                lambda: host.run(["true"], sudo=True),
                lambda: host.start(["true"], max_seconds=5, sudo=True),
            ):
                with pytest.raises(MissingTool, match="NOPASSWD") as refused:
                    ask()
                assert "\n" not in str(refused.value)
    finally:
        server.stop()
