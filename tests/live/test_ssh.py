"""The SSH connection against a real sshd: what works, and the one line for what does not."""

from __future__ import annotations

import base64
import getpass
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssh_server import SSHD, SshServer, free_port, keygen, start_sshd

from lab.connect import connect
from lab.errors import (
    AuthError,
    CommandFailed,
    CommandTimeout,
    ConnectError,
    ConnectionLost,
    HostKeyError,
    MissingTool,
    TransferFailed,
)
from lab.hostkeys import fingerprint
from lab.ssh import SshHost

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(SSHD is None, reason="sshd is not installed (openssh-server)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="sshd for tests needs root"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    found = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield found
    found.stop()


@pytest.fixture(scope="module")
def host(server: SshServer) -> Iterator[SshHost]:
    found = connect("gen", server.spec())
    assert isinstance(found, SshHost)
    yield found
    found.close()


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith("gen: ")
    return text


# --- commands -----------------------------------------------------------------------------------


def test_run_returns_both_streams_and_the_status(host: SshHost) -> None:
    done = host.run(["sh", "-c", "echo out; echo err >&2; exit 7"], check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)
    assert done.argv[0] == "sh"


def test_arguments_arrive_as_they_are(host: SshHost) -> None:
    awkward = ["a b", "$HOME", "`id`", "it's", '"', "*", "", "é\n\t;|&<>", "-n"]
    done = host.run(["printf", "%s\\0", *awkward])
    assert done.stdout.split("\0")[:-1] == awkward


def test_environment_and_input(host: SshHost) -> None:
    done = host.run(["sh", "-c", 'echo "$A"; cat'], env={"A": "x y'z"}, input=b"in\xff")
    assert done.stdout == "x y'z\nin�"


def test_a_flood_on_both_streams_does_not_deadlock(host: SshHost) -> None:
    script = "head -c 8388608 /dev/zero >&2; head -c 8388608 /dev/zero; echo >&2"
    done = host.run(["sh", "-c", script], timeout=30)
    assert (len(done.stdout), len(done.stderr)) == (8388608, 8388609)


def test_eight_megabytes_of_input_come_back(host: SshHost) -> None:
    data = os.urandom(1 << 20).hex().encode() * 4
    assert host.run(["cat"], input=data).stdout.encode() == data


def test_a_command_that_fails_or_is_missing_is_one_line(host: SshHost) -> None:
    with pytest.raises(CommandFailed) as failed:
        host.run(["sh", "-c", "echo first >&2; echo last >&2; exit 3"])
    assert "status 3: last" in one_line(failed)
    with pytest.raises(MissingTool) as missing:
        host.run(["no-such-program", "-x"])
    assert "no-such-program: not found" in one_line(missing)
    with pytest.raises(CommandFailed, match="ended by a signal"):
        host.run(["sh", "-c", "kill -9 $$"])


def test_a_timeout_ends_the_command_on_the_host(host: SshHost) -> None:
    began = time.monotonic()
    with pytest.raises(CommandTimeout) as expired:
        host.run(["sh", "-c", "echo $$ > timed.pid; exec sleep 30"], timeout=0.4)
    assert "within 0.4 s" in one_line(expired)
    assert time.monotonic() - began < 2
    pid = host.run(["cat", "timed.pid"]).stdout.strip()
    assert not Path(f"/proc/{pid}").exists()


def test_commands_from_several_threads(host: SshHost) -> None:
    found: dict[int, str] = {}

    def work(number: int) -> None:
        found[number] = host.run(["echo", str(number)]).stdout

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: f"{n}\n" for n in range(6)}


# --- files --------------------------------------------------------------------------------------


def test_files_go_and_come_back(host: SshHost, tmp_path: Path) -> None:
    source, back = tmp_path / "in.bin", tmp_path / "out.bin"
    source.write_bytes(os.urandom(3_000_000))
    source.chmod(0o750)
    host.put(source, "deep/er/file.bin")
    host.get("deep/er/file.bin", back)
    assert back.read_bytes() == source.read_bytes()
    there = Path(host.workdir, "deep/er")
    assert [p.name for p in there.iterdir()] == ["file.bin"]
    assert (there / "file.bin").stat().st_mode & 0o777 == 0o750
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_a_missing_file_is_one_line_and_leaves_nothing(host: SshHost, tmp_path: Path) -> None:
    with pytest.raises(TransferFailed) as failed:
        host.get("no/such", tmp_path / "x")
    assert "no/such" in one_line(failed)
    with pytest.raises(TransferFailed):
        host.put(tmp_path / "nothing", "x")
    assert list(tmp_path.iterdir()) == []


def test_files_without_an_sftp_subsystem(tmp_path: Path) -> None:
    server = start_sshd(tmp_path / "sshd", extra="X11Forwarding no\n")
    try:
        with SshHost("gen", server.spec()) as host:
            source, back = tmp_path / "in.bin", tmp_path / "out.bin"
            source.write_bytes(os.urandom(300_000))
            host.put(source, "a/b.bin")
            host.get("a/b.bin", back)
            assert back.read_bytes() == source.read_bytes()
            with pytest.raises(TransferFailed):
                host.get("a/none", back)
    finally:
        server.stop()


# --- refusals -----------------------------------------------------------------------------------


def test_unknown_host_key(server: SshServer, tmp_path: Path) -> None:
    empty = tmp_path / "known_hosts"
    empty.write_text("")
    with pytest.raises(HostKeyError) as refused:
        connect("gen", server.spec(known_hosts=empty))
    text = one_line(refused)
    assert "unknown" in text and str(empty) in text and "SHA256:" in text
    assert empty.read_text() == ""


def test_strict_host_key_checking_is_never_weakened(server: SshServer, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host *\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n")
    with pytest.raises(HostKeyError):
        connect("gen", server.spec(known_hosts=None, ssh_config=config))


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_changed_host_key(server: SshServer, tmp_path: Path, kind: str) -> None:
    other = keygen(tmp_path / "other", kind).with_suffix(".pub").read_text().split()[:2]
    file = tmp_path / "known_hosts"
    file.write_text(f"# first line\n[127.0.0.1]:{server.port} {' '.join(other)}\n")
    with pytest.raises(HostKeyError) as refused:
        connect("gen", server.spec(known_hosts=file))
    text = one_line(refused)
    assert "CHANGED" in text and f"{file} line 2" in text
    assert fingerprint(base64.b64decode(other[1])) in text


def test_wrong_user_key(server: SshServer, tmp_path: Path) -> None:
    other = keygen(tmp_path / "other")
    with pytest.raises(AuthError) as refused:
        connect("gen", server.spec(identity=other))
    text = one_line(refused)
    assert str(other) in text and "authorized_keys" in text
    assert "PRIVATE" not in text


def test_locked_key_without_an_agent(
    server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    locked = keygen(tmp_path / "locked", passphrase="correct horse")
    with pytest.raises(AuthError, match="locked: ssh-add") as refused:
        connect("gen", server.spec(identity=locked))
    assert "correct horse" not in one_line(refused)


def test_no_such_user(server: SshServer) -> None:
    with pytest.raises(AuthError):
        connect("gen", server.spec(user="nobody-here"))


def test_refused_port_and_unresolvable_name(server: SshServer) -> None:
    with pytest.raises(ConnectError, match="refused") as refused:
        connect("gen", server.spec(port=free_port()))
    one_line(refused)
    with pytest.raises(ConnectError, match="cannot resolve") as unknown:
        connect("gen", server.spec(address="no-such-host.invalid"))
    one_line(unknown)


@pytest.mark.parametrize("greeting", [b"", b"220 mail ESMTP\r\n", None])
def test_a_port_that_does_not_speak_ssh(
    server: SshServer,
    greeting: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("lab.sshlink.TIMEOUT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        accepted: list[socket.socket] = []

        def serve() -> None:
            sock, _ = listener.accept()
            accepted.append(sock)
            if greeting is None:
                sock.close()
            else:
                sock.sendall(greeting)

        thread = threading.Thread(target=serve)
        thread.start()
        began = time.monotonic()
        with pytest.raises(ConnectError) as failed:
            connect("gen", server.spec(port=port))
        assert time.monotonic() - began < 5
        one_line(failed)
        thread.join()
        assert len(accepted) == 1  # one try
        accepted[0].close()
    assert "Traceback" not in capfd.readouterr().err
    assert logging.getLogger("paramiko").handlers


# --- ssh_config ---------------------------------------------------------------------------------


def test_an_alias_of_the_ssh_config(server: SshServer) -> None:
    include = server.ssh_config(f"IdentityFile {server.user_key}\n", "included")
    config = server.ssh_config(
        "Host prob*\n"
        f"  HostName 127.0.0.1\n  Port {server.port}\n  User {getpass.getuser()}\n"
        f"  UserKnownHostsFile {server.known_hosts}\n  Include {include}\n",
        "alias_config",
    )
    spec = server.spec(
        address="probe1", port=None, user=None, identity=None, known_hosts=None, ssh_config=config
    )
    with SshHost("gen", spec) as host:
        assert host.run(["echo", "hi"]).stdout == "hi\n"


def test_host_key_alias(server: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text("the-probe " + server.known_hosts.read_text().split(" ", 1)[1])
    config = server.ssh_config("Host *\n HostKeyAlias the-probe\n", "hka_config")
    with SshHost("gen", server.spec(ssh_config=config, known_hosts=known)) as host:
        assert host.run(["true"]).returncode == 0


def test_proxy_jump_over_two_hops(server: SshServer) -> None:
    jump = f"{getpass.getuser()}@127.0.0.1:{server.port}"
    config = server.ssh_config(
        f"Host inner\n HostName 127.0.0.1\n Port {server.port}\n"
        f"Host target\n HostName 127.0.0.1\n ProxyJump {jump},inner\n"
        f"Host *\n IdentityFile {server.user_key}\n IdentitiesOnly yes\n",
        "jump_config",
    )
    with SshHost("gen", server.spec(address="target", ssh_config=config)) as host:
        assert host.run(["sh", "-c", "echo $SSH_CONNECTION"]).stdout.startswith("127.0.0.1 ")
        assert host._link is not None and len(host._link.below) == 2


def test_the_jump_hosts_key_is_verified_too(tmp_path: Path, server: SshServer) -> None:
    bastion = start_sshd(tmp_path / "bastion")  # its key is not in the target's known_hosts
    try:
        config = server.ssh_config(
            f"Host target\n HostName 127.0.0.1\n ProxyJump 127.0.0.1:{bastion.port}\n", "bad_jump"
        )
        with pytest.raises(HostKeyError, match=str(bastion.port)):
            connect("gen", server.spec(address="target", ssh_config=config))
    finally:
        bastion.stop()


def test_a_jump_that_leads_nowhere_is_one_line(server: SshServer) -> None:
    config = server.ssh_config(
        f"Host target\n HostName 127.0.0.1\n Port {free_port()}\n ProxyJump jump\n"
        f"Host jump\n HostName 127.0.0.1\n Port {server.port}\n"
        f"Host *\n IdentityFile {server.user_key}\n",
        "dead_jump",
    )
    with pytest.raises(ConnectError, match="jump host") as failed:
        connect("gen", server.spec(address="target", port=None, ssh_config=config))
    one_line(failed)


def test_proxy_command(server: SshServer, tmp_path: Path) -> None:
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import os, select, socket, sys\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "while True:\n"
        "    for f in select.select([0, s], [], [])[0]:\n"
        "        data = os.read(0, 65536) if f == 0 else s.recv(65536)\n"
        "        if not data: sys.exit()\n"
        "        s.sendall(data) if f == 0 else os.write(1, data)\n"
    )
    config = server.ssh_config(f"Host *\n ProxyCommand python3 {relay} %h %p\n", "pc_config")
    host = SshHost("gen", server.spec(ssh_config=config))
    with host:
        assert host.run(["echo", "hi"]).stdout == "hi\n"
        assert host._link is not None and host._link.proxy is not None
        host._link.proxy.kill()
        time.sleep(0.2)
        with pytest.raises(ConnectionLost):
            host.run(["echo", "hi"])


def test_a_connection_lost_in_the_middle_names_the_host(tmp_path: Path) -> None:
    server = start_sshd(tmp_path / "sshd")
    try:
        host = SshHost("gen", server.spec())
        host.connect()
        session = host.run(["sh", "-c", "ps -o ppid= -p $PPID"]).stdout.strip()
        sshd = int(session)
        assert sshd != server.process.pid
        errors: list[BaseException] = []

        def work() -> None:
            try:
                host.run(["sleep", "20"])
            except ConnectionLost as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.3)
        os.kill(sshd, 9)
        thread.join(5)
        assert not thread.is_alive()
        assert [str(e).startswith("gen: ") for e in errors] == [True]
        with pytest.raises(ConnectionLost):
            host.run(["true"])
        host.close()
    finally:
        server.stop()
