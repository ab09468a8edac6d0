"""This machine as a host, by pipes; also the ground on which namespace hosts stand."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from lab.base import BaseHost, shown
from lab.errors import CommandTimeout, MissingTool
from lab.host import Completed
from lab.process import Stream

__all__ = ["LocalHost", "PipeStream"]


class PipeStream:
    """Standard input and output of a local process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._input = process.stdin
        self._output = process.stdout  # closed by the one thread that reads it

    def read(self, timeout: float) -> bytes:
        """Some bytes; b"" at the end. Raises TimeoutError, OSError."""
        if self._output.closed:
            return b""
        if not select.select([self._output], [], [], timeout)[0]:
            raise TimeoutError
        data = os.read(self._output.fileno(), 65536)
        if not data:
            self._output.close()
        return data

    def write(self, data: bytes) -> None:
        """Send all of `data`. Raises OSError when the other end is gone."""
        try:
            self._input.write(data)
            self._input.flush()
        except ValueError:
            raise BrokenPipeError("closed") from None

    def close(self) -> None:
        """Close the leash's standard input, which is how it learns that it is alone."""
        with contextlib.suppress(OSError, ValueError):
            self._input.close()
        # It ends within 5 s; waiting for it here would hold up whoever closes several hosts.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.1)


class LocalHost(BaseHost):
    """Commands run on this machine, in sessions of their own: Ctrl-C reaches only us."""

    def _popen(
        self,
        argv: Sequence[str],
        stdin: int | BinaryIO,
        stdout: int | BinaryIO,
        stderr: int,
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                argv, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
            )
        except OSError as error:
            raise MissingTool(
                f"{self._name}: cannot run {argv[0]}: {error.strerror}; install it there or "
                "correct its path"
            ) from None

    def _execute(
        self,
        argv: Sequence[str],
        input: bytes | BinaryIO | None,
        limit: float | None,
        output: BinaryIO | None = None,
    ) -> Completed:
        stdin: int | BinaryIO = subprocess.DEVNULL
        if isinstance(input, bytes):
            stdin = subprocess.PIPE
        elif input is not None:
            stdin = input
        began = time.monotonic()
        process = self._popen(argv, stdin, output or subprocess.PIPE, subprocess.PIPE)
        try:
            given = input if isinstance(input, bytes) else None
            out, err = process.communicate(given, timeout=limit)
        except subprocess.TimeoutExpired:
            raise CommandTimeout(
                f"{self._name}: `{shown(argv)}` did not end and could not be killed"
            ) from None
        finally:
            if process.poll() is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1.0)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        return Completed(
            argv=tuple(argv),
            returncode=process.returncode,
            stdout=(out or b"").decode("utf-8", "replace"),
            stderr=(err or b"").decode("utf-8", "replace"),
            seconds=time.monotonic() - began,
        )

    def _open(self, argv: Sequence[str]) -> Stream:
        pipe = subprocess.PIPE
        return PipeStream(self._popen(argv, pipe, pipe, subprocess.STDOUT))

    def _upload(self, local: Path, remote: str) -> None:
        shutil.copyfile(local, remote)
        shutil.copymode(local, remote)

    def _download(self, remote: str, local: Path) -> None:
        shutil.copyfile(remote, local)
