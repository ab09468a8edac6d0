"""Rules whose number of alerts depends on the load: thresholds and rate filters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError

__all__ = ["RateRule", "rate_rules"]

# A rule's options are separated by semicolons; strings may hold escaped ones.
_OPTION = re.compile(r'((?:[^;"\\]|\\.|"(?:[^"\\]|\\.)*")*);')
_RULE = re.compile(
    r"^\s*(alert|drop|pass|reject|rejectsrc|rejectdst|rejectboth|config)\s.*?\((.*)\)\s*$"
)
_TYPE = re.compile(r"\btype\s+(limit|threshold|both|backoff)\b")
_GLOBAL = re.compile(r"^\s*(threshold|rate_filter|event_filter)\s+(.*)$")


@dataclass(frozen=True, slots=True)
class RateRule:
    """A rule (or a line of a threshold.config, `signature` its sig_id or 0 for all) of `kind`
    limit, threshold, both, backoff, detection_filter or rate_filter."""

    path: str
    line: int
    signature: int
    kind: str


def rate_rules(paths: Sequence[Path]) -> tuple[int, tuple[RateRule, ...]]:
    """How many rules the files have, and which of them count or limit. Raises ConfigError."""
    rules = 0
    found: list[RateRule] = []
    for path in paths:
        try:
            text = path.read_text(errors="replace")
        except OSError as error:
            raise ConfigError(f"{path}: cannot read the rules: {error.strerror}") from None
        for number, line in _lines(text):
            rule = _RULE.match(line)
            if rule:
                rules += 1
                found += _of_rule(str(path), number, rule.group(2))
            elif matched := _GLOBAL.match(line):
                found.append(_of_config(str(path), number, *matched.groups()))
    return rules, tuple(found)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are neither empty nor comments, with continuations joined."""
    joined, begin = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        begin = begin or number
        if line.rstrip().endswith("\\"):
            joined += line.rstrip()[:-1]
            continue
        whole = joined + line
        if whole.strip() and not whole.lstrip().startswith("#"):
            yield begin, whole
        joined, begin = "", 0


def _of_rule(path: str, line: int, body: str) -> Iterator[RateRule]:
    options = [option.strip() for option in _OPTION.findall(body)]
    named = dict(option.split(":", 1) for option in options if ":" in option)
    signature = named.get("sid", "0").strip()
    for name in ("threshold", "detection_filter"):
        if name in named:
            kind = _TYPE.search(named[name])
            yield RateRule(
                path,
                line,
                int(signature) if signature.isdigit() else 0,
                kind.group(1) if kind else name,
            )


def _of_config(path: str, line: int, name: str, body: str) -> RateRule:
    kind = _TYPE.search(body)
    signature = re.search(r"\bsig_id\s+(\d+)", body)
    return RateRule(
        path,
        line,
        int(signature.group(1)) if signature else 0,
        kind.group(1) if kind and name != "rate_filter" else name,
    )
