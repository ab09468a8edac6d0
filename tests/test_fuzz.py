"""A short run of each fuzzer, and what former ones found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FINDINGS = ROOT / "tests" / "pcap_tools" / "data" / "findings"
FRAMES = sorted(FINDINGS.glob("*.pcap"))
FILES = sorted(path for path in FINDINGS.iterdir() if path.suffix != ".pcap")


def fuzz(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "fuzz" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_frames_that_once_failed() -> None:
    done = fuzz("frames.py", "--replay", *FRAMES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_that_once_failed() -> None:
    done = fuzz("files.py", "--replay", *FILES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mutated_frames(tmp_path: Path) -> None:
    done = fuzz("frames.py", "--inputs", 200_000, "--seed", 3, "--findings", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mutated_savefiles(tmp_path: Path) -> None:
    done = fuzz("files.py", "--inputs", 2000, "--seconds", 60, "--findings", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("at_end", [True, False])
def test_the_guard_is_real(at_end: bool) -> None:
    """One byte outside of a frame kills the process."""
    code = (
        "import sys; sys.path.insert(0, 'fuzz'); from guard import Slots; s = Slots(2); "
        "at = int(s.starts[0]); s.data[at : at + s.room].sum(); print('alive', flush=True); "
        f"s.data[{'at + s.room' if at_end else 'at - 1'}]"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "alive\n"
    assert done.returncode == -11
