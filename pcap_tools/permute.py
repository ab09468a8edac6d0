"""A keyed permutation of the integers [0, size): fresh numbers that look drawn at random.

An alternating Feistel network over the smallest 2^b ≥ size, with cycle walking for values that fall
outside (J. Black, P. Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002; the idea of
NIST SP 800-38G). Since size > 2^(b-1), a value is walked less than twice on average. The round
function is SplitMix64's finaliser (Stafford's variant 13, in G. Steele, D. Lea, C. Flood, "Fast
Splittable Pseudorandom Number Generators", OOPSLA 2014) of the half plus a round key; the round
keys are BLAKE2b (RFC 7693) of the user's key and a label. It spreads addresses; it hides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from pcap_tools.kernels import U64, inner, kernel

__all__ = ["MAX_SIZE", "NAME", "ROUNDS", "Permutation", "forward", "inverse"]

NAME = "feistel8-mix13-blake2b"  # written into plans: a plan made by another scheme is refused
ROUNDS = 8
MAX_SIZE = 1 << 62

# Row of parameters as the kernels take it: size, bits of the left half, of the right half, keys.
_SIZE, _LEFT, _RIGHT, _KEYS = 0, 1, 2, 3


@inner
def _mix(half: np.uint64, key: np.uint64) -> np.uint64:
    value = half + key
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@inner
def forward(parameters: U64, value: np.uint64) -> np.uint64:
    """Image of `value` (uint64, below size) under the permutation of one parameter row."""
    one = np.uint64(1)
    left_mask = (one << parameters[_LEFT]) - one
    right_mask = (one << parameters[_RIGHT]) - one
    while True:
        left = value >> parameters[_RIGHT]
        right = value & right_mask
        for turn in range(0, ROUNDS, 2):
            left ^= _mix(right, parameters[_KEYS + turn]) & left_mask
            right ^= _mix(left, parameters[_KEYS + turn + 1]) & right_mask
        value = (left << parameters[_RIGHT]) | right
        if value < parameters[_SIZE]:
            return value


@inner
def inverse(parameters: U64, value: np.uint64) -> np.uint64:
    """The value whose image is `value` (uint64, below size)."""
    one = np.uint64(1)
    left_mask = (one << parameters[_LEFT]) - one
    right_mask = (one << parameters[_RIGHT]) - one
    while True:
        left = value >> parameters[_RIGHT]
        right = value & right_mask
        for turn in range(ROUNDS - 2, -1, -2):
            right ^= _mix(left, parameters[_KEYS + turn + 1]) & right_mask
            left ^= _mix(right, parameters[_KEYS + turn]) & left_mask
        value = (left << parameters[_RIGHT]) | right
        if value < parameters[_SIZE]:
            return value


@kernel
def _forward_all(parameters: U64, values: U64, images: U64) -> None:
    for index in range(values.size):
        images[index] = forward(parameters, values[index])


@kernel
def _inverse_all(parameters: U64, images: U64, values: U64) -> None:
    for index in range(images.size):
        values[index] = inverse(parameters, images[index])


@dataclass(frozen=True)
class Permutation:
    """The permutation of [0, `size`) that `key` and `label` select; `size` is 1 … 2^62.

    >>> numbers = Permutation(1000, "key", "home-4")
    >>> numbers.value_of(numbers.image_of(7))
    7
    """

    size: int
    key: str
    label: str

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_SIZE:
            raise ValueError(f"a permutation's size is 1 … 2^62, not {self.size}")

    @property
    def parameters(self) -> U64:
        """The kernels' parameter row: size, bits left, bits right, round keys (uint64)."""
        bits = (self.size - 1).bit_length()
        digest = blake2b(
            self.key.encode(), digest_size=8 * ROUNDS, person=self.label.encode()[:16]
        ).digest()
        keys = np.frombuffer(digest, dtype="<u8")
        return np.concatenate(
            [np.array([self.size, bits // 2, bits - bits // 2], np.uint64), keys.astype(np.uint64)]
        )

    def image_of(self, value: int) -> int:
        """Image of one value."""
        return int(self.images(np.array([value], np.uint64))[0])

    def value_of(self, image: int) -> int:
        """The value whose image is `image`."""
        return int(self.values(np.array([image], np.uint64))[0])

    def images(self, values: U64) -> U64:
        """Images of many values, all below `size`."""
        self._check(values)
        images = np.empty_like(values)
        _forward_all(self.parameters, values, images)
        return images

    def values(self, images: U64) -> U64:
        """Values of many images, all below `size`."""
        self._check(images)
        values = np.empty_like(images)
        _inverse_all(self.parameters, images, values)
        return values

    def _check(self, numbers: U64) -> None:
        if numbers.size and int(numbers.max()) >= self.size:
            raise ValueError(f"{int(numbers.max())} is not below the size {self.size}")
