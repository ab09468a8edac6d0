"""Syslog messages, RFC 5424 and RFC 3164 (as it is really sent), taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Message", "parse"]

_PRI = re.compile(r"<(\d{1,3})>")
# <PRI>1 TIMESTAMP HOST APP PROCID MSGID STRUCTURED-DATA [MSG], "-" for what is not there.
_NEW = re.compile(
    r"1 (\S+) (\S+) (\S+) (\S+) (\S+) ((?:\[(?:\\.|\"(?:\\.|[^\"\\])*\"|[^\]\"])*\])+|-)(?: |$)"
)
# <PRI>Mmm dd hh:mm:ss[.fff] [HOST] TAG[pid]: MSG; also ISO times, and without a host.
_OLD = re.compile(
    r"(?P<time>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?|\d{4}-\d\d-\d\dT\S+) "
    r"(?:(?P<host>[^\s:\[\]]+) )?(?:(?P<app>[^\s:\[\]]+)(?:\[[^\]]*\])?: ?)?"
)


@dataclass(frozen=True, slots=True)
class Message:
    """A message: `text` is what the application wrote. Empty where the header does not say."""

    text: str
    timestamp: str = ""
    host: str = ""
    app: str = ""
    priority: int | None = None


def parse(line: str) -> Message:
    """One message; a line without a priority is all text."""
    line = line.rstrip("\r\n\0")
    head = _PRI.match(line)
    if head is None:
        return Message(line)
    priority, rest = int(head[1]), line[head.end() :]
    if new := _NEW.match(rest):
        text = rest[new.end() :].removeprefix("\ufeff")
        when, host, app = ("" if part == "-" else part for part in new.groups()[:3])
        return Message(text, when, host, app, priority)
    if old := _OLD.match(rest):
        when, host, app = (old[group] or "" for group in ("time", "host", "app"))
        return Message(rest[old.end() :], when, host, app, priority)
    return Message(rest, priority=priority)
