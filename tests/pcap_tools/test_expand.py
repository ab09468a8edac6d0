"""expand, against a naive expansion: map every packet, then sort all t_j + iΔ."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewrite_frames import HOME, OUTSIDE, eth, frames, read_capture, rebuilt, write_capture
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from pcap_tools import emit
from pcap_tools.errors import OutputError, PcapError, PlanError, PoolExhausted
from pcap_tools.expand import ExpandOptions, ExpandReport, expand, prepare
from pcap_tools.plan import AddressPlan
from pcap_tools.remap import remap

FRAMES = list(frames().values())
START = 1_700_000_000_123_456_789
Timed = list[tuple[int, bytes]]


def corpus(path: Path, times: list[int]) -> Path:
    """Frames of every kind in turn, at these nanoseconds after START."""
    return write_capture(path, [(START + t, FRAMES[n % len(FRAMES)]) for n, t in enumerate(times)])


def naive(source: Path, directory: Path, every_ns: int, first: int, count: int) -> Timed:
    """One remapped copy per iteration, shifted, put in order by a stable sort."""
    packets: Timed = []
    for iteration in range(first, first + count):
        remap([source], directory / "copy.pcap", "key", iteration=iteration)
        copy = sorted(read_capture(directory / "copy.pcap"), key=lambda packet: packet[0])
        packets += [(time + iteration * every_ns, frame) for time, frame in copy]
    return sorted(packets, key=lambda packet: packet[0])


def expanded(source: Path, output: Path, **options: object) -> tuple[Timed, ExpandReport]:
    report = expand([source], str(output), ExpandOptions(key="key", **options))  # type: ignore[arg-type]
    return read_capture(output), report


@given(
    times=st.lists(st.integers(0, 4000), min_size=1, max_size=40),
    every_ns=st.integers(1, 6000),
    first=st.integers(0, 50),
    count=st.integers(1, 12),
    direct=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_it_equals_the_naive_expansion(
    tmp_path_factory: pytest.TempPathFactory,
    times: list[int],
    every_ns: int,
    first: int,
    count: int,
    direct: bool,
) -> None:
    directory = tmp_path_factory.mktemp("naive")
    source = corpus(directory / "in.pcap", times)
    with pytest.MonkeyPatch.context() as patch:
        if direct:  # stand-ins computed packet by packet, as when the tables would be too large
            patch.setattr(emit, "_TABLE_BYTES", 0)
        written, _ = expanded(
            source, directory / "out.pcap", every=every_ns / 1e9, first=first, iterations=count
        )
    assert written == naive(source, directory, every_ns, first, count)


@pytest.mark.parametrize("every_ns", [3, 40, 700, 5000], ids=["heap", "many", "few", "apart"])
def test_both_orders_of_work_are_covered(tmp_path: Path, every_ns: int) -> None:
    times = sorted(random.Random(7).choices(range(3000), k=60))
    source = corpus(tmp_path / "in.pcap", times)
    written, _ = expanded(source, tmp_path / "out.pcap", every=every_ns / 1e9, iterations=30)
    assert written == naive(source, tmp_path, every_ns, 0, 30)


def test_every_iteration_is_whole_and_fresh(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in.pcap", list(range(0, 2600, 100)))
    written, report = expanded(source, tmp_path / "out.pcap", every=2e-7, iterations=200)
    plan = AddressPlan.load(tmp_path / "out.pcap.plan.json")
    assert report.packets == len(written) == 200 * 26
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(written))
    counts = dict.fromkeys(range(200), 0)
    seen: dict[str, int] = {}
    for _, frame in written:
        parsed = Ether(frame)
        if IP not in parsed or "IPerror" in parsed:
            continue
        origins = {a: plan.invert(a) for a in (parsed[IP].src, parsed[IP].dst)}
        iterations = {origin[0] for origin in origins.values() if origin}
        assert len(iterations) == 1  # both ends tell the same iteration
        (iteration,) = iterations
        counts[iteration] += 1
        for address, origin in origins.items():
            if origin:
                assert seen.setdefault(address, iteration) == iteration
    assert len(set(counts.values())) == 1


def test_all_checksums_are_right(tmp_path: Path) -> None:
    whole = [frame for name, frame in frames().items() if "fragment" not in name]
    source = write_capture(tmp_path / "in.pcap", [(START + n, f) for n, f in enumerate(whole)])
    written, _ = expanded(source, tmp_path / "out.pcap", every=1e-8, iterations=25)
    for _, frame in written:
        assert frame.hex() == rebuilt(frame).hex()


def test_parts_of_an_expansion_fit_together(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in.pcap", [0, 10, 700])
    whole, _ = expanded(source, tmp_path / "all.pcap", every=3e-7, iterations=10)
    one, _ = expanded(source, tmp_path / "one.pcap", every=3e-7, iterations=4)
    two, _ = expanded(source, tmp_path / "two.pcap", every=3e-7, iterations=6, first=4)
    assert sorted(one + two) == sorted(whole)


def test_sequential_copies_do_not_overlap(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in.pcap", [0, 100, 900])
    written, _ = expanded(source, tmp_path / "out.pcap", sequential=True, iterations=5)
    assert [frame for _, frame in written] == [
        frame for _, frame in naive(source, tmp_path, 10**6, 0, 5)
    ]
    times = [time for time, _ in written]
    assert all(times[k + 3] - times[k + 2] > 400 for k in range(0, 12, 3))


def test_flow_rate_is_kept(tmp_path: Path) -> None:
    packets = []
    for flow in range(20):
        for step in range(3):
            frame = eth() / IP(src=HOME, dst=OUTSIDE) / UDP(sport=1000 + flow, dport=53) / Raw(b"q")
            packets.append((START + flow * 10**7 + step * 10**8, bytes(frame)))
    source = write_capture(tmp_path / "in.pcap", sorted(packets))
    expansion = prepare([source], ExpandOptions(key="key", iterations=100, flow_rate=400))
    assert expansion.timing.corpus.flows == 20
    assert expansion.timing.every_s == pytest.approx(0.05)
    assert expansion.timing.flows_per_s == pytest.approx(400)
    assert expansion.timing.concurrent_flows == pytest.approx(400 * 0.2)


def test_microsecond_timestamps(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in.pcap", [0, 5_000])
    options = ExpandOptions(key="key", iterations=1, nanoseconds=False)
    expand([source], str(tmp_path / "out.pcap"), options)
    raw = (tmp_path / "out.pcap").read_bytes()
    assert raw[:4] == bytes.fromhex("d4c3b2a1")
    assert np.frombuffer(raw[28:32], "<u4")[0] == 123456


def test_packets_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in.pcap", [500, 0, 300])
    written, _ = expanded(source, tmp_path / "out.pcap", every=1e-3, iterations=1)
    assert [time - START for time, _ in written] == [0, 300, 500]


def test_memory_does_not_grow_with_iterations(tmp_path: Path) -> None:
    """Ten times the iterations, no more memory: lines are a ring."""
    source = corpus(tmp_path / "in.pcap", list(range(0, 26_000, 1000)))
    sizes = set()
    for count in (1_000, 10_000):
        options = ExpandOptions(key="key", iterations=count, every=5e-6)
        emitter = prepare([source], options).emitter()
        out = np.empty(1 << 18, np.uint8)
        while not emitter.done:
            emitter.fill(out)
        sizes.add(emitter.table_bytes)
    assert len(sizes) == 1


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pcap_tools", *arguments]
    return subprocess.run(command, capture_output=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


def test_standard_output_and_plan(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in.pcap", [0, 100, 900])
    expanded(source, tmp_path / "out.pcap", every=1e-6, iterations=7)
    done = run(
        *("expand", str(source), "-o", "-", "--key", "key", "--iterations", "7"),
        *("--every", "1e-6", "--plan", str(tmp_path / "plan.json"), "--json"),
    )
    assert done.returncode == 0
    assert done.stdout == (tmp_path / "out.pcap").read_bytes()
    assert json.loads(done.stderr)["packets"] == 21
    ours, theirs = (
        json.loads((tmp_path / n).read_text()) for n in ("plan.json", "out.pcap.plan.json")
    )
    assert ours == theirs


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in.pcap", list(range(26)))
    command = [sys.executable, "-m", "pcap_tools", "expand", str(source), "-o", "-"]
    command += ["--key", "key", "--iterations", "1000000", "--every", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(100_000)
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0.0}, PlanError, "--every"),
        ({"every": 1.0, "sequential": True}, PlanError, "exclude each other"),
        ({"max_gap": -1.0}, PlanError, "--max-gap"),
        ({"flow_rate": 0.0}, PlanError, "--flow-rate"),
        ({"iterations": 0}, PlanError, "--iterations 0"),
        ({"iterations": 100_000_000}, PoolExhausted, "home4"),
        ({"every": 1e6, "iterations": 10_000}, PlanError, "1970"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, options: dict[str, object], error: type[PcapError], message: str
) -> None:
    source = corpus(tmp_path / "in.pcap", [0, 1])
    with pytest.raises(error, match=message):
        expanded(source, tmp_path / "out.pcap", **{"iterations": 2, **options})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pcap"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = corpus(tmp_path / "in.pcap", [0, 1])

    def full(sink: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="No space left"):
        expanded(source, tmp_path / "out.pcap", iterations=2)
    assert not list(tmp_path.glob("*out.pcap"))
