"""The first run on a machine: compile in two processes, and say so on a terminal.

Compiling is single-threaded work in Python and takes longer than anything it is needed for. The
kernels of a command's last steps are compiled by a second process into the same cache, while this
one compiles those of the first steps.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pcap_tools import kernels

__all__ = ["compile_beside"]

_BESIDE = "PCAP_TOOLS_BESIDE"
_LONGEST = 60.0  # s to wait for the other process before compiling here


@dataclass(frozen=True)
class _Part:
    """What the other process compiles: a kernel of it (module, name) that tells whether it is
    cached, and the modules; `meanwhile` is a part for who would wait."""

    kernel: tuple[str, str]
    modules: frozenset[str]
    meanwhile: str


_PLAN = frozenset({"parts", "permute", "pools", "space", "stand_ins"})
_PARTS = {
    "remap": _Part(("replaced", "carry_known"), _PLAN | {"replaced"}, "look"),
    "track": _Part(
        ("track", "track_rows"), frozenset({"connstate", "flowkey", "tcp", "track"}), "write"
    ),
    "clean": _Part(
        ("readdress", "carry_flows"),
        _PLAN | {"addresses", "analyse_plain", "edits", "plain", "readdress"},
        "patch",
    ),
}


def compile_beside(part: str) -> None:
    """Have `python -m pcap_tools warm --part PART` compile what is not in the cache yet.

    Whoever needs a kernel of the part meanwhile compiles others first, and then waits for the other
    process. Nothing is done where it is cached, and on a single processor.
    """
    if _BESIDE in os.environ:  # this is the other process
        return
    wanted = _PARTS[part]
    name, kernel = wanted.kernel
    first = getattr(import_module(f"pcap_tools.{name}"), kernel)
    if len(os.sched_getaffinity(0)) < 2 or kernels.is_cached(first):
        return
    home = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "pcap_tools", "warm", "--part", part],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, _BESIDE: part},
        )
    except OSError:
        return  # no room for another process: slower only
    atexit.register(_end, process)

    idle = threading.Lock()  # whoever comes first has something to do

    def wait(module: str) -> bool:
        """Whether there may be something new in the cache for a kernel of `module`."""
        if module.rpartition(".")[2] not in wanted.modules or process.returncode is not None:
            return False
        if process.poll() is None and idle.acquire(blocking=False):
            from pcap_tools.warm import warm

            with contextlib.suppress(OSError):  # no room for temporary files: nothing is lost
                warm(wanted.meanwhile)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LONGEST)
        return True

    kernels.on_missing.append(wait)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        process.wait()
