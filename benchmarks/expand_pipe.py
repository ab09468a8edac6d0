"""How fast expand feeds a pipe, and whether tcpreplay behind it is slower than from a file.

    python benchmarks/expand_pipe.py [--packets N] [--replayed N] [--runs N]

Claims: (a) at least 5 M small packets/s (mean 110 B) into a pipe read by cat, aim 10 M; (b)
tcpreplay --topspeed --no-flow-stats on a veth pair sends as fast from the pipe as from a file
expanded before: ratio of medians at least 0.95. (b) needs root; it makes two network namespaces and
removes them. Runs alternate, so that what else the machine does hits both; where there are two CPUs
the sender has one and expand the other, and both on one is measured too. tcpreplay's CPU time a
packet stands beside the rate: it depends far less on other load. Exit status 1: a claim failed.
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
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PIPE_CLAIM = 5e6  # small packets/s
PIPE_AIM = 10e6
RATIO_CLAIM = 0.95
# libpcap reads standard input through stdio, by default 4 KiB a system call; this is what costs.
STDIN = "256K"
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


@dataclass(frozen=True)
class Link:
    """Where to send: a namespace and the interface in it."""

    namespace: str
    interface: str


@contextlib.contextmanager
def veth_pair() -> Iterator[Link]:
    """A veth pair between two namespaces of our own; yields the sending end."""
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
        yield Link(here, link)
    finally:
        for namespace in made:
            subprocess.run(["ip", "netns", "del", namespace], check=False)


@dataclass(frozen=True)
class Sent:
    """What one replay did: packets per second, and CPU time (µs) of tcpreplay per packet."""

    rate: float
    cpu_us: float


def pinned(cpu: int | None, command: Sequence[str]) -> list[str]:
    """The command on one CPU, or wherever the scheduler puts it."""
    return [*(("taskset", "-c", str(cpu)) if cpu is not None else ()), *command]


def replay(link: Link, cpu: int | None, source: str, stdin: IO[bytes] | int) -> Sent:
    """One run of tcpreplay, with the same flags whatever it reads."""
    inside = ["ip", "netns", "exec", link.namespace]
    sender = ["stdbuf", f"-i{STDIN}", "tcpreplay", "-i", link.interface, "-t", "--no-flow-stats"]
    with tempfile.TemporaryFile("w+") as output:
        command = [*inside, *pinned(cpu, [*sender, source])]
        process = subprocess.Popen(command, stdin=stdin, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    found = re.search(r"Actual: (\d+) packets .*sent in ([\d.]+) seconds", text)
    if not found:
        raise SystemExit(f"tcpreplay did not say what it sent: {text.strip()[-200:]}")
    packets = int(found[1])
    return Sent(packets / float(found[2]), (usage.ru_utime + usage.ru_stime) / packets * 1e6)


def replay_pipe(link: Link, cpu: int | None, writer_cpu: int | None, command: list[str]) -> Sent:
    """tcpreplay behind expand."""
    writing = pinned(writer_cpu, command)
    with subprocess.Popen(writing, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        assert writer.stdout is not None
        return replay(link, cpu, "-", writer.stdout)


def measure_pipe(directory: Path, packets: int, runs: int) -> bool:
    """Claim (a); figures for a mix beside it."""
    mixes = {"400 B": (66, 1200, 90, 66, 578), "110 B": (66, 66, 198)}
    passed = True
    for name, sizes in mixes.items():
        corpus = make_corpus(directory / f"{sizes[1]}.pcap", sizes)
        pipe_rate(corpus, 10)  # compiles and warms
        rates = [pipe_rate(corpus, packets // 2000) for _ in range(runs)]
        print(f"expand | cat, mean {name}: {spread(rates)}")
        if name == "110 B":
            passed = statistics.median(rates) >= PIPE_CLAIM
            aim = "reached" if statistics.median(rates) >= PIPE_AIM else "not reached"
    verdict = "holds" if passed else "FAILS"
    print(f"claim (a), {PIPE_CLAIM / 1e3:,.0f} k/s at 110 B: {verdict}; {PIPE_AIM:,.0f}: {aim}")
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
    cpus = sorted(os.sched_getaffinity(0))
    sender, other = (cpus[0], cpus[1]) if len(cpus) > 1 else (None, None)
    from_file: list[Sent] = []
    apart: list[Sent] = []
    together: list[Sent] = []
    command = expand_command(corpus, iterations, "-")
    with veth_pair() as link:
        replay(link, sender, str(expanded), subprocess.DEVNULL)  # fills the page cache
        for _ in range(runs):
            from_file.append(replay(link, sender, str(expanded), subprocess.DEVNULL))
            apart.append(replay_pipe(link, sender, other, command))
            if sender is not None:
                together.append(replay_pipe(link, sender, sender, command))
    base = statistics.median(run.rate for run in from_file)
    for name, sent in (
        ("from a file", from_file),
        ("behind expand on another CPU", apart),
        ("behind expand on its CPU", together),
    ):
        if sent:
            rates = [run.rate for run in sent]
            cost = statistics.median(run.cpu_us for run in sent)
            ratio = statistics.median(rates) / base
            print(f"tcpreplay {name}: {spread(rates)}, {cost:.2f} µs CPU a packet, x{ratio:.3f}")
    ratio = statistics.median(run.rate for run in apart) / base
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
