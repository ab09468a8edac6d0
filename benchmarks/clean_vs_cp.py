"""What cleaning a large capture costs, beside copying it and beside tshark's two passes.

    python benchmarks/clean_vs_cp.py [--megabytes N] [--slice N] [--runs N] [--directory DIR]

No claim is judged: it prints wall-clock times, their ratio to `cp` of the same file, and the peak
of resident memory (which counts the pages of mapped files). The capture is made here: TCP flows of
20 packets, mean 400 B, every tenth without its handshake, each with addresses of its own. Files are
in memory (/dev/shm) and read once before, so that no disk is measured. Runs alternate. tshark reads
a slice, since it needs minutes for the whole; its time is also given scaled by packets.
"""

from __future__ import annotations

import argparse
import json
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

FLOWS, SEGMENTS, PAYLOAD = 200, 14, 502  # 20 packets a flow; 400 B is the mean frame
EXPAND = (sys.executable, "-m", "pcap_tools", "expand")
CLEAN = (sys.executable, "-m", "harness", "corpus", "clean")
TSHARK = ("tshark", "-2", "-n", "-T", "fields", "-e", "tcp.stream", "-e", "tcp.completeness")


def frames(flow: int) -> Iterator[bytes]:
    """A connection: handshake (not in every tenth), data to the client, FINs from both ends."""
    ends = bytes([10, 0, 0, 1 + flow]), bytes([8, 8, 4, 1 + flow])
    ports = 1024 + flow, 80
    sequence = [1000, 2000]

    def frame(side: int, flags: int, payload: int = 0) -> bytes:
        size = 40 + payload
        ip = struct.pack(">BBHHHBBH", 69, 0, size, 0, 0, 64, 6, 0) + ends[side] + ends[1 - side]
        number, acknowledged = sequence[side], sequence[1 - side] if flags & 16 else 0
        tcp = struct.pack(
            ">HHIIBBHHH", ports[side], ports[1 - side], number, acknowledged, 80, flags, 9999, 0, 0
        )
        sequence[side] += payload + (flags & 3 != 0)
        return bytes.fromhex("020000000002020000000001 0800") + ip + tcp + b"x" * payload

    opening = frame(0, 2), frame(1, 18), frame(0, 16)
    if flow % 10:
        yield from opening
    for _ in range(SEGMENTS):
        yield frame(1, 24, PAYLOAD)
    yield frame(0, 17)
    yield frame(1, 17)
    yield frame(0, 16)


def make_capture(path: Path, megabytes: int) -> None:
    """About so many 10^6 bytes: one iteration written here, multiplied by expand."""
    corpus = path.with_suffix(".corpus")
    packets = [list(frames(flow)) for flow in range(FLOWS)]
    time_ns = 0
    with corpus.open("wb") as stream:
        stream.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        for position in range(max(map(len, packets))):
            for flow in packets:
                if position < len(flow):
                    size = len(flow[position])
                    stream.write(struct.pack("<IIII", 1_700_000_000, time_ns, size, size))
                    stream.write(flow[position])
                    time_ns += 200_000
    iterations = max(1, round(megabytes * 1e6 / corpus.stat().st_size))
    options = ["--key", "benchmark", "--iterations", str(iterations), "--every", "0.05", "--quiet"]
    plan = path.with_suffix(".plan")
    command = [*EXPAND, str(corpus), "-o", str(path), *options, "--plan", str(plan)]
    subprocess.run(command, check=True)
    corpus.unlink()
    plan.unlink()


@dataclass(frozen=True)
class Run:
    """Wall-clock and CPU seconds, and the peak of resident memory in bytes."""

    wall: float
    cpu: float
    peak: int


def measure(command: Sequence[str]) -> Run:
    """One run; its output is thrown away. Exits with its message when it fails."""
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{command[0]} failed: {said.read().strip()[-300:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def show(name: str, runs: Sequence[Run], base: float) -> None:
    """One line: median with the extremes, ratio, CPU time, memory."""
    walls = [run.wall for run in runs]
    middle = statistics.median(walls)
    cpu = statistics.median(run.cpu for run in runs)
    print(
        f"{name}: {middle:.2f} s ({min(walls):.2f} … {max(walls):.2f}), x{middle / base:.1f} of "
        f"cp, {cpu:.2f} s CPU, peak {max(run.peak for run in runs) / 1e6:,.0f} MB"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--slice", type=int, default=40, help="megabytes for tshark")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clean-vs-cp-", dir=arguments.directory) as name:
        raw, out, part = (Path(name) / x for x in ("raw.pcap", "out.pcap", "part.pcap"))
        make_capture(raw, arguments.megabytes)
        clean = [*CLEAN, str(raw), "-o", str(out)]
        measure(clean)  # compiles and warms
        copies, cleans = [], []
        for _ in range(arguments.runs):
            copies.append(measure(["cp", str(raw), str(out)]))
            out.unlink()
            cleans.append(measure(clean))
            report = json.loads(out.with_name("out.pcap.clean.json").read_text())
            out.unlink()
        packets, kept = report["in"]["packets"], report["kept"]["packets"]
        size = raw.stat().st_size
        flows = report["in"]["flows"]
        print(f"{size / 1e6:,.0f} MB, {packets:,} packets, {flows:,} flows; {kept:,} packets kept")
        base = statistics.median(run.wall for run in copies)
        show("cp", copies, base)
        show("corpus clean", cleans, base)
        middle = statistics.median(run.wall for run in cleans)
        rates = f"{size / middle / 1e6:,.0f} MB/s, {packets / middle / 1e6:.2f} M packets/s"
        print(f"corpus clean: {rates}")
        if shutil.which("tshark"):
            make_capture(part, arguments.slice)
            share = part.stat().st_size / size
            dissected = measure([*TSHARK, "-r", str(part)])
            print(
                f"tshark -2, {share * size / 1e6:,.0f} MB: {dissected.wall:.1f} s, peak "
                f"{dissected.peak / 1e6:,.0f} MB; scaled to the whole, "
                f"x{dissected.wall / share / middle:.0f} of corpus clean"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
