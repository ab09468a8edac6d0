"""Prefix-preserving addresses: Crypto-PAn, many addresses at a time.

J. Xu, J. Fan, M. Ammar, S. Moon, "Prefix-Preserving IP Address Anonymization", ICNP 2002: two
addresses that share their first k bits are mapped to two that share their first k bits. Bit i of an
address is flipped by the first bit of AES-128 of its first i bits, padded. IPv6 as in yacryptopan
and its kin: the same over 128 bits.

A tree of flips stays prefix-preserving whatever a node's flip is. So that multicast stays multicast
and home stays home, nodes above `fixed` networks do not flip: such a network is mapped onto itself.
Without `fixed` this is the published function. AES comes from `cryptography`, loaded when used.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from pcap_tools.errors import PlanError
from pcap_tools.kernels import U8, U64
from pcap_tools.pools import Network, Version

__all__ = ["CryptoPan", "key_of"]

_CHUNK = 1 << 16  # blocks encrypted at a time


def key_of(text: str) -> bytes:
    """The 32 bytes that a key's text stands for: BLAKE2b (RFC 7693)."""
    return blake2b(text.encode(), digest_size=32, person=b"crypto-pan").digest()


@dataclass(frozen=True)
class CryptoPan:
    """The mapping that 32 bytes of key select: 16 of AES key, 16 that make the padding.

    `fixed` networks are mapped onto themselves.

    >>> # CryptoPan(key).images(4, high, low); .originals(4, high, low) is the way back
    """

    key: bytes
    fixed: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        if len(self.key) != 32:
            raise ValueError(f"a Crypto-PAn key has 32 bytes, not {len(self.key)}")

    def images(self, version: Version, high: U64, low: U64) -> tuple[U64, U64]:
        """What many addresses (halves of 128 bits, IPv4 in the low one) become."""
        return self._walk(version, high, low, back=False)

    def originals(self, version: Version, high: U64, low: U64) -> tuple[U64, U64]:
        """The addresses that became these."""
        return self._walk(version, high, low, back=True)

    def _walk(self, version: Version, high: U64, low: U64, *, back: bool) -> tuple[U64, U64]:
        width = 32 if version == 4 else 128
        given = _bits_first(version, high, low)
        order = np.lexsort((given[:, 1], given[:, 0]))
        # The known prefix of the original: all of it forth; back, what was found so far.
        prefix = np.zeros_like(given) if back else given[order]
        result = given[order].copy()
        encrypt = self._cipher()
        pad = np.frombuffer(encrypt(self.key[16:]), np.uint8)
        for bit in range(width):
            word, shift = divmod(bit, 64)
            one = np.uint64(1) << np.uint64(63 - shift)
            flips = self._flips(version, prefix, bit, pad, encrypt)
            result[:, word] ^= np.where(flips, one, np.uint64(0))
            if back:
                prefix[:, word] |= result[:, word] & one
        mapped = np.empty_like(result)
        mapped[order] = result
        if version == 4:
            return np.zeros_like(low), mapped[:, 0] >> np.uint64(32)
        return mapped[:, 0].copy(), mapped[:, 1].copy()

    def _cipher(self) -> Any:
        try:
            from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        except ImportError:
            raise PlanError(
                "prefix-preserving addresses need the Python package cryptography; install it"
            ) from None
        return Cipher(algorithms.AES(self.key[:16]), modes.ECB()).encryptor().update

    def _flips(
        self, version: Version, prefix: U64, bit: int, pad: U8, encrypt: Any
    ) -> npt.NDArray[np.bool_]:
        """Whether each (sorted) address's bit number `bit` is flipped."""
        masks = np.array([_mask(bit), _mask(bit - 64)], np.uint64)
        nodes = prefix & masks
        fresh = np.ones(len(nodes), np.bool_)
        fresh[1:] = (nodes[1:] != nodes[:-1]).any(axis=1)
        distinct = nodes[fresh]
        padding = pad.view(">u8").astype(np.uint64) & ~masks
        flips = np.empty(len(distinct), np.bool_)
        for begin in range(0, len(distinct), _CHUNK):
            blocks = (distinct[begin : begin + _CHUNK] | padding).astype(">u8")
            made = np.frombuffer(encrypt(blocks.tobytes()), np.uint8)
            flips[begin : begin + _CHUNK] = made[::16] >> 7
        for network in self.fixed:
            if network.version == version and bit < network.prefixlen:
                number = int(network.network_address) << (96 if version == 4 else 0)
                above = np.array([number >> 64, number & (1 << 64) - 1], np.uint64) & masks
                flips &= (distinct != above).any(axis=1)
        spread: npt.NDArray[np.bool_] = flips[np.cumsum(fresh) - 1]
        return spread


def _bits_first(version: Version, high: U64, low: U64) -> U64:
    """Addresses with their first bit in the uppermost bit of the first column."""
    if version == 4:
        return np.column_stack([low << np.uint64(32), np.zeros_like(low)])
    return np.column_stack([high, low])


def _mask(bits: int) -> int:
    """A 64-bit mask of the first `bits` bits (as many as there are)."""
    bits = min(max(bits, 0), 64)
    return (1 << 64) - (1 << (64 - bits))
