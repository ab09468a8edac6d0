"""What receives a sensor's alerts on a host: standard library only, Python 3.7 and later.

It is shipped as a file, so it imports nothing of this project. One JSON argument:
{transport, listen, port, into, buffer, interval}. Every message is written to `into` as one JSON
line [seconds since the epoch, sender, text]. It prints a status line every `interval` s until it is
told to stop (SIGTERM); then it takes in what is queued and prints the last one.

Framing over TCP is RFC 6587's: octet counting where a frame begins with a digit, or else lines.
"""

# It handles many messages: plain files.
# ruff: noqa: PTH123, SIM115

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

DATAGRAM = 1 << 16
LARGEST = 1 << 20  # bytes of one message over TCP
DRAIN_S = 0.2


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def socket_drops(inode: int) -> int | None:
    """Datagrams that a UDP socket had no room for: the last column of /proc/net/udp and udp6."""
    for path in ("/proc/net/udp", "/proc/net/udp6"):
        try:
            with open(path) as file:
                next(file)
                for line in file:
                    field = line.split()
                    if int(field[9]) == inode:
                        return int(field[-1])
        except (OSError, StopIteration):
            continue
    return None


def frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole messages at the beginning of a stream, and what is left of it."""
    found = []
    while data:
        if data[:1].isdigit():
            length, space, rest = data.partition(b" ")
            if not space and len(data) < 12:
                break
            if space and length.isdigit() and rest[:1] == b"<":
                size = int(length)
                if size > LARGEST:
                    raise ValueError(f"a frame of {size} bytes was announced")
                if len(rest) < size:
                    break
                found.append(rest[:size])
                data = rest[size:]
                continue
        line, newline, rest = data.partition(b"\n")
        if not newline:
            if len(data) > LARGEST:
                raise ValueError(f"a line is longer than {LARGEST} bytes")
            break
        if line.strip():
            found.append(line)
        data = rest
    return found, data


class Receiver:
    """One listening socket, and the file its messages go to."""

    def __init__(self, transport: str, listen: str, port: int, into: str, buffer: int) -> None:
        family = socket.AF_INET6 if ":" in listen else socket.AF_INET
        self.datagrams = transport == "udp"
        kind = socket.SOCK_DGRAM if self.datagrams else socket.SOCK_STREAM
        self.server = socket.socket(family, kind)
        if not self.datagrams:
            self.server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for option in (33, socket.SO_RCVBUF):  # SO_RCVBUFFORCE, where we may
            try:
                self.server.setsockopt(socket.SOL_SOCKET, option, buffer)
                break
            except OSError:
                continue
        self.server.bind((listen, port))
        self.server.setblocking(False)
        if not self.datagrams:
            self.server.listen(16)
        self.inode = os.fstat(self.server.fileno()).st_ino
        self.port = self.server.getsockname()[1]
        self.out = open(into, "w", buffering=1 << 16)
        self.peers: dict[int, tuple[socket.socket, str]] = {}
        self.rest: dict[int, bytes] = {}
        self.messages = self.bytes = self.torn = 0
        self.last = time.monotonic()

    def take(self, sender: str, data: bytes) -> None:
        self.messages += 1
        self.bytes += len(data)
        self.last = time.monotonic()
        text = data.decode("utf-8", "replace").rstrip("\r\n\0")
        self.out.write(json.dumps([time.time(), sender, text]) + "\n")

    def receive(self) -> None:
        """Every datagram that is there."""
        for _ in range(1000):
            try:
                data, sender = self.server.recvfrom(DATAGRAM)
            except BlockingIOError:
                return
            self.take(sender[0], data)

    def read(self, number: int) -> None:
        peer, sender = self.peers[number]
        try:
            data = peer.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            found, self.rest[number] = frames(self.rest.get(number, b"") + data)
        except ValueError:
            self.torn += 1
            data, found, self.rest[number] = b"", [], b""
        for message in found:
            self.take(sender, message)
        if not data:
            left = self.rest.pop(number, b"")
            if left.strip():  # the last line of a connection may lack its end
                self.take(sender, left)
            del self.peers[number]
            peer.close()

    def serve(self, timeout: float) -> bool:
        """Take in what is there; False when nothing came within `timeout`."""
        ready, _, _ = select.select([self.server.fileno(), *self.peers], [], [], timeout)
        for number in ready:
            if number != self.server.fileno():
                self.read(number)
            elif self.datagrams:
                self.receive()
            else:
                try:
                    peer, sender = self.server.accept()
                except OSError:
                    continue
                peer.setblocking(False)
                self.peers[peer.fileno()] = (peer, sender[0])
        return bool(ready)

    def status(self, ended: bool) -> dict[str, Any]:
        self.out.flush()
        return {
            "event": "intake",
            "port": self.port,
            "messages": self.messages,
            "bytes": self.bytes,
            "torn": self.torn,
            "dropped": socket_drops(self.inode) if self.datagrams else 0,
            "idle": time.monotonic() - self.last,
            "cpu": time.process_time(),
            "ended": ended,
        }


def run(argument: dict[str, Any]) -> None:
    ended = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.append(1))
    interval = argument.pop("interval")
    receiver = Receiver(**argument)
    due = 0.0
    while True:
        busy = receiver.serve(DRAIN_S if ended else 0.1)
        now = time.monotonic()
        done = bool(ended) and not busy
        if now >= due or done:
            say(receiver.status(done))
            due = now + interval
        if done:
            return


if __name__ == "__main__":
    try:
        run(json.loads(sys.argv[1]))
    except OSError as error:
        say({"error": error.strerror or str(error)})
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)
