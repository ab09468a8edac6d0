"""What local, namespace and SSH hosts have in common: how a command is put together and judged.

Every command runs under coreutils `timeout`, so that it ends on its host even when the connection
was lost meanwhile; every long one runs on a leash (see `lab/leash.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
import re
import secrets
import shlex
import threading
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import BinaryIO, Self

from lab.errors import CommandFailed, CommandTimeout, LabError, MissingTool, TransferFailed
from lab.host import Completed
from lab.inventory import HostSpec
from lab.process import LeashedProcess, Stream, Task, stop_all

__all__ = ["BaseHost", "shown"]

KILL_AFTER = 2.0  # seconds from TERM to KILL when a command exceeds its time
TIMED_OUT = 124  # coreutils timeout(1)
_CANNOT_RUN = re.compile(
    r"^(?:timeout: failed to run command|env:|setpriv:) ?[‘'`\"]?(.*?)[’'\"]?:", re.MULTILINE
)


def shown(argv: Sequence[str], limit: int = 80) -> str:
    """A command for a message: quoted, on one line, not too long."""
    text = " ".join(shlex.join(argv).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


class BaseHost:
    """A host; subclasses say how bytes get there (`_execute`, `_open`, `_upload`, `_download`)."""

    def __init__(self, name: str, spec: HostSpec) -> None:
        self._name = name
        self._spec = spec
        self._lock = threading.RLock()
        self._ready = False
        self._leash: str | None = None
        self._processes: list[LeashedProcess] = []

    @property
    def name(self) -> str:
        """Name in the inventory; every error message carries it."""
        return self._name

    @property
    def spec(self) -> HostSpec:
        """The host's part of the inventory."""
        return self._spec

    @property
    def python(self) -> str:
        """Python interpreter to use on the host (for what we ship)."""
        return self._spec.python

    @property
    def workdir(self) -> str:
        """Absolute directory on the host that is ours; made on first use."""
        return self._spec.workdir

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for subclasses -------------------------------------------------------------------------

    def _execute(
        self,
        argv: Sequence[str],
        input: bytes | BinaryIO | None,
        limit: float | None,
        output: BinaryIO | None = None,
    ) -> Completed:
        """Run exactly `argv`; standard output goes to `output` when given.

        `limit` is when to give up, should the command's own time limit not have worked.
        Raises CommandTimeout, ConnectionLost, MissingTool.
        """
        raise NotImplementedError

    def _open(self, argv: Sequence[str]) -> Stream:
        """Start exactly `argv` and return its standard streams. Raises ConnectionLost."""
        raise NotImplementedError

    def _upload(self, local: Path, remote: str) -> None:
        """Copy to exactly `remote`, as the connected user. Raises OSError, ConnectionLost."""
        raise NotImplementedError

    def _download(self, remote: str, local: Path) -> None:
        """Copy to exactly `local`, as the connected user. Raises OSError, ConnectionLost."""
        raise NotImplementedError

    def _enter(self, argv: Sequence[str], sudo: bool) -> list[str]:
        """Put what is needed to get there as the right user before `argv`."""
        return ["sudo", "-n", "--", *argv] if sudo and self._spec.sudo else list(argv)

    # --- the seam -------------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        timeout: float | None = 30.0,
        check: bool = True,
        sudo: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a command to its end; `sudo` prefixes `sudo -n` where the user is not root.

        `returncode` is negative when a signal ended it. Raises CommandFailed (when `check`),
        CommandTimeout, ConnectionLost, MissingTool.
        """
        command = list(argv)
        if env:
            command = ["env", *(f"{key}={value}" for key, value in env.items()), *command]
        if timeout is not None:
            command = ["timeout", f"--kill-after={KILL_AFTER:g}", f"{timeout:g}", *command]
        limit = None if timeout is None else timeout + KILL_AFTER + 1.0
        done = self._execute(self._enter(command, sudo), input, limit)
        done = Completed(tuple(argv), done.returncode, done.stdout, done.stderr, done.seconds)
        self._judge(done, timeout, check)
        return done

    def _judge(self, done: Completed, timeout: float | None, check: bool) -> None:
        """Raise what a command's end means."""
        if done.returncode == 0:
            return
        what = shown(done.argv)
        expired = timeout is not None and done.seconds >= timeout
        if expired and done.returncode in (TIMED_OUT, 137, -9, -1):
            raise CommandTimeout(f"{self._name}: `{what}` did not end within {timeout:g} s")
        if done.returncode in (126, 127) and (match := _CANNOT_RUN.search(done.stderr)):
            program = match.group(1) or done.argv[0]
            reason = "permission denied" if done.returncode == 126 else "not found"
            raise MissingTool(
                f"{self._name}: cannot run {program}: {reason}; install it there or correct "
                "its path"
            )
        if re.match(r"sudo: .*(password|terminal|askpass|not allowed)", done.stderr):
            raise MissingTool(
                f"{self._name}: sudo refused `{what}`: {done.stderr.strip().splitlines()[0]}; "
                "allow it without a password (NOPASSWD in sudoers) or connect as root"
            )
        if check:
            how = (
                f"ended with status {done.returncode}"
                if done.returncode > 0
                else "was ended by a signal"
            )
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise CommandFailed(f"{self._name}: `{what}` {how}" + "".join(f": {t}" for t in last))

    def start(
        self,
        argv: Sequence[str],
        *,
        max_seconds: float,
        log: str | None = None,
        sudo: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> LeashedProcess:
        """Start a command on a leash (see `lab.host.Host.start`).

        It runs in `workdir`, with /dev/null as standard input. Raises MissingTool, LabError,
        ConnectionLost.
        """
        leash = self._ship_leash()
        task = Task(
            argv=tuple(argv),
            max_seconds=max_seconds,
            log=None if log is None else self._absolute(log),
            env=dict(env or {}),
            cwd=self.workdir,
        )
        label = posixpath.basename(argv[0])
        stream = self._open(self._enter([self.python, "-I", "-S", leash, label], sudo))
        process = LeashedProcess.launch(self._name, task, stream, self._forget)
        with self._lock:
            if not process.ended:
                self._processes.append(process)
        return process

    def close(self) -> None:
        """End every leashed process and the connection; idempotent."""
        with self._lock:
            processes, self._processes = self._processes, []
        stop_all(processes)

    def put(self, local: Path, remote: str) -> None:
        """Copy a file to the host; a relative `remote` is in `workdir`, whose parents are made.

        Written under a temporary name and renamed. Raises TransferFailed, ConnectionLost.
        """
        target = self._absolute(remote)
        if not posixpath.isabs(remote):
            self._make_workdir()
        partial = f"{target}.partial-{secrets.token_hex(4)}"
        try:
            try:
                self._upload_renamed(local, partial, target)
            except FileNotFoundError:
                if not local.exists():
                    raise
                self.run(["mkdir", "-p", "--", posixpath.dirname(target)])
                self._upload_renamed(local, partial, target)
        except (OSError, CommandFailed) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise TransferFailed(
                f"{self._name}: cannot copy {local} to {target}: {reason}"
            ) from None

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from the host; a relative `remote` is in `workdir`.

        Written under a temporary name and renamed. Raises TransferFailed, ConnectionLost.
        """
        source = self._absolute(remote)
        partial = local.with_name(f"{local.name}.partial-{secrets.token_hex(4)}")
        try:
            try:
                self._download(source, partial)
            except PermissionError:
                if not self._spec.sudo:
                    raise
                with partial.open("wb") as out:
                    self._pipe(["cat", "--", source], output=out)
            partial.replace(local)
        except (OSError, CommandFailed) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise TransferFailed(
                f"{self._name}: cannot copy {source} to {local}: {reason}"
            ) from None
        finally:
            partial.unlink(missing_ok=True)

    # --- helpers --------------------------------------------------------------------------------

    def _forget(self, process: LeashedProcess) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._processes.remove(process)

    def _upload_renamed(self, local: Path, partial: str, target: str) -> None:
        try:
            self._upload(local, partial)
        except PermissionError:
            if not self._spec.sudo:
                raise
            with local.open("rb") as source:
                self._pipe(["sh", "-c", 'cat > "$1"', "sh", partial], input=source)
        done = self.run(["mv", "-f", "--", partial, target], check=False)
        if done.returncode != 0 and self._spec.sudo:
            done = self.run(["mv", "-f", "--", partial, target], check=False, sudo=True)
        if done.returncode != 0:
            self.run(["rm", "-f", "--", partial], check=False, sudo=True)
            raise OSError(None, done.stderr.strip() or "cannot rename")

    def _pipe(
        self,
        argv: Sequence[str],
        *,
        input: BinaryIO | None = None,
        output: BinaryIO | None = None,
        sudo: bool = True,
    ) -> None:
        """Run a command between files of any size. Raises CommandFailed."""
        done = self._execute(self._enter(argv, sudo), input, None, output)
        self._judge(done, None, True)

    def _absolute(self, path: str) -> str:
        """A path on the host; a relative one is in `workdir`."""
        return posixpath.join(self.workdir, path)

    def _make_workdir(self) -> None:
        """Make `workdir` on first use, and refuse one that somebody else could write to."""
        with self._lock:
            if self._ready:
                return
            script = (
                'mkdir -p -- "$1" && test -d "$1" && test -O "$1" && '
                'test -z "$(find "$1" -prune -perm /022)" && cd -- "$1"'
            )
            done = self.run(["sh", "-c", script, "sh", self.workdir], check=False)
            if done.returncode != 0:
                raise LabError(
                    f"{self._name}: {self.workdir} cannot be our working directory: "
                    + (done.stderr.strip() or "another user owns it or can write to it")
                    + f"; set hosts.{self._name}.workdir to another one"
                )
            self._ready = True

    def _ship_leash(self) -> str:
        """Put the leash on the host once, named by its digest; returns its path there."""
        with self._lock:
            if self._leash is None:
                source = resources.files("lab").joinpath("leash.py")
                digest = hashlib.sha256(source.read_bytes()).hexdigest()
                path = f"{self.workdir}/leash-{digest[:16]}.py"
                self._make_workdir()
                if not self.run(["sha256sum", path], check=False).stdout.startswith(digest):
                    with resources.as_file(source) as local:
                        self.put(local, path)
                self._leash = path
            return self._leash
