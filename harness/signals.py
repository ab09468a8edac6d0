"""Signals: the polite ways of being stopped all clean up like Ctrl-C does, and names for people."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interruptible", "signal_name"]


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt inside, in the main thread.

    One that is ignored stays so: `nohup` asked for it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = (signal.SIGTERM, signal.SIGHUP)
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
