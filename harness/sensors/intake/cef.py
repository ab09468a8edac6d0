"""ArcSight's Common Event Format: `CEF:0|vendor|product|version|class id|name|severity|k=v …`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Event", "parse"]

_HEADER = re.compile(r"CEF:\d+\|")
_BAR = re.compile(r"(?<!\\)(?:\\\\)*\|")
_KEY = re.compile(r"(?:^|(?<=\s))([\w.\[\]-]+)(?<!\\)=")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Event:
    """Header fields and extension of one event, unescaped."""

    vendor: str
    product: str
    version: str
    class_id: str
    name: str
    severity: str
    extension: dict[str, str] = field(default_factory=dict)


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), text)


def parse(text: str) -> Event | None:
    """The event in a line, whatever stands before `CEF:`; None when there is none."""
    head = _HEADER.search(text)
    if head is None:
        return None
    fields: list[str] = []
    at = head.end()
    for bar in _BAR.finditer(text, at):
        fields.append(text[at : bar.end() - 1])
        at = bar.end()
        if len(fields) == 6:
            break
    if len(fields) < 6:
        return None
    rest = text[at:]
    keys = list(_KEY.finditer(rest))
    ends = [key.start() for key in keys[1:]] + [len(rest)]
    extension = {
        key[1]: _plain(rest[key.end() : end].rstrip()) for key, end in zip(keys, ends, strict=True)
    }
    vendor, product, version, class_id, name, severity = (_plain(part) for part in fields)
    return Event(vendor, product, version, class_id, name, severity, extension)
