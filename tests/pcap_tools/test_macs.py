"""MAC addresses: the permutation, its words, and fixed ones by direction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewrite_frames import HOME, OUTSIDE, read_capture, write_capture
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from scapy.utils import checksum

from pcap_tools.errors import PlanError
from pcap_tools.macs import FixedMacs, mac_text, mac_words, mapped_macs, parse_mac, parse_macs
from pcap_tools.plan import AddressPlan
from pcap_tools.remap import RemapOptions, rewrite

START = 1_700_000_000_000_000_000


def test_mapped_ones_are_distinct_local_and_unicast() -> None:
    made = mapped_macs("key", 5000)
    assert len(np.unique(made)) == 5000
    assert (made >> np.uint64(40) & np.uint64(3) == 2).all()
    assert (made < np.uint64(1 << 48)).all()
    assert (mapped_macs("other", 5000) != made).all()


@given(numbers=st.lists(st.integers(0, 2**48 - 1), max_size=8))
def test_words_are_the_bytes_and_their_sum(numbers: list[int]) -> None:
    for number, word in zip(numbers, mac_words(np.array(numbers, np.uint64)), strict=True):
        octets = number.to_bytes(6, "big")
        assert int(word & np.uint64(2**48 - 1)).to_bytes(6, "little") == octets
        total = int(word >> np.uint64(48)).to_bytes(2, "little")
        assert checksum(octets + b"\0\0") == 0xFFFF ^ int.from_bytes(total, "big")


@pytest.mark.parametrize("text", ["", "drop", "client=02:00:00:00:00:01", "client=x,server=y"])
def test_a_wrong_wish_is_named(text: str) -> None:
    with pytest.raises(PlanError, match="--macs"):
        parse_macs(text)


def test_wishes_and_texts() -> None:
    assert parse_macs("map") == "map"
    fixed = parse_macs("client=02:00:00:00:00:0a,server=02-00-00-00-00-0B")
    assert fixed == FixedMacs(0x02000000000A, 0x02000000000B)
    assert mac_text(0x02000000000A) == "02:00:00:00:00:0a"
    with pytest.raises(PlanError, match="group address"):
        parse_mac("01:00:5e:00:00:01")


def test_fixed_ones_follow_the_direction(tmp_path: Path) -> None:
    near, far = "00:11:22:00:00:01", "00:11:22:00:00:02"
    there = IP(src=HOME, dst=OUTSIDE) / TCP(sport=40000, dport=80, flags="S", seq=1)
    back = IP(src=OUTSIDE, dst=HOME) / TCP(sport=80, dport=40000, flags="SA", seq=9, ack=2)
    sent = [
        Ether(src=near, dst=far) / there,
        Ether(src=far, dst=near) / back,
        Ether(src=near, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc=HOME, pdst=OUTSIDE),
        Ether(src=near, dst="01:00:5e:00:00:01") / IP(src=HOME, dst="224.0.0.1") / Raw(b"x" * 8),
    ]
    timed = [(START + n, bytes(frame)) for n, frame in enumerate(sent)]
    source = write_capture(tmp_path / "in.pcap", timed)
    macs = FixedMacs(0x02000000000A, 0x02000000000B)
    rewrite([source], tmp_path / "out.pcap", RemapOptions(key="key", macs=macs))
    frames = [Ether(frame) for _, frame in read_capture(tmp_path / "out.pcap")]
    client, server = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
    assert (frames[0].src, frames[0].dst) == (client, server)
    assert (frames[1].src, frames[1].dst) == (server, client)
    assert (frames[2].src, frames[2].dst) == (near, "ff:ff:ff:ff:ff:ff")
    assert (frames[3].src, frames[3].dst) == (client, "01:00:5e:00:00:01")
    assert AddressPlan.load(tmp_path / "out.pcap.plan.json").macs is None
