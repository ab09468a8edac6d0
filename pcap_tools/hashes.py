"""The hash functions that spread packets over a sensor's workers, over columns of flows.

Each takes `Tuples`, one row a flow, and gives one uint32 a row. What a balancer makes of the
hash (modulo, indirection table …) is in pcap_tools.balancers. The sources named are those of
Linux 6.x, Suricata 9.0-dev (2026-07) and PF_RING (2024-10); x86 is assumed, as all of them read
network-order words without swapping where that says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pcap_tools.kernels import U32, U64, inner, kernel

__all__ = [
    "MICROSOFT_KEY",
    "SYMMETRIC_KEY",
    "Tuples",
    "ebpf_sum",
    "flow_keys",
    "hashword",
    "network_sum",
    "pf_ring_sum",
    "reversed_tuples",
    "siphash",
    "super_fast_hash",
    "suricata_key",
    "toeplitz",
    "toeplitz_table",
]

_TCP, _UDP = 6, 17
_PORTED = (6, 17, 33, 132, 136)  # TCP, UDP, DCCP, SCTP, UDP-Lite

MICROSOFT_KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)
"""The key of Microsoft's RSS verification suite, which several drivers use as it stands. It is not
symmetric: the two directions of a connection hash apart."""

SYMMETRIC_KEY = b"\x6d\x5a" * 26
"""RSS_HKEY of Suricata's src/util-dpdk-rss.c, also set with `ethtool -X IF hkey 6D:5A:…`. Its
period is 16 bits, so the hash depends on the XOR of the 16-bit words alone (S. Woo, K. Park,
"Scalable TCP Session Monitoring with Symmetric Receive-side Scaling", KAIST, 2012)."""


@dataclass(frozen=True)
class Tuples:
    """Flows of one IP version as a balancer sees them, client to server; n rows.

    `a` and `b` (uint32, n × 1 or n × 4) are the addresses' 32-bit words in host order, most
    significant first; ports are 0 for protocols without; `outer` and `inner` are VLAN ids.
    """

    version: int
    a: U32
    b: U32
    sport: U32
    dport: U32
    proto: U32
    outer: U32
    inner: U32

    def __len__(self) -> int:
        return len(self.a)


def reversed_tuples(tuples: Tuples) -> Tuples:
    """The same flows, server to client."""
    return replace(tuples, a=tuples.b, b=tuples.a, sport=tuples.dport, dport=tuples.sport)


def _sum(words: U32) -> U32:
    return np.asarray(words.sum(axis=1, dtype=np.uint32))


def pf_ring_sum(tuples: Tuples, ports: bool, proto: bool) -> U32:
    """PF_RING's cluster hash: additive (kernel/pf_ring.c: hash_pkt, hash_pkt_cluster).

    IPv4 addresses are added in host order, the eight words of IPv6 addresses in network order.
    The VLAN is always masked in clusters. 2-tuple clusters mask ports and protocol, 4-tuple
    clusters the protocol; 5-tuple and "flow" clusters keep all.
    """
    total = _sum(tuples.a) + _sum(tuples.b) if tuples.version == 4 else network_sum(tuples)
    if ports:
        total = total + tuples.sport + tuples.dport
    return total + tuples.proto if proto else total


def network_sum(tuples: Tuples) -> U32:
    """All address words added as they lie in memory (src/tmqh-flow.c: TmqhOutputFlowIPPair)."""
    return _sum(tuples.a.byteswap()) + _sum(tuples.b.byteswap())


def ebpf_sum(tuples: Tuples) -> U32:
    """Suricata's ebpf/lb.c: ipv4_hash adds the addresses in host order, ipv6_hash adds the XOR of
    each address's words; no ports."""
    fold = np.bitwise_xor.reduce
    return np.asarray(fold(tuples.a, axis=1) + fold(tuples.b, axis=1), dtype=np.uint32)


def super_fast_hash(words: U32, seed: int) -> U32:
    """Paul Hsieh's SuperFastHash of one 32-bit word each (ebpf/hash_func01.h), in memory order."""
    low, high = words & np.uint32(0xFFFF), words >> np.uint32(16)
    value = np.uint32(seed) + low
    value = (value << np.uint32(16)) ^ ((high << np.uint32(11)) ^ value)
    value = value + (value >> np.uint32(11))
    for left, right in ((3, 5), (4, 17), (25, 6)):
        value = value ^ (value << np.uint32(left))
        value = value + (value >> np.uint32(right))
    return np.asarray(value, dtype=np.uint32)


def toeplitz_table(key: bytes) -> U32:
    """Contributions of each byte value at each place: uint32, (len(key) − 4) × 256."""
    bits = int.from_bytes(key, "big")
    width = 8 * len(key)
    windows = np.array(
        [(bits >> (width - 32 - place)) & 0xFFFFFFFF for place in range(width - 32)], np.uint32
    ).reshape(-1, 8)
    table = np.zeros((len(windows), 256), np.uint32)
    values = np.arange(256)
    for bit in range(8):
        table ^= np.where(values >> (7 - bit) & 1, windows[:, bit, None], np.uint32(0))
    return table


def toeplitz(tuples: Tuples, table: U32) -> U32:
    """Microsoft's RSS hash (NDIS "RSS hashing functions": ComputeHash), byte by byte.

    The input is source, destination and, with TCP and UDP, both ports: hash types IPv4, IPv6 and
    {TCP,UDP}_IPv4/6. UDP ports count where the NIC was told so (`ethtool -N IF rx-flow-hash udp4
    sdfn`).
    """
    words = np.concatenate([tuples.a, tuples.b], axis=1)
    value = np.zeros(len(tuples), np.uint32)
    for column in range(words.shape[1]):
        for place in range(4):
            octet = words[:, column] >> np.uint32(24 - 8 * place) & np.uint32(0xFF)
            value ^= table[4 * column + place][octet]
    ports = (tuples.sport << np.uint32(16)) | tuples.dport
    tail = np.zeros(len(tuples), np.uint32)
    for place in range(4):
        octet = ports >> np.uint32(24 - 8 * place) & np.uint32(0xFF)
        tail ^= table[4 * words.shape[1] + place][octet]
    ported = np.isin(tuples.proto, (_TCP, _UDP))
    return np.where(ported, value ^ tail, value).astype(np.uint32)


def flow_keys(tuples: Tuples) -> U64:
    """What Linux hashes for AF_PACKET's fanout: struct flow_keys from `basic` on, 64-bit words.

    net/core/flow_dissector.c: __skb_get_hash_symmetric dissects with the symmetric keys (addresses,
    protocol, ports; no VLAN, no flow label), __flow_hash_consistentify orders the ends, and
    flow_keys_hash_start … flow_keys_hash_length covers 44 bytes of IPv4 and 68 of IPv6, here padded
    with zeros and the length in the last byte, as SipHash ends a message. Newer kernels order
    the ports apart from the addresses, as here; which of the two is done does not change how flows
    spread. ICMP has its addresses alone.
    """
    a, b = tuples.a.byteswap(), tuples.b.byteswap()
    if tuples.version == 4:
        swap = (b[:, 0] - a[:, 0]).view(np.int32) < 0
    else:
        swap = _less(tuples.b, tuples.a)
    first, second = np.where(swap[:, None], b, a), np.where(swap[:, None], a, b)
    ported = np.isin(tuples.proto, _PORTED)
    # The kernel compares ports as they lie in memory.
    ports = np.stack([tuples.sport, tuples.dport]).astype(np.uint16).byteswap().astype(np.uint32)
    joined = ports.min(axis=0) | ports.max(axis=0) << np.uint32(16)
    ethertype = np.uint32(0x0008 if tuples.version == 4 else 0xDD86)
    size = 36 + 8 * tuples.a.shape[1]
    words = np.zeros((len(tuples), size // 8 * 2 + 2), np.uint32)
    words[:, 0] = ethertype | tuples.proto << np.uint32(16)
    # words 1 … 6: flow label, VLAN, inner VLAN, key id: not among the symmetric keys
    words[:, 7] = np.where(ported, joined, 0)
    words[:, 9 : 9 + tuples.a.shape[1]] = first
    words[:, 9 + tuples.a.shape[1] : 9 + 2 * tuples.a.shape[1]] = second
    words[:, -1] |= np.uint32(size << 24)
    return np.ascontiguousarray(words).view(np.uint64)


def suricata_key(tuples: Tuples) -> U32:
    """Suricata's FlowHashKey4 (6 words) or FlowHashKey6 (12) of each row (src/flow-hash.c:
    FlowGetHash): addresses and ports, the larger first; protocol, recursion level 0, device id 1,
    VLANs.

    IPv4 protocols other than TCP and UDP take the constants 0xfeed and 0xbeef as ports.
    """
    a, b = tuples.a.byteswap(), tuples.b.byteswap()
    larger = _less(b, a)  # compared as they lie in memory
    first, second = np.where(larger[:, None], a, b), np.where(larger[:, None], b, a)
    low, high = np.minimum(tuples.sport, tuples.dport), np.maximum(tuples.sport, tuples.dport)
    ports = high | low << np.uint32(16)
    if tuples.version == 4:
        ported = np.isin(tuples.proto, (_TCP, _UDP))
        ports = np.where(ported, ports, np.uint32(0xBEEFFEED))
    rest = (
        ports,
        tuples.proto | np.uint32(1 << 16),
        tuples.outer | tuples.inner << np.uint32(16),
        np.zeros(len(tuples), np.uint32),
    )
    return np.ascontiguousarray(np.concatenate([first, second, np.stack(rest, axis=1)], axis=1))


def _less(one: U32, other: U32) -> npt.NDArray[np.bool_]:
    """Whether rows of `one` are below those of `other`, by their words from left to right."""
    result = np.zeros(len(one), np.bool_)
    for column in range(one.shape[1] - 1, -1, -1):
        left, right = one[:, column], other[:, column]
        result = np.where(left == right, result, left < right)
    return result


@inner
def _rotate32(value: np.uint32, bits: int) -> np.uint32:
    return np.uint32((value << np.uint32(bits)) | (value >> np.uint32(32 - bits)))


@kernel
def hashword(words: U32, seed: int, hashes: U32) -> None:
    """Bob Jenkins's lookup3 hashword (2006; src/util-hash-lookup3.c) of each row of `words`."""
    count = words.shape[1]
    begin = np.uint32(np.uint64(0xDEADBEEF + (count << 2) + seed) & np.uint64(0xFFFFFFFF))
    for row in range(words.shape[0]):
        a = b = c = begin
        at = 0
        while count - at > 3:
            a = np.uint32(a + words[row, at])
            b = np.uint32(b + words[row, at + 1])
            c = np.uint32(c + words[row, at + 2])
            a = np.uint32(np.uint32(a - c) ^ _rotate32(c, 4))
            c = np.uint32(c + b)
            b = np.uint32(np.uint32(b - a) ^ _rotate32(a, 6))
            a = np.uint32(a + c)
            c = np.uint32(np.uint32(c - b) ^ _rotate32(b, 8))
            b = np.uint32(b + a)
            a = np.uint32(np.uint32(a - c) ^ _rotate32(c, 16))
            c = np.uint32(c + b)
            b = np.uint32(np.uint32(b - a) ^ _rotate32(a, 19))
            a = np.uint32(a + c)
            c = np.uint32(np.uint32(c - b) ^ _rotate32(b, 4))
            b = np.uint32(b + a)
            at += 3
        if count - at == 3:
            c = np.uint32(c + words[row, at + 2])
        if count - at >= 2:
            b = np.uint32(b + words[row, at + 1])
        if count - at >= 1:
            a = np.uint32(a + words[row, at])
            c = np.uint32(np.uint32(c ^ b) - _rotate32(b, 14))
            a = np.uint32(np.uint32(a ^ c) - _rotate32(c, 11))
            b = np.uint32(np.uint32(b ^ a) - _rotate32(a, 25))
            c = np.uint32(np.uint32(c ^ b) - _rotate32(b, 16))
            a = np.uint32(np.uint32(a ^ c) - _rotate32(c, 4))
            b = np.uint32(np.uint32(b ^ a) - _rotate32(a, 14))
            c = np.uint32(np.uint32(c ^ b) - _rotate32(b, 24))
        hashes[row] = c


@inner
def _rotate(value: np.uint64, bits: int) -> np.uint64:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@inner
def _sip_round(
    v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    v0 += v1
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 += v3
    v3 = _rotate(v3, 16) ^ v2
    v0 += v3
    v3 = _rotate(v3, 21) ^ v0
    v2 += v1
    v1 = _rotate(v1, 17) ^ v2
    v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


@kernel
def siphash(
    words: U64, key0: np.uint64, key1: np.uint64, rounds: int, last: int, hashes: U64
) -> None:
    """SipHash-`rounds`-`last` of each row of `words` (J.-P. Aumasson, D. J. Bernstein, "SipHash: a
    fast short-input PRF", Indocrypt 2012; lib/siphash.c of Linux is 2-4).

    A row is a whole message in little-endian words, ended as SipHash ends it: the last word holds
    the last 0 … 7 bytes and, in its top byte, the message's length modulo 256.
    """
    for row in range(words.shape[0]):
        v0 = key0 ^ np.uint64(0x736F6D6570736575)
        v1 = key1 ^ np.uint64(0x646F72616E646F6D)
        v2 = key0 ^ np.uint64(0x6C7967656E657261)
        v3 = key1 ^ np.uint64(0x7465646279746573)
        for at in range(words.shape[1]):
            word = words[row, at]
            v3 ^= word
            for _ in range(rounds):
                v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
            v0 ^= word
        v2 ^= np.uint64(0xFF)
        for _ in range(last):
            v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
        hashes[row] = v0 ^ v1 ^ v2 ^ v3
