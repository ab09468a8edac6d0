"""Signals: the polite ways of being stopped all clean up like Ctrl-C does, and names for people."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interruptible", "signal_name"]


_AGAIN_S = 0.02
_CLOSED = ("numba", "llvmlite", "importlib")
"""Packages that must not be left in the middle: a compiled kernel half loaded is freed twice, and
what is raised in a finalizer is swallowed."""


def _raise(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in _CLOSED or frame.f_code.co_name == "__del__":
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
            return
        frame = frame.f_back
    raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt inside, in the main thread.

    A moment later where they find the program loading or compiling (SIGALRM is used for that). One
    that is ignored stays so: `nohup` asked for it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    old = {n: signal.signal(n, _raise) for n in heard if signal.getsignal(n) != signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; "signal 99" for a number that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
