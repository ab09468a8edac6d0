"""How long a command takes before it works: with the kernels cached, and the very first time.

    python benchmarks/start_up.py [--runs N] [--directory DIR]

Must: any command 0.5 s once its kernels are cached; 8 s the first time ever, and the terminal told
what it waits for. Aim: 0.3 s, 0.15 s for --help, 4 s. Commands work on a capture of 1 MB. The first
time is one with an empty cache of kernels (NUMBA_CACHE_DIR).
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

from measure import OURS, Claim, Command, compare, options, report, run, traffic, workplace
from peers import clean, flows, remap


def commands(source: Path, place: Path) -> list[Command]:
    """One of each kind; every one reads the whole small capture."""
    expanded = place / "expanded.pcap"
    expand = [*OURS, "corpus", "expand", str(source), "-o", str(expanded)]
    expand += ["--key", "k", "--iterations", "2", "--every", "1"]
    return [
        clean(source, place / "clean.pcap"),
        clean(source, place / "fresh.pcap", "--remap", "--key", "k"),
        remap(source, place / "remap.pcap"),
        flows(source, place / "flows.csv"),
        Command("corpus inspect", [*OURS, "corpus", "inspect", str(source)]),
        Command("corpus expand", expand, [expanded, Path(f"{expanded}.plan.json")]),
    ]


def first_time(commands: list[Command], place: Path, runs: int) -> list[float]:
    """Seconds of each command with an empty cache: the medians."""
    medians = []
    for command in commands:
        walls = []
        for _ in range(runs):
            cache = place / "cache"
            shutil.rmtree(cache, ignore_errors=True)
            os.environ["NUMBA_CACHE_DIR"] = str(cache)
            walls.append(run(command).wall)
        os.environ.pop("NUMBA_CACHE_DIR")
        medians.append(sorted(walls)[len(walls) // 2])
        print(f"  {command.name}, nothing compiled yet: {medians[-1]:.2f} s", flush=True)
    return medians


def told(command: Command, place: Path) -> bool:
    """Whether a terminal is told of the compilation."""
    cache = place / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    main, side = pty.openpty()
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    with subprocess.Popen(
        command.arguments, stdin=side, stdout=side, stderr=side, env=environment
    ) as process:
        os.close(side)
        said = b""
        try:
            while chunk := os.read(main, 1 << 12):
                said += chunk
        except OSError:
            pass  # the terminal's other end is closed: the command is done
        process.wait()
    os.close(main)
    return re.search(rb"compil", said, re.IGNORECASE) is not None


def main() -> int:
    """Measure; 0 when all that must hold does."""
    arguments = options(__doc__, megabytes=1, runs=9).parse_args()
    with workplace(arguments.directory) as place:
        source = traffic(place / "in.pcap", "mix", arguments.megabytes)
        working = commands(source, place)
        helping = Command("--help", [*OURS, "--help"])
        for command in working:
            run(command)
        results = compare([helping, *working], arguments.runs)
        results.show()
        slowest = max(results.wall(command.name) for command in working)
        compiled = max(first_time(working, place, max(1, arguments.runs // 4)))
        announced = told(working[0], place)
    return report(
        [
            Claim("--help", results.wall("--help"), 0.5, 0.15, most=True, unit="s"),
            Claim("slowest start, cached", slowest, 0.5, 0.3, most=True, unit="s"),
            Claim("slowest first run ever", compiled, 8, 4, most=True, unit="s"),
            Claim("told on the terminal (1 = yes)", float(announced), 1, unit=""),
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
