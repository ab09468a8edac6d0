"""Internet checksums (RFC 1071), computed whole or carried along (RFC 1624).

Sums are taken over 16-bit words in the machine's byte order: a one's complement sum does not depend
on it (RFC 1071 §2(B)), as long as the result is stored the way it was loaded.

When an iteration changes addresses, RFC 1624's equation 3, HC' = ~(~HC + ~m + m'), is split in two:
~HC + ~m, the sum without the old addresses, is computed once a template; m', the sum of the new
ones, once an address and iteration. What is left per packet is two additions and a fold.
"""

from __future__ import annotations

import sys

import numpy as np

from pcap_tools.kernels import U64, inner, load16, load64, load_u8, sum_blocks, swap16

__all__ = ["fold", "less", "pseudo_sum", "sum_message", "sum_words", "sum_words_of", "without"]

_ONES = np.uint64(0xFFFF)
_MULTIPLE = np.uint64(0xFFFF << 16)
_TAIL = np.uint64(0 if sys.byteorder == "little" else 8)  # an odd last byte is padded behind


def _last_bytes() -> U64:
    """Masks: row r keeps the last r of 32 bytes in four words, the last word first."""
    rows = np.zeros((32, 4, 8), np.uint8)
    for rest in range(32):
        kept = np.zeros(32, np.uint8)
        kept[32 - rest :] = 255
        rows[rest] = kept.reshape(4, 8)[::-1]
    return rows.reshape(-1).view(np.uint64)


_LAST = _last_bytes()


@inner
def fold(total: np.uint64) -> np.uint64:
    """A sum of 16-bit words reduced to 16 bits by end-around carry.

    A fixed number of steps, enough for every sum: how many are needed cannot be predicted, and a
    branch that is guessed wrong costs more than all of them.
    """
    sixteen = np.uint64(16)
    total = (total & np.uint64(0xFFFFFFFF)) + (total >> np.uint64(32))
    total = (total & _ONES) + (total >> sixteen)
    total = (total & _ONES) + (total >> sixteen)
    return (total & _ONES) + (total >> sixteen)


@inner
def less(total: np.uint64, part: np.uint64) -> np.uint64:
    """`total` minus `part` (below 2^32) in one's complement arithmetic; above 0, not folded.

    A multiple of 0xFFFF is zero there, so that nothing has to be folded to be complemented.
    """
    return np.uint64(total + (_MULTIPLE - part))


@inner
def sum_words(address: int, size: int) -> np.uint64:
    """One's complement sum of `size` bytes at a memory address, folded to 16 bits."""
    low = np.uint64(0xFFFFFFFF)
    total = sum_blocks(address, size >> 5)
    position = (size >> 5) << 5
    while position + 8 <= size:
        word = load64(address + position)
        total += (word & low) + (word >> np.uint64(32))
        position += 8
    while position + 2 <= size:
        total += load16(address + position)
        position += 2
    if position < size:
        total += load_u8(address + position) << _TAIL
    return np.uint64(fold(total))


@inner
def sum_message(address: int, size: int) -> np.uint64:
    """`sum_words`, not folded, without the branches on the last 31 bytes, mostly mispredicted.

    The 32 bytes before the end have to be readable, whether or not they belong to the message: its
    last bytes are taken in four words that end with it. Where its size is odd, their lanes hold the
    bytes the other way round, and so does their sum (RFC 1071 §2(B)).
    """
    low = np.uint64(0xFFFFFFFF)
    blocks = size >> 5
    rest = size & 31
    end = address + size
    tail = np.uint64(0)
    for word in range(4):
        octets = load64(end - 8 * (word + 1)) & _LAST[4 * rest + word]
        tail += (octets & low) + (octets >> np.uint64(32))
    # Swapping a sum's bytes is multiplying by 256, modulo 0xFFFF.
    tail <<= np.uint64((size & 1) << 3)
    return np.uint64(sum_blocks(address, blocks) + tail)


@inner
def sum_words_of(word: np.uint64) -> np.uint64:
    """One's complement sum of the four 16-bit words of one loaded word (not folded)."""
    return np.uint64(
        (word & _ONES)
        + ((word >> np.uint64(16)) & _ONES)
        + ((word >> np.uint64(32)) & _ONES)
        + (word >> np.uint64(48))
    )


@inner
def pseudo_sum(protocol: int, size: int) -> np.uint64:
    """What protocol and upper-layer length add to the pseudo-header's sum (RFC 9293, RFC 8200)."""
    length = np.uint64(size)
    return np.uint64(
        swap16(np.uint64(protocol)) + swap16(length & _ONES) + swap16(length >> np.uint64(16))
    )


@inner
def without(total: np.uint64, part: np.uint64) -> np.uint64:
    """`total` minus `part` in one's complement arithmetic, folded: total + ~part."""
    return np.uint64(fold(total + (_ONES ^ fold(part))))
