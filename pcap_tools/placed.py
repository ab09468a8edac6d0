"""An output whose size is known: filled at any place, by several threads at once."""

from __future__ import annotations

import os

from pcap_tools.kernels import U8

__all__ = ["Placed"]


class Placed:
    """The first `size` bytes of an open file. Raises OSError."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        os.ftruncate(descriptor, size)

    def put(self, begin: int, octets: U8) -> None:
        """Store bytes from offset `begin` on. Raises OSError (a full disk, say)."""
        data = octets.data
        while len(data):
            done = os.pwrite(self._descriptor, data, begin)
            data, begin = data[done:], begin + done
