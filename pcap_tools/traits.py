"""What a traffic mix asks about each flow: its size, its label, whether it is encrypted.

Encryption is told from the first payload that each end sent, where it was captured: TLS records
(RFC 8446 §5.1; a ClientHello anywhere in a TCP flow, hence after STARTTLS too), SSH's banner
(RFC 4253 §4.2), QUIC long headers (RFC 9000 §17.2, versions of RFC 9000, RFC 9369, drafts, Google's
and reserved ones), DTLS records (RFC 9147), WireGuard's handshake, ESP (IP protocol 50, or in UDP
port 4500, RFC 3948). Only where these tell nothing, and the payload is no text, the server's port
decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Capture
from pcap_tools.decode import Decoder
from pcap_tools.errors import EmptyCapture
from pcap_tools.flows import FlowTable
from pcap_tools.forecast import Progress, read_table
from pcap_tools.kernels import (
    I32,
    I64,
    U8,
    as_int,
    inner,
    kernel,
    load16,
    load32,
    load_u8,
    swap16,
    swap32,
)
from pcap_tools.packet import PacketRows
from pcap_tools.walk import U32, Word

__all__ = ["ATTACK", "CIPHERS", "RECORD", "Traits", "read_traits"]

CIPHERS = ("", "tls", "ssh", "quic", "dtls", "esp", "wireguard")
"""Kinds of encryption; the first is none."""

ATTACK = "attack"
"""The label of flows that raise an alert which is due."""

RECORD = 24
"""Bytes that a packet needs beside its frame while flows are put together anew."""

_PORTS = {
    6: dict.fromkeys((443, 465, 563, 636, 853, 989, 990, 992, 993, 994, 995, 5061, 6697, 8443), 1)
    | {22: 2},
    17: {443: 3, 853: 4, 4500: 5, 51820: 6},
}
# What an end's payload looks like, beside the ciphers' numbers + 2.
_NOTHING, _TEXT, _BINARY = 0, 1, 2
_TLS, _SSH, _QUIC, _DTLS, _ESP, _WIREGUARD = 3, 4, 5, 6, 7, 8
_MISSING = 255  # there was payload, but the capture does not have it

_TCP, _UDP, _ESP_PROTOCOL = 6, 17, 50
# The flag bits of pcap_tools.packet, and tunnels by UDP port: VXLAN (both numbers), Geneve, GTP-U,
# Teredo, L2TP. Copies of a tunnel would carry the same inner flows.
_HAS_PORTS, _FRAGMENT, _FOLLOWER, _MALFORMED = 2, 4, 8, 32
_TUNNELS = (4789, 8472, 6081, 2152, 3544, 1701)


@dataclass(frozen=True, eq=False)
class Traits:
    """One entry a flow: packets, bytes (of frames on the wire), `captured` (bytes of frames, and
    RECORD a packet), seconds, cipher (an index into CIPHERS), label (an index into `labels`, whose
    first is ""), weight (1 unless given), and whether it may be there once only (`single`): no
    copy can have a fresh five-tuple, or what it carries would be the same twice.
    """

    table: FlowTable
    packets: I64
    bytes: I64
    captured: I64
    seconds: npt.NDArray[np.float64]
    cipher: U8
    single: npt.NDArray[np.bool_]
    label: I32
    labels: tuple[str, ...]
    weight: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.packets)

    @property
    def encrypted(self) -> npt.NDArray[np.bool_]:
        """Whether the flow is encrypted."""
        return self.cipher > 0

    @property
    def attack(self) -> npt.NDArray[np.bool_]:
        """Whether the flow has the label ATTACK."""
        return np.array([name == ATTACK for name in self.labels])[self.label]

    def labelled(self, labels: dict[int, str], weights: dict[int, float] | None = None) -> Traits:
        """The same with labels (and weights) of the flows numbered; others keep theirs."""
        names, label = list(self.labels), self.label.copy()
        for flow, name in labels.items():
            if name not in names:
                names.append(name)
            label[flow] = names.index(name)
        weight = self.weight.copy()
        for flow, value in (weights or {}).items():
            weight[flow] = value
        return replace(self, label=label, labels=tuple(names), weight=weight)


def read_traits(capture: Capture, idle_s: float, progress: Progress | None = None) -> Traits:
    """The traits of all flows of an open capture (two passes). Raises CaptureError."""
    table = read_table(capture, idle_s, progress)
    if not len(table):
        raise EmptyCapture(f"{capture.paths[0]}: there is no flow in it")
    seen = np.zeros((len(table), 2), np.uint8)
    captured = np.zeros(len(table), np.int64)
    odd = np.zeros(len(table), np.uint8)
    decode = Decoder()
    for batch in capture.batches():
        part = slice(batch.first, batch.first + len(batch))
        _observe(
            batch.data,
            batch.offset,
            batch.caplen,
            decode(batch),
            table.owner[part],
            table.direction[part],
            seen,
            captured,
            odd,
        )
        if progress is not None:
            done = capture.bytes + 16 * capture.packets
            progress("reading payload", done, capture.size)
    rows, count = table.rows, len(table)
    ports = rows["port"]
    backwards = (ports[:, 0] < 1024) & (ports[:, 1] >= 32768)
    tunnel = (rows["proto"] == _UDP) & np.isin(ports, _TUNNELS).any(axis=1)
    return Traits(
        table=table,
        packets=rows["packets"].sum(axis=1),
        bytes=rows["bytes"].sum(axis=1),
        captured=captured,
        seconds=(rows["last_ns"] - rows["first_ns"]) / 1e9,
        cipher=_ciphers(table, seen),
        single=~np.isin(rows["proto"], (_TCP, _UDP)) | (odd > 0) | tunnel | backwards,
        label=np.zeros(count, np.int32),
        labels=("",),
        weight=np.ones(count),
    )


def _ciphers(table: FlowTable, seen: U8) -> U8:
    rows = table.rows
    told = np.where((seen > _BINARY) & (seen != _MISSING), seen - _BINARY, 0).max(axis=1)
    unclear = ((seen == _BINARY) | (seen == _MISSING)).any(axis=1) & (seen != _TEXT).all(axis=1)
    by_port = np.zeros(len(table), np.uint8)
    for proto, ports in _PORTS.items():
        for port, cipher in ports.items():
            by_port[(rows["proto"] == proto) & (rows["port"][:, 1] == port)] = cipher
    found = np.where(told > 0, told, np.where(unclear, by_port, 0))
    found[rows["proto"] == _ESP_PROTOCOL] = CIPHERS.index("esp")
    return found.astype(np.uint8)


@kernel
def _observe(
    data: U8,
    offset: I64,
    caplen: U32,
    rows: PacketRows,
    owner: I32,
    direction: U8,
    seen: U8,
    captured: I64,
    odd: U8,
) -> None:
    base = np.int64(data.ctypes.data)
    for i in range(len(rows)):
        flow = as_int(owner[i])
        if flow < 0:
            continue
        captured[flow] += RECORD + as_int(caplen[i])
        row = rows[i]
        flags = as_int(row.flags)
        if flags & (_FRAGMENT | _MALFORMED):
            odd[flow] = 1
        size = as_int(row.payload)
        if not flags & _HAS_PORTS or flags & (_FOLLOWER | _MALFORMED) or size <= 0:
            continue
        end = as_int(row.l3) + as_int(row.ip_len)
        begin = end - size
        there = min(end, as_int(caplen[i])) - begin
        side = as_int(direction[i])
        old = as_int(seen[flow, side])
        udp = as_int(row.proto) == _UDP
        if udp and as_int(row.sport) != 4500 and as_int(row.dport) != 4500 and old != _NOTHING:
            continue
        if there < 6:
            if old == _NOTHING:
                seen[flow, side] = _MISSING if there < size else _BINARY
            continue
        frame = base + offset[i] + begin
        if udp:
            if old <= _BINARY:
                port = as_int(row.sport) == 4500 or as_int(row.dport) == 4500
                seen[flow, side] = _datagram(frame, there, size, port)
        elif as_int(row.proto) == _TCP:
            kind = _segment(frame, old == _NOTHING)
            if old == _NOTHING or (kind == _TLS and (old <= _BINARY or old == _MISSING)):
                seen[flow, side] = kind


@inner
def _segment(at: Word, first: bool) -> Word:
    """What 6 bytes or more of TCP payload look like; of those not the first, only a ClientHello."""
    kind = as_int(load_u8(at))
    version = as_int(swap16(load16(at + 1)))
    length = as_int(swap16(load16(at + 3)))
    record = 0x0300 <= version <= 0x0304 and 0 < length <= 16384 + 2048
    if record and kind == 22 and load_u8(at + 5) == 1:
        return _TLS
    if not first:
        return _BINARY
    if record and 20 <= kind <= 23:
        return _TLS
    if swap32(load32(at)) == 0x5353482D:  # "SSH-"
        return _SSH
    return _text(at)


@inner
def _datagram(at: Word, there: Word, size: Word, ipsec: bool) -> Word:
    """What 6 bytes or more of UDP payload look like; `ipsec`: on port 4500."""
    kind = as_int(load_u8(at))
    word = as_int(swap32(load32(at)))
    if ipsec:
        return _ESP if word != 0 else _BINARY  # four zero bytes: a key exchange
    version = as_int(swap32(load32(at + 1)))
    if kind & 0xC0 == 0xC0 and as_int(load_u8(at + 5)) <= 20:
        known = version == 1 or version == 0x6B3343CF or version >> 8 == 0xFF0000
        google = version >> 24 == 0x51 or version >> 24 == 0x54  # Q0xx, T0xx
        if known or google or version & 0x0F0F0F0F == 0x0A0A0A0A:
            return _QUIC
    if 20 <= kind <= 23 and (version >> 16 == 0xFEFF or version >> 16 == 0xFEFD):
        return _DTLS
    # Message type, three zero bytes; initiation and response have a fixed length.
    if (word == 0x01000000 and size == 148) or (word == 0x02000000 and size == 92):
        return _WIREGUARD
    return _text(at)


@inner
def _text(at: Word) -> Word:
    for i in range(4):
        octet = as_int(load_u8(at + i))
        if (octet < 32 or octet > 126) and octet not in (9, 10, 13):
            return _BINARY
    return _TEXT
