"""How fast expand feeds a pipe, and whether tcpreplay behind it is slower than from a file.

    python benchmarks/expand_pipe.py [--packets N] [--replayed N] [--runs N]

Claims: (a) at least 3 M packets/s into a pipe read by cat, for a mix of mean 400 B; (b) tcpreplay
--topspeed --no-flow-stats on a veth pair sends as fast from the pipe as from a file expanded
before: ratio of medians at least 0.95. (b) needs root; it makes two network namespaces and removes
them. Runs alternate, so that what else the machine does hits both. Exit status 1: a claim failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

PIPE_CLAIM = 3e6  # packets/s
RATIO_CLAIM = 0.95
EXPAND = (sys.executable, "-m", "pcap_tools", "expand")


def make_corpus(path: Path, sizes: Sequence[int], packets: int = 2000) -> Path:
    """TCP segments of 100 flows between 20 home and 100 external addresses, over one second."""
    with path.open("wb") as stream:
        stream.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        for number in range(packets):
            flow, size = number % 100, sizes[number % len(sizes)]
            ends = bytes([10, 0, 0, 1 + flow % 20]) + bytes([8, 8, 4, 1 + flow])
            ip = struct.pack(">BBHHHBBH", 69, 0, size - 14, number, 0, 64, 6, 0) + ends
            tcp = struct.pack(">HHIIBBHHH", 1024 + flow, 80, number, 1, 80, 16, 9999, 0, 0)
            frame = (bytes.fromhex("020000000002020000000001 0800") + ip + tcp).ljust(size, b"x")
            time_ns = number * 1_000_000_000 // packets
            stream.write(struct.pack("<IIII", 1_700_000_000, time_ns, size, size) + frame)
    return path


def spread(values: Sequence[float]) -> str:
    """Median with the extremes, in thousands."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle / 1e3:,.0f} k/s ({low / 1e3:,.0f} … {high / 1e3:,.0f})"


def expand_command(corpus: Path, iterations: int, output: str) -> list[str]:
    """One iteration every 10 ms: 100 in flight."""
    options = ["--key", "benchmark", "--iterations", str(iterations), "--every", "0.01"]
    return [*EXPAND, str(corpus), "-o", output, *options, "--json"]


def pipe_rate(corpus: Path, iterations: int) -> float:
    """Packets per second into a pipe that cat empties."""
    with subprocess.Popen(
        expand_command(corpus, iterations, "-"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        subprocess.run(["cat"], stdin=writer.stdout, stdout=subprocess.DEVNULL, check=True)
        return float(json.loads(writer.stderr.read())["packets_per_s"])


@contextlib.contextmanager
def veth_pair() -> Iterator[list[str]]:
    """A veth pair between two namespaces of our own; yields the prefix that enters the first."""
    here, there = (f"bench-{os.getpid()}-{end}" for end in "ab")
    link = f"bv{os.getpid()}"
    made = []
    try:
        for namespace in (here, there):
            subprocess.run(["ip", "netns", "add", namespace], check=True)
            made.append(namespace)
        peer = ["type", "veth", "peer", "name", link, "netns", there]
        subprocess.run(["ip", "-n", here, "link", "add", link, *peer], check=True)
        for namespace in (here, there):
            subprocess.run(["ip", "-n", namespace, "link", "set", link, "up"], check=True)
        yield ["ip", "netns", "exec", here, "tcpreplay", "-i", link, "-t", "--no-flow-stats"]
    finally:
        for namespace in made:
            subprocess.run(["ip", "netns", "del", namespace], check=False)


def sent_rate(output: str) -> float:
    """Packets per second from what tcpreplay prints."""
    found = re.search(r"Actual: (\d+) packets .*sent in ([\d.]+) seconds", output)
    if not found:
        raise SystemExit(f"tcpreplay did not say what it sent: {output.strip()[-200:]}")
    return int(found[1]) / float(found[2])


def replay_file(replay: list[str], capture: Path) -> float:
    """tcpreplay's rate from a file."""
    done = subprocess.run([*replay, str(capture)], capture_output=True, text=True, check=False)
    return sent_rate(done.stdout + done.stderr)


def replay_pipe(replay: list[str], command: list[str]) -> float:
    """tcpreplay's rate from expand through a pipe."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        done = subprocess.run(
            [*replay, "-"], stdin=writer.stdout, capture_output=True, text=True, check=False
        )
    return sent_rate(done.stdout + done.stderr)


def measure_pipe(directory: Path, packets: int, runs: int) -> bool:
    """Claim (a); figures for small packets beside it."""
    mixes = {"400 B": (66, 1200, 90, 66, 578), "110 B": (66, 66, 198)}
    passed = True
    for name, sizes in mixes.items():
        corpus = make_corpus(directory / f"{sizes[1]}.pcap", sizes)
        pipe_rate(corpus, 10)  # compiles and warms
        rates = [pipe_rate(corpus, packets // 2000) for _ in range(runs)]
        print(f"expand | cat, mean {name}: {spread(rates)}")
        if name == "400 B":
            passed = statistics.median(rates) >= PIPE_CLAIM
    print(f"claim (a), {PIPE_CLAIM / 1e3:,.0f} k/s at 400 B: {'holds' if passed else 'FAILS'}")
    return passed


def measure_replay(directory: Path, packets: int, runs: int) -> bool:
    """Claim (b)."""
    corpus = make_corpus(directory / "replay.pcap", (66, 1200, 90, 66, 578))
    expanded = directory / "expanded.pcap"
    iterations = packets // 2000
    subprocess.run(
        expand_command(corpus, iterations, str(expanded)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    from_file, from_pipe = [], []
    with veth_pair() as replay:
        replay_file(replay, expanded)  # fills the page cache
        for _ in range(runs):
            from_file.append(replay_file(replay, expanded))
            from_pipe.append(replay_pipe(replay, expand_command(corpus, iterations, "-")))
    ratio = statistics.median(from_pipe) / statistics.median(from_file)
    print(f"tcpreplay from a file:     {spread(from_file)}")
    print(f"tcpreplay behind expand:   {spread(from_pipe)}")
    passed = ratio >= RATIO_CLAIM
    verdict = "holds" if passed else "FAILS"
    print(f"claim (b), pipe/file at least {RATIO_CLAIM}: {ratio:.3f}, {verdict}")
    return passed


def main() -> int:
    """Measure; 0 when every claim that could be measured holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--packets", type=int, default=4_000_000, help="a run of (a)")
    parser.add_argument("--replayed", type=int, default=600_000, help="packets a run of (b)")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="expand-pipe-") as name:
        directory = Path(name)
        passed = measure_pipe(directory, arguments.packets, arguments.runs)
        if os.geteuid() != 0 or not shutil.which("tcpreplay") or not shutil.which("ip"):
            print("claim (b) not measured: it needs root, tcpreplay and iproute2")
        else:
            passed = measure_replay(directory, arguments.replayed, arguments.runs) and passed
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
