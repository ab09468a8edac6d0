"""Address pools of templates: no two have an address in common, home stays home.

TRex draws the two ends of a flow from ranges. Ranges of home templates are cut out of the corpus's
home networks. External ones have a first octet of their own as far as there are any, because hashes
that add addresses look at it (see `corpus balance`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from harness.errors import ConfigError
from harness.templates import Pool

__all__ = ["Allocator"]

# First octets that are nobody's special ones (RFC 6890): no 0, 10, 127, 169, 172, 192, 198, 203 …
_OCTETS = tuple(
    octet for octet in range(11, 224) if octet not in (100, 127, 169, 172, 192, 198, 203)
)


class Allocator:
    """Hands out disjoint pools inside and outside the home networks (CIDRs; IPv6 is left aside)."""

    def __init__(self, home: Sequence[str]) -> None:
        networks = [ipaddress.ip_network(text, strict=False) for text in home]
        self._home = [n for n in networks if isinstance(n, ipaddress.IPv4Network)]
        self._next = [int(network.network_address) + 1 for network in self._home]
        self._outside = 0

    def is_home(self, address: str) -> bool:
        """Whether an address is in one of the home networks."""
        value = ipaddress.ip_address(address)
        return any(value in network for network in self._home)

    def take(self, home: bool, size: int) -> Pool:
        """A pool of `size` addresses. Raises ConfigError when there are none left."""
        return self._inside(size) if home else self._beyond(size)

    def _inside(self, size: int) -> Pool:
        for number, network in enumerate(self._home):
            first = self._next[number]
            if first + size <= int(network.broadcast_address):
                self._next[number] = first + size
                return Pool(first, first + size - 1)
        total = sum(network.num_addresses for network in self._home)
        raise ConfigError(
            f"the home networks ({total:,} addresses) are too small for pools of {size:,} a "
            "template: lower generator.options.clients and servers, or give a larger sensor.home"
        )

    def _beyond(self, size: int) -> Pool:
        """The next /16 (a pool is at most that), first octets in turn."""
        while True:
            turn, place = divmod(self._outside, len(_OCTETS))
            if turn > 255:
                raise ConfigError("too many templates for the external address ranges: use fewer")
            self._outside += 1
            base = (_OCTETS[place] << 24) | (turn << 16)
            block = ipaddress.IPv4Network((base, 16))
            if not any(block.overlaps(network) for network in self._home):
                return Pool(base, base + size - 1)
