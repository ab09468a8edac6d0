"""Draws that depend on a seed, a purpose and a number only: the same everywhere, in any order.

Draw n of a purpose is output n of SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast Splittable
Pseudorandom Number Generators", OOPSLA 2014) whose seed is BLAKE2b (RFC 7693) of the user's seed
and the purpose's name. A counter instead of a state: what happens to packet n does not depend on
what else was asked for, nor on how the packets came in batches.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from pcap_tools.kernels import U64, kernel

__all__ = ["draw", "draws", "happens", "stream_key", "threshold"]

_GOLDEN = 0x9E3779B97F4A7C15
_CERTAIN = 1 << 53


def stream_key(seed: int, purpose: str) -> np.uint64:
    """The 64-bit seed of the stream that `seed` (any integer) selects for `purpose`."""
    digest = blake2b(str(seed).encode(), digest_size=8, person=purpose.encode()[:16]).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def threshold(probability: float) -> np.uint64:
    """What `happens` compares with: the probability (0 … 1) in units of 2^-53."""
    return np.uint64(round(probability * _CERTAIN))


@kernel
def draw(key: np.uint64, number: int) -> np.uint64:
    """Output `number` (from 0) of the SplitMix64 generator seeded with `key`: 64 random bits."""
    word = key + (np.uint64(number) + np.uint64(1)) * np.uint64(_GOLDEN)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.uint64(word ^ (word >> np.uint64(31)))


@kernel
def happens(key: np.uint64, number: int, limit: np.uint64) -> bool:
    """Whether event `number` of the stream happens; `limit` is its `threshold`."""
    return bool((draw(key, number) >> np.uint64(11)) < limit)


def draws(seed: int, purpose: str, count: int) -> U64:
    """The first `count` draws of a purpose, for work on flows (numpy; the kernels' numbers)."""
    numbers = np.arange(1, count + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        word: U64 = stream_key(seed, purpose) + numbers * np.uint64(_GOLDEN)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return word ^ (word >> np.uint64(31))
