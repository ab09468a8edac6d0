"""Flows in time and capped gaps, against the same said in plain Python."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewrite_frames import HOME, OUTSIDE, eth, frames, write_capture
from scapy.layers.inet import IP, TCP, UDP

from pcap_tools.space import Space
from pcap_tools.template import Template, load_template
from pcap_tools.timeline import cap_gaps, find_flows

START = 1_700_000_000_000_000_000


def template(directory: Path, packets: list[tuple[int, bytes]]) -> Template:
    timed = [(START + time, frame) for time, frame in packets]
    return load_template([write_capture(directory / "in.pcap", timed)], "key", Space())


def datagram(flow: int) -> bytes:
    return bytes(eth() / IP(src=HOME, dst=OUTSIDE) / UDP(sport=1000 + flow, dport=53))


DATAGRAMS = [datagram(flow) for flow in range(4)]


@given(
    packets=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 3)), min_size=1, max_size=40),
    gap=st.integers(1, 300),
)
@settings(max_examples=80, deadline=None)
def test_gaps_are_capped_per_flow_then_starts_drawn_together_then_overall(
    tmp_path_factory: pytest.TempPathFactory, packets: list[tuple[int, int]], gap: int
) -> None:
    packets = sorted(packets, key=lambda packet: packet[0])
    made = template(tmp_path_factory.mktemp("gaps"), [(t, DATAGRAMS[f]) for t, f in packets])
    capped, flows = cap_gaps(made, find_flows(made), gap)

    origin = packets[0][0]
    last: dict[int, tuple[int, int]] = {}
    moved = []
    for time, flow in packets:
        before, place = last.get(flow, (None, time - origin))
        if before is not None:
            place += min(time - before, gap)
        last[flow] = (time, place)
        moved.append((place, flow))
    starts = {f: min(p for p, g in moved if g == f) for _, f in moved}
    longest = max(p - starts[f] for p, f in moved)
    spread = max(starts.values()) - min(starts.values())
    if spread > longest:
        first = min(starts.values())
        shift = {f: first + int((s - first) * (longest / spread)) - s for f, s in starts.items()}
        moved = [(p + shift[f], f) for p, f in moved]
    moved.sort(key=lambda packet: packet[0])
    due = [0]
    for (a, _), (b, _) in itertools.pairwise(moved):
        due.append(due[-1] + min(b - a, gap))
    assert capped.due_ns.tolist() == due
    names = {
        flow: number
        for number, flow in zip(flows.number.tolist(), [f for _, f in moved], strict=True)
    }
    assert [names[flow] for _, flow in moved] == flows.number.tolist()


def test_a_capture_of_minutes_lasts_twice_its_longest_flow(tmp_path: Path) -> None:
    # 4 flows of 1 s, one a minute: what is left is less than 2 s, each flow still 1 s long.
    packets = [(60 * 10**9 * f + 10**8 * n, f) for f in range(4) for n in range(11)]
    made = template(tmp_path, [(t, DATAGRAMS[f]) for t, f in packets])
    capped, flows = cap_gaps(made, find_flows(made), 2 * 10**8)
    assert capped.span_ns == 2 * 10**9
    assert flows.seconds == pytest.approx(4.0)


def test_the_order_inside_a_flow_is_kept(tmp_path: Path) -> None:
    frame = [bytes(eth() / IP(src=HOME, dst=OUTSIDE) / TCP(sport=9, seq=n)) for n in range(5)]
    made = template(tmp_path, [(n * 10**9, f) for n, f in enumerate(frame)])
    capped, _ = cap_gaps(made, find_flows(made), 10**6)
    records = [
        bytes(capped.blob[a:b]) for a, b in zip(capped.start, capped.start[1:], strict=False)
    ]
    assert [r[16 + 38 : 16 + 42] for r in records] == [n.to_bytes(4, "big") for n in range(5)]
    assert capped.span_ns == 4 * 10**6


def test_a_reused_port_pair_is_another_flow(tmp_path: Path) -> None:
    def segment(flags: str, back: bool = False) -> bytes:
        ends = (OUTSIDE, HOME) if back else (HOME, OUTSIDE)
        ports = (80, 999) if back else (999, 80)
        ip = IP(src=ends[0], dst=ends[1])
        return bytes(eth() / ip / TCP(sport=ports[0], dport=ports[1], flags=flags))

    order = [("S", 0), ("S", 0), ("SA", 1), ("A", 0), ("FA", 0), ("FA", 1), ("A", 0), ("S", 0)]
    made = template(tmp_path, [(n, segment(f, bool(b))) for n, (f, b) in enumerate(order)])
    flows = find_flows(made)
    assert flows.number.tolist() == [0] * 7 + [1]
    assert flows.count == 2
    assert flows.seconds == pytest.approx(6e-9)


def test_fragments_follow_their_first(tmp_path: Path) -> None:
    kinds = frames()
    names = [
        "udp",
        "fragment-first",
        "fragment-later",
        "fragment6-first",
        "fragment6-later",
        "udp6",
    ]
    made = template(tmp_path, [(n, kinds[name]) for n, name in enumerate(names)])
    # All carry the same ports, so each version is one flow.
    assert find_flows(made).number.tolist() == [0, 0, 0, 1, 1, 1]
