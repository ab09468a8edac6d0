"""What reads a Suricata's eve output on its host: standard library only, Python 3.7 and later.

It is shipped as a file, so it imports nothing of this project. Every mode takes one JSON argument
and prints JSON lines.

  mark   {eve}                  where every file of the output ends now
  since  {eve, marks, into, kinds}
                                records of these event types written since then, in order, to a
                                gzip file; follows rotation by rename, by date, by copying and
                                truncating, and compression
  intake {path, kind, into, interval}
                                listen on a unix socket (unix_dgram or unix_stream) and write what
                                comes to a file, until told to stop

A file is known again by the bytes before its mark, not by its name or inode: rotation changes both.
"""

# It runs beside a packet sensor and handles many lines: plain files.
# ruff: noqa: PTH108, PTH110, PTH113, PTH116, PTH118, PTH119, PTH122, PTH123, PTH207, SIM102, SIM115

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import os
import re
import select
import signal
import socket
import sys
import time
from typing import Any, BinaryIO

PRINT_BYTES = 4096
# The largest eve record: Suricata's buffer for one (util-buffer) grows to 10 MB, datagrams do not.
DATAGRAM = 1 << 18


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def output_files(eve: str) -> list[str]:
    """Files of an output, oldest first: `eve` is a path, with strftime's fields where it rotates.

    eve.json, eve.json.1, eve.json-20260101.gz, eve.9.json (threaded), and all that a date matches.
    """
    directory, name = os.path.split(eve)
    stem, suffix = os.path.splitext(name)
    if "%" in name:
        form = "".join(
            ".*" if part.startswith("%") else re.escape(part)
            for part in re.split(r"(%[-_^]?[A-Za-z])", name)
        )
    else:
        form = rf"{re.escape(stem)}(\.\d+)?{re.escape(suffix)}"
    whole = re.compile(form + r"([.-][\w.-]+)?$")
    found = [
        path for path in glob.glob(os.path.join(glob.escape(directory), "*"))
        if whole.match(os.path.basename(path)) and os.path.isfile(path)
    ]  # fmt: skip
    return sorted(found, key=lambda path: (os.stat(path).st_mtime, path))


def open_output(path: str) -> BinaryIO:
    """The file, decompressed where it is gzip."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else open(path, "rb")  # type: ignore[return-value]


def print_before(file: BinaryIO, offset: int) -> str:
    """Digest of the bytes that precede an offset, and of how far it is."""
    start = max(0, offset - PRINT_BYTES)
    file.seek(start)
    data = file.read(offset - start)
    return hashlib.sha256(b"%d:" % len(data) + data).hexdigest()


def mark(eve: str) -> dict[str, Any]:
    marks = []
    for path in output_files(eve):
        status = os.stat(path)
        with open_output(path) as file:
            plain = not isinstance(file, gzip.GzipFile)
            size = status.st_size if plain else 0
            print_ = print_before(file, size) if plain else ""
        marks.append(
            {
                "path": path,
                "inode": status.st_ino,
                "bytes": status.st_size,
                "offset": size,
                "print": print_,
                "plain": plain,
            }
        )
    return {"marks": marks}


def start_of(path: str, marks: list[dict[str, Any]]) -> int | None:
    """Where what is new in a file begins; None when nothing is."""
    status = os.stat(path)
    with open_output(path) as file:
        for known in marks:
            if known["inode"] == status.st_ino and known["bytes"] == status.st_size:
                if not known["plain"] or print_before(file, known["offset"]) == known["print"]:
                    return None
        # The longest match first: a short mark's bytes may stand in another file by chance.
        for known in sorted(marks, key=lambda m: -int(m["offset"])):
            if known["plain"] and known["offset"] > 0:
                if print_before(file, known["offset"]) == known["print"]:
                    return int(known["offset"])
    return 0


def wanted(line: bytes, kinds: list[bytes]) -> bool:
    return any(kind in line for kind in kinds)


def since(eve: str, marks: list[dict[str, Any]], into: str, kinds: list[str]) -> dict[str, Any]:
    tags = [b'"event_type":"' + kind.encode() + b'"' for kind in kinds]
    lines = kept = torn = 0
    used = []
    with gzip.open(into, "wb", compresslevel=1) as out:
        for path in output_files(eve):
            start = start_of(path, marks)
            if start is None:
                continue
            used.append(path)
            with open_output(path) as file:
                file.seek(start)
                for line in file:
                    if not line.endswith(b"\n"):
                        torn += 1
                        continue
                    lines += 1
                    if wanted(line, tags):
                        kept += 1
                        out.write(line)
    return {"files": used, "lines": lines, "kept": kept, "torn": torn}


class Intake:
    """Lines that arrive on a unix socket, written to a file."""

    def __init__(self, path: str, kind: str, into: str) -> None:
        if os.path.exists(path):
            os.unlink(path)
        self.datagrams = kind == "unix_dgram"
        self.server = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM if self.datagrams else socket.SOCK_STREAM
        )
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.server.bind(path)
        if not self.datagrams:
            self.server.listen(4)
        self.out = open(into, "wb", buffering=1 << 18)
        self.open = {} if self.datagrams else {self.server.fileno(): self.server}
        self.rest: dict[int, bytes] = {}
        self.lines = self.bytes = self.torn = 0

    def take(self, data: bytes) -> None:
        self.lines += data.count(b"\n")
        self.bytes += len(data)
        self.out.write(data)

    def datagram(self) -> None:
        data, _, flags, _ = self.server.recvmsg(DATAGRAM)
        if flags & socket.MSG_TRUNC:
            self.torn += 1
        elif data:
            self.take(data if data.endswith(b"\n") else data + b"\n")

    def stream(self, number: int) -> None:
        source = self.open[number]
        if source is self.server:
            peer, _ = self.server.accept()
            self.open[peer.fileno()] = peer
            return
        data = source.recv(1 << 18)
        if not data:
            self.torn += bool(self.rest.pop(number, b""))
            del self.open[number]
            source.close()
            return
        whole, newline, tail = (self.rest.pop(number, b"") + data).rpartition(b"\n")
        if newline:
            self.take(whole + newline)
        if tail:
            self.rest[number] = tail

    def serve(self, timeout: float) -> bool:
        """Take in what is there; False when nothing came within `timeout`."""
        ready = [self.server.fileno()] if self.datagrams else list(self.open)
        came, _, _ = select.select(ready, [], [], timeout)
        for number in came:
            if self.datagrams:
                self.datagram()
            else:
                self.stream(number)
        return bool(came)


def intake(path: str, kind: str, into: str, interval: float) -> None:
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.append(1))
    source = Intake(path, kind, into)
    due = 0.0
    while True:
        told = bool(ended)  # before looking: what came until then is still taken in
        last = not source.serve(0.1) and told
        now = time.monotonic()
        if now >= due or last:
            source.out.flush()
            say(
                {
                    "event": "intake",
                    "lines": source.lines,
                    "bytes": source.bytes,
                    "torn": source.torn,
                    "cpu": time.process_time(),
                    "ended": last,
                }
            )
            due = now + interval
        if last:
            os.unlink(path)
            return


def main() -> None:
    mode, argument = sys.argv[1], json.loads(sys.argv[2])
    try:
        if mode == "intake":
            intake(**argument)
        else:
            say(mark(**argument) if mode == "mark" else since(**argument))
    except (OSError, EOFError) as error:
        say({"error": str(error)})


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)
