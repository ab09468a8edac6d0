"""Which networks are home, and which networks stand-ins come from: given as options or as a file.

Stand-ins of home addresses come from the home networks, those of all others from the global unicast
addresses outside; `home_pool` and `external_pool` replace either, for each IP version that they
have a network of. The two pools never share an address, or nobody could map one back.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pcap_tools.errors import PlanError
from pcap_tools.kernels import U64
from pcap_tools.pools import (
    DEFAULT_HOME,
    Network,
    Pool,
    Version,
    external_pool,
    home_pool,
    parse_networks,
)

__all__ = ["Space", "read_space", "within"]

_KEYS = ("home", "home_pool", "external_pool")
_LOW64 = (1 << 64) - 1


@dataclass(frozen=True)
class Space:
    """Networks as CIDR texts: what is home, and where either class's stand-ins come from.

    An empty pool is the default one. Raises PlanError for a text that is no network and for pools
    that overlap.
    """

    home: tuple[str, ...] = DEFAULT_HOME
    home_pool: tuple[str, ...] = ()
    external_pool: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _KEYS:
            texts = getattr(self, name)
            if texts or name == "home":
                option = f"--{name.replace('_', '-')}"
                networks = parse_networks(texts, option)
                object.__setattr__(self, name, tuple(map(str, networks)))
        versions: tuple[Version, ...] = (4, 6)
        for version in versions:
            home, outside = (self.pool(name, version) for name in ("home", "external"))
            for network in home.networks:
                shared = [n for n in outside.networks if n.overlaps(network)]
                if shared:
                    raise PlanError(
                        f"--external-pool: {shared[0]} overlaps {network} of the home pool; "
                        "addresses could not be mapped back: give networks apart"
                    )

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        """The home networks, parsed."""
        return parse_networks(self.home)

    def pool(self, name: str, version: Version) -> Pool:
        """The pool of "home" or "external" for one IP version."""
        return self._pools[name, version]

    @cached_property
    def _pools(self) -> dict[tuple[str, Version], Pool]:
        versions: tuple[Version, ...] = (4, 6)
        return {(n, v): self._pool(n, v) for n in ("home", "external") for v in versions}

    def _pool(self, name: str, version: Version) -> Pool:
        own = self.home_pool if name == "home" else self.external_pool
        given = [n for n in parse_networks(own) if n.version == version] if own else []
        if given or name == "home":
            return home_pool(version, given or self.networks)
        inside = parse_networks(self.home_pool) if self.home_pool else ()
        return external_pool(version, (*self.networks, *inside))

    def is_home(self, version: Version, high: U64, low: U64) -> npt.NDArray[np.bool_]:
        """Which of many addresses are inside the home networks."""
        return within(self.networks, version, high, low)


def within(
    networks: Sequence[Network], version: Version, high: U64, low: U64
) -> npt.NDArray[np.bool_]:
    """Which of many addresses are inside one of the networks."""
    inside = np.zeros(len(low), np.bool_)
    for network in networks:
        if network.version != version:
            continue
        first, mask = int(network.network_address), int(network.netmask)
        if version == 6:
            part = (high & np.uint64(mask >> 64)) == np.uint64(first >> 64)
            if mask & _LOW64:
                part &= (low & np.uint64(mask & _LOW64)) == np.uint64(first & _LOW64)
            inside |= part
        else:
            inside |= (low & np.uint64(mask)) == np.uint64(first)
    return inside


def read_space(path: Path) -> Space:
    """Networks from a TOML file with the keys home, home_pool and external_pool, all optional.

    Each is a list of CIDR texts. Raises PlanError naming the file and the key.

    >>> # home = ["192.168.0.0/16"]
    >>> # external_pool = ["198.18.0.0/15", "2001:2::/48"]
    """
    try:
        value = tomllib.loads(path.read_text())
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"{path}: not TOML: {error}") from None
    for key, networks in value.items():
        if key not in _KEYS:
            raise PlanError(f'{path}: unknown key "{key}"; known: {", ".join(_KEYS)}')
        if not isinstance(networks, list) or not all(isinstance(n, str) for n in networks):
            raise PlanError(f'{path}: "{key}" is not a list of networks such as ["10.0.0.0/8"]')
    try:
        return Space(**{key: tuple(networks) for key, networks in value.items()})
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from None
