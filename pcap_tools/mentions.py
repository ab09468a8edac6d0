"""Payloads that quote an address which is being rewritten: found and counted, never changed.

Looked for where protocols are known to carry addresses: DNS, mDNS and LLMNR (ports 53, 5353, 5355)
in A, AAAA and PTR records and PTR questions (RFC 1035, RFC 3596); FTP's control channel (port 21)
in PORT, 227 and EPRT (RFC 959, RFC 2428); SIP (port 5060) in any header and in SDP (RFC 3261,
RFC 8866). A mention counts when the address is one that the plan maps. Not seen: names that need
more than the packet (compressed in an odd way, cut, or continued in the next segment).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pcap_tools.capture import Batch
from pcap_tools.edits import KIND
from pcap_tools.kernels import (
    I32,
    I64,
    U64,
    as_int,
    inner,
    kernel,
    load32,
    load64,
    load_u8,
    swap32,
    swap64,
)
from pcap_tools.layers import big16
from pcap_tools.plan import CLASSES, AddressPlan
from pcap_tools.ports import transport

__all__ = ["MENTIONS", "Mentions"]

MENTIONS = ("dns", "ftp", "sip")
_DNS, _FTP, _SIP = 0, 1, 2
_DOT, _COMMA, _COLON = 46, 44, 58


class Mapped(NamedTuple):
    """The addresses that a plan maps: sorted columns of each class, lower and upper halves."""

    home4: U64
    home4_high: U64
    external4: U64
    external4_high: U64
    home6: U64
    home6_high: U64
    external6: U64
    external6_high: U64


def _mapped_of(plan: AddressPlan) -> Mapped:
    columns = []
    for name in CLASSES:
        group = plan.ranked[name]
        columns += [np.ascontiguousarray(group.low), np.ascontiguousarray(group.high)]
    return Mapped(*columns)


class Mentions:
    """Counts the packets of a capture whose payload quotes an address that the plan maps."""

    def __init__(self, plan: AddressPlan) -> None:
        self._mapped = _mapped_of(plan)
        self._found = np.zeros((len(MENTIONS), 2), np.int64)

    def look(self, batch: Batch, rows: I32, numbers: I64 | None = None) -> None:
        """Account a batch with its rows, before anything in it is changed.

        `numbers` are the packets' in the capture, from 0, when they do not follow each other.
        """
        if numbers is None:
            numbers = np.arange(batch.first, batch.first + len(batch))
        sizes = batch.caplen.astype(np.int64)
        data = batch.data.ctypes.data
        _look(data, batch.offset, sizes, rows, numbers, self._mapped, self._found)

    def report(self) -> dict[str, dict[str, int]]:
        """By protocol: how many packets, and the number of the first, counted from 1."""
        return {
            name: {"packets": int(count), "first": int(first)}
            for name, (count, first) in zip(MENTIONS, self._found.tolist(), strict=True)
            if count
        }


@kernel
def _look(
    data: int,
    offsets: I64,
    sizes: I64,
    rows: I32,
    numbers: I64,
    mapped: Mapped,
    found: I64,
) -> None:
    for index in range(offsets.size):
        if rows[index, KIND] != 4 and rows[index, KIND] != 6:
            continue
        frame, size = data + offsets[index], sizes[index]
        protocol, place = transport(frame, size, rows, index)
        if (protocol != 6 and protocol != 17) or place + 8 > size:
            continue
        source, target = big16(frame + place), big16(frame + place + 2)
        kind = _protocol(source)
        if kind < 0:
            kind = _protocol(target)
        if kind < 0:
            continue
        body = place + 8
        if protocol == 6:
            if place + 20 > size:
                continue
            body = place + (as_int(load_u8(frame + place + 12)) >> 4) * 4
        if body >= size or body < place + 8:
            continue
        if kind == _DNS:
            hit = _dns(frame, body + (2 if protocol == 6 else 0), size, mapped)
        else:
            hit = _text(frame, body, size, kind == _FTP, mapped)
        if hit:
            if found[kind, 0] == 0 or numbers[index] < found[kind, 1]:  # in any order
                found[kind, 1] = numbers[index] + 1
            found[kind, 0] += 1


@inner
def _protocol(port: int) -> int:
    if port == 53 or port == 5353 or port == 5355:
        return _DNS
    return _FTP if port == 21 else (_SIP if port == 5060 else -1)


@inner
def _among(high: U64, low: U64, one: np.uint64, two: np.uint64) -> bool:
    """Whether an address is in sorted columns."""
    begin, end = 0, low.size
    while begin < end:
        middle = (begin + end) >> 1
        if high[middle] < one or (high[middle] == one and low[middle] < two):
            begin = middle + 1
        else:
            end = middle
    return bool(begin < low.size and high[begin] == one and low[begin] == two)


@inner
def _is_mapped4(value: np.uint64, mapped: Mapped) -> bool:
    zero = np.uint64(0)
    return _among(mapped.home4_high, mapped.home4, zero, value) or _among(
        mapped.external4_high, mapped.external4, zero, value
    )


@inner
def _is_mapped6(high: np.uint64, low: np.uint64, mapped: Mapped) -> bool:
    return _among(mapped.home6_high, mapped.home6, high, low) or _among(
        mapped.external6_high, mapped.external6, high, low
    )


@inner
def _digit(byte: int, base: int) -> int:
    """Value of a digit, −1 for another character."""
    if byte >= 48 and byte <= 57:
        return byte - 48
    if base == 16 and (byte | 32) >= 97 and (byte | 32) <= 102:
        return (byte | 32) - 87
    return -1


@inner
def _dns(frame: int, begin: int, end: int, mapped: Mapped) -> bool:
    """True when a DNS message's records hold a mapped address, or a PTR name spells one."""
    if begin + 12 > end:
        return False
    questions = big16(frame + begin + 4)
    records = big16(frame + begin + 6) + big16(frame + begin + 8) + big16(frame + begin + 10)
    place = begin + 12
    for turn in range(min(questions + records, 256)):
        name = place
        while place < end:
            length = as_int(load_u8(frame + place))
            if length >= 192:
                place += 2
                break
            place += 1 + length
            if length == 0:
                break
        if place + 4 > end:
            return False
        kind = big16(frame + place)
        if kind == 12 and _pointer(frame, name, end, mapped):
            return True
        if turn < questions:
            place += 4
            continue
        if place + 10 > end:
            return False
        length = big16(frame + place + 8)
        place += 10
        if place + length > end:
            return False
        if kind == 1 and length == 4 and _is_mapped4(swap32(load32(frame + place)), mapped):
            return True
        if kind == 28 and length == 16:
            high, low = swap64(load64(frame + place)), swap64(load64(frame + place + 8))
            if _is_mapped6(high, low, mapped):
                return True
        place += length
    return False


@inner
def _pointer(frame: int, place: int, end: int, mapped: Mapped) -> bool:
    """True when a name such as 4.3.2.1.in-addr.arpa or …ip6.arpa spells a mapped address."""
    value4, high, low = np.uint64(0), np.uint64(0), np.uint64(0)
    labels = 0
    while place < end:
        length = as_int(load_u8(frame + place))
        if length == 0 or length >= 192 or place + 1 + length > end:
            return False
        first = as_int(load_u8(frame + place + 1)) | 32
        if labels == 4 and length == 7 and first == 105:  # in-addr
            return _is_mapped4(value4, mapped)
        if labels == 32 and length == 3 and first == 105:  # ip6
            return _is_mapped6(high, low, mapped)
        if length > 3 or labels >= 32:
            return False
        number, nibble = 0, 0
        for step in range(length):
            byte = as_int(load_u8(frame + place + 1 + step))
            nibble = _digit(byte, as_int(16))
            number = number * 10 + _digit(byte, as_int(10))
        if nibble < 0:
            return False
        if labels < 4 and number >= 0 and number < 256:
            value4 |= np.uint64(number) << np.uint64(8 * labels)
        if labels < 16:
            low |= np.uint64(nibble) << np.uint64(4 * labels)
        else:
            high |= np.uint64(nibble) << np.uint64(4 * (labels - 16))
        labels += 1
        place += 1 + length
    return False


@inner
def _text(frame: int, begin: int, end: int, commas: bool, mapped: Mapped) -> bool:
    """True when a text holds a mapped address: dotted (with `commas` also 1,2,3,4) or IPv6."""
    before = 32
    place = begin
    while place < end:
        byte = as_int(load_u8(frame + place))
        starts = _digit(before, as_int(16)) < 0 and before != _COLON and before != _DOT
        if starts and (_digit(byte, as_int(16)) >= 0 or byte == _COLON):
            good, value = _quad(frame, place, end, as_int(_DOT))
            if not good and commas:
                good, value = _quad(frame, place, end, as_int(_COMMA))
            if good and _is_mapped4(value, mapped):
                return True
            good, high, low = _colons(frame, place, end)
            if good and _is_mapped6(high, low, mapped):
                return True
        before = byte
        place += 1
    return False


@inner
def _quad(frame: int, place: int, end: int, separator: int) -> tuple[bool, np.uint64]:
    """The IPv4 address whose text begins here, its numbers separated by `separator`."""
    value = np.uint64(0)
    for turn in range(4):
        number, digits = 0, 0
        while place < end and digits < 4:
            digit = _digit(as_int(load_u8(frame + place)), as_int(10))
            if digit < 0:
                break
            number = number * 10 + digit
            digits += 1
            place += 1
        if digits == 0 or number > 255:
            return False, value
        value = (value << np.uint64(8)) | np.uint64(number)
        if turn < 3:
            if place >= end or as_int(load_u8(frame + place)) != separator:
                return False, value
            place += 1
    return True, value


@inner
def _colons(frame: int, place: int, end: int) -> tuple[bool, np.uint64, np.uint64]:
    """The IPv6 address whose text (RFC 4291, 2.2, forms 1 and 2) begins here."""
    before_high, before_low = np.uint64(0), np.uint64(0)  # groups before "::", right-aligned
    high, low = np.uint64(0), np.uint64(0)
    groups, gap = 0, -1
    if place + 1 < end and load_u8(frame + place) == _COLON:
        if load_u8(frame + place + 1) != _COLON:
            return False, high, low
        gap = 0
        place += 2
    while groups < 8:
        number, digits = 0, 0
        while place < end and digits < 4:
            digit = _digit(as_int(load_u8(frame + place)), as_int(16))
            if digit < 0:
                break
            number = number * 16 + digit
            digits += 1
            place += 1
        if digits == 0:
            break
        high = (high << np.uint64(16)) | (low >> np.uint64(48))
        low = (low << np.uint64(16)) | np.uint64(number)
        groups += 1
        if place >= end or load_u8(frame + place) != _COLON:
            break
        place += 1
        if place < end and load_u8(frame + place) == _COLON:
            if gap >= 0:
                return False, high, low
            gap = groups
            before_high, before_low = high, low
            high, low = np.uint64(0), np.uint64(0)
            place += 1
    if gap < 0:
        return groups == 8, high, low
    if groups == 0 or groups > 7:
        return False, high, low
    shift = 16 * (8 - gap)  # the groups before the gap go to the front
    if gap == 0:
        return True, high, low
    if shift >= 64:
        high |= before_low << np.uint64(shift - 64)
    else:
        low |= before_low << np.uint64(shift)
        high |= (before_high << np.uint64(shift)) | (before_low >> np.uint64(64 - shift))
    return True, high, low
