"""A private sshd in a namespace: own keys, own configuration, one address, root by key only."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.netns_tools import end_processes, in_namespace, process_command, require_tools, run

__all__ = ["PORT", "Server", "make_keys", "release_privsep"]

PORT = 22
_PRIVSEP = Path("/run/sshd")  # compiled into Debian's sshd; it refuses to start without
_MADE_PRIVSEP = Path("/run/probebench/.made-run-sshd")


def make_keys(path: Path, comment: str) -> str:
    """Make an ed25519 key pair at `path` (kept when it is there); returns the public line."""
    if not path.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
    return path.with_name(path.name + ".pub").read_text().strip()


@dataclass(frozen=True, slots=True)
class Server:
    """One sshd: its namespace, its files in `directory`, the only address it listens on."""

    namespace: str
    directory: Path
    address: str
    authorized: str

    @property
    def pid_file(self) -> Path:
        """Written by sshd once it listens."""
        return self.directory / "sshd.pid"

    @property
    def config(self) -> Path:
        """Its configuration; the absolute path also tells our process from any other sshd."""
        return self.directory / "sshd_config"

    @property
    def log(self) -> Path:
        """Its log."""
        return self.directory / "sshd.log"

    @property
    def pid(self) -> int | None:
        """Process id of our daemon, or None when it does not run."""
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if str(self.config) in process_command(pid) else None

    def host_key(self) -> str:
        """`<type> <key>` of the host, as in known_hosts; the key is made when missing."""
        line = make_keys(self.directory / "host_ed25519", f"probebench {self.namespace}")
        return " ".join(line.split()[:2])

    def start(self) -> None:
        """Write the files, start the daemon, and wait until it listens. Raises LabError."""
        sshd = require_tools("the virtual lab", ["sshd", "ssh-keygen"])["sshd"]
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        _ensure_privsep()
        self.host_key()
        (self.directory / "authorized_keys").write_text(self.authorized + "\n")
        self.config.write_text(self._configuration())
        self.pid_file.unlink(missing_ok=True)
        # From OpenSSH 9.8 on, failed logins get their source shut out: test runs would suffer.
        penalties = ["-o", "PerSourcePenalties=no"]
        test = [sshd, "-t", "-f", str(self.config)]
        if run([*test, *penalties], check=False).returncode != 0:
            penalties = []
            run(test)
        run(
            in_namespace(
                self.namespace, [sshd, "-f", str(self.config), "-E", str(self.log), *penalties]
            )
        )
        self._wait()

    def stop(self) -> None:
        """End the daemon by its own pid; nothing happens when it does not run.

        Without its pid file it is found by the configuration that only it was started with.
        """
        ours = f" -f {self.config} "
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        end_processes(pid for pid in pids if ours in process_command(pid))
        self.pid_file.unlink(missing_ok=True)

    def answers(self) -> bool:
        """True when an SSH banner comes from the address (as seen from the root namespace)."""
        with suppress(OSError), socket.create_connection((self.address, PORT), 1.0) as link:
            return link.recv(4) == b"SSH-"
        return False

    def _wait(self, seconds: float = 5.0) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.pid is not None:  # sshd writes its pid file after it listens
                return
            time.sleep(0.02)
        last = self.log.read_text().strip().splitlines()[-1:] if self.log.exists() else []
        raise LabError(
            f"sshd in {self.namespace} does not listen on {self.address} within {seconds:g} s: "
            f"{last[0] if last else 'its log is empty'} ({self.log})"
        )

    def _configuration(self) -> str:
        return f"""\
# Written by `probebench lab up`; removed by `probebench lab down`.
ListenAddress {self.address}:{PORT}
HostKey {self.directory}/host_ed25519
PidFile {self.pid_file}
AuthorizedKeysFile {self.directory}/authorized_keys
StrictModes no
AllowUsers root
PermitRootLogin prohibit-password
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM {"yes" if _root_is_locked() else "no"}
UseDNS no
PrintMotd no
# bash under sshd reads ~/.bashrc, however slow that is, unless it is told to be a nested shell
SetEnv SHLVL=1
X11Forwarding no
MaxStartups 100
MaxSessions 100
ClientAliveInterval 5
ClientAliveCountMax 3
Subsystem sftp internal-sftp
"""


def _root_is_locked() -> bool:
    """True when root's password is locked: sshd then lets root in only through PAM."""
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("root:!") for line in lines)


def _ensure_privsep() -> None:
    """Make sshd's privilege separation directory where no system sshd has made it."""
    if not _PRIVSEP.exists():
        _MADE_PRIVSEP.parent.mkdir(mode=0o755, exist_ok=True)
        _MADE_PRIVSEP.touch()
        _PRIVSEP.mkdir(mode=0o755, exist_ok=True)


def release_privsep() -> None:
    """Remove that directory if we made it, unless some other sshd has come to need it."""
    if not _MADE_PRIVSEP.exists():
        return
    _MADE_PRIVSEP.unlink()
    for comm in Path("/proc").glob("[0-9]*/comm"):
        pid = int(comm.parent.name)
        with suppress(OSError):
            if comm.read_text().startswith("sshd") and process_command(pid):
                return
    with suppress(OSError):
        _PRIVSEP.rmdir()
