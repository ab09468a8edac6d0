"""Small management subnets that collide with nothing the machine knows.

A virtual lab needs a /30 per managed host on machines whose addressing we do not know. Every
candidate is compared with all addresses and all routes (of every table) before it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, ip_network

from lab.errors import LabError
from lab.netns_tools import ip_json

__all__ = ["POOLS", "pick", "taken"]

# Rarely used corners of the private ranges first (RFC 1918), then shared address space (RFC 6598).
POOLS = (
    IPv4Network("172.31.224.0/20"),
    IPv4Network("10.254.240.0/20"),
    IPv4Network("192.168.240.0/20"),
    IPv4Network("100.127.240.0/20"),
)


def taken() -> list[IPv4Network]:
    """IPv4 networks that the machine's addresses and routes cover, default routes aside.

    A default route covers everything and forbids nothing: a more specific route wins over it. The
    same goes for its two halves that VPN clients like to set (0.0.0.0/1 and 128.0.0.0/1).
    """
    networks: set[IPv4Network] = set()
    for link in ip_json("-4", "addr", "show"):
        for address in link.get("addr_info", ()):
            networks.add(_network(f"{address['local']}/{address['prefixlen']}"))
            if "address" in address:  # the far end of a point-to-point link
                networks.add(_network(address["address"]))
    for route in ip_json("-4", "route", "show", "table", "all"):
        if route["dst"] != "default":
            networks.add(_network(route["dst"]))
        if "gateway" in route:
            networks.add(_network(route["gateway"]))
    return sorted(network for network in networks if network.prefixlen > 1)


def _network(text: str) -> IPv4Network:
    network = ip_network(text, strict=False)
    assert isinstance(network, IPv4Network)  # `ip -4` prints nothing else
    return network


def pick(
    count: int,
    taken: Iterable[IPv4Network],
    *,
    prefix: int = 30,
    pools: Iterable[IPv4Network] = POOLS,
) -> list[IPv4Network]:
    """`count` distinct subnets of the pools that overlap none of `taken`, lowest first.

    Raises LabError when the pools have not that many left.
    """
    blocked = list(taken)
    free = _free(blocked, prefix, pools)
    chosen = [network for network, _ in zip(free, range(count), strict=False)]
    if len(chosen) < count:
        ranges = ", ".join(str(pool) for pool in pools)
        raise LabError(
            f"no {count} free /{prefix} subnets for the lab's management links in {ranges}: "
            "addresses or routes of this machine cover them; see `ip route show table all`"
        )
    return chosen


def _free(
    blocked: list[IPv4Network], prefix: int, pools: Iterable[IPv4Network]
) -> Iterator[IPv4Network]:
    for pool in pools:
        near = [network for network in blocked if network.overlaps(pool)]
        for candidate in pool.subnets(new_prefix=prefix):
            if not any(candidate.overlaps(network) for network in near):
                yield candidate
