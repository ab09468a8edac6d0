"""An output whose size is known: its parts are written by several threads, in any order."""

from __future__ import annotations

import os
import threading

__all__ = ["Placed"]


class Placed:
    """An open file that has its size.

    One part at a time is written: the kernel would let a second writer spin on the file's lock,
    while here the thread that waits leaves its processor to one that prepares the next part.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._turn = threading.Lock()

    def put(self, at: int, octets: memoryview) -> None:
        """Write bytes to their place. Raises OSError."""
        done = 0
        with self._turn:
            while done < len(octets):
                done += os.pwrite(self._descriptor, octets[done:], at + done)
