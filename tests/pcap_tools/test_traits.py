"""Encryption by first payload, beside tshark's dissection; what may be copied."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from synth import MS, T0, Frame, Talk, tshark, write_pcap

from pcap_tools.capture import open_capture
from pcap_tools.traits import CIPHERS, Traits, read_traits

ETHER = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")
RANDOM = bytes(range(32))
BODY = b"\x03\x03" + RANDOM + b"\0" + b"\0\x02\x13\x01" + b"\x01\0" + b"\0\0"
HELLO = b"\x16\x03\x01" + (len(BODY) + 4).to_bytes(2, "big") + b"\x01\0"
HELLO += len(BODY).to_bytes(2, "big") + BODY
DTLS = b"\x16\xfe\xfd" + bytes(8) + (len(BODY) + 12).to_bytes(2, "big") + b"\x01\0"
DTLS += len(BODY).to_bytes(2, "big") + bytes(6) + len(BODY).to_bytes(2, "big") + BODY
QUIC = b"\xc3\0\0\0\x01\x08" + RANDOM[:8] + b"\0\0\x44\xd0" + bytes(1232)
WIREGUARD = b"\x01\0\0\0" + bytes(144)


def traits(path: Path, frames: list[Frame], snaplen: int = 262144) -> Traits:
    with open_capture(write_pcap(path / "in.pcap", frames, snaplen=snaplen)) as capture:
        return read_traits(capture, 60.0)


def ciphers(found: Traits) -> list[str]:
    return [CIPHERS[code] for code in found.cipher]


def tcp(dport: int, *payloads: bytes, first: int = 0) -> list[Frame]:
    talk = Talk(dport=dport).open()
    for n, payload in enumerate(payloads):
        talk.tcp((n + first) % 2, "PA", payload)
    return talk.close().frames


CASES = {
    "tls": (tcp(443, HELLO), "tls", "tls"),
    "tls elsewhere": (tcp(4444, HELLO), "tls", None),
    "starttls": (tcp(25, b"STARTTLS\r\n", b"220 go\r\n", HELLO), "tls", None),
    "http on 443": (tcp(443, b"GET / HTTP/1.1\r\n\r\n"), "", ""),
    "binary on 443": (tcp(443, b"\x80\x01\x02\x03\x04\x05\x06"), "tls", None),
    "binary on 444": (tcp(444, b"\x80\x01\x02\x03\x04\x05\x06"), "", ""),
    "scan of 443": (tcp(443), "", ""),
    "ssh": (tcp(2222, b"SSH-2.0-OpenSSH_9\r\n", first=1), "ssh", None),
    "quic": (Talk(dport=443).udp(0, QUIC).frames, "quic", "quic"),
    "dtls": (Talk(dport=4433).udp(0, DTLS).frames, "dtls", "dtls"),
    "wireguard": (Talk(dport=51820).udp(0, WIREGUARD).frames, "wireguard", "wg"),
    "dns": (Talk(dport=53).udp(0, b"\xab\xcd\x01\0\0\x01" + bytes(20)).frames, "", ""),
    "esp": ([(T0, bytes(ETHER / IP(proto=50) / ESP(spi=7, seq=1, data=RANDOM)))], "esp", "esp"),
    "esp in udp": (Talk(dport=4500).udp(0, b"\0\0\0\x07\0\0\0\x01" + RANDOM).frames, "esp", "esp"),
    "ike": (Talk(dport=4500).udp(0, bytes(4) + RANDOM).frames, "", None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ciphers(tmp_path: Path, name: str) -> None:
    frames, expected, dissected = CASES[name]
    if name == "ike":
        expected = "esp"  # by its port: a key exchange is no text
    assert ciphers(traits(tmp_path, frames)) == [expected]
    if dissected is not None:
        layers = {part for (row,) in protocols(tmp_path / "in.pcap") for part in row.split(":")}
        seen = layers & {"tls", "ssh", "quic", "dtls", "wg", "esp"}
        assert seen == ({dissected} if dissected else set())


def protocols(path: Path) -> list[list[str]]:
    return tshark(path, "frame.protocols")


def test_payload_that_was_not_captured_goes_by_port(tmp_path: Path) -> None:
    frames = tcp(443, HELLO) + [(t + 900 * MS, f) for t, f in tcp(80, b"GET / HTTP/1.0\r\n\r\n")]
    assert ciphers(traits(tmp_path, frames, snaplen=54)) == ["tls", ""]


def test_sums_and_what_may_be_copied(tmp_path: Path) -> None:
    frames = tcp(80, b"GET")
    later = T0 + 500 * MS
    whole = IP(src="10.1.1.1", id=7) / UDP(sport=5000, dport=6000) / Raw(bytes(1000))
    extra = [
        bytes(ETHER / IP(src="10.1.1.2", proto=50) / Raw(RANDOM)),
        bytes(ETHER / IP(src="10.1.1.3") / UDP(sport=5001, dport=4789) / Raw(RANDOM)),
        *(bytes(ETHER / part) for part in fragment(whole, 512)),
    ]
    frames += Talk(sport=1023, dport=40000).open().frames  # the client's port is the known one
    found = traits(tmp_path, frames + [(later + n * MS, f) for n, f in enumerate(extra)])
    single = dict(zip(found.table.rows["port"][:, 1].tolist(), found.single.tolist(), strict=True))
    assert single.pop(80) is False and all(single.values())
    assert found.packets.sum() == len(frames) + len(extra)
    assert found.bytes.sum() == sum(len(f) for _, f in frames) + sum(map(len, extra))
    assert (found.captured == found.bytes + 24 * found.packets).all()
