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
from importlib import import_module
from pathlib import Path

from pcap_tools import kernels

__all__ = ["compile_beside"]

_BESIDE = "PCAP_TOOLS_BESIDE"
_LONGEST = 60.0  # s to wait for the other process before compiling here

# A part: a kernel that tells whether it is cached (module, name), and the modules it compiles.
_TRACK = frozenset({"connstate", "flowkey", "tcp", "track"})
_REWRITE = frozenset(
    {
        "addresses",
        "analyse_plain",
        "edits",
        "parts",
        "patch",
        "permute",
        "pools",
        "readdress",
        "space",
        "stand_ins",
    }
)
_REMAP = frozenset({"analyse_plain", "patch", "permute", "pools", "replaced", "space", "stand_ins"})
_PARTS = {
    "remap": ("replaced", "swap_known", _REMAP),
    "track": ("track", "track_rows", _TRACK),
    "clean": ("plain", "swap_plain", _REWRITE | {"text"}),
}


def compile_beside(part: str) -> None:
    """Have `python -m pcap_tools warm --part PART` compile what is not in the cache yet.

    Whoever needs a kernel of the part meanwhile waits for the other process. Nothing is done where
    it is cached, and on a single processor.
    """
    if _BESIDE in os.environ:  # this is the other process
        return
    name, kernel, modules = _PARTS[part]
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

    def wait(module: str) -> bool:
        """Whether there may be something new in the cache for a kernel of `module`."""
        if module.rpartition(".")[2] not in modules or process.returncode is not None:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LONGEST)
        return True

    kernels.on_missing.append(wait)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        process.wait()
