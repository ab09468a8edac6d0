"""Addresses and names of the recording: documentation ranges, so that nobody's network is in it.

Home is 10.20.0.0/16 (clients), 10.30.0.0/24 (a DMZ) and fd20::/16 (RFC 4193). The world outside is
198.51.100.0/24 and 203.0.113.0/24 (RFC 5737) and 2001:db8::/32 (RFC 3849). Addresses are single
hosts on the one link, found by ARP and neighbour discovery as on any LAN.
"""

from __future__ import annotations

from lab import netns_tools as net

__all__ = [
    "ATTACKERS",
    "CLIENTS",
    "CLIENTS_V6",
    "CLOSED",
    "DMZ_SSH",
    "DMZ_WEB",
    "DNS",
    "MAIL",
    "NAMES",
    "add_addresses",
    "clear_addresses",
]

CLIENTS = ("10.20.1.11", "10.20.1.12", "10.20.3.27", "10.20.7.40", "10.20.9.9", "10.20.12.101")
CLIENTS_V6 = ("fd20:20:1::11", "fd20:20:3::27", "fd20:20:7::40")
ATTACKERS = ("203.0.113.201", "203.0.113.222", "198.51.100.240")
DMZ_WEB = "10.30.0.80"
DMZ_SSH = "10.30.0.22"
MAIL = "203.0.113.25"
DNS = ("203.0.113.53", "2001:db8:53::53")
CLOSED = "198.51.100.99"
_NEWS = ("198.51.100.10", "2001:db8:100::10")
_SHOP = ("198.51.100.20", "2001:db8:100::20")
_FILES = ("203.0.113.40", "2001:db8:113::40")
_PHISH = ("203.0.113.66",)
NAMES: dict[str, tuple[str, ...]] = {
    "www.news.example": _NEWS,
    "cdn.news.example": _NEWS,
    "www.shop.example": _SHOP,
    "files.partner.example": _FILES,
    "mail.partner.example": (MAIL,),
    "login.phish-demo.example": _PHISH,
    "intranet.home.example": (DMZ_WEB,),
}


def add_addresses(client: str, server: str) -> None:
    """Give cl0 and sv0 their addresses, and make each the way to everything else."""
    outside = {address for addresses in NAMES.values() for address in addresses}
    for namespace, interface, addresses in (
        (client, "cl0", {*CLIENTS, *CLIENTS_V6, *ATTACKERS}),
        (server, "sv0", {*outside, DMZ_SSH, *DNS, CLOSED}),
    ):
        if not net.has_ipv6():
            addresses = {address for address in addresses if ":" not in address}
        batch = [
            f"addr add {address}/128 dev {interface} nodad"
            if ":" in address
            else f"addr add {address}/32 dev {interface}"
            for address in sorted(addresses)
        ]
        batch.append(f"route add default dev {interface}")
        if net.has_ipv6():
            batch.append(f"route add ::/0 dev {interface}")
        net.run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(batch) + "\n")


def clear_addresses(client: str, server: str) -> None:
    """Take all addresses and routes of the recording path away; nothing happens without them."""
    for namespace, interface in ((client, "cl0"), (server, "sv0")):
        for family in ("-4", "-6"):
            net.run(["ip", "-n", namespace, family, "addr", "flush", "dev", interface], check=False)
            net.run(
                ["ip", "-n", namespace, family, "route", "flush", "dev", interface], check=False
            )
