"""Claim: `corpus split` is at least 4 times as fast as PcapPlusPlus's PcapSplitter by connection.

    python benchmarks/split_flows.py [--flows N] [--runs N] [--sequential] [--splitter PATH]
                                     [--directory DIR]

The peer is `PcapSplitter -f IN -o DIR -m connection`, found on the PATH or given with --splitter
(github.com/seladb/PcapPlusPlus, Examples/PcapSplitter). Without it, only our own time is printed.

The capture is made here: TCP and UDP flows, four to one, mean frame 530 B, 18 packets a flow on the
average, addresses of their own each, thousands of flows at a time. --sequential: 200 at a time, the
peer's best case, since it keeps 250 files open and opens the others again for every packet. Files
are in memory (/dev/shm); the input was read before. Whole processes, start-up included; both run in
turn, and what they wrote is counted and removed outside the time. Exit status 1 when the claim does
not hold.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MUST, AIM = 4.0, 8.0
AT_A_TIME = 200
ROUNDS, DATA = 4, 1008  # so that the mean frame is 530 B
HARNESS = (sys.executable, "-m", "harness", "corpus")


def frames(flow: int) -> Iterator[bytes]:
    """A TCP connection from SYN to FIN, or (every fifth flow) a UDP request and its answer.

    On no port with a protocol that the peer would parse.
    """
    ends = bytes([10, 0, 0, 1 + flow]), bytes([8, 8, 4, 1 + flow])
    sequence = [1000, 2000]

    def packet(side: int, protocol: int, transport: bytes) -> bytes:
        size = 20 + len(transport)
        ip = struct.pack(">BBHHHBBH", 69, 0, size, 0, 0, 64, protocol, 0)
        macs = bytes.fromhex("020000000002 020000000001")
        return macs + b"\x08\0" + ip + ends[side] + ends[1 - side] + transport

    def tcp(side: int, flags: int, payload: int = 0) -> bytes:
        ports = (1024 + flow, 80) if side == 0 else (80, 1024 + flow)
        acknowledged = sequence[1 - side] if flags & 16 else 0
        head = struct.pack(
            ">HHIIBBHHH", *ports, sequence[side], acknowledged, 80, flags, 9999, 0, 0
        )
        sequence[side] += payload + (flags & 3 != 0)
        return packet(side, 6, head + b"x" * payload)

    if flow % 5 == 4:
        for side, size in ((0, 40), (1, 160)):
            ports = (1024 + flow, 9999) if side == 0 else (9999, 1024 + flow)
            yield packet(side, 17, struct.pack(">HHHH", *ports, 8 + size, 0) + b"x" * size)
        return
    yield from (tcp(0, 2), tcp(1, 18), tcp(0, 16))
    for _ in range(ROUNDS):
        yield tcp(0, 24, 400)
        yield from (tcp(1, 24, DATA), tcp(1, 24, DATA))
        yield tcp(0, 16)
    yield from (tcp(0, 17), tcp(1, 17), tcp(0, 16))


def make_capture(path: Path, flows: int, sequential: bool) -> None:
    """So many flows: 200 written here, multiplied by `corpus expand`."""
    corpus = path.with_suffix(".corpus")
    packets = [list(frames(flow)) for flow in range(AT_A_TIME)]
    time_us = 0
    with corpus.open("wb") as stream:
        stream.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for position in range(max(map(len, packets))):
            for flow in packets:
                if position < len(flow):
                    size = len(flow[position])
                    stream.write(struct.pack("<IIII", 1_700_000_000, time_us, size, size))
                    stream.write(flow[position])
                    time_us += 100
    options = ["--key", "benchmark", "--iterations", str(max(1, flows // AT_A_TIME)), "--quiet"]
    options += ["--sequential"] if sequential else ["--every", "0.01"]
    plan = path.with_suffix(".plan")
    command = [*HARNESS, "expand", str(corpus), "-o", str(path), *options, "--plan", str(plan)]
    subprocess.run(command, check=True)
    corpus.unlink()
    plan.unlink()


@dataclass(frozen=True)
class Run:
    """Wall-clock and CPU seconds, and the peak of resident memory in bytes."""

    wall: float
    cpu: float
    peak: int


def measure(command: Sequence[str], directory: Path, flows: int) -> Run:
    """One run into `directory`, which is removed; exits unless each flow got a file."""
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{command[0]} failed: {said.read().strip()[-300:]}")
    written = sum(1 for path in os.scandir(directory) if path.name.endswith(".pcap"))
    if written < flows:
        raise SystemExit(f"{command[0]} wrote {written:,} files for {flows:,} flows")
    shutil.rmtree(directory)
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def show(name: str, runs: Sequence[Run], flows: int) -> float:
    """One line: median with the extremes, CPU time, memory. The median."""
    walls = [run.wall for run in runs]
    middle = statistics.median(walls)
    cpu = statistics.median(run.cpu for run in runs)
    print(
        f"{name}: {middle:.2f} s ({min(walls):.2f} … {max(walls):.2f}), {cpu:.2f} s CPU, "
        f"peak {max(run.peak for run in runs) / 1e6:,.0f} MB, {flows / middle:,.0f} flows/s"
    )
    return middle


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--flows", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sequential", action="store_true")
    parser.add_argument("--splitter", default=shutil.which("PcapSplitter"))
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="split-flows-", dir=arguments.directory) as name:
        raw, out = Path(name) / "raw.pcap", Path(name) / "out"
        make_capture(raw, arguments.flows, arguments.sequential)
        flows = arguments.flows // AT_A_TIME * AT_A_TIME
        ours = [*HARNESS, "split", str(raw), "-d", str(out)]
        peer = [str(arguments.splitter), "-f", str(raw), "-o", str(out), "-m", "connection"]
        measure(ours, out, flows)  # compiles and warms
        splits, peers = [], []
        for _ in range(arguments.runs):
            splits.append(measure(ours, out, flows))
            if arguments.splitter:
                out.mkdir()
                peers.append(measure(peer, out, flows))
        size = raw.stat().st_size
    kind = f"{AT_A_TIME} at a time" if arguments.sequential else "interleaved"
    print(f"{size / 1e6:,.0f} MB, {flows:,} flows, {kind}")
    middle = show("corpus split", splits, flows)
    if not peers:
        print("PcapSplitter is not on the PATH and was not given with --splitter: no ratio")
        return 0
    ratio = show("PcapSplitter -m connection", peers, flows) / middle
    holds = ratio >= MUST
    print(f"{ratio:.1f} times as fast; must {MUST:g}, aim {AIM:g}: {'holds' if holds else 'FAILS'}")
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
