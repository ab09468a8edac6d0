"""Files of /proc and /sys that are read again and again.

Shipped to the host with `_sampler.py`: standard library only, Python 3.7 and later.
"""

# A path object for each read would cost more than the read.
# ruff: noqa: PTH208
from __future__ import annotations

import os


class File:
    """A file of /proc or /sys that is read again and again. None: it cannot be read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1

    def read(self) -> str | None:
        for _ in (1, 2):  # a file of an interface or thread made anew must be opened anew
            try:
                if self.fd < 0:
                    self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                data = whole = os.pread(self.fd, 65536, 0)
                # A file of /proc comes a page at a time; no line of one is longer than this.
                while len(data) >= 1024:
                    data = os.pread(self.fd, 65536, len(whole))
                    whole += data
                return whole.decode("utf-8", "replace")
            except OSError:
                self.close()
        return None

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Files:
    """Every file that was asked for once."""

    def __init__(self) -> None:
        self.known = {}  # type: dict[str, File]

    def read(self, path: str) -> str | None:
        file = self.known.get(path)
        if file is None:
            file = self.known[path] = File(path)
        return file.read()

    def number(self, path: str) -> int | None:
        text = self.read(path)
        try:
            return int(text or "")
        except ValueError:
            return None

    def forget(self, start: str) -> None:
        for path in [p for p in self.known if p.startswith(start)]:
            self.known.pop(path).close()


def listed(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
