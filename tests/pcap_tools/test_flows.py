"""The flow table against tshark's streams, and against conversations whose truth is known."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.inet6 import fragment6 as split6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from synth import MS, T0, Frame, Talk, merged, tshark, write_pcap

from pcap_tools.connstate import STATES
from pcap_tools.errors import PcapError
from pcap_tools.flows import ORPHAN_FRAGMENT, FlowTable, flow_table
from pcap_tools.table import COLUMNS, flow_columns, write_flows

Script = Callable[[Talk], Talk]

# Every conn_state of Zeek, as the sequence of packets that its documentation describes; the bits
# are tshark's tcp.completeness (1 SYN, 2 SYN-ACK, 4 ACK, 8 data, 16 FIN, 32 RST).
SCRIPTS: dict[str, tuple[str, int, Script]] = {
    "attempt": ("S0", 1, lambda t: t.tcp(0, "S")),
    "attempt repeated": ("S0", 1, lambda t: t.tcp(0, "S").tcp(0, "S", seq=1000)),
    "established": ("S1", 7, lambda t: t.open()),
    "unfinished": ("S1", 15, lambda t: t.open().talk()),
    "complete": ("SF", 31, lambda t: t.whole()),
    "rejected": ("REJ", 37, lambda t: t.tcp(0, "S").tcp(1, "RA")),
    "client closed": ("S2", 31, lambda t: t.open().talk().tcp(0, "FA").tcp(1, "A")),
    "server closed": ("S3", 31, lambda t: t.open().talk().tcp(1, "FA").tcp(0, "A")),
    "client reset": ("RSTO", 47, lambda t: t.open().talk().tcp(0, "RA")),
    "server reset": ("RSTR", 47, lambda t: t.open().talk().tcp(1, "RA")),
    "reset after FIN": ("SF", 63, lambda t: t.open().talk().close().tcp(0, "R")),
    "SYN and RST": ("RSTOS0", 33, lambda t: t.tcp(0, "S").tcp(0, "R")),
    "SYN-ACK and RST": ("RSTRH", 34, lambda t: t.tcp(1, "SA").tcp(1, "R")),
    "SYN and FIN": ("SH", 17, lambda t: t.tcp(0, "S").tcp(0, "F")),
    "SYN-ACK and FIN": ("SHR", 18, lambda t: t.tcp(1, "SA").tcp(1, "F")),
    "midstream": ("OTH", 8, lambda t: t.talk()),
    "half open, server silent": ("OTH", 12, lambda t: t.tcp(0, "A").tcp(0, "PA", b"x")),
}


def table_of(tmp_path: Path, frames: list[Frame], idle_s: float = 60.0) -> FlowTable:
    return flow_table(write_pcap(tmp_path / "t.pcap", frames), idle_s)


def states(table: FlowTable) -> list[str]:
    return [STATES[code] for code in table.state]


def rows(table: FlowTable) -> list[dict[str, Any]]:
    columns = flow_columns(table)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_conn_state(tmp_path: Path, name: str) -> None:
    state, _, script = SCRIPTS[name]
    table = table_of(tmp_path, script(Talk()).frames)
    assert states(table) == [state]
    row = rows(table)[0]
    assert (row["client"], row["client_port"]) == ("10.0.0.1", 40000)
    assert (row["server"], row["server_port"]) == ("198.51.100.7", 80)


def test_what_zeek_concludes_from_sequence_numbers(tmp_path: Path) -> None:
    """Read from TCPSessionAdapter.cc and TCP_Endpoint::Size()."""
    late = Talk(sport=1).tcp(1, "SA", ack=1001).tcp(0, "S").tcp(0, "A")
    silent = Talk(sport=2).tcp(1, "SA", ack=1001).tcp(1, "R").tcp(0, "R", seq=1001)
    # The server's data was not captured, but the client acknowledged it.
    acked = Talk(sport=3).tcp(1, "SA", ack=1001).tcp(0, "A", ack=5900).tcp(1, "R").tcp(0, "R")
    for talk, state in ((late, "S1"), (silent, "REJ"), (acked, "RSTR")):
        assert states(table_of(tmp_path, talk.frames)) == [state]


@pytest.mark.parametrize("variant", ["IPv4", "IPv6", "VLAN"])
def test_all_states_at_once_agree_with_tshark(tmp_path: Path, variant: str) -> None:
    talks = []
    for i, (_, _, script) in enumerate(SCRIPTS.values()):
        talk = Talk(sport=30000 + i, start=T0 + i * 3 * MS, vlan=7 if variant == "VLAN" else 0)
        if variant == "IPv6":
            talk.client, talk.server = "2001:db8::1", "2001:db8:f::2"
        talks.append(script(talk))
    path = write_pcap(tmp_path / "t.pcap", merged(*talks))
    table = flow_table(path)
    assert len(table) == len(SCRIPTS)
    found = {row["client_port"]: row for row in rows(table)}
    streams = tshark(path, "tcp.stream", "tcp.completeness", "tcp.srcport", "tcp.dstport")
    for owner, (stream, _, _, _) in zip(table.owner, streams, strict=True):
        assert owner == int(stream)
    seen = {30000 + i: bits for i, (_, bits, _) in enumerate(SCRIPTS.values())}
    for _, bits, a, b in streams:
        port = max(int(a), int(b))
        # tshark leaves bits out of flows whose handshake it did not see (28, 29, 30 …): only the
        # handshake and the end are compared.
        both = int(bits)
        if seen[port] & 3 == 3:
            assert both == seen[port]
        row = found[port]
        assert (row["starts"] == "syn") == bool(both & 1)
        assert (row["ends"] == "rst") <= bool(both & 32)
        assert row["vlan"] == ("7" if variant == "VLAN" else "")


def test_packets_and_bytes_each_way_equal_tsharks_conversations(tmp_path: Path) -> None:
    path = write_pcap(
        tmp_path / "t.pcap",
        merged(*(Talk(sport=1025 + i, start=T0 + i * MS).whole(i) for i in range(20))),
    )
    done = subprocess.run(
        ["tshark", "-n", "-q", "-r", str(path), "-z", "conv,tcp"],
        capture_output=True,
        text=True,
        check=True,
    )
    packets = {}
    for line in done.stdout.splitlines():
        match = re.match(r"\S+:(\d+) +<-> \S+ +(\d+) \d+ \w+ +(\d+) \d+ \w+", line)
        if match:
            port, into, out = map(int, match.groups())
            packets[port] = (into, out)
    octets: Counter[tuple[int, bool]] = Counter()
    for source, target, length in tshark(path, "tcp.srcport", "tcp.dstport", "frame.len"):
        octets[max(int(source), int(target)), target == "80"] += int(length)
    expected = {
        port: (into, out, octets[port, False], octets[port, True])
        for port, (into, out) in packets.items()
    }
    names = ("packets_in", "packets_out", "bytes_in", "bytes_out")
    found = {
        row["client_port"]: tuple(row[name] for name in names) for row in rows(flow_table(path))
    }
    assert len(expected) == 20
    assert found == expected


def test_a_new_connection_on_the_same_ports_is_another_flow(tmp_path: Path) -> None:
    first = Talk().whole()
    same_again = Talk(start=first.time).whole()  # a loop: same numbers, after the end
    other = Talk(start=same_again.time, isn=(77, 88)).open()
    replaced = Talk(start=other.time, isn=(7777, 8888)).whole()  # the client gave up and redialled
    frames = merged(first, same_again, other, replaced)
    assert states(table_of(tmp_path, frames)) == ["SF", "SF", "S1", "SF"]


def test_retransmitted_handshake_packets_open_nothing(tmp_path: Path) -> None:
    talk = Talk().tcp(0, "S").tcp(0, "S", seq=1000).tcp(1, "SA").tcp(1, "SA", seq=5000)
    talk.tcp(0, "A").tcp(0, "S", seq=1000).talk().close()
    table = table_of(tmp_path, talk.frames)
    assert states(table) == ["SF"]
    assert table.missing[0] == 0


def test_a_rejected_client_that_tries_again_with_its_number_stays_one_flow(tmp_path: Path) -> None:
    talk = Talk().tcp(0, "S").tcp(1, "RA").tcp(0, "S", seq=1000).tcp(1, "RA")
    assert states(table_of(tmp_path, talk.frames)) == ["REJ"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**32),
    lost=st.sets(st.integers(0, 29), max_size=12),
    isn=st.sampled_from([1000, 2**32 - 1500, 2**31 - 700]),
)
def test_missing_bytes_are_exactly_those_never_captured(
    tmp_path: Path, seed: int, lost: set[int], isn: int
) -> None:
    chance = random.Random(seed)
    size = 100
    talk = Talk(isn=(1000, isn)).open()
    base = talk.seq[1]
    segments = [(i, base + i * size) for i in range(30)]
    sent = [s for s in segments if s[0] not in lost] + chance.sample(segments, 3)
    covered = {i for i, _ in sent}
    # Reordering within a window, and retransmissions.
    order = sorted(range(len(sent)), key=lambda k: k + chance.uniform(0, 6))
    for k in order:
        talk.tcp(1, "A", b"d" * size, seq=sent[k][1])
    talk.seq[1] = base + 30 * size
    talk.tcp(0, "A").close()
    table = table_of(tmp_path, talk.frames)
    assert table.missing[0] == size * (30 - len(covered))


def test_udp_flows_end_after_silence(tmp_path: Path) -> None:
    talk = Talk(dport=53).udp(0).udp(1)
    later = Talk(dport=53, start=T0 + 61 * 10**9).udp(0)
    frames = merged(talk, later)
    table = table_of(tmp_path, frames)
    assert states(table) == ["SF", "S0"]
    assert len(table_of(tmp_path, frames, idle_s=120.0)) == 1


def test_an_answer_without_its_request_is_the_servers(tmp_path: Path) -> None:
    table = table_of(tmp_path, Talk(dport=53).udp(1).frames)
    assert states(table) == ["SHR"]
    row = rows(table)[0]
    assert (row["server"], row["server_port"], row["packets_out"]) == ("198.51.100.7", 53, 0)


def test_echo_requests_and_replies_share_a_flow_by_identifier(tmp_path: Path) -> None:
    ether = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")
    packets = [
        ether / IP(src=a, dst=b) / ICMP(type=kind, id=number)
        for number in (1, 2)
        for kind, a, b in ((8, "10.0.0.1", "10.0.0.2"), (0, "10.0.0.2", "10.0.0.1"))
    ]
    packets += [
        ether / IPv6(src="2001:db8::1", dst="2001:db8::2") / ICMPv6EchoRequest(id=9),
        ether / IPv6(src="2001:db8::2", dst="2001:db8::1") / ICMPv6EchoReply(id=9),
        ether / ARP(),
    ]
    table = table_of(tmp_path, [(T0 + i * MS, bytes(p)) for i, p in enumerate(packets)])
    found = [(r["proto"], r["client"], r["packets_out"], r["packets_in"]) for r in rows(table)]
    assert found == [
        ("icmp", "10.0.0.1", 1, 1),
        ("icmp", "10.0.0.1", 1, 1),
        ("icmpv6", "2001:db8::1", 1, 1),
    ]
    assert table.owner.tolist() == [0, 0, 1, 1, 2, 2, -1]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("order", ["in order", "reversed", "without the first"])
def test_fragments_belong_to_the_flow_of_their_first(
    tmp_path: Path, version: int, order: str
) -> None:
    ether = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")
    payload = UDP(sport=4000, dport=5000) / Raw(b"z" * 3000)
    if version == 4:
        pieces = fragment(IP(src="10.0.0.1", dst="10.0.0.2", id=77) / payload, 1000)
    else:
        head = IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrFragment(id=77)
        pieces = split6(head / payload, 1000)
    pieces = list(reversed(pieces)) if order == "reversed" else pieces
    pieces = pieces[1:] if order == "without the first" else pieces
    table = table_of(tmp_path, [(T0 + i, bytes(ether / p)) for i, p in enumerate(pieces)])
    if order == "without the first":
        assert len(table) == 0
        assert set(table.owner.tolist()) == {ORPHAN_FRAGMENT}
        assert table.frames[0, 0] == len(pieces)
        return
    assert set(table.owner.tolist()) == {0}
    row = rows(table)[0]
    assert row["packets_out"] == len(pieces)
    assert row["bytes_out"] == sum(len(bytes(ether / p)) for p in pieces)
    assert row["first_ns"] == T0 // 1000 * 1000


def test_snapped_packets_are_counted_and_leave_no_hole(tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "t.pcap", Talk().whole().frames, snaplen=80)
    table = flow_table(path)
    assert states(table) == ["SF"]
    assert (table.missing[0], rows(table)[0]["truncated"]) == (0, 6)


def test_the_table_grows_to_any_number_of_flows(tmp_path: Path) -> None:
    template = bytearray(Talk(dport=53).udp(0).frames[0][1])
    frames = []
    for i in range(30_000):
        template[26:30] = (0x0A000000 + i).to_bytes(4, "big")
        frames.append((T0 + i * 1000, bytes(template)))
    table = table_of(tmp_path, frames + [(T0 + 10**9, frame) for _, frame in frames])
    assert len(table) == 30_000
    assert (table.rows["packets"][:, 0] == 2).all()
    assert table.owner.tolist() == [*range(30_000), *range(30_000)]


def test_the_same_table_in_every_format(tmp_path: Path) -> None:
    import pandas as pd

    table = table_of(tmp_path, merged(Talk().whole(), Talk(sport=41000, vlan=9).open()))
    for suffix in ("csv", "jsonl", "parquet"):
        write_flows(table, tmp_path / f"f.{suffix}")
    expected = rows(table)
    lines = (tmp_path / "f.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected
    assert pd.read_parquet(tmp_path / "f.parquet").to_dict("records") == expected
    text = pd.read_csv(tmp_path / "f.csv", keep_default_na=False, dtype=str)
    assert tuple(text.columns) == COLUMNS
    assert text.to_dict("records") == [{k: str(v) for k, v in r.items()} for r in expected]
    assert [r["verdict"] for r in expected] == ["keep", "drop"]
    with pytest.raises(PcapError, match=r"\.txt: a flow table ends in"):
        write_flows(table, tmp_path / "f.txt")


def test_a_tcp_flow_of_two_vlans_is_two(tmp_path: Path) -> None:
    table = table_of(tmp_path, merged(Talk(vlan=1).whole(), Talk(vlan=2).whole()))
    assert sorted(row["vlan"] for row in rows(table)) == ["1", "2"]
    assert states(table) == ["SF", "SF"]


def test_tcp_in_a_fragment_still_counts(tmp_path: Path) -> None:
    talk = Talk().open()
    segment = IP(src=talk.client, dst=talk.server, id=5) / TCP(
        sport=talk.sport, dport=80, flags="PA", seq=talk.seq[0], ack=talk.seq[1]
    )
    ether = Ether(src="02:00:00:00:00:00", dst="02:00:00:00:00:01")
    for piece in fragment(segment / Raw(b"q" * 1200), 600):
        talk.add(bytes(ether / piece))
    talk.seq[0] += 1200
    talk.tcp(1, "A").close()
    table = table_of(tmp_path, talk.frames)
    assert states(table) == ["SF"]
    assert table.missing[0] == 0


def test_each_packet_says_which_end_sent_it(tmp_path: Path) -> None:
    table = table_of(tmp_path, Talk().open().talk(1).close().frames)
    assert table.direction.tolist() == [0, 1, 0, 0, 1, 1, 0, 0, 1, 0]
    sent = np.bincount(table.direction, minlength=2)
    assert sent.tolist() == table.rows["packets"][0].tolist()


def test_fragments_before_their_first_have_its_direction(tmp_path: Path) -> None:
    talk = Talk().udp(0)
    answer = IP(src=talk.server, dst=talk.client, id=9) / UDP(sport=80, dport=talk.sport)
    for piece in reversed(fragment(answer / Raw(b"r" * 1200), 600)):
        talk.add(bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:00") / piece))
    table = table_of(tmp_path, talk.frames)
    assert table.owner.tolist() == [0] * len(talk.frames)
    assert table.direction.tolist() == [0] + [1] * (len(talk.frames) - 1)
