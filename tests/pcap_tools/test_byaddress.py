"""Addresses looked up in the small tables against the general way, frame by frame."""

from __future__ import annotations

import errno
import mmap
import os
import random
import resource
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import checksum
from synth import MS, T0, Frame, Talk, write_pcap
from test_readdress import CORPORA, ETHER, odd_frames

from pcap_tools import parts
from pcap_tools.byaddress import ByAddress
from pcap_tools.capture import open_capture
from pcap_tools.checksum import fold, sum_message, sum_words
from pcap_tools.errors import OutputError
from pcap_tools.fresh import FreshAddresses
from pcap_tools.kernels import U8, U64, kernel
from pcap_tools.known import home
from pcap_tools.memory import Presence, populate, reserve
from pcap_tools.remap import RemapOptions, by_frames, remap, rewrite


def both_ways(raw: Path, directory: Path) -> tuple[bytes, bytes]:
    """The capture with fresh addresses, frame by frame and by the small tables."""
    options = RemapOptions(key="key", iteration=3)
    slow, fast = directory / "slow.pcap", directory / "fast.pcap"
    reports = [by_frames([raw], slow, options)[0], rewrite([raw], fast, options)[0]]
    first, second = (
        {k: v for k, v in report.as_json().items() if k != "output"} for report in reports
    )
    assert first == second
    plans = [path.with_name(path.name + ".plan.json").read_bytes() for path in (slow, fast)]
    assert plans[0] == plans[1]
    return slow.read_bytes(), fast.read_bytes()


def many(count: int) -> list[Frame]:
    """As many addresses as make the tables grow, some of them IPv6."""
    frames = []
    for number in range(count):
        low = number.to_bytes(3)
        client = f"10.{low[0]}.{low[1]}.{low[2]}"
        packet = IP(src=client, dst="0.0.0.0") if number % 9 else IPv6(src=f"fd00::{number:x}")
        frames.append((T0 + number * MS, bytes(ETHER / packet / UDP(sport=9, dport=7))))
    return frames


def test_odd_frames_and_plain_ones(tmp_path: Path) -> None:
    six = Talk(client="fd00::5", server="2600::5", vlan=3).whole()
    raw = write_pcap(tmp_path / "raw.pcap", sorted([*Talk().whole().frames, *six.frames]))
    for frames in (odd_frames(), [*Talk().whole().frames, *odd_frames()], six.frames):
        raw = write_pcap(tmp_path / "raw.pcap", sorted(frames))
        slow, fast = both_ways(raw, tmp_path)
        assert slow == fast


def test_more_addresses_than_the_tables_begin_with(tmp_path: Path) -> None:
    slow, fast = both_ways(write_pcap(tmp_path / "raw.pcap", many(5000)), tmp_path)
    assert slow == fast


def test_in_small_parts_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts with odd frames, for which a kernel stops, and parts without, by two threads."""
    odd = [frame for _, frame in odd_frames()]
    frames = [
        (T0 + number * MS, odd[number // 40 % len(odd)] if number % 40 == 7 else frame)
        for number, (_, frame) in enumerate(many(3000))
    ]
    raw = write_pcap(tmp_path / "raw.pcap", frames)
    slow, one = both_ways(raw, tmp_path)
    monkeypatch.setattr(parts, "_OCTETS", 700)
    assert both_ways(raw, tmp_path) == (slow, one)
    assert slow == one


def test_no_address_fills_no_table(tmp_path: Path) -> None:
    raw = write_pcap(tmp_path / "raw.pcap", many(300))
    work = ByAddress(FreshAddresses("key"))
    with open_capture([raw]) as capture:
        work.collect(capture)
    four = [n for n in range(300) if n % 9]
    assert work.seen == len(four)  # and 0.0.0.0, whose place is a free one
    assert len(work.book) == len(four) + 1 + (300 - len(four)) + 1


def test_addresses_of_any_networks_lie_apart() -> None:
    """What a lookup costs: how many places it meets in a table that is half full at most."""
    chance = random.Random(3)
    networks = {
        "in order": range(0x0A000001, 0x0A000001 + 30_000),
        "one a network": range(0x0A000001, 0x0B000001, 512),
        "a few networks": [
            chance.randrange(1 << 16) << 16 | host for _ in range(30) for host in range(1000)
        ],
        "two pools": [*range(0x0A000001, 0x0A004000), *range(0x17550000, 0x17554000)],
    }
    for name, found in networks.items():
        addresses = np.unique(np.array(found, np.uint32)).byteswap().astype(np.uint64)
        bits = (2 * len(addresses)).bit_length()
        assert _places_met(addresses, bits) < 1.6 * len(addresses), name


@kernel
def _places_met(addresses: U64, bits: int) -> int:
    taken = np.zeros(1 << bits, np.bool_)
    met = 0
    for address in addresses:
        place = home(address, bits)
        while taken[place]:
            place = (place + 1) & ((1 << bits) - 1)
            met += 1
        taken[place] = True
        met += 1
    return met


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_the_bytes(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    chance = random.Random(seed)
    damaged = []
    for time, frame in [*Talk().whole().frames, *odd_frames()]:
        octets = bytearray(frame)
        for _ in range(chance.choice([0, 0, 1, 3])):
            octets[chance.randrange(12, len(octets))] = chance.randrange(256)
        damaged.append((time, bytes(octets[: chance.choice([len(octets)] * 4 + [60])])))
    directory = tmp_path_factory.mktemp("damaged")
    slow, fast = both_ways(write_pcap(directory / "raw.pcap", damaged), directory)
    assert slow == fast


@pytest.mark.skipif(not CORPORA.is_dir(), reason="no ../shared/corpora beside this checkout")
def test_real_captures(tmp_path: Path) -> None:
    for raw in sorted(CORPORA.rglob("*.pcap")):
        slow, fast = both_ways(raw, tmp_path)
        assert slow == fast, raw


@pytest.mark.parametrize("name", ["out.pcapng", "out.pcap.gz", "out.pcap"])
def test_every_output_holds_the_same_packets(tmp_path: Path, name: str) -> None:
    frames = sorted([*Talk().whole().frames, *odd_frames()])
    raw = write_pcap(tmp_path / "raw.pcap", frames)
    out, plain = tmp_path / name, tmp_path / "as.pcap"
    remap([raw], out, "key")
    subprocess.run(["editcap", "-F", "pcap", out, plain], check=True)
    remap([raw], tmp_path / "direct.pcap", "key")
    assert plain.read_bytes()[24:] == (tmp_path / "direct.pcap").read_bytes()[24:]


@kernel
def _sums(data: U8, size: int) -> tuple[np.uint64, np.uint64]:
    address = np.int64(data.ctypes.data) + 34
    return fold(sum_message(address, size)), sum_words(address, size)


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=8, max_size=300))
def test_the_sum_of_a_message(message: bytes) -> None:
    data = np.frombuffer(b"\xa5" * 34 + message, np.uint8)
    found, words = _sums(data, len(message))
    assert int(found) % 0xFFFF == int(words) % 0xFFFF
    right = (~checksum(message)) & 0xFFFF  # scapy's is complemented, in network order
    assert int.from_bytes(int(found).to_bytes(2, "little")) % 0xFFFF == right % 0xFFFF


def test_a_limit_of_file_sizes_is_one_line_too(tmp_path: Path) -> None:
    raw = write_pcap(tmp_path / "raw.pcap", many(200))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"out\.pcap: cannot be written: File too large"):
            remap([raw], tmp_path / "out.pcap", "key")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["raw.pcap"]


def test_memory_is_made_present_ahead_and_stays_what_it_is() -> None:
    rows = reserve(1 << 22, np.int64)
    rows[:1000] = 7
    presence = Presence()
    presence.follow(rows, 1 << 19)
    presence.close()
    end = (1 << 19) * 8
    resident = Path("/proc/self/smaps").read_text()
    address = rows.ctypes.data
    area = next(
        part
        for part in resident.split("VmFlags")
        for line in part.splitlines()
        if "-" in line.split(" ")[0]
        and len(line.split()) >= 5
        and ":" in line.split()[3]
        and int(line.split("-")[0], 16) <= address < int(line.split(" ")[0].split("-")[1], 16)
    )
    kilobytes = int(next(x for x in area.splitlines() if x.startswith("Rss:")).split()[1])
    assert kilobytes * 1024 >= end // 2
    assert rows[:1000].tolist() == [7] * 1000 and not rows[1000:].any()


def test_populating_what_is_not_there_is_an_errno() -> None:
    assert populate(mmap.PAGESIZE, 2 * mmap.PAGESIZE) in (errno.ENOMEM, errno.EINVAL)
    assert os.strerror(errno.ENOMEM)


def test_broadcast_is_no_plain_frame(tmp_path: Path) -> None:
    frame = bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / IP(src="10.0.0.1", dst="10.0.0.255") / UDP())
    slow, fast = both_ways(write_pcap(tmp_path / "raw.pcap", [(T0, frame)]), tmp_path)
    assert slow == fast
