"""The first run ever of a command: two processes compile, and the result is that of every run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from synth import Talk, merged, write_pcap
from test_readdress import odd_frames

from pcap_tools import beside, warm
from pcap_tools.text import FEW

COMMANDS = {
    "track": ["clean"],
    "clean": ["clean", "--remap", "--key", "k"],
    "remap": ["remap", "--key", "k"],
}


def first_run(command: list[str], raw: Path, directory: Path, cache: Path) -> list[bytes]:
    """Outputs of a command whose kernels are cached in `cache` alone."""
    directory.mkdir()
    output = directory / "out.pcap"
    subprocess.run(
        [sys.executable, "-m", "harness", "corpus", *command, str(raw), "-o", str(output)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        check=True,
        capture_output=True,
        timeout=120,
    )
    files = sorted(path for path in directory.iterdir())
    return [path.read_bytes().replace(str(directory).encode(), b"") for path in files]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor: one process")
@pytest.mark.parametrize("part", COMMANDS)
def test_the_first_run_is_as_the_second(tmp_path: Path, part: str) -> None:
    # So many half flows that their rows take the kernel that makes text, too.
    whole = [Talk(sport=1000 + n).whole() for n in range(20)]
    half = [Talk(sport=2000 + n, client="10.9.0.1").open() for n in range(FEW + 20)]
    raw = write_pcap(tmp_path / "raw.pcap", sorted([*merged(*whole, *half), *odd_frames()]))
    cache = tmp_path / "cache"
    first = first_run(COMMANDS[part], raw, tmp_path / "first", cache)
    kept = {path.name.split("-")[0]: path.stat().st_mtime_ns for path in cache.rglob("*.nbi")}
    module, kernel = beside._PARTS[part].kernel
    assert f"{module}.{kernel}" in kept
    assert first_run(COMMANDS[part], raw, tmp_path / "again", cache) == first
    again = {path.name.split("-")[0]: path.stat().st_mtime_ns for path in cache.rglob("*.nbi")}
    assert again == kept  # nothing was left to compile
    other = [sys.executable, "-m", "pcap_tools", "warm", "--part", part]  # its failure is not told
    subprocess.run(other, env={**os.environ, "NUMBA_CACHE_DIR": str(cache)}, check=True)


def test_parts_that_are_there() -> None:
    """Every part that is asked for, with kernels and modules that exist."""
    for name, part in beside._PARTS.items():
        assert {name, part.meanwhile} <= set(warm._PARTS)
        modules = [*part.modules, part.kernel[0]]
        assert all(Path(warm.__file__).with_name(f"{module}.py").exists() for module in modules)
