"""What `t-rex-64` prints in a stateful batch run, read line by line.

Panels come every half second, the summary at the end (`--iom 1`; trex-core v3.08, main_dpdk.cpp:
CGlobalStats::DumpAllPorts and Dump, CGlobalTRex::dump_post_test_stats). Rates in panels are
rounded, with a unit ("10.10 Kpps"); counts of ports and flows and the summary are exact.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

__all__ = ["Console", "Said", "cause_of_failure"]

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SUMMARY = re.compile(r"^ (Total-[a-z-]+|Total ARP \w+) *: (\d+)(?: pkts| bytes?)? *$")
_PANEL = re.compile(
    r"(Cpu Utilization|Total-(?:Tx|Rx|PPS|CPS)|Expected-(?:PPS|CPS|BPS)|Active-flows|Open-flows"
    r"|Clients|Servers|Socket-util|Total_alloc_err|Total_queue_full|Total_queue_drop|drop-rate"
    r"|current time|test duration) *: +(-?[\d.]+) *([KMGT]?)(?:pps|cps|bps|sec|%)?(?: |$)"
)
_PORTS = re.compile(r"^ +(opackets|obytes|ipackets|ibytes|ierrors|oerrors) ((?:\| +\d+ )+)")
_ENDED = re.compile(r"TRex is shutting down - cause: '([^']*)'")
_SCALE = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_FATAL = (
    "Failed resolving dest MAC",
    "ZMQ port is used",
    "You don't have enough physical cores",
    "Could not find",
    "Invalid EAL arguments",
    "ERROR",
    "Error",
    "Segmentation fault",
    "Killed",
    "No free hugepages",
    "Cannot allocate memory",
    "out of memory",
    "assert",
)


@dataclass(slots=True)
class Said:
    """The last lines that TRex and its scripts have said, and why it did not run.

    Python's tracebacks are left aside: the scripts print one on a host without `lspci`, and go on.
    What was raised last is the reason only where nothing else is said but that there was one.
    """

    lines: list[str] = field(default_factory=list)
    raised: str | None = None
    _inside: bool = False

    def feed(self, line: str) -> None:
        """Take in one line, its indentation included: a traceback ends at the first without."""
        text = line.strip()
        if text.startswith("Traceback (most recent call last)"):
            self._inside = True
        elif self._inside:
            if text and not line.startswith(" "):
                self.raised, self._inside = text, False
        elif text and not text.startswith("During handling of the above exception"):
            self.lines = [*self.lines[-39:], text]

    @property
    def why(self) -> str:
        """Why it did not run, as far as can be told, in one line."""
        line = cause_of_failure(self.lines)
        vague = not self.lines or line.startswith("ERROR encountered while configuring")
        return self.raised if vague and self.raised is not None else line


@dataclass(slots=True)
class Console:
    """What a run has printed so far.

    `summary` are the exact totals of its end ("Total-tx-pkt" …), `panel` the latest numbers of the
    panels in base units ("Total-PPS", "Active-flows" …; sums over the ports), `peaks` the highest
    of each. `first` and
    `last` are our monotonic clock at the first panel with traffic, and at the last in which the
    transmitted packets had grown; `said` the last lines that are none of these.
    """

    summary: dict[str, int] = field(default_factory=dict)
    panel: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    sent: int = 0
    first: float | None = None
    last: float | None = None
    cause: str | None = None
    said: Said = field(default_factory=Said)

    def feed(self, line: str, now: float | None = None) -> None:
        """Take in one line; `now` is when it came (default: now)."""
        line = _CONTROL.sub("", line).rstrip()
        if match := _SUMMARY.match(line):
            self.summary[match[1]] = int(match[2])
        elif match := _ENDED.search(line):
            self.cause = match[1]
        elif match := _PORTS.match(line + " "):
            self._ports(match[1], sum(map(int, match[2].replace("|", " ").split())), now)
        elif found := _PANEL.findall(line):
            for name, number, unit in found:
                value = float(number) * _SCALE[unit]
                self.panel[name] = value
                self.peaks[name] = max(value, self.peaks.get(name, value))
        else:
            self.said.feed(line)

    def _ports(self, name: str, total: int, now: float | None) -> None:
        """A line of the panel's table of ports: the sum over them."""
        self.panel[name] = float(total)
        if name == "opackets" and total > self.sent:
            moment = time.monotonic() if now is None else now
            self.first = moment if self.first is None else self.first
            self.last = moment
            self.sent = total

    @property
    def running(self) -> bool:
        """True once a panel has shown traffic."""
        return self.first is not None

    @property
    def whole(self) -> bool:
        """True when the summary of a normal end is there."""
        return "Total-tx-pkt" in self.summary and "Total-tx-bytes" in self.summary


def cause_of_failure(lines: list[str]) -> str:
    """The line that says why TRex did not run: the first of the known ones, or else the last.

    A line that ends with a colon, or is followed by a cause, has its reason behind it.
    """
    for line, after in zip(lines, [*lines[1:], ""], strict=False):
        if any(word in line for word in _FATAL) and "latency-any-error" not in line:
            more = line.endswith(":") or after.startswith("Cause:")
            return f"{line} {after}".rstrip() if more else line
    return lines[-1] if lines else "no message"
