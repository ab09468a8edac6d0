"""Echo requests as ping sends them (RFC 792, RFC 4443); not every machine has ping.

Run as a program: `python echo_client.py SOURCE TARGET COUNT`. Standard library only; needs root.
Status 0 when every request was answered.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time

_PAYLOAD = bytes(range(0x10, 0x38))  # ping's pattern
_INTERVAL = 0.3
_PATIENCE = 3.0


def _checksum(data: bytes) -> int:
    """Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _request(kind: int, number: int) -> bytes:
    head = struct.pack("!BBHHH", kind, 0, 0, os.getpid() & 0xFFFF, number)
    message = head + struct.pack("!d", time.time()) + _PAYLOAD
    # The kernel fills in ICMPv6's checksum (RFC 3542 section 3.1), not ICMP's.
    return message[:2] + struct.pack("!H", _checksum(message)) + message[4:]


def _answered(link: socket.socket, offset: int, reply: int, number: int) -> bool:
    until = time.monotonic() + _PATIENCE
    while (left := until - time.monotonic()) > 0:
        link.settimeout(left)
        try:
            packet = link.recv(2048)
        except TimeoutError:
            return False
        kind, _, _, owner, seen = struct.unpack_from("!BBHHH", packet, offset)
        if (kind, owner, seen) == (reply, os.getpid() & 0xFFFF, number):
            return True
    return False


def _main(source: str, target: str, count: int) -> int:
    six = ":" in target
    family, proto = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    )
    request, reply, offset = (128, 129, 0) if six else (8, 0, 20)  # raw IPv4 gives its header too
    answered = 0
    with socket.socket(family, socket.SOCK_RAW, proto) as link:
        link.bind((source, 0))
        for number in range(1, count + 1):
            link.sendto(_request(request, number), (target, 0))
            answered += _answered(link, offset, reply, number)
            time.sleep(_INTERVAL)
    print(f"{answered} of {count} answered")
    return 0 if answered == count else 1


if __name__ == "__main__":
    raise SystemExit(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
