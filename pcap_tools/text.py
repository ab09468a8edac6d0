"""Tables as text, row by row in a kernel: no Python object a row, but where there are few.

A row is a sequence of columns, each a piece of fixed text (a separator, a JSON key) and a value:
a number, one of some names, an address or a VLAN. The same kernel writes CSV, JSON lines and the
rows of a JSON list; only the fixed pieces differ.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pcap_tools.kernels import I64, U8, U64, inner, kernel, load64, store32, store64, trailing_zeros
from pcap_tools.walk import Word

__all__ = [
    "ADDRESS",
    "FEW",
    "LONGEST_ADDRESS",
    "NAME",
    "NUMBER",
    "VLAN",
    "Buffers",
    "Column",
    "address_texts",
    "format_rows",
]

NUMBER = 0
NAME = 1
ADDRESS = 2
VLAN = 3

LONGEST_ADDRESS = 45  # characters: INET6_ADDRSTRLEN without its zero byte
_LONGEST_NUMBER = 20
_SPARE = 8  # bytes behind every text: whole words are loaded and stored
_HUNDRED_MILLION = np.uint64(10**8)
_ZEROS = np.uint64(0x30303030_30303030)
_OCTETS = np.frombuffer(b"".join(f"{n}.".ljust(4).encode() for n in range(256)), np.uint32)
_ROWS = 1 << 13  # formatted at once: a buffer that stays in the cache


FEW = 200
"""Rows that Python writes before the kernel is loaded, not to speak of compiled."""


class Column(NamedTuple):
    """One column of n rows: `before` is written in front of each value.

    `values` (int64 or convertible, n) are numbers, indices into `names`, VLANs (outer × 4096 +
    inner), or the low halves of addresses, whose high halves are `high` and versions `version`.
    """

    kind: int
    before: bytes
    values: npt.NDArray[np.generic]
    names: Sequence[str] = ()
    high: U64 | None = None
    version: U8 | None = None


class Buffers:
    """Buffers used in turn: what was written into one stays until `count` more were asked for."""

    def __init__(self, count: int = 1) -> None:
        self._buffers: list[U8] = [np.empty(0, np.uint8)] * count
        self._next = 0

    def take(self, size: int) -> U8:
        """The next buffer, of at least `size` bytes."""
        place = self._next
        self._next = (place + 1) % len(self._buffers)
        if len(self._buffers[place]) < size:
            self._buffers[place] = np.empty(size, np.uint8)
        return self._buffers[place]


def format_rows(
    columns: Sequence[Column], end: bytes, buffers: Buffers | None = None
) -> Iterator[memoryview]:
    """The rows as text, `end` after each, in pieces that the next piece overwrites.

    With `buffers`, a piece stays until these come round.
    """
    buffers = buffers or Buffers()
    rows = len(columns[0].values)
    if 0 < rows <= FEW:
        yield memoryview(bytearray(b"".join(_by_hand(columns, end))))
        return
    pieces = [column.before for column in columns] + [end]
    names = [name.encode() for column in columns for name in column.names]
    counts = [len(column.names) for column in columns]
    first = np.cumsum([0, *counts])[:-1]
    longest = sum(map(len, pieces)) + sum(
        max(map(len, column.names), default=0)
        if column.kind == NAME
        else LONGEST_ADDRESS
        if column.kind == ADDRESS
        else _LONGEST_NUMBER
        for column in columns
    )
    fixed, fixed_at = _packed(pieces)
    words, words_at = _packed(names)
    kinds = np.array([column.kind for column in columns])
    width = len(columns)
    values = np.empty((_ROWS, width), np.int64)
    high = np.zeros((_ROWS, width), np.uint64)
    version = np.zeros((_ROWS, width), np.uint8)
    for start in range(0, rows, _ROWS):
        count = min(_ROWS, rows - start)
        for place, column in enumerate(columns):
            part = column.values[start : start + count]
            if column.kind == ADDRESS:
                assert column.high is not None and column.version is not None
                values[:count, place] = part.view(np.int64)
                high[:count, place] = column.high[start : start + count]
                version[:count, place] = column.version[start : start + count]
            else:
                values[:count, place] = part
                if column.kind == NAME:
                    values[:count, place] += first[place]
        out = buffers.take(_ROWS * longest + _SPARE)
        used = _format(count, kinds, values, high, version, fixed, fixed_at, words, words_at, out)
        yield out.data[:used]


def _by_hand(columns: Sequence[Column], end: bytes) -> Iterator[bytes]:
    texts = [_column_texts(column) for column in columns]
    for row in zip(*texts, strict=True):
        for column, text in zip(columns, row, strict=True):
            yield column.before
            yield text.encode()
        yield end


def _column_texts(column: Column) -> list[str]:
    values = column.values.tolist()
    if column.kind == NAME:
        return [column.names[value] for value in values]
    if column.kind == VLAN:
        tags = [(value >> 12, value & 4095) for value in values]
        return [f"{outer}.{tag}" if outer else str(tag or "") for outer, tag in tags]
    if column.kind == ADDRESS:
        assert column.high is not None and column.version is not None
        halves = zip(column.version.tolist(), column.high.tolist(), values, strict=True)
        return [
            socket.inet_ntop(socket.AF_INET, low.to_bytes(4))
            if version == 4
            else socket.inet_ntop(socket.AF_INET6, (high << 64 | low).to_bytes(16))
            for version, high, low in halves
        ]
    return [str(value) for value in values]


def address_texts(high: U64, low: U64, version: U8) -> tuple[U8, I64]:
    """Texts of addresses, as inet_ntop(3) writes them: characters, and n + 1 bounds into them."""
    bounds = np.empty(len(low) + 1, np.int64)
    out = np.empty(len(low) * LONGEST_ADDRESS + _SPARE, np.uint8)
    used = _addresses(high, low, version, out, bounds)
    return out[:used], bounds


def _packed(texts: Sequence[bytes]) -> tuple[U8, I64]:
    bounds = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return np.frombuffer(b"".join(texts) + bytes(_SPARE), np.uint8), bounds


@inner
def _eight(value: Word) -> Word:
    """Eight decimal digits of a number below 10⁸, a byte each, the first in the lowest byte.

    Halves, quarters and digits are split side by side in one word; the multiplications by
    10486 / 2²⁰ and 103 / 2¹⁰ divide by 100 and by 10, exactly for what can stand there.
    """
    high = value // np.uint64(10_000)
    word = high | ((value - high * np.uint64(10_000)) << np.uint64(32))
    tens = ((word * np.uint64(10486)) >> np.uint64(20)) & np.uint64(0x0000007F_0000007F)
    word = tens | ((word - tens * np.uint64(100)) << np.uint64(16))
    tens = ((word * np.uint64(103)) >> np.uint64(10)) & np.uint64(0x000F000F_000F000F)
    return tens | ((word - tens * np.uint64(10)) << np.uint64(8))


@inner
def _short(at: Word, value: Word) -> Word:
    """Write a number below 10⁸; eight bytes are stored, the digits count."""
    digits = _eight(value)
    leading = trailing_zeros(digits | np.uint64(1 << 56)) & np.uint64(56)
    store64(at, (digits | _ZEROS) >> leading)
    return at + 8 - np.int64(leading >> np.uint64(3))


@inner
def _number(at: Word, value: Word) -> Word:
    if value < 0:
        store64(at, np.uint64(45))
        at += 1
        value = -value
    rest = np.uint64(value)
    if rest < _HUNDRED_MILLION:
        return _short(at, rest)
    high = rest // _HUNDRED_MILLION
    low = rest - high * _HUNDRED_MILLION
    if high < _HUNDRED_MILLION:
        at = _short(at, high)
    else:
        top = high // _HUNDRED_MILLION
        at = _short(at, top)
        store64(at, _eight(high - top * _HUNDRED_MILLION) | _ZEROS)
        at += 8
    store64(at, _eight(low) | _ZEROS)
    return at + 8


@inner
def _byte(at: Word, value: Word) -> Word:
    store64(at, np.uint64(value))
    return at + 1


@inner
def _hexadecimal(at: Word, value: Word) -> Word:
    started = False
    for shift in range(12, -4, -4):
        digit = (value >> shift) & 15
        if digit or started or shift == 0:
            at = _byte(at, digit + (48 if digit < 10 else 87))
            started = True
    return at


@inner
def _dotted(at: Word, low: Word) -> Word:
    for shift in range(24, -8, -8):
        octet = (low >> shift) & 255
        store32(at, np.uint64(_OCTETS[octet]))
        at += 2 + (octet > 9) + (octet > 99)
    return at - 1


@inner
def _word(high: Word, low: Word, place: Word) -> Word:
    half = high if place < 4 else low
    return np.int64((half >> np.uint64(48 - 16 * (place & 3))) & np.uint64(0xFFFF))


@inner
def _address(at: Word, version: Word, high: Word, low: Word) -> Word:
    """RFC 5952, with the dotted tail that inet_ntop(3) gives IPv4-mapped and -compatible ones."""
    if version == 4:
        return _dotted(at, np.int64(low))
    best, length = -1, 1
    place = 0
    while place < 8:
        run = place
        while run < 8 and _word(high, low, run) == 0:
            run += 1
        if run - place > length:
            best, length = place, run - place
        place = max(run, place + 1)
    place = 0
    while place < 8:
        if place == best:
            at = _byte(at, 58)
            place += length
            if place == 8:
                at = _byte(at, 58)
            continue
        if place:
            at = _byte(at, 58)
        if (
            place == 6
            and best == 0
            and (length == 6 or (length == 5 and _word(high, low, 5) == 0xFFFF))
        ):
            return _dotted(at, np.int64(low & np.uint64(0xFFFFFFFF)))
        at = _hexadecimal(at, _word(high, low, place))
        place += 1
    return at


@inner
def _copy(at: Word, text: Word, size: Word) -> Word:
    """Copy a text, eight bytes at a time: what is stored beyond its end is overwritten."""
    for place in range(0, size, 8):
        store64(at + place, load64(text + place))
    return at + size


@kernel
def _format(
    count: int,
    kinds: I64,
    values: I64,
    high: U64,
    version: U8,
    fixed: U8,
    fixed_at: I64,
    words: U8,
    words_at: I64,
    out: U8,
) -> Word:
    begin = np.int64(out.ctypes.data)
    pieces, texts = np.int64(fixed.ctypes.data), np.int64(words.ctypes.data)
    at = begin
    width = len(kinds)
    for row in range(count):
        for place in range(width):
            start = fixed_at[place]
            at = _copy(at, pieces + start, fixed_at[place + 1] - start)
            value = values[row, place]
            kind = kinds[place]
            if kind == NUMBER:
                at = _number(at, value)
            elif kind == NAME:
                start = words_at[value]
                at = _copy(at, texts + start, words_at[value + 1] - start)
            elif kind == ADDRESS:
                at = _address(at, version[row, place], high[row, place], np.uint64(value))
            elif value:
                if value >> 12:
                    at = _number(at, value >> 12)
                    at = _byte(at, 46)
                at = _number(at, value & 4095)
        start = fixed_at[width]
        at = _copy(at, pieces + start, fixed_at[width + 1] - start)
    return at - begin


@kernel
def _addresses(high: U64, low: U64, version: U8, out: U8, bounds: I64) -> Word:
    begin = np.int64(out.ctypes.data)
    at = begin
    for i in range(len(low)):
        bounds[i] = at - begin
        at = _address(at, version[i], high[i], low[i])
    bounds[len(low)] = at - begin
    return at - begin
