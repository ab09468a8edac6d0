"""Cached kernels against changes of their callees and of the numbers they froze."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pcap_tools
from pcap_tools.freshness import source_stamp

CALL = """
from pcap_tools import outer
print(outer.twice(4), sum(outer.twice.stats.cache_hits.values()))
"""
INNER = """from pcap_tools.kernels import kernel

FACTOR = {factor}


@kernel
def inner(x):
    return {value}
"""
OUTER = """from pcap_tools.inner import FACTOR, inner
from pcap_tools.kernels import kernel


@kernel
def twice(x):
    return inner(x) * FACTOR
"""


def run(home: Path) -> list[int]:
    """The kernel's result, and whether it came from the cache."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA")}
    command = [sys.executable, "-c", CALL]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_a_kernel_is_as_new_as_its_callees_and_their_numbers(tmp_path: Path) -> None:
    package = tmp_path / "pcap_tools"
    package.mkdir()
    for path in Path(pcap_tools.__file__).parent.glob("*.py"):
        shutil.copy(path, package)
    (package / "inner.py").write_text(INNER.format(factor=2, value="x"))
    (package / "outer.py").write_text(OUTER)
    assert run(tmp_path) == [8, 0]
    assert run(tmp_path) == [8, 1]
    (package / "inner.py").write_text(INNER.format(factor=2, value="x + 1"))
    assert run(tmp_path) == [10, 0]
    (package / "inner.py").write_text(INNER.format(factor=31, value="x + 1"))
    assert run(tmp_path) == [155, 0]


def test_the_stamp_covers_what_is_imported_and_nothing_else(tmp_path: Path) -> None:
    texts = {
        "a": "from pcap_tools.b import f",
        "b": "from pcap_tools.c import (\n    g,\n)\nfrom pcap_tools.a import h",
        "c": "",
        "d": "from pcap_tools.a import x",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    assert [row[0] for row in source_stamp(tmp_path / "a.py")] == ["a.py", "b.py", "c.py"]


def test_a_kernel_elsewhere_is_as_new_as_this_package(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from pcap_tools.known import home\n")
    names = [row[0] for row in source_stamp(tmp_path / "mine.py")]
    assert {"mine.py", "known.py", "kernels.py"} < set(names)
