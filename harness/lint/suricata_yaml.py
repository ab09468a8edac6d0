"""The few settings that matter here out of a suricata.yaml, without a YAML library.

Keys are named as `suricata --dump-config` names them ("flow-timeouts.tcp.new", "af-packet.0.
threads"). Block style and one level of flow style are read; anchors, multi-line strings and
includes are not (an include's settings are then those of Suricata's defaults).
"""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import ConfigError

__all__ = ["bytes_of", "flatten", "read_suricata_yaml"]

_LINE = re.compile(
    r"""^(?P<indent>\s*)(?P<dash>-\s+)?
    (?P<key>"[^"]*"|'[^']*'|[A-Za-z0-9_./*-]+(?:\ [A-Za-z0-9_.-]+)*)\s*:(?:\s+(?P<value>.*))?$""",
    re.VERBOSE,
)
_UNITS = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


def read_suricata_yaml(path: Path) -> dict[str, str]:
    """The file's scalars by their dotted names. Raises ConfigError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if not text.lstrip().startswith("%YAML"):
        raise ConfigError(f"{path}: not a suricata.yaml (it begins with %YAML 1.1)")
    return flatten(text)


def flatten(text: str) -> dict[str, str]:
    """Scalars of a YAML text by their dotted names."""
    found: dict[str, str] = {}
    # One entry an open level: its indentation, its name, and the number of its list's next item.
    levels: list[tuple[int, str, list[int]]] = [(-1, "", [0])]
    for raw in text.splitlines():
        line = _uncommented(raw)
        matched = _LINE.match(line)
        if not matched or not line.strip():
            continue
        indent, key = len(matched["indent"]), matched["key"].strip("\"'")
        dash = matched["dash"]
        while levels[-1][0] >= indent:
            levels.pop()
        if dash:
            items = levels[-1][2]
            prefix = _joined(levels[-1][1], str(items[0]))
            items[0] += 1
            levels.append((indent, prefix, [0]))
            indent += len(dash)
        name = _joined(levels[-1][1], key)
        value = (matched["value"] or "").strip()
        if value.startswith("{") and value.endswith("}"):
            for part in value[1:-1].split(","):
                inner, _, scalar = part.partition(":")
                found[_joined(name, inner.strip())] = scalar.strip().strip("\"'")
        elif value:
            found[name] = value.strip("\"'")
        levels.append((indent, name, [0]))
    return found


def _joined(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key


def _uncommented(line: str) -> str:
    quote = ""
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "#" and (place == 0 or line[place - 1].isspace()):
            return line[:place].rstrip()
    return line.rstrip()


def bytes_of(text: str, where: str) -> int:
    """Bytes of a size such as "128mb" or "1 GiB". Raises ConfigError naming `where`."""
    matched = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)i?(b?)", text.strip().lower())
    if not matched:
        raise ConfigError(f"{where} = {text!r} is not a size; write it as 128mb")
    unit = matched.group(2) + ("b" if matched.group(2) else matched.group(3))
    return int(float(matched.group(1)) * _UNITS[unit])
