"""A host over SSH (paramiko): commands on channels, files over SFTP, each leash on a channel.

What paramiko leaves to its callers is done here: both output streams are read at once (reading
one after the other deadlocks when the other fills its window: paramiko issues 448, 563, 1778), and
every wait has an end (`recv_exit_status` has none: issue 1815).
"""

from __future__ import annotations

import contextlib
import posixpath
import shlex
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import paramiko

from lab.base import BaseHost, shown
from lab.errors import CommandFailed, CommandTimeout, ConnectionLost
from lab.host import Completed
from lab.inventory import HostSpec
from lab.process import Stream
from lab.sshlink import Link, connect_link

__all__ = ["SshHost"]

OPEN_TIMEOUT = 10.0
CHUNK = 32768
_BROKEN = (OSError, EOFError, paramiko.SSHException)


class ChannelStream:
    """Standard input and output of a remote process."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def read(self, timeout: float) -> bytes:
        """Some bytes; b"" at the end. Raises TimeoutError."""
        self._channel.settimeout(timeout)
        return self._channel.recv(CHUNK)

    def write(self, data: bytes) -> None:
        """Send all of `data`. Raises OSError when the channel is closed."""
        try:
            self._channel.sendall(data)
        except paramiko.SSHException as error:
            raise BrokenPipeError(str(error)) from None

    def close(self) -> None:
        """Close the channel: the leash reads end of file."""
        with contextlib.suppress(*_BROKEN):
            self._channel.close()


class SshHost(BaseHost):
    """One connection, made on first use; host keys are verified and no password is asked for."""

    def __init__(self, name: str, spec: HostSpec) -> None:
        super().__init__(name, spec)
        self._link: Link | None = None
        self._sftp: paramiko.SFTPClient | None = None
        self._no_sftp = False
        self._closed = False
        self._transfer = threading.Lock()

    def connect(self) -> None:
        """Connect now, rather than on first use. Raises ConnectError, HostKeyError, AuthError."""
        self._transport()

    def close(self) -> None:
        """End every leashed process and the connection; idempotent."""
        super().close()
        with self._lock:
            link, self._link, self._sftp = self._link, None, None
            self._closed = True
        if link is not None:
            link.close()

    def _transport(self) -> paramiko.Transport:
        with self._lock:
            if self._closed:
                raise self._lost("it was closed")
            if self._link is None:
                self._link = connect_link(self._name, self._spec)
            elif not self._link.alive:
                # No silent reconnection: what ran on the old connection is gone with it.
                raise self._lost("it broke earlier")
            return self._link.transport

    def _lost(self, why: object) -> ConnectionLost:
        where = self._link.target.shown if self._link else self._spec.address
        return ConnectionLost(f"{self._name}: the connection to {where} was lost ({why})")

    def _channel(self, argv: Sequence[str], combine: bool) -> paramiko.Channel:
        """A session channel on which exactly `argv` was started."""
        transport = self._transport()
        try:
            channel = transport.open_session(timeout=OPEN_TIMEOUT)
            channel.settimeout(OPEN_TIMEOUT)
            if combine:
                channel.set_combine_stderr(True)
            channel.exec_command(shlex.join(argv))
        except paramiko.ChannelException as error:
            raise CommandFailed(
                f"{self._name}: sshd refused another session ({error.text}); raise MaxSessions "
                "in its sshd_config"
            ) from None
        except _BROKEN as error:
            raise self._lost(error or "channel closed") from None
        return channel

    def _open(self, argv: Sequence[str]) -> Stream:
        return ChannelStream(self._channel(argv, combine=True))

    def _execute(
        self,
        argv: Sequence[str],
        input: bytes | BinaryIO | None,
        limit: float | None,
        output: BinaryIO | None = None,
    ) -> Completed:
        began = time.monotonic()
        channel = self._channel(argv, combine=False)
        try:
            channel.settimeout(None)
            out, err = bytearray(), bytearray()
            jobs = [
                threading.Thread(target=_pump, args=(channel.recv, out, output), daemon=True),
                threading.Thread(target=_pump, args=(channel.recv_stderr, err, None), daemon=True),
                threading.Thread(target=_feed, args=(channel, input), daemon=True),
            ]
            for job in jobs:
                job.start()
            until = None if limit is None else began + limit
            for job in jobs[:2]:
                job.join(None if until is None else max(until - time.monotonic(), 0.0))
            if any(job.is_alive() for job in jobs[:2]):
                raise CommandTimeout(f"{self._name}: `{shown(argv)}` did not end in its time")
            # The status comes before the channel is closed; end of file may come before both.
            channel.status_event.wait(OPEN_TIMEOUT)
            status = channel.exit_status
            if status == -1 and not self._transport().is_active():
                raise self._lost("in the middle of a command")
        finally:
            channel.close()
        return Completed(
            argv=tuple(argv),
            returncode=status,
            stdout=out.decode("utf-8", "replace"),
            stderr=err.decode("utf-8", "replace"),
            seconds=time.monotonic() - began,
        )

    # --- files ----------------------------------------------------------------------------------

    def _files(self) -> paramiko.SFTPClient | None:
        """The SFTP client, or None when the host has no such subsystem."""
        transport = self._transport()
        if self._sftp is None and not self._no_sftp:
            try:
                self._sftp = transport.open_sftp_client()
            except _BROKEN:
                if not transport.is_active():
                    raise self._lost("opening SFTP") from None
                self._no_sftp = True
        return self._sftp

    def _upload(self, local: Path, remote: str) -> None:
        with self._transfer:
            mode = local.stat().st_mode & 0o777
            sftp = self._files()
            if sftp is None:
                self._upload_by_cat(local, remote, mode)
                return
            try:
                sftp.put(str(local), remote)
                sftp.chmod(remote, mode)
            except (EOFError, paramiko.SSHException) as error:
                self._sftp = None
                raise self._lost(error or "during a transfer") from None

    def _download(self, remote: str, local: Path) -> None:
        with self._transfer:
            sftp = self._files()
            if sftp is None:
                with local.open("wb") as out:
                    self._pipe(["cat", "--", remote], output=out, sudo=False)
                return
            try:
                sftp.get(remote, str(local))
            except (EOFError, paramiko.SSHException) as error:
                self._sftp = None
                raise self._lost(error or "during a transfer") from None

    def _upload_by_cat(self, local: Path, remote: str, mode: int) -> None:
        parent = posixpath.dirname(remote)
        if self.run(["test", "-d", parent], check=False).returncode != 0:
            raise FileNotFoundError(2, "No such directory", parent)
        with local.open("rb") as source:
            self._pipe(["sh", "-c", 'cat > "$1"', "sh", remote], input=source, sudo=False)
        self.run(["chmod", f"{mode:o}", "--", remote])


def _pump(receive: object, into: bytearray, output: BinaryIO | None) -> None:
    """Read a stream of a channel to its end."""
    assert callable(receive)
    with contextlib.suppress(*_BROKEN):
        while data := receive(CHUNK):
            if output is None:
                into += data
            else:
                output.write(data)


def _feed(channel: paramiko.Channel, input: bytes | BinaryIO | None) -> None:
    """Write a command's standard input, then end of file."""
    with contextlib.suppress(*_BROKEN):
        if isinstance(input, bytes):
            channel.sendall(input)
        elif input is not None:
            while data := input.read(CHUNK):
                channel.sendall(data)
    with contextlib.suppress(*_BROKEN):
        channel.shutdown_write()
