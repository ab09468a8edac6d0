"""Verdicts against TRex's rules: each reason by a flow that has it, and ASTF's parser itself."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import dpkt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw
from synth import MS, T0, Frame, Talk, write_pcap

from pcap_tools.split import SplitOptions, split
from pcap_tools.trexfit import ASTF_REASONS, REASONS, STF_REASONS

# With its addresses: scapy asks the network for those it is not given.
ETHER = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")

# Files that the parser takes, to play the server's part as the client's.
OURS = {"server-first", "same-address"}


class Refused(Exception):
    """TRex's ASTF parser would not take the file."""


def astf_parser(path: Path) -> str:
    """What trex/astf/cap_handling.py (trex-core v3.08) says of a file: "" or its objection.

    `analyze` and `condense_pkt_data`, transcribed: dpkt decodes, the rules are TRex's.
    """
    try:
        _analyze(path)
    except Refused as refused:
        return str(refused)
    except (dpkt.UnpackError, AttributeError, TypeError) as error:
        return f"crash: {error}"
    return ""


def _analyze(path: Path) -> None:
    client = server = kind = first_port = None
    state, payload, expected = 0, 0, {}
    with path.open("rb") as stream:
        for _, data in dpkt.pcap.Reader(stream):
            packet = dpkt.ethernet.Ethernet(data).data
            if not isinstance(packet, dpkt.ip.IP | dpkt.ip6.IP6):
                raise Refused("not IP")
            client, server = client or packet.src, server or packet.dst
            if (packet.src, packet.dst) not in ((client, server), (server, client)):
                raise Refused("another session")
            segment = packet.data
            if not isinstance(segment, dpkt.tcp.TCP | dpkt.udp.UDP):
                raise Refused("neither TCP nor UDP")
            kind = kind or type(segment)
            if type(segment) is not kind:
                raise Refused("mixed")
            first_port = first_port or segment.sport
            payload += len(segment.data)
            if not isinstance(segment, dpkt.tcp.TCP):
                continue
            if segment.flags & 2:
                if segment.flags & 16:
                    if state != 1:
                        raise Refused("SYN-ACK")
                    state, expected["s"] = 2, segment.seq + 1
                else:
                    if state > 1:
                        raise Refused("SYN")
                    state, expected["c"] = 1, segment.seq + 1
                continue
            if state != 2:
                raise Refused("must start with SYN, SYN-ACK")
            side = "c" if segment.sport == first_port else "s"
            if segment.seq != expected[side]:
                raise Refused("loss or retransmission")
            expected[side] = segment.seq + (1 if segment.flags & 1 else len(segment.data))
    if not payload:
        raise Refused("nothing to condense")  # an AttributeError there


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "split.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def verdict(tmp_path: Path, frames: list[Frame], link: int = 1) -> tuple[str, str]:
    """The STF and ASTF reasons of the only flow; ASTF's agrees with its parser."""
    raw = write_pcap(tmp_path / "raw.pcap", frames, link=link)
    directory = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    split(raw, directory)
    (row,) = rows(directory)
    told = row["astf_reason"]
    if told not in OURS:
        objection = astf_parser(directory / row["file"])
        assert (row["astf"] == "yes") == (told == "") == (objection == ""), objection
    assert (row["stf"] == "yes") == (row["stf_reason"] in ("", "ttl-rewritten", "tos-rewritten"))
    return row["stf_reason"], told


def udp(layers: object, size: int = 8, **fields: int) -> Frame:
    network = IP(src="10.0.0.1", dst="10.0.0.2", **fields)
    return T0, bytes(layers / network / UDP(sport=5, dport=6) / Raw(b"x" * size))  # type: ignore[operator]


def steady(*parts: list[Frame]) -> list[Frame]:
    """The frames of all parts, a millisecond apart."""
    frames = [frame for part in parts for _, frame in part]
    return [(T0 + n * MS, frame) for n, frame in enumerate(frames)]


def packets_wrapping() -> list[Frame]:
    return Talk(isn=(2**32 - 150, 5000)).whole().frames


def fin_with_data() -> list[Frame]:
    return Talk().open().talk(1).tcp(0, "FA", b"bye").tcp(1, "FA").tcp(0, "A").frames


CASES: dict[str, tuple[list[Frame], str, str]] = {
    "whole": (Talk().whole().frames, "", ""),
    "whole, tagged": (Talk(vlan=5).whole().frames, "", ""),
    "whole, IPv6": (Talk(client="2001:db8::1", server="2001:db8::2").whole().frames, "", ""),
    "two tags": ([udp(ETHER / Dot1Q(vlan=5) / Dot1Q(vlan=6))], "link", ""),
    "udp": ([udp(ETHER)], "", ""),
    "empty udp": ([udp(ETHER, 0)], "", "no-payload"),
    "icmp": ([(T0, bytes(ETHER / IP() / ICMP()))], "protocol", "protocol"),
    "fragments": (
        [
            (T0 + n, bytes(part))
            for n, part in enumerate(
                fragment(ETHER / IP() / UDP(sport=5, dport=6) / Raw(b"x" * 3000))
            )
        ],
        "fragment",
        "fragment",
    ),
    "dead": ([udp(ETHER, ttl=0)], "ttl-zero", ""),
    "long-lived": ([udp(ETHER, ttl=129)], "ttl-rewritten", ""),
    "as long as may be": ([udp(ETHER, ttl=128)], "", ""),
    "marked": ([udp(ETHER, tos=1)], "tos-rewritten", ""),
    "ect(0)": ([udp(ETHER, tos=2)], "", ""),
    "jumbo": ([udp(ETHER, 9239 - 42)], "frame-too-large", ""),
    "as large as may be": ([udp(ETHER, 9238 - 42)], "", ""),
    "backwards": ([udp(ETHER), (T0 - MS, udp(ETHER)[1])], "time-backwards", ""),
    "midstream": (Talk().talk().close().frames, "", "midstream"),
    "no SYN": (Talk().open().talk().close().frames[1:], "server-first", "server-first"),
    "SYN twice": (steady(Talk().open().frames[:1], Talk().whole().frames), "", ""),
    "SYN-ACK twice": (
        steady(Talk().open().frames[:2], Talk().whole().frames[1:]),
        "",
        "handshake",
    ),
    "resent": (steady(Talk().whole().frames[:5], Talk().whole().frames[3:]), "", "retransmission"),
    "lost": (steady(Talk().whole().frames[:4], Talk().whole().frames[5:]), "", "gap"),
    "wrap": (packets_wrapping(), "", "sequence-wrap"),
    "late data": (fin_with_data(), "", "fin-with-data"),
    "one port": (Talk(sport=80).whole().frames, "", "same-port"),
    "nothing said": (Talk().open().close().frames, "", "no-payload"),
    "to itself": (
        Talk(client="10.0.0.1", server="10.0.0.1").whole().frames,
        "same-address",
        "same-address",
    ),
    "alike in 32 bits": (
        Talk(client="2001:db8:1::1", server="2001:db8:2::1").whole().frames,
        "same-address",
        "",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_reason_and_what_is_just_right(tmp_path: Path, name: str) -> None:
    frames, stf, astf = CASES[name]
    assert verdict(tmp_path, frames) == (stf, astf)


def test_frames_without_ethernet_do_not_fit(tmp_path: Path) -> None:
    frames = [(time, frame[14:]) for time, frame in Talk().whole().frames]
    raw = write_pcap(tmp_path / "raw.pcap", frames, link=101)
    report = split(raw, tmp_path / "out")
    assert (report.stf, report.astf) == ({"link": 1}, {"link": 1})


def test_extension_headers_do_not_fit(tmp_path: Path) -> None:
    ip = IPv6(src="2001:db8::1", dst="2001:db8::2")
    frame = ETHER / ip / IPv6ExtHdrHopByHop() / UDP(sport=5, dport=6) / Raw(b"x")
    report = split(write_pcap(tmp_path / "raw.pcap", [(T0, bytes(frame))]), tmp_path / "out")
    assert (report.stf, report.astf) == ({"protocol": 1}, {"protocol": 1})


def test_snapped_packets_do_not_fit(tmp_path: Path) -> None:
    raw = write_pcap(tmp_path / "raw.pcap", Talk().whole().frames, snaplen=80)
    report = split(raw, tmp_path / "out")
    assert (report.stf, report.astf) == ({"truncated": 1}, {"truncated": 1})


@pytest.mark.parametrize("packets", [64_999, 65_000])
def test_packets_are_counted_in_both_directions_together(tmp_path: Path, packets: int) -> None:
    request, answer = Talk(dport=53).udp(0).udp(1).frames
    frames = [(T0 + n, (request, answer)[n % 2][1]) for n in range(packets)]
    report = split(write_pcap(tmp_path / "raw.pcap", frames), tmp_path / "out")
    assert report.stf == ({} if packets < 65_000 else {"too-many-packets": 1})


mutations = st.lists(
    st.tuples(st.sampled_from(["drop", "repeat", "swap", "keepalive"]), st.integers(0, 30)),
    max_size=3,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=mutations,
    rounds=st.integers(0, 3),
    isn=st.tuples(*[st.sampled_from([1000, 2**32 - 700, 2**32 - 1])] * 2),
    reset=st.booleans(),
)
def test_astf_verdicts_are_those_of_the_parser(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[str, int]],
    rounds: int,
    isn: tuple[int, int],
    reset: bool,
) -> None:
    talk = Talk(isn=isn).open().talk(rounds)
    talk = talk.tcp(1, "RA") if reset else talk.close()
    frames = [frame for _, frame in talk.frames]
    for change, place in changes:
        at = place % len(frames)
        if change == "drop" and len(frames) > 1:
            del frames[at]
        elif change == "repeat":
            frames.insert(at, frames[at])
        elif change == "swap":
            frames[at - 1], frames[at] = frames[at], frames[at - 1]
        elif change == "keepalive":
            probe = Ether(frames[at])
            probe[TCP].seq = (probe[TCP].seq - 1) % 2**32
            frames.insert(at, bytes(probe))
    tmp_path = tmp_path_factory.mktemp("astf")
    raw = write_pcap(tmp_path / "raw.pcap", [(T0 + n * MS, f) for n, f in enumerate(frames)])
    split(raw, tmp_path / "out")
    for row in rows(tmp_path / "out"):
        if row["astf_reason"] not in OURS:
            objection = astf_parser(tmp_path / "out" / row["file"])
            assert (row["astf"] == "yes") == (objection == ""), (row, objection)


def test_every_reason_is_explained_and_tested() -> None:
    assert set(STF_REASONS) | set(ASTF_REASONS) | {"reply-gap"} == set(REASONS)
    seen = {code for _, stf, astf in CASES.values() for code in (stf, astf)} - {""}
    elsewhere = {"truncated", "too-many-packets", "reply-gap"}
    assert seen | elsewhere == set(REASONS)


def adapted(tmp_path: Path, frames: list[Frame], **options: float) -> list[Frame]:
    raw = write_pcap(tmp_path / "raw.pcap", frames)
    split(raw, tmp_path / "out", SplitOptions(target="stf", **options))  # type: ignore[arg-type]
    (row,) = rows(tmp_path / "out")
    assert row["stf"] == "adapted"
    with (tmp_path / "out" / row["file"]).open("rb") as stream:
        return [(round(t * 1e6) * 1000, bytes(b)) for t, b in dpkt.pcap.Reader(stream)]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("vlan", [0, 9])
def test_ttl_and_tos_are_what_trex_makes_of_them(tmp_path: Path, version: int, vlan: int) -> None:
    ether = ETHER / Dot1Q(vlan=vlan) if vlan else ETHER
    chance = random.Random(version)
    frames, wanted = [], []
    for n in range(200):
        ttl, tos = chance.choice([1, 64, 128, 129, 255]), chance.randrange(256)
        for out, limit, mask in ((frames, 255, 255), (wanted, 128, 254)):
            ip = (
                IP(src="10.0.0.1", dst="10.9.8.7", ttl=min(ttl, limit), tos=tos & mask, id=n)
                if version == 4
                else IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=min(ttl, limit), tc=tos & mask)
            )
            out.append((T0 + n * MS, bytes(ether / ip / UDP(sport=5, dport=6) / Raw(b"x"))))
    assert adapted(tmp_path, frames) == wanted  # scapy's checksums: computed from scratch


def test_time_goes_forward_and_replies_keep_their_distance(tmp_path: Path) -> None:
    request, answer = (frame for _, frame in Talk(dport=53).udp(0).udp(1).frames)
    times = [0, 1, 2, 1, 100, 101, 105]
    flow = [request, answer, request, request, answer, answer, request]
    frames = [(T0 + time * MS, frame) for time, frame in zip(times, flow, strict=True)]
    found = adapted(tmp_path, frames, reply_gap_s=0.01)
    # 1 → 10, 2 → 20, the one before goes with it; the answer had room; its distances stay.
    shift = 9 + 9
    expected = [0, 10, 20, 20, 100 + shift, 101 + shift, 101 + shift + 10]
    assert [(time - T0) // MS for time, _ in found] == expected
    assert [frame for _, frame in found] == flow


def test_dropped_flows_are_listed_without_a_file(tmp_path: Path) -> None:
    good, bad = Talk(sport=1111).whole(), Talk(sport=2222).talk()
    frames = sorted(good.frames + bad.frames, key=lambda frame: frame[0])
    raw = write_pcap(tmp_path / "raw.pcap", frames)
    report = split(raw, tmp_path / "out", SplitOptions(target="astf"))
    assert (report.files, report.dropped, report.exact) == (1, {"midstream": 1}, False)
    listed = {row["client_port"]: row for row in rows(tmp_path / "out")}
    assert listed["1111"]["file"] == "0-tcp-80.pcap"
    assert (listed["2222"]["file"], listed["2222"]["astf"]) == ("", "no")
    assert listed["2222"]["packets_out"] == "4"
    assert not list((tmp_path / "out").glob("1-*"))
    assert astf_parser(tmp_path / "out" / "0-tcp-80.pcap") == ""
