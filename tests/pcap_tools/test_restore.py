"""Remap and back: real captures come back to the byte where their checksums were right."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewrite_frames import eth, frames, read_capture, write_capture
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from pcap_tools.capture import open_capture
from pcap_tools.errors import PcapError, PlanError
from pcap_tools.plan import AddressPlan
from pcap_tools.remap import RemapOptions, remap, restore, rewrite
from pcap_tools.space import Space

START = 1_700_000_000_000_000_000
CORPORA = next(
    (p / "shared" / "corpora" for p in Path(__file__).parents if (p / "shared/corpora").is_dir()),
    None,
)
CAPTURES = sorted(CORPORA.glob("**/*.pcap")) if CORPORA else []


def frames_of(path: Path) -> list[bytes]:
    found = []
    with open_capture([path]) as capture:
        for batch in capture.batches():
            for at, size in zip(batch.offset.tolist(), batch.caplen.tolist(), strict=True):
                found.append(batch.data[at : at + size].tobytes())
    return found


def roundtrip(source: Path, tmp_path: Path, options: RemapOptions) -> tuple[int, int]:
    """Packets that did not come back, and checksums that were wrong before."""
    report, _ = rewrite([source], tmp_path / "out.pcap", options)
    plan = AddressPlan.load(tmp_path / "out.pcap.plan.json")
    restore([tmp_path / "out.pcap"], tmp_path / "back.pcap", plan)
    before, after = frames_of(source), frames_of(tmp_path / "back.pcap")
    assert len(before) == len(after)
    differing = sum(one != two for one, two in zip(before, after, strict=True))
    fixed = report.counts["fixed_ip_checksums"] + report.counts["fixed_l4_checksums"]
    return differing, fixed


@pytest.mark.skipif(not CAPTURES, reason="the captures are not here")
@pytest.mark.parametrize("prefix", [False, True], ids=["fresh", "prefix"])
def test_real_captures_come_back(tmp_path: Path, prefix: bool) -> None:
    packets = 0
    for source in CAPTURES:
        options = RemapOptions(key="key", iteration=0 if prefix else 5, prefix=prefix, macs="map")
        try:
            differing, fixed = roundtrip(source, tmp_path, options)
        except PcapError as error:  # not a capture that can be read at all
            assert "packet" in str(error) or "link" in str(error), source
            continue
        assert differing <= fixed, source.name
        packets += len(frames_of(source))
    assert packets > 10_000


@given(
    payload=st.binary(max_size=40),
    ends=st.sampled_from([4, 6]).flatmap(
        lambda v: st.tuples(st.ip_addresses(v=v), st.ip_addresses(v=v))
    ),
    iteration=st.integers(0, 10**6),
    layer=st.sampled_from([TCP, UDP]),
    macs=st.sampled_from(["keep", "map"]),
    prefix=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_any_packet_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    payload: bytes,
    ends: tuple[object, object],
    iteration: int,
    layer: type[TCP] | type[UDP],
    macs: str,
    prefix: bool,
) -> None:
    network = IP if "." in str(ends[0]) else IPv6
    frame = bytes(eth() / network(src=str(ends[0]), dst=str(ends[1])) / layer() / Raw(payload))
    tmp_path = tmp_path_factory.mktemp("any")
    source = write_capture(tmp_path / "in.pcap", [(START, frame)])
    options = RemapOptions(key="key", iteration=iteration, macs=macs, prefix=prefix)
    assert roundtrip(source, tmp_path, options) == (0, 0)
    assert (tmp_path / "back.pcap").read_bytes() == source.read_bytes()


def test_an_expansion_comes_back_too(tmp_path: Path) -> None:
    from pcap_tools.expand import ExpandOptions, expand

    known = list(frames().values())
    source = write_capture(tmp_path / "in.pcap", [(START + n, f) for n, f in enumerate(known)])
    options = ExpandOptions(key="key", iterations=4, sequential=True)
    expand([source], str(tmp_path / "out.pcap"), options)
    plan = AddressPlan.load(tmp_path / "out.pcap.plan.json")
    restore([tmp_path / "out.pcap"], tmp_path / "back.pcap", plan)
    assert [frame for _, frame in read_capture(tmp_path / "back.pcap")] == 4 * known


def test_a_plan_serves_several_captures(tmp_path: Path) -> None:
    one, two = (
        write_capture(tmp_path / f"{n}.pcap", [(START, bytes(eth() / IP(src=a, dst=b) / TCP()))])
        for n, (a, b) in enumerate([("10.0.0.1", "8.8.8.8"), ("10.0.0.2", "8.8.8.8")])
    )
    _, narrow = remap([one], tmp_path / "out.pcap", "key")
    with pytest.raises(PlanError, match=r"1 addresses .* 10\.0\.0\.2 first"):
        rewrite([two], tmp_path / "out2.pcap", RemapOptions(plan=narrow))
    _, wide = rewrite([one], tmp_path / "out.pcap", RemapOptions(key="key", also=(two,)))
    rewrite([two], tmp_path / "out2.pcap", RemapOptions(plan=wide))
    mapping = wide.mapped(0)
    for name, home in (("out.pcap", "10.0.0.1"), ("out2.pcap", "10.0.0.2")):
        ((_, frame),) = read_capture(tmp_path / name)
        assert IP(frame[14:]).src == mapping[home]
        assert IP(frame[14:]).dst == mapping["8.8.8.8"]


def test_another_plan_is_refused(tmp_path: Path) -> None:
    source = write_capture(tmp_path / "in.pcap", [(START, frames()["tcp"])])
    _, plan = remap([source], tmp_path / "out.pcap", "key", iteration=7)
    space = Space(home=("10.1.0.0/16",), external_pool=("100.64.0.0/10",))
    other = AddressPlan("key", space, plan.ranked, plan.stay)
    with pytest.raises(PlanError, match="none that the plan hands out"):
        restore([tmp_path / "out.pcap"], tmp_path / "back.pcap", other)
    assert not (tmp_path / "back.pcap").exists()


def test_a_broadcast_that_would_be_handed_out_is_refused(tmp_path: Path) -> None:
    """10.0.0.127 is the broadcast of a /25; the pool of home has it too."""
    sent = Ether(dst="ff:ff:ff:ff:ff:ff") / IP(src="10.0.0.1", dst="10.0.0.127") / UDP()
    broadcast = bytes(sent)
    source = write_capture(tmp_path / "in.pcap", [(START, broadcast)])
    remap([source], tmp_path / "out.pcap", "key", ["10.0.0.0/24"])
    plan = AddressPlan.load(tmp_path / "out.pcap.plan.json")
    with pytest.raises(PlanError, match=r"10\.0\.0\.127, a broadcast"):
        plan.require(0, 254)


@pytest.mark.skipif(not shutil.which("tcprewrite"), reason="tcprewrite is the oracle")
def test_tcprewrite_finds_the_same_checksums(tmp_path: Path) -> None:
    """`tcprewrite --fixcsum` computes every checksum anew: it finds nothing to change.

    Left out is what it gets wrong: it takes padding for payload, knows no fragments
    or quotes, and gives IPv6 frames multicast MAC addresses.
    """
    left_out = ("fragment", "icmp-error", "udp6-ext", "udp-padded")
    names = [name for name in frames() if not name.startswith(left_out)]
    known = [frames()[name] for name in names]
    source = write_capture(tmp_path / "in.pcap", [(START + n, f) for n, f in enumerate(known)])
    remap([source], tmp_path / "out.pcap", "key", iteration=3)
    command = ["tcprewrite", "--fixcsum", "-i", str(tmp_path / "out.pcap")]
    subprocess.run([*command, "-o", str(tmp_path / "fixed.pcap")], check=True, capture_output=True)
    ours, theirs = (frames_of(tmp_path / name) for name in ("out.pcap", "fixed.pcap"))
    for name, one, two in zip(names, ours, theirs, strict=True):
        assert one[12:].hex() == two[12:].hex(), name
