"""Tables as text, row by row in a kernel: no Python object a row.

A row is a sequence of columns, each a piece of fixed text (a separator, a JSON key) and a value:
a number, one of some names, an address or a VLAN. The same kernel writes CSV, JSON lines and the
rows of a JSON list; only the fixed pieces differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pcap_tools.kernels import I64, U8, U64, inner, kernel
from pcap_tools.walk import Word

__all__ = [
    "ADDRESS",
    "LONGEST_ADDRESS",
    "NAME",
    "NUMBER",
    "VLAN",
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
_ROWS = 1 << 13  # formatted at once: a buffer that stays in the cache


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


def format_rows(columns: Sequence[Column], end: bytes) -> Iterator[memoryview]:
    """The rows as text, `end` after each, in pieces that the next piece overwrites."""
    rows = len(columns[0].values)
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
    out = np.empty(_ROWS * longest, np.uint8)
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
        used = _format(count, kinds, values, high, version, fixed, fixed_at, words, words_at, out)
        yield out.data[:used]


def address_texts(high: U64, low: U64, version: U8) -> tuple[U8, I64]:
    """Texts of addresses, as inet_ntop(3) writes them: characters, and n + 1 bounds into them."""
    bounds = np.empty(len(low) + 1, np.int64)
    out = np.empty(len(low) * LONGEST_ADDRESS + 1, np.uint8)
    used = _addresses(high, low, version, out, bounds)
    return out[:used], bounds


def _packed(texts: Sequence[bytes]) -> tuple[U8, I64]:
    bounds = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return np.frombuffer(b"".join(texts) + b"\0", np.uint8), bounds


@inner
def _number(out: U8, at: Word, value: Word) -> Word:
    if value < 0:
        out[at] = 45
        at += 1
        value = -value
    digits = 1
    bound = np.int64(10)
    while digits < 19 and value >= bound:
        digits += 1
        bound *= 10
    end = at + digits
    place = end
    while place > at:
        place -= 1
        following = value // 10
        out[place] = 48 + (value - following * 10)
        value = following
    return end


@inner
def _hexadecimal(out: U8, at: Word, value: Word) -> Word:
    started = False
    for shift in range(12, -4, -4):
        digit = (value >> shift) & 15
        if digit or started or shift == 0:
            out[at] = digit + (48 if digit < 10 else 87)
            at += 1
            started = True
    return at


@inner
def _dotted(out: U8, at: Word, low: Word) -> Word:
    for shift in range(24, -8, -8):
        at = _number(out, at, (low >> shift) & 255)
        if shift:
            out[at] = 46
            at += 1
    return at


@inner
def _word(high: Word, low: Word, place: Word) -> Word:
    half = high if place < 4 else low
    return np.int64((half >> np.uint64(48 - 16 * (place & 3))) & np.uint64(0xFFFF))


@inner
def _address(out: U8, at: Word, version: Word, high: Word, low: Word) -> Word:
    """RFC 5952, with the dotted tail that inet_ntop(3) gives IPv4-mapped and -compatible ones."""
    if version == 4:
        return _dotted(out, at, np.int64(low))
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
            out[at] = 58
            at += 1
            place += length
            if place == 8:
                out[at] = 58
                at += 1
            continue
        if place:
            out[at] = 58
            at += 1
        if (
            place == 6
            and best == 0
            and (length == 6 or (length == 5 and _word(high, low, 5) == 0xFFFF))
        ):
            return _dotted(out, at, np.int64(low & np.uint64(0xFFFFFFFF)))
        at = _hexadecimal(out, at, _word(high, low, place))
        place += 1
    return at


@inner
def _copy(out: U8, at: Word, text: U8, start: Word, stop: Word) -> Word:
    for place in range(start, stop):
        out[at] = text[place]
        at += 1
    return at


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
    at = np.int64(0)
    width = len(kinds)
    for row in range(count):
        for place in range(width):
            at = _copy(out, at, fixed, fixed_at[place], fixed_at[place + 1])
            value = values[row, place]
            kind = kinds[place]
            if kind == NUMBER:
                at = _number(out, at, value)
            elif kind == NAME:
                at = _copy(out, at, words, words_at[value], words_at[value + 1])
            elif kind == ADDRESS:
                at = _address(out, at, version[row, place], high[row, place], np.uint64(value))
            elif value:
                if value >> 12:
                    at = _number(out, at, value >> 12)
                    out[at] = 46
                    at += 1
                at = _number(out, at, value & 4095)
        at = _copy(out, at, fixed, fixed_at[width], fixed_at[width + 1])
    return at


@kernel
def _addresses(high: U64, low: U64, version: U8, out: U8, bounds: I64) -> Word:
    at = np.int64(0)
    for i in range(len(low)):
        bounds[i] = at
        at = _address(out, at, version[i], high[i], low[i])
    bounds[len(low)] = at
    return at
