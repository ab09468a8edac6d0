"""Addresses as columns: sorted numbers of one IP version, found and written without an object each.

A corpus may have a million addresses. As `ipaddress` objects they take seconds to sort and to
write; as two uint64 columns (an IPv4 address is the low half) they take milliseconds.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pcap_tools.kernels import I64, U8, U64, as_int, kernel
from pcap_tools.pools import Version

__all__ = ["Addresses", "none_of", "parse_address", "sorted_addresses", "text_of"]

_LOW64 = (1 << 64) - 1
_BUCKETS = 1 << 18


@dataclass(frozen=True, eq=False)
class Addresses:
    """Addresses of one IP version in ascending order, none twice; the position is the rank.

    `high` and `low` are the halves of the 128-bit numbers (n uint64 each).
    """

    version: Version
    high: U64
    low: U64

    def __len__(self) -> int:
        return len(self.low)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Addresses)
            and self.version == other.version
            and np.array_equal(self.high, other.high)
            and np.array_equal(self.low, other.low)
        )

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The addresses as people write them, by rank."""
        if self.version == 4:
            return tuple(self.json()[1:-1].replace(b'"', b"").decode().split(",")) if self else ()
        packed = np.column_stack([self.high, self.low]).astype(">u8").tobytes()
        write, family = socket.inet_ntop, socket.AF_INET6
        return tuple(write(family, packed[n : n + 16]) for n in range(0, len(packed), 16))

    def __bool__(self) -> bool:
        return len(self) > 0

    def json(self) -> bytes:
        """A JSON list of the texts."""
        if self.version == 4:
            return _json4(self.low)
        return json.dumps(self.texts, separators=(",", ":")).encode()

    def ranks(self, high: U64, low: U64) -> I64:
        """Rank of each of many addresses; −1 for those that are not among these."""
        found = np.empty(len(low), np.int64)
        # Made here: a kernel that allocates costs 20 ms of every start.
        begins = np.zeros(_BUCKETS + 2, np.int64)
        _ranks(self.version, self.high, self.low, high, low, found, begins)
        return found

    @classmethod
    def of_texts(cls, version: Version, texts: Sequence[str]) -> Addresses:
        """Addresses from their texts, in any order. Raises ValueError naming a wrong one."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        try:
            packed = b"".join([socket.inet_pton(family, text) for text in texts])
        except (OSError, TypeError):
            wrong = next(text for text in texts if not _is_address(family, text))
            raise ValueError(f"{wrong!r} is not an IPv{version} address") from None
        if version == 4:
            low = np.frombuffer(packed, ">u4").astype(np.uint64)
            return sorted_addresses(4, np.zeros_like(low), low)
        halves = np.frombuffer(packed, ">u8").astype(np.uint64).reshape(-1, 2)
        return sorted_addresses(6, halves[:, 0], halves[:, 1])


def none_of(version: Version) -> Addresses:
    """No address of a version."""
    empty = np.zeros(0, np.uint64)
    return Addresses(version, empty, empty)


def sorted_addresses(version: Version, high: U64, low: U64) -> Addresses:
    """Addresses in any order, repeats allowed, as a sorted set."""
    if version == 4:
        narrow = np.sort(low.astype(np.uint32))  # np.unique hashes: ten times slower
        fresh = np.ones(len(narrow), np.bool_)
        fresh[1:] = narrow[1:] != narrow[:-1]
        low = narrow[fresh].astype(np.uint64)
        return Addresses(4, np.zeros_like(low), low)
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    fresh = np.ones(len(low), np.bool_)
    fresh[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return Addresses(6, np.ascontiguousarray(high[fresh]), np.ascontiguousarray(low[fresh]))


def text_of(version: int, high: int, low: int) -> str:
    """One address as people write it."""
    if version == 4:
        return socket.inet_ntoa(int(low).to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, (int(high) << 64 | int(low)).to_bytes(16, "big"))


def parse_address(text: str) -> tuple[Version, int, int] | None:
    """(version, high, low) of an address text; None when it is none."""
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return None
    number = int.from_bytes(packed, "big")
    return (4, 0, number) if len(packed) == 4 else (6, number >> 64, number & _LOW64)


def _is_address(family: socket.AddressFamily, text: object) -> bool:
    try:
        socket.inet_pton(family, text)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return False
    return True


def _octets(suffix: str) -> U8:
    """Row k: the text of k and a suffix, padded with zeros."""
    texts = [f"{octet}{suffix}".encode() for octet in range(256)]
    width = max(map(len, texts))
    return np.frombuffer(b"".join(t.ljust(width, b"\0") for t in texts), np.uint8).reshape(256, -1)


def _json4(low: U64) -> bytes:
    """A JSON list of IPv4 addresses: octets looked up in padded columns, then the padding dropped.

    860,000 addresses take 50 ms; one by one they take half a second.
    """
    dotted, last = _octets("."), _octets('",')
    parts = [b"["]
    for begin in range(0, len(low), 1 << 16):
        octets = low[begin : begin + (1 << 16)].astype(">u4").view(np.uint8).reshape(-1, 4)
        quote = np.full((len(octets), 1), ord('"'), np.uint8)
        columns = [quote, *(dotted[octets[:, n]] for n in range(3)), last[octets[:, 3]]]
        flat = np.concatenate(columns, axis=1).reshape(-1)
        parts.append(flat[flat != 0].tobytes())
    return b"".join(parts).removesuffix(b",") + b"]"


@kernel
def _ranks(
    version: int,
    high: U64,
    low: U64,
    wanted_high: U64,
    wanted_low: U64,
    ranks: I64,
    begins: I64,
) -> None:
    """Binary search inside a bucket of the leading bits: two cache misses, not twenty."""
    count = low.size
    ranks[:] = -1
    if count == 0:
        return
    lead = low if version == 4 else high
    first, last = lead[0], lead[count - 1]
    shift = np.uint64(0)
    while (last - first) >> shift > np.uint64(_BUCKETS):
        shift += np.uint64(1)
    buckets = as_int((last - first) >> shift) + 2
    for row in range(count):
        begins[as_int((lead[row] - first) >> shift) + 1] = row + 1
    for bucket in range(1, buckets):  # buckets without an address
        begins[bucket] = max(begins[bucket], begins[bucket - 1])
    for row in range(wanted_low.size):
        one, two = wanted_high[row], wanted_low[row]
        key = two if version == 4 else one
        if key < first or key > last:
            continue
        bucket = as_int((key - first) >> shift)
        begin, end = begins[bucket], begins[bucket + 1]
        while begin < end:
            middle = (begin + end) >> 1
            if high[middle] < one or (high[middle] == one and low[middle] < two):
                begin = middle + 1
            else:
                end = middle
        if begin < begins[bucket + 1] and high[begin] == one and low[begin] == two:
            ranks[row] = begin
