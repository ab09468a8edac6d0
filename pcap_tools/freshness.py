"""Whether a compiled kernel on disk is as new as everything that was compiled into it.

numba judges a cached kernel by the file that it stands in. Its callees in other modules are part
of its machine code, and so are the numbers that it uses of them: after an upgrade of those alone
the old code would run. The stamp here covers them all; a module that no kernel module imports may
change without a compilation.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

__all__ = ["Stamp", "source_stamp"]

Stamp = tuple[tuple[str, float, int], ...]
"""Name, time of change (s) and size (bytes) of every source."""

_HOME = Path(__file__).parent
_IMPORT = re.compile(r"^from pcap_tools\.(\w+) import", re.MULTILINE)


@functools.cache
def source_stamp(path: Path) -> Stamp:
    """The state of a module and of those of this package that it imports, they theirs, and so on.

    They are beside it, or (for kernels of others, as in tests) beside this module.
    """
    found = {path}
    waiting = [path]
    while waiting:
        for name in _imported(waiting.pop()):
            beside, source = path.with_name(f"{name}.py"), _HOME / f"{name}.py"
            if beside.exists():
                source = beside
            if source not in found and source.exists():
                found.add(source)
                waiting.append(source)
    states = [(source.name, source.stat()) for source in sorted(found)]
    return tuple((name, state.st_mtime, state.st_size) for name, state in states)


@functools.cache
def _imported(path: Path) -> list[str]:
    return _IMPORT.findall(path.read_text(encoding="utf-8"))
