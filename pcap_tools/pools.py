"""Pools of addresses: a class's networks as one contiguous index space, and back.

An IPv4 pool counts every address of its networks except those that end in .0 or .255 (network and
broadcast addresses of the /24s, which some sensors and scripts treat apart).

An IPv6 pool is limited to 2^56 addresses. Each network of h host bits gets h − s index bits, with
one shift s for the whole pool, so that every network weighs its share. The upper half of the index
goes to the bits right behind the prefix, the lower half to the last bits of the address; the bits
between stay zero. Thus network part and interface part both vary, as load-balancing hashes expect.

Addresses are 128-bit numbers held as two uint64; an IPv4 address is the low half.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from pcap_tools.errors import PlanError
from pcap_tools.kernels import U64, inner, kernel

__all__ = [
    "DEFAULT_HOME",
    "Network",
    "Pool",
    "Version",
    "external_pool",
    "home_pool",
    "is_kept",
    "kept_networks",
    "parse_networks",
    "pool_address",
    "pool_index",
]

Version = Literal[4, 6]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_HOME = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")

_INDEX_BITS = 56  # of an IPv6 pool; leaves the permutation room below its 2^62
_NONE = np.uint64(0xFFFFFFFFFFFFFFFF)

# Addresses with a meaning of their own: never mapped, never handed out.
_KEPT = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/3",  # multicast, reserved, broadcast
            "::/8",  # unspecified, loopback, IPv4-mapped
            "fe80::/10",
            "ff00::/8",
        ),
    )
)

# RFC 6890 and the IANA special-purpose registries: no host of the internet answers from there.
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "10.0.0.0/8",
            "100.64.0.0/10",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "2001::/23",
            "2001:db8::/32",
            "2002::/16",
            "3fff::/20",
        ),
    )
)
_INTERNET = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("2000::/3"))


def parse_networks(texts: Iterable[str], option: str = "--home") -> tuple[Network, ...]:
    """Networks from their CIDR texts. Raises PlanError naming the one that is wrong."""
    networks = []
    for text in texts:
        try:
            networks.append(ipaddress.ip_network(text.strip()))
        except ValueError as error:
            raise PlanError(
                f"{option}: {text!r} is not a network: {error}; write it as 10.0.0.0/8"
            ) from None
    if not networks:
        raise PlanError(f"{option}: no network given; write it as 10.0.0.0/8,fc00::/7")
    return tuple(networks)


def is_kept(address: Address) -> bool:
    """True for addresses that no plan maps: multicast, broadcast, link-local, loopback, …"""
    return any(address in network for network in _KEPT if network.version == address.version)


def kept_networks() -> tuple[Network, ...]:
    """The networks of `is_kept`."""
    return _KEPT


@dataclass(frozen=True)
class Pool:
    """Addresses of one class and IP version, numbered 0 … `size` − 1."""

    version: Version
    networks: tuple[Network, ...]

    @cached_property
    def table(self) -> U64:
        """One row a block, as the kernels take it; columns by version (uint64).

        IPv4: first index of the block, first usable address's ordinal, 0, 0, 0.
        IPv6: first index, prefix high, prefix low, prefix length, index bits.
        A last row holds `size`.
        """
        rows = _rows4(self.networks) if self.version == 4 else _rows6(self.networks)
        first = 0
        table = []
        for count, *columns in rows:
            table.append([first, *columns])
            first += count
        table.append([first, 0, 0, 0, 0])
        return np.array(table, dtype=np.uint64)

    @property
    def size(self) -> int:
        """How many addresses the pool has."""
        return int(self.table[-1, 0])

    def addresses(self, indices: U64) -> tuple[U64, U64]:
        """Addresses (high halves, low halves) of many indices, all below `size`."""
        high = np.empty_like(indices)
        low = np.empty_like(indices)
        _addresses(self.version, self.table, indices, high, low)
        return high, low

    def indices(self, high: U64, low: U64) -> U64:
        """Indices of many addresses; 2^64 − 1 for those that are not in the pool."""
        indices = np.empty_like(low)
        _indices(self.version, self.table, high, low, indices)
        return indices


def home_pool(version: Version, home: Sequence[Network]) -> Pool:
    """The home networks of one IP version."""
    return Pool(version, _without([n for n in home if n.version == version], _KEPT))


def external_pool(version: Version, home: Sequence[Network]) -> Pool:
    """All global unicast addresses of one IP version that are neither special nor home."""
    internet = [n for n in _INTERNET if n.version == version]
    return Pool(version, _without(internet, (*_KEPT, *_SPECIAL, *home)))


def _without(networks: Sequence[Network], holes: Sequence[Network]) -> tuple[Network, ...]:
    rest = list(networks)
    for hole in holes:
        kept: list[Network] = []
        for network in rest:
            if network.version != hole.version or not network.overlaps(hole):
                kept.append(network)
            elif network.prefixlen < hole.prefixlen:
                kept.extend(network.address_exclude(hole))  # type: ignore[arg-type]
        rest = kept
    if not rest:
        return ()
    return tuple(ipaddress.collapse_addresses(rest))  # type: ignore[type-var]


def _usable_below(address: int) -> int:
    """How many IPv4 addresses below this one end neither in .0 nor in .255."""
    return (address >> 8) * 254 + min(max((address & 255) - 1, 0), 254)


def _rows4(networks: Sequence[Network]) -> list[list[int]]:
    rows = []
    for network in networks:
        first = _usable_below(int(network.network_address))
        count = _usable_below(int(network.broadcast_address) + 1) - first
        if count:
            rows.append([count, first, 0, 0, 0])
    return rows


def _rows6(networks: Sequence[Network]) -> list[list[int]]:
    total = sum(network.num_addresses for network in networks)
    shift = max(0, (total - 1).bit_length() - _INDEX_BITS) if total else 0
    rows = []
    for network in networks:
        bits = 128 - network.prefixlen - shift
        if bits >= 0:
            prefix = int(network.network_address)
            rows.append([1 << bits, prefix >> 64, prefix & (1 << 64) - 1, network.prefixlen, bits])
    return rows


@inner
def _block(table: U64, index: np.uint64) -> int:
    low = 0
    high = table.shape[0] - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if table[middle, 0] <= index:
            low = middle
        else:
            high = middle
    return low


@inner
def pool_address(version: int, table: U64, index: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Address (high, low) of one index below the pool's size."""
    block = _block(table, index)
    rest = index - table[block, 0]
    if version == 4:
        ordinal = table[block, 1] + rest
        octets = np.uint64(254)
        return (
            np.uint64(0),
            ((ordinal // octets) << np.uint64(8)) | (ordinal % octets + np.uint64(1)),
        )
    return _spread(table[block, 1], table[block, 2], table[block, 3], table[block, 4], rest)


@inner
def _spread(
    high: np.uint64, low: np.uint64, prefix: np.uint64, bits: np.uint64, rest: np.uint64
) -> tuple[np.uint64, np.uint64]:
    one = np.uint64(1)
    low_bits = bits >> one
    upper = rest >> low_bits
    low |= rest & ((one << low_bits) - one)
    # The upper half ends at bit `place` counted from the address's end.
    place = np.uint64(128) - prefix - (bits - low_bits)
    if place >= np.uint64(64):
        return high | (upper << (place - np.uint64(64))), low
    if place > np.uint64(0):
        high |= upper >> (np.uint64(64) - place)
    else:
        low |= upper
        return high, low
    return high, low | (upper << place)


@inner
def pool_index(version: int, table: U64, high: np.uint64, low: np.uint64) -> np.uint64:
    """Index of one address, or 2^64 − 1 when it is not in the pool."""
    one = np.uint64(1)
    for block in range(table.shape[0] - 1):
        first = table[block, 0]
        count = table[block + 1, 0] - first
        if version == 4:
            octet = low & np.uint64(255)
            if octet == np.uint64(0) or octet == np.uint64(255):
                return _NONE
            ordinal = (low >> np.uint64(8)) * np.uint64(254) + octet - one
            if ordinal >= table[block, 1] and ordinal - table[block, 1] < count:
                return np.uint64(first + ordinal - table[block, 1])
            continue
        bits = table[block, 4]
        low_bits = bits >> one
        prefix = table[block, 3]
        place = np.uint64(128) - prefix - (bits - low_bits)
        if place >= np.uint64(64):
            upper = high >> (place - np.uint64(64))
        elif place > np.uint64(0):
            upper = (high << (np.uint64(64) - place)) | (low >> place)
        else:
            upper = low
        upper &= (one << (bits - low_bits)) - one
        rest = (upper << low_bits) | (low & ((one << low_bits) - one))
        again_high, again_low = _spread(table[block, 1], table[block, 2], prefix, bits, rest)
        if again_high == high and again_low == low:
            return np.uint64(first + rest)
    return _NONE


@kernel
def _addresses(version: int, table: U64, indices: U64, high: U64, low: U64) -> None:
    for row in range(indices.size):
        high[row], low[row] = pool_address(version, table, indices[row])


@kernel
def _indices(version: int, table: U64, high: U64, low: U64, indices: U64) -> None:
    for row in range(low.size):
        indices[row] = pool_index(version, table, high[row], low[row])
