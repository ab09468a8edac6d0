"""A bounded population: hosts recur, five-tuples do not, and every packet maps back."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewrite_frames import eth, read_capture, rebuilt, write_capture
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from pcap_tools.errors import PlanError, PoolExhausted
from pcap_tools.expand import ExpandOptions, expand, prepare
from pcap_tools.invert import WireFlow, invert_flows
from pcap_tools.plan import AddressPlan, invert_many
from pcap_tools.population import Population, parse_hosts
from pcap_tools.ports import mover_of
from pcap_tools.remap import RemapOptions, restore, rewrite
from pcap_tools.sockets import Sockets

START = 1_700_000_000_000_000_000


def frames() -> list[bytes]:
    """Complete flows of three clients, two of them to the same server port, and what goes along."""
    made = []
    for client, port in (("10.0.0.1", 40000), ("10.0.0.1", 40001), ("10.0.0.2", 40000)):
        there, back = IP(src=client, dst="8.8.8.8"), IP(src="8.8.8.8", dst=client)
        out = {"sport": port, "dport": 443}
        home = {"sport": 443, "dport": port}
        made += [
            eth() / there / TCP(**out, flags="S", seq=10),
            eth() / back / TCP(**home, flags="SA", seq=90, ack=11),
            eth() / there / TCP(**out, flags="A", seq=11, ack=91),
            eth() / there / TCP(**out, flags="PA", seq=11, ack=91) / Raw(b"hello"),
            eth() / back / TCP(**home, flags="FA", seq=91, ack=16),
            eth() / there / TCP(**out, flags="FA", seq=16, ack=92),
            eth() / back / TCP(**home, flags="A", seq=92, ack=17),
        ]
    query = IP(src="10.0.0.1", dst="9.9.9.9") / UDP(sport=5000, dport=5353) / Raw(b"q")
    made += [
        eth() / query,
        eth() / IP(src="9.9.9.9", dst="10.0.0.1") / UDP(sport=5353, dport=5000) / Raw(b"a"),
        eth() / IP(src="9.9.9.9", dst="10.0.0.1") / ICMP(type=3, code=3) / Raw(bytes(query)),
        eth() / IP(src="10.0.0.2", dst="8.8.8.8") / UDP(sport=123, dport=123) / Raw(b"ntp"),
        eth() / IP(src="10.0.0.2", dst="8.8.8.8") / ICMP(type=8, id=7) / Raw(b"ping"),
        eth() / IP(src="8.8.8.8", dst="10.0.0.2") / ICMP(type=0, id=7) / Raw(b"ping"),
        eth() / IPv6(src="fd00::1", dst="2001:470::1") / ICMPv6EchoRequest(id=9) / Raw(b"six"),
        eth() / IPv6(src="2001:470::1", dst="fd00::1") / ICMPv6EchoReply(id=9) / Raw(b"six"),
        eth() / IPv6(src="fd00::1", dst="2001:470::1") / UDP(sport=6000, dport=53, chksum=0),
    ]
    return [bytes(frame) for frame in made]


FRAMES = frames()


def source(tmp_path: Path) -> Path:
    return write_capture(
        tmp_path / "in.pcap", [(START + n * 1000, f) for n, f in enumerate(FRAMES)]
    )


def five_tuple(frame: bytes) -> WireFlow:
    parsed = Ether(frame)
    ip = parsed.payload
    protocol = ip.proto if IP in parsed else ip.nh
    if TCP in parsed or UDP in parsed:
        ports = ip.payload.sport, ip.payload.dport
    elif ICMP in parsed and parsed[ICMP].type in (0, 8):
        ports = (parsed[ICMP].id, 0) if parsed[ICMP].type == 8 else (0, parsed[ICMP].id)
    elif ICMPv6EchoRequest in parsed:
        ports = parsed[ICMPv6EchoRequest].id, 0
    elif ICMPv6EchoReply in parsed:
        ports = 0, parsed[ICMPv6EchoReply].id
    else:
        ports = 0, 0
    return WireFlow(protocol, ip.src, ports[0], ip.dst, ports[1])


def expanded(tmp_path: Path, count: int, **options: object) -> tuple[list[bytes], AddressPlan]:
    asked = ExpandOptions(
        key="key",
        iterations=count,
        sequential=True,
        hosts=Population(7, 12),
        timeout=0.0,
        **options,  # type: ignore[arg-type]
    )
    expand([source(tmp_path)], str(tmp_path / "out.pcap"), asked)
    plan = AddressPlan.load(tmp_path / "out.pcap.plan.json")
    return [frame for _, frame in read_capture(tmp_path / "out.pcap")], plan


def test_every_packet_maps_back_to_its_iteration_and_flow(tmp_path: Path) -> None:
    written, plan = expanded(tmp_path, 40, first=5)
    assert len(written) == 40 * len(FRAMES)
    origins = invert_flows(plan, [five_tuple(frame) for frame in written])
    for number, origin in enumerate(origins):
        turn, position = divmod(number, len(FRAMES))
        assert origin is not None
        expected = five_tuple(FRAMES[position])
        assert origin.flow == expected, position
        if expected.protocol == 6 or 5000 in expected or 7 in expected or 9 in expected:
            assert origin.iteration == turn + 5, position
        else:  # nothing but addresses tells: 3 and 4 iterations, hence 12
            assert (origin.iteration - turn - 5) % origin.modulo == 0


def test_hosts_recur_and_sockets_do_not(tmp_path: Path) -> None:
    written, _ = expanded(tmp_path, 60)
    flows = [five_tuple(frame) for frame in written]
    home = {f.source for f in flows if f.source.startswith(("10.", "172.", "192.168"))}
    assert 4 <= len(home) <= 6  # two clients in the corpus, seven hosts: three pairs
    seen: dict[frozenset[tuple[str, int]], set[int]] = {}
    for number, flow in enumerate(flows):
        if flow.protocol == 6:
            ends = frozenset({(flow.source, flow.source_port), (flow.target, flow.target_port)})
            seen.setdefault(ends, set()).add(number // len(FRAMES))
    assert all(len(iterations) == 1 for iterations in seen.values())
    assert len(seen) == 3 * 60


def test_checksums_are_those_scapy_computes(tmp_path: Path) -> None:
    written, _ = expanded(tmp_path, 6)
    for frame in written:
        if Ether(frame).haslayer("ICMPv6EchoReply"):
            continue
        assert frame.hex() == rebuilt(frame).hex()


def test_an_icmp_error_quotes_the_moved_port(tmp_path: Path) -> None:
    written, _ = expanded(tmp_path, 3)
    for turn in range(3):
        query, _, error = written[turn * len(FRAMES) + 21 :][:3]
        quoted = Ether(error)["UDPerror"]
        assert quoted.sport == Ether(query)[UDP].sport
        assert Ether(error)["IPerror"].src == Ether(query)[IP].src
        assert quoted.chksum == Ether(query)[UDP].chksum


def test_an_icmp_error_around_a_cut_quote_is_summed_anew(tmp_path: Path) -> None:
    """Eight bytes of TCP have the port but no checksum that would balance it."""
    syn = IP(src="10.0.0.1", dst="8.8.8.8") / TCP(sport=40000, dport=443, flags="S")
    error = IP(src="8.8.8.8", dst="10.0.0.1") / ICMP(type=11) / Raw(bytes(syn)[:28])
    timed = [(START, bytes(eth() / syn)), (START + 1, bytes(eth() / error))]
    path = write_capture(tmp_path / "in.pcap", timed)
    options = RemapOptions(key="key", hosts=Population(7, 12), iteration=29)
    rewrite([path], tmp_path / "out.pcap", options)
    (_, first), (_, second) = read_capture(tmp_path / "out.pcap")
    assert second[62:64] == first[34:36] != bytes(syn)[20:22]
    assert second == rebuilt(second)


def test_remap_and_expand_agree(tmp_path: Path) -> None:
    written, _ = expanded(tmp_path, 30)
    options = RemapOptions(key="key", hosts=Population(7, 12), iteration=29)
    report, plan = rewrite([tmp_path / "in.pcap"], tmp_path / "one.pcap", options)
    assert [frame for _, frame in read_capture(tmp_path / "one.pcap")] == written[-len(FRAMES) :]
    assert report.reuse is not None
    assert report.reuse.fixed_flows == 2  # NTP, and the ICMP error by itself
    with pytest.raises(PlanError, match="moves client ports"):
        restore([tmp_path / "one.pcap"], tmp_path / "back.pcap", plan)
    loaded = AddressPlan.load(tmp_path / "one.pcap.plan.json")
    assert loaded == plan
    with pytest.raises(PlanError, match="five-tuple"):
        invert_many(loaded, ["10.0.0.1"])


@given(
    ports=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([6, 17]), st.integers(0, 4)), max_size=30
    ),
    wide=st.integers(1, 20_000),
)
@settings(max_examples=25, deadline=None)
def test_the_reuse_distance_is_exact(ports: list[tuple[int, int, int]], wide: int) -> None:
    """No socket of a client comes back before all turns are over; then the first one does."""
    rows = [(g, p, r, 2000 + n) for n, (g, p, r) in enumerate(ports)]
    rows += [(1, 6, 0, 3000 + n) for n in range(wide)]
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    seen = np.zeros(65536, np.int64)
    seen[[8080, 443]] = 1
    sockets = Sockets.of(*columns, seen)
    assert 8080 not in sockets.free
    assert Sockets.from_json(json.loads(json.dumps(sockets.as_json()))) == sockets
    width, turns = int(sockets.widths[1]), int(sockets.turns[1])
    assert width >= wide
    assert width * turns <= len(sockets.free) < width * (turns + 1)
    used = sockets.permutation("key", 1).images(np.arange(width * turns, dtype=np.uint64))
    assert len(np.unique(sockets.free[used.astype(np.int64)])) == width * turns
    found = sockets.find(sockets.group, sockets.protocol, sockets.rank, sockets.numbers)
    assert (found == np.arange(len(sockets))).all()


def test_a_scan_leaves_half_the_ports_free() -> None:
    seen = np.ones(65536, np.int64)
    seen[9000] = 5
    one = np.array([0], np.int64)
    sockets = Sockets.of(one, one + 6, one, one + 40000, seen)
    assert len(sockets.free) == 32768
    assert 9000 in sockets.servers


def test_too_early_is_refused_with_numbers(tmp_path: Path) -> None:
    """Two clients in two hosts: the addresses recur each iteration, the ports after 32,255."""
    options = {"key": "key", "iterations": 10**6, "hosts": Population(2, 2), "every": 1e-3}
    with pytest.raises(PlanError, match=r"tcp five-tuples come back after 32,255 iter") as e:
        prepare([source(tmp_path)], ExpandOptions(**options))  # type: ignore[arg-type]
    assert "32.3 s" in str(e.value)
    assert "600 s" in str(e.value)
    for change in ({"timeout": 30.0}, {"every": 1.0}, {"iterations": 30000}):
        expansion = prepare([source(tmp_path)], ExpandOptions(**{**options, **change}))  # type: ignore[arg-type]
        reuse = expansion.plan.run["reuse"]
        assert reuse["by_protocol"]["tcp"] == reuse["iterations"]
        assert reuse["fixed_iterations"] == 1


def test_fewer_hosts_than_the_corpus_has_are_refused(tmp_path: Path) -> None:
    options = ExpandOptions(key="key", iterations=2, hosts=Population(1, 9))
    with pytest.raises(PoolExhausted, match="home4 has 2 addresses in the corpus, --hosts"):
        prepare([source(tmp_path)], options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5000", Population(5000, 5000)),
        ("home=200,external=20000", Population(200, 20000)),
        ("home=3", Population(3, None)),
    ],
)
def test_hosts_are_parsed(text: str, expected: Population) -> None:
    assert parse_hosts(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-4", "home", "home=x", "away=3", "home=0"])
def test_wrong_hosts_are_named(text: str) -> None:
    with pytest.raises(PlanError, match="--hosts"):
        parse_hosts(text)


def test_without_hosts_nothing_moves_and_flows_invert(tmp_path: Path) -> None:
    asked = ExpandOptions(key="key", iterations=9, sequential=True)
    expand([source(tmp_path)], str(tmp_path / "out.pcap"), asked)
    plan = AddressPlan.load(tmp_path / "out.pcap.plan.json")
    assert mover_of(plan).free.size == 1
    written = [frame for _, frame in read_capture(tmp_path / "out.pcap")]
    flows = [five_tuple(frame) for frame in written]
    for (number, flow), origin in zip(enumerate(flows), invert_flows(plan, flows), strict=True):
        assert origin is not None
        assert origin.iteration == number // len(FRAMES)
        assert origin.flow == five_tuple(FRAMES[number % len(FRAMES)])
        assert flow.source_port == origin.flow.source_port
    assert invert_flows(plan, []) == []
    assert invert_flows(plan, [WireFlow(6, "224.0.0.1", 1, "1.1.1.0", 2)]) == [None]
    assert list(itertools.islice(flows, 1))
