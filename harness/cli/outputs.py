"""Outputs are refused before the work, not after it: one check for every command that writes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["check_outputs"]


def check_outputs(
    outputs: Iterable[Path | None], inputs: Iterable[Path | str], *, stdout: bool = False
) -> None:
    """Raise OutputError when an output cannot be a file, or is an input or another output, and
    when an input is given twice.

    None (an output that was not asked for) is passed over, and so is "-" where the command can
    write to standard output; elsewhere it would become a file of that name.
    """
    from pcap_tools.errors import OutputError

    read = [Path(path) for path in inputs if str(path) != "-"]
    for path in read:
        if sum(_same(path, other) for other in read) > 1:
            raise OutputError(f"{path}: is given twice; its packets would be counted twice")
    seen: list[Path] = []
    for output in outputs:
        if output is None:
            continue
        if str(output) == "-":
            if stdout:
                continue
            raise OutputError("-: standard output cannot hold this; give a file name")
        if problem := _problem(output):
            raise OutputError(f"{output}: cannot be written: {problem}")
        if any(_same(output, path) for path in read):
            raise OutputError(f"{output}: is also an input; give another output")
        if any(_same(output, path) for path in seen):
            raise OutputError(f"{output}: is asked for twice; give each output its own name")
        seen.append(output)


def _problem(output: Path) -> str | None:
    parent = output.parent
    if output.is_dir():
        return "it is a directory; give a file name"
    if _is_device(output):
        # It would be replaced by a file, and /dev/null be gone from the machine.
        return "it is a device or a pipe; give a file name"
    if not parent.exists():
        return f"there is no directory {parent}; make it first"
    if not parent.is_dir():
        return f"{parent} is not a directory; give another path"
    if not os.access(parent, os.W_OK | os.X_OK):
        return f"no permission to write in {parent}; give another path"
    return None


def _is_device(output: Path) -> bool:
    if output.is_symlink() and str(output.parent.resolve()).startswith(("/dev", "/proc")):
        return True  # /dev/stdout, which may stand for a file just now
    return output.exists() and not output.is_file()


def _same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()
