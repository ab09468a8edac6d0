"""The dimensions of a set of flows: what a probe is loaded with, per flow, per byte, per second.

A verdict about packets per second is really about flows, bytes or encryption when one of these
moves unnoticed; so they are computed from the flow table before anything is written or sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pcap_tools.errors import MixError
from pcap_tools.table import PROTOCOLS
from pcap_tools.traits import Traits

__all__ = ["RATIOS", "Dimensions", "Rate", "dimensions", "ratio"]

Floats = npt.NDArray[np.float64]

RATIOS: dict[str, Callable[[Traits], tuple[Any, Any]]] = {
    "packets-per-flow": lambda t: (t.packets, np.ones(len(t))),
    "bytes-per-flow": lambda t: (t.bytes, np.ones(len(t))),
    "frame-size": lambda t: (t.bytes, t.packets),
    "encrypted": lambda t: (t.bytes * t.encrypted, t.bytes),
    "attack": lambda t: (t.attack, np.ones(len(t))),
}
"""Each dimension that can be set is a sum over flows divided by another one: the two columns.
`encrypted` is a share of bytes, `attack` a share of flows; a protocol's name is its share of
flows."""

_NUMBERS = {name: number for number, name in PROTOCOLS.items()}
_RATE = re.compile(r"(\d+\.?\d*(?:[eE][+-]?\d+)?)\s*([kKMG]?)(fps|pps|bps)")
_UNITS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}


def ratio(name: str, traits: Traits) -> tuple[Floats, Floats]:
    """Numerator and denominator of a dimension, a number a flow. Raises MixError."""
    if name in RATIOS:
        above, below = RATIOS[name](traits)
    elif name in _NUMBERS:
        above, below = traits.table.rows["proto"] == _NUMBERS[name], np.ones(len(traits))
    else:
        known = ", ".join(RATIOS)
        raise MixError(f"no dimension {name!r}; there are {known}, and protocols such as udp")
    return np.asarray(above, np.float64), np.asarray(below, np.float64)


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate of new flows (fps), packets (pps) or bits of frames (bps) a second.

    >>> Rate.parse("20kpps")
    Rate(value=20000.0, unit='pps')
    """

    value: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Rate:
        """From 500fps, 20kpps, 1.5Gbps. Raises MixError."""
        found = _RATE.fullmatch(text.strip())
        value = float(found[1]) * _UNITS[found[2]] if found else 0.0
        if not found or not 0 < value < 1e15:
            raise MixError(f"rate {text!r}: write a number above 0 with fps, pps or bps, as 20kpps")
        return cls(value, found[3])


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What a set of flows amounts to. Bytes are those of frames on the wire, without FCS.

    `sources` counts different flows of the input, `largest` is the largest flow's bytes, `seconds`
    the sum of the flows' durations. `protocols` and `classes` map names to (flows, packets, bytes).
    """

    flows: float
    packets: float
    bytes: float
    encrypted_bytes: float
    attack_flows: float
    sources: int
    largest: int
    seconds: float
    ciphers: dict[str, float]
    protocols: dict[str, tuple[float, float, float]]
    classes: dict[str, tuple[float, float, float]]

    @property
    def packets_per_flow(self) -> float:
        """Mean packets of a flow."""
        return self.packets / max(self.flows, 1)

    @property
    def bytes_per_flow(self) -> float:
        """Mean bytes of a flow."""
        return self.bytes / max(self.flows, 1)

    @property
    def frame_size(self) -> float:
        """Mean bytes of a frame."""
        return self.bytes / max(self.packets, 1)

    @property
    def encrypted(self) -> float:
        """Share of bytes in encrypted flows."""
        return self.encrypted_bytes / max(self.bytes, 1)

    @property
    def attack(self) -> float:
        """Share of flows labelled attack."""
        return self.attack_flows / max(self.flows, 1)

    def at(self, rate: Rate) -> dict[str, float]:
        """fps, pps, bps and the mean number of flows at a time (Little's law) at a rate."""
        per_flow = {"fps": 1.0, "pps": self.packets_per_flow, "bps": 8 * self.bytes_per_flow}
        fps = rate.value / per_flow[rate.unit]
        mean_s = self.seconds / max(self.flows, 1)
        return {name: fps * each for name, each in per_flow.items()} | {"concurrent": fps * mean_s}

    def as_json(self) -> dict[str, Any]:
        """JSON form; tallies are flows, packets, bytes."""
        names = ("flows", "packets", "bytes")
        return {
            "flows": self.flows,
            "packets": self.packets,
            "bytes": self.bytes,
            "packets_per_flow": self.packets_per_flow,
            "bytes_per_flow": self.bytes_per_flow,
            "frame_size": self.frame_size,
            "encrypted": self.encrypted,
            "attack": self.attack,
            "distinct_flows": self.sources,
            "largest_flow": self.largest / max(self.bytes, 1),
            "ciphers": self.ciphers,
            "protocols": {k: dict(zip(names, v, strict=True)) for k, v in self.protocols.items()},
            "classes": {k: dict(zip(names, v, strict=True)) for k, v in self.classes.items()},
            "per_flow_a_second": self.at(Rate(1.0, "fps")),
        }


def dimensions(
    traits: Traits, times: npt.NDArray[Any], classes: npt.NDArray[Any], names: tuple[str, ...]
) -> Dimensions:
    """The dimensions of flow f taken times[f] times; classes[f] is its class, an index of names."""
    from pcap_tools.traits import CIPHERS

    proto = traits.table.rows["proto"]
    sums = np.stack([times, times * traits.packets, times * traits.bytes])
    there = np.unique(proto[times > 0]).tolist()
    octets = np.bincount(traits.cipher, weights=sums[2], minlength=len(CIPHERS))

    def tally(picked: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
        flows, packets, size = sums[:, picked].sum(axis=1).tolist()
        return flows, packets, size

    return Dimensions(
        flows=sums[0].sum().item(),
        packets=sums[1].sum().item(),
        bytes=sums[2].sum().item(),
        encrypted_bytes=sums[2][traits.encrypted].sum().item(),
        attack_flows=sums[0][traits.attack].sum().item(),
        sources=int((times > 0).sum()),
        largest=int(traits.bytes[times > 0].max(initial=0)),
        seconds=float((times * traits.seconds).sum()),
        ciphers={n: float(v) for n, v in zip(CIPHERS, octets, strict=True) if n and v},
        protocols={PROTOCOLS.get(n, f"protocol {n}"): tally(proto == n) for n in there},
        classes={name: tally(classes == i) for i, name in enumerate(names)},
    )
