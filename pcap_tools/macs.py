"""MAC addresses: a keyed permutation into locally administered ones, or one for each direction.

`map`: a corpus's unicast MAC addresses are ranked by number; rank r becomes number r of the 2^46
locally administered unicast addresses (IEEE 802-2014, clause 8) under the plan's permutation, in
every iteration the same, since iterations come from behind the same routers. Group addresses
(broadcast, multicast) and 00:00:00:00:00:00 (an ARP request's unknown target) stay.

Fixed: `client=MAC,server=MAC`. Frames from client to server go from the client's MAC to the
server's, the others back: what a device under test on a switched link needs to see.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from pcap_tools.edits import MAC, Book
from pcap_tools.errors import PlanError
from pcap_tools.kernels import I32, I64, U8, U64, as_int, kernel, load_u8, store16, store32
from pcap_tools.permute import Permutation

__all__ = [
    "FixedMacs",
    "mac_text",
    "mac_words",
    "mapped_macs",
    "parse_mac",
    "parse_macs",
    "unicast_macs",
    "write_fixed",
]

_SIZE = 1 << 46
_GROUP = np.uint64(1 << 40)


@dataclass(frozen=True)
class FixedMacs:
    """The MAC address of either side."""

    client: int
    server: int


def parse_mac(text: str) -> int:
    """A unicast MAC address such as 02:00:00:00:00:01. Raises PlanError."""
    digits = re.sub("[:-]", "", text.strip())
    if not re.fullmatch("[0-9A-Fa-f]{12}", digits):
        raise PlanError(f"--macs: {text!r} is not a MAC address; write it as 02:00:00:00:00:01")
    if int(digits, 16) >> 40 & 1:
        raise PlanError(f"--macs: {text!r} is a group address; no host sends from one")
    return int(digits, 16)


def mac_text(number: int) -> str:
    """A MAC address as people write it."""
    return int(number).to_bytes(6, "big").hex(":")


def parse_macs(text: str) -> str | FixedMacs:
    """What `--macs` asks: "keep", "map", or the addresses of client and server."""
    if text in ("keep", "map"):
        return text
    sides = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    if set(sides) != {"client", "server"}:
        raise PlanError(
            f"--macs {text!r}: give keep, map, or client=02:00:00:00:00:01,server=02:00:00:00:00:02"
        )
    return FixedMacs(parse_mac(sides["client"]), parse_mac(sides["server"]))


def unicast_macs(book: Book) -> U64:
    """The unicast MAC addresses of a book, sorted: those that are mapped."""
    entries = book.entries[: int(book.size[0])]
    numbers = entries[entries[:, 0] == MAC, 2]
    return np.unique(numbers[((numbers & _GROUP) == 0) & (numbers != 0)])


def mapped_macs(key: str, count: int) -> U64:
    """What the ranks 0 … count − 1 become."""
    numbers = Permutation(_SIZE, key, "mac").images(np.arange(count, dtype=np.uint64))
    low = numbers & np.uint64((1 << 40) - 1)
    return (numbers >> np.uint64(40) << np.uint64(42)) | np.uint64(2 << 40) | low


def mac_words(numbers: U64) -> U64:
    """MAC addresses as `patch` takes them: six bytes as loaded, their word sum above."""
    octets = np.zeros((len(numbers), 8), np.uint8)
    octets[:, :6] = numbers.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
    words = octets.view(np.uint16).astype(np.uint64)
    total = words.sum(axis=1, dtype=np.uint64)
    total = (total & np.uint64(0xFFFF)) + (total >> np.uint64(16))
    total = (total & np.uint64(0xFFFF)) + (total >> np.uint64(16))
    made: U64 = words[:, 0] | (words[:, 1] << np.uint64(16)) | (words[:, 2] << np.uint64(32))
    made |= total << np.uint64(48)
    return made


@kernel
def write_fixed(data: int, offsets: I64, sizes: I64, owner: I32, direction: U8, words: U64) -> int:
    """Write the sides' MAC addresses into Ethernet frames of flows; returns how many.

    `words` holds client and server as `mac_words` has them. Group destinations stay, and so do
    frames of no flow (owner below 0).
    """
    done = 0
    for index in range(offsets.size):
        if owner[index] < 0 or sizes[index] < 14:
            continue
        frame = data + offsets[index]
        source = words[as_int(direction[index])]
        target = words[1 - as_int(direction[index])]
        if not load_u8(frame) & 1:
            store32(frame, target)
            store16(frame + 4, target >> np.uint64(32))
        store32(frame + 6, source)
        store16(frame + 10, source >> np.uint64(32))
        done += 1
    return done
