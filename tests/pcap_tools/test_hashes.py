"""Hash functions against published vectors and independent implementations."""

from __future__ import annotations

import ipaddress
import random
import struct
from dataclasses import replace

import numpy as np
import pytest

from pcap_tools import hashes
from pcap_tools.hashes import Tuples, reversed_tuples


def tuples(*rows: tuple[str, str, int, int, int], vlan: tuple[int, int] = (0, 0)) -> Tuples:
    """Rows of (source, destination, sport, dport, protocol), all of one IP version."""
    version = ipaddress.ip_address(rows[0][0]).version
    packed = [[ipaddress.ip_address(r[end]).packed for r in rows] for end in (0, 1)]
    a, b = (np.array([np.frombuffer(p, ">u4") for p in end]).astype(np.uint32) for end in packed)
    rest = np.array([r[2:] for r in rows], np.uint32)
    ids = np.tile(np.array(vlan, np.uint32), (len(rows), 1))
    return Tuples(version, a, b, rest[:, 0], rest[:, 1], rest[:, 2], ids[:, 0], ids[:, 1])


# Microsoft, "Verifying the RSS hash calculation": source, destination, ports; with ports, without.
SUITE4 = [
    ("66.9.149.187", "161.142.100.80", 2794, 1766, 0x51CCC178, 0x323E8FC2),
    ("199.92.111.2", "65.69.140.83", 14230, 4739, 0xC626B0EA, 0xD718262A),
    ("24.19.198.95", "12.22.207.184", 12898, 38024, 0x5C2B394A, 0xD2D0A5DE),
    ("38.27.205.30", "209.142.163.6", 48228, 2217, 0xAFC7327F, 0x82989176),
    ("153.39.163.191", "202.188.127.2", 44251, 1303, 0x10E828A2, 0x5D1809C5),
]
SUITE6 = [
    ("3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", 2794, 1766, 0x40207D3D, 0x2CC18CD5),
    ("3ffe:501:8::260:97ff:fe40:efab", "ff02::1", 14230, 4739, 0xDDE51BBF, 0x0F0C461C),
    (
        "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
        "fe80::200:f8ff:fe21:67cf",
        44251,
        38024,
        0x02D1FEEF,
        0x4B61E985,
    ),
]


@pytest.mark.parametrize("suite", [SUITE4, SUITE6])
def test_toeplitz_passes_microsofts_verification_suite(
    suite: list[tuple[str, str, int, int, int, int]],
) -> None:
    table = hashes.toeplitz_table(hashes.MICROSOFT_KEY)
    tcp = tuples(*((s, d, sp, dp, 6) for s, d, sp, dp, _, _ in suite))
    other = tuples(*((s, d, sp, dp, 47) for s, d, sp, dp, _, _ in suite))
    assert hashes.toeplitz(tcp, table).tolist() == [row[4] for row in suite]
    assert hashes.toeplitz(other, table).tolist() == [row[5] for row in suite]


def test_the_symmetric_key_is_symmetric_and_hashes_the_xor_of_words() -> None:
    table = hashes.toeplitz_table(hashes.SYMMETRIC_KEY)
    rows = some(4)
    value = hashes.toeplitz(rows, table)
    assert (value == hashes.toeplitz(reversed_tuples(rows), table)).all()
    shifted = replace(rows, a=rows.a ^ np.uint32(0x1234), b=rows.b ^ np.uint32(0x1234))
    assert (value == hashes.toeplitz(shifted, table)).all()
    microsoft = hashes.toeplitz_table(hashes.MICROSOFT_KEY)
    back = hashes.toeplitz(reversed_tuples(rows), microsoft)
    assert (hashes.toeplitz(rows, microsoft) != back).mean() > 0.9


# github.com/veorq/SipHash: vectors.h (2-4), and the same program with 1-3; key and message are
# 00 01 02 …; by the message's length.
SIP24 = [
    0x726FDB47DD0E0E31, 0x74F839C593DC67FD, 0x0D6C8009D9A94F5A, 0x85676696D7FB7E2D,
    0xCF2794E0277187B7, 0x18765564CD99A68D, 0xCBC9466E58FEE3CE, 0xAB0200F58B01D137,
    0x93F5F5799A932462, 0x9E0082DF0BA9E4B0, 0x7A5DBBC594DDB9F3, 0xF4B32F46226BADA7,
    0x751E8FBC860EE5FB, 0x14EA5627C0843D90, 0xF723CA908E7AF2EE, 0xA129CA6149BE45E5,
    0x3F2ACC7F57C29BDB, 0x699AE9F52CBE4794,
]  # fmt: skip
SIP13 = [
    0xABAC0158050FC4DC, 0xC9F49BF37D57CA93, 0x82CB9B024DC7D44D, 0x8BF80AB8E7DDF7FB,
    0xCF75576088D38328, 0xDEF9D52F49533B67, 0xC50D2B50C59F22A7, 0xD3927D989BB11140,
    0x369095118D299A8E, 0x25A48EB36C063DE4, 0x79DE85EE92FF097F, 0x70C118C1F94DC352,
    0x78A384B157B4D9A2, 0x306F760C1229FFA7, 0x605AA111C0F95D34, 0xD320D86D2A519956,
]  # fmt: skip


@pytest.mark.parametrize(("rounds", "last", "vectors"), [(2, 4, SIP24), (1, 3, SIP13)])
def test_siphash_gives_the_reference_vectors(rounds: int, last: int, vectors: list[int]) -> None:
    for length, expected in enumerate(vectors):
        message = bytes(range(length))
        ended = message + bytes(7 - length % 8) + bytes([length])
        words = np.frombuffer(ended, "<u8").reshape(1, -1)
        out = np.zeros(1, np.uint64)
        keys = struct.unpack("<QQ", bytes(range(16)))
        hashes.siphash(words, np.uint64(keys[0]), np.uint64(keys[1]), rounds, last, out)
        assert int(out[0]) == expected, length


@pytest.mark.parametrize(
    ("text", "seed", "expected"),
    [
        (b"", 0, 0xDEADBEEF),
        (b"", 0xDEADBEEF, 0xBD5B7DDE),
        (b"Four score and seven years ago", 0, 0x17770551),
        (b"Four score and seven years ago", 1, 0xCD628161),
    ],
)
def test_lookup3_gives_bob_jenkinss_vectors(text: bytes, seed: int, expected: int) -> None:
    """lookup3.c, driver5. They are of hashlittle, which is hashword but for the length: that is in
    bytes there, and only the sum of length and seed counts."""
    padded = text + bytes(-len(text) % 4)
    words = np.frombuffer(padded, "<u4").reshape(1, -1)
    out = np.zeros(1, np.uint32)
    hashes.hashword(words, seed - (len(padded) - len(text)), out)
    assert int(out[0]) == expected


def super_fast_hash(data: bytes, seed: int) -> int:
    """Paul Hsieh's description, for lengths that are multiples of 4, in Python's integers."""
    value = seed
    for low, high in struct.iter_unpack("<HH", data):
        value = (value + low) & 0xFFFFFFFF
        value = ((value << 16) ^ (high << 11) ^ value) & 0xFFFFFFFF
        value = (value + (value >> 11)) & 0xFFFFFFFF
    for step, bits in (("<", 3), ("+", 5), ("<", 4), ("+", 17), ("<", 25), ("+", 6)):
        if step == "<":
            value ^= (value << bits) & 0xFFFFFFFF
        else:
            value = (value + (value >> bits)) & 0xFFFFFFFF
    return value


def test_super_fast_hash_agrees_with_an_independent_implementation() -> None:
    words = np.random.default_rng(1).integers(0, 1 << 32, 500, dtype=np.uint32)
    expected = [super_fast_hash(struct.pack("<I", int(word)), 15485863) for word in words]
    assert hashes.super_fast_hash(words, 15485863).tolist() == expected


def some(version: int, count: int = 200) -> Tuples:
    source = random.Random(version)

    def address() -> str:
        if version == 4:
            return str(ipaddress.IPv4Address(source.getrandbits(32)))
        return str(ipaddress.IPv6Address(source.getrandbits(128)))

    def port() -> int:
        return source.getrandbits(16)

    protocols = (6, 17, 1, 132)
    rows = [(address(), address(), port(), port(), protocols[i % 4]) for i in range(count)]
    return tuples(*rows, vlan=(7, 9))


def scalars(rows: Tuples, row: int) -> tuple[bytes, bytes, int, int, int]:
    packed = [end[row].astype(">u4").tobytes() for end in (rows.a, rows.b)]
    return packed[0], packed[1], int(rows.sport[row]), int(rows.dport[row]), int(rows.proto[row])


@pytest.mark.parametrize("version", [4, 6])
def test_additive_hashes_agree_with_their_definition(version: int) -> None:
    rows = some(version)
    ring = [hashes.pf_ring_sum(rows, *flags) for flags in ((0, 0), (1, 0), (1, 1))]
    pair, ebpf = hashes.network_sum(rows), hashes.ebpf_sum(rows)
    for row in range(len(rows)):
        a, b, sport, dport, proto = scalars(rows, row)
        network = sum(sum(struct.unpack(f"<{len(x) // 4}I", x)) for x in (a, b))
        host = [struct.unpack(f">{len(x) // 4}I", x) for x in (a, b)]
        base = sum(host[0]) + sum(host[1]) if version == 4 else network
        for got, extra in zip(ring, (0, sport + dport, sport + dport + proto), strict=True):
            assert got[row] == (base + extra) % 2**32
        assert pair[row] == network % 2**32
        xor = [int(np.bitwise_xor.reduce(np.array(words, np.uint32))) for words in host]
        assert ebpf[row] == sum(xor) % 2**32


@pytest.mark.parametrize("version", [4, 6])
def test_suricatas_key_is_laid_out_as_its_struct(version: int) -> None:
    rows = some(version)
    got = hashes.suricata_key(rows)
    assert got.shape[1] == (6 if version == 4 else 12)
    for row in range(len(rows)):
        a, b, sport, dport, proto = scalars(rows, row)
        words = [struct.unpack(f"<{len(x) // 4}I", x) for x in (a, b)]
        first, second = (a, b) if words[0] > words[1] else (b, a)
        ports = (max(sport, dport), min(sport, dport))
        if version == 4 and proto not in (6, 17):
            ports = (0xFEED, 0xBEEF)
        # addrs, ports[2], proto, recur, livedev, vlan_id[3], pad
        tail = struct.pack("<HHBBHHHHH", *ports, proto, 0, 1, 7, 9, 0, 0)
        assert got[row].tobytes() == first + second + tail


@pytest.mark.parametrize("version", [4, 6])
def test_the_kernels_keys_are_laid_out_as_its_struct(version: int) -> None:
    rows = some(version)
    got = hashes.flow_keys(rows)
    for row in range(len(rows)):
        a, b, sport, dport, proto = scalars(rows, row)
        if version == 4:
            difference = struct.unpack("<I", b)[0] - struct.unpack("<I", a)[0]
            swap = difference % 2**32 >= 2**31
        else:
            swap = b < a
        first, second = (b, a) if swap else (a, b)
        ports = b"".join(sorted((struct.pack(">H", p) for p in (sport, dport)), key=little))
        basic = struct.pack(">HBB", 0x0800 if version == 4 else 0x86DD, proto, 0)
        # flow label, VLAN (8), inner VLAN (8), key id; ports; ICMP
        message = basic + bytes(24) + (bytes(4) if proto == 1 else ports) + bytes(4)
        message += first + second
        assert len(message) == (44 if version == 4 else 68)
        assert got[row].tobytes() == message + bytes(-len(message) % 8 - 1) + bytes([len(message)])


def little(two: bytes) -> int:
    return int.from_bytes(two, "little")


@pytest.mark.parametrize("version", [4, 6])
def test_both_directions_hash_alike_where_they_must(version: int) -> None:
    rows = some(version)
    back = reversed_tuples(rows)
    assert (hashes.flow_keys(rows) == hashes.flow_keys(back)).all()
    assert (hashes.suricata_key(rows) == hashes.suricata_key(back)).all()
    assert (hashes.pf_ring_sum(rows, True, True) == hashes.pf_ring_sum(back, True, True)).all()
    assert (hashes.ebpf_sum(rows) == hashes.ebpf_sum(back)).all()
