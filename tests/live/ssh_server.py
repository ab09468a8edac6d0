"""A real sshd on loopback with keys of its own, for the tests of the SSH connection."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.inventory import HostSpec

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def keygen(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair; returns the private half's path."""
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


@dataclass
class SshServer:
    """A running sshd: where it listens, its files, and inventories that reach it."""

    directory: Path
    port: int
    user_key: Path
    known_hosts: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def spec(self, **changes: Any) -> HostSpec:
        """A host of an inventory that reaches this server; `changes` override."""
        values: dict[str, Any] = {
            "connection": "ssh",
            "address": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "identity": self.user_key,
            "known_hosts": self.known_hosts,
            "ssh_config": self.ssh_config(""),
            "workdir": str(self.directory / "work"),
        }
        values.update(changes)
        return HostSpec(**{k: v for k, v in values.items() if v is not None})

    def ssh_config(self, text: str, name: str = "ssh_config") -> Path:
        """Write an ssh_config of the user's; returns its path."""
        path = self.directory / name
        path.write_text(text)
        return path

    def stop(self) -> None:
        """End the daemon; sessions end with their clients."""
        self.process.terminate()
        self.process.wait(5)


def start_sshd(
    directory: Path, extra: str = "", address: str = "127.0.0.1", netns: str | None = None
) -> SshServer:
    """Start sshd in the foreground with host and user keys made on the spot."""
    assert SSHD is not None
    directory.mkdir(parents=True, exist_ok=True)
    host_key = keygen(directory / "host_ed25519")
    user_key = keygen(directory / "user_ed25519")
    port = free_port()
    authorized = directory / "authorized_keys"
    authorized.write_text(user_key.with_suffix(".pub").read_text())
    known_hosts = directory / "known_hosts"
    public = " ".join(host_key.with_suffix(".pub").read_text().split()[:2])
    known_hosts.write_text(f"[{address}]:{port} {public}\n")
    config = directory / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress {address}\nHostKey {host_key}\n"
        f"AuthorizedKeysFile {authorized}\nPidFile none\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        "LogLevel ERROR\nMaxStartups 100\n" + (extra or "Subsystem sftp internal-sftp\n")
    )
    # Privilege separation wants this directory; the distribution's service would make it.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    argv = [] if netns is None else ["ip", "netns", "exec", netns]
    argv += [SSHD, "-D", "-e", "-f", str(config)]
    with (directory / "sshd.log").open("wb") as log:
        process = subprocess.Popen(argv, stderr=log, stdin=subprocess.DEVNULL)
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        with socket.socket() as sock:
            if sock.connect_ex((address, port)) == 0:
                return SshServer(directory, port, user_key, known_hosts, process)
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    raise RuntimeError(f"sshd did not start: {(directory / 'sshd.log').read_text()}")
