"""tcpreplay as the generator: fresh iterations through a pipe, or its own loops for comparison.

What tcpreplay 4.4.3 says is read as follows (measured): "Test start" is stamped at the first
packet, not at the program's start, so waiting for the pipe is not counted; a pipe that ends early
is NOT an error for tcpreplay (exit status 0), so the number of packets is compared with the plan.
`--no-flow-stats` because its flow statistics dominate with many flows (0.33 against 1.15 Mpps).
"""

from __future__ import annotations

import re
import shlex
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from harness import planning
from harness.errors import GeneratorFailed
from harness.generators.axes import AXES
from harness.generators.base import Progress
from harness.generators.mtu import must_carry
from harness.generators.shipping import expand_command, ship_capture, ship_expander
from harness.model import Axis, Corpus, Identity, Load, Schedule, Sent
from harness.signals import signal_name
from harness.templates import Template
from lab.host import Exit, Host, Process
from lab.inventory import GeneratorSpec

__all__ = ["LoopReplay", "Printed", "TcpreplayGenerator", "parse_output"]

_ACTUAL = re.compile(r"^Actual: (\d+) packets \((\d+) bytes\) sent in ([\d.]+) seconds")
_STAMP = re.compile(r"^Test (start|complete): (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+)")
_COUNT = re.compile(r"^\s*(Successful|Failed) packets:\s+(\d+)")
# What the interface refused for the moment and tcpreplay offered again (sendpacket.c).
_RETRIED = re.compile(r"^\s*Retried packets \((ENOBUFS|EAGAIN)\):\s+(\d+)")
_EXPANDED = re.compile(r"^([\d,]+) packets, [\d,]+ bytes, [\d,]+ iterations every ")
_NOISE = ("Warning in ", "Unable to send packet")


@dataclass(slots=True)
class Printed:
    """What tcpreplay has printed so far; `expanded` are the packets the expander says it wrote."""

    packets: int = 0
    bytes: int = 0
    seconds: float | None = None
    started: datetime | None = None
    completed: datetime | None = None
    successful: int | None = None
    failed: int = 0
    expanded: int | None = None
    retried: dict[str, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)  # lines that are none of the above

    def feed(self, line: str) -> None:
        """Take in one line of its output."""
        if m := _ACTUAL.match(line):
            self.packets, self.bytes, self.seconds = int(m[1]), int(m[2]), float(m[3])
        elif m := _STAMP.match(line):
            stamp = datetime.fromisoformat(m[2])
            if m[1] == "start":
                self.started = stamp
            else:
                self.completed = stamp
        elif m := _COUNT.match(line):
            if m[1] == "Successful":
                self.successful = int(m[2])
            else:
                self.failed = int(m[2])
        elif m := _RETRIED.match(line):
            self.retried[m[1].lower()] = int(m[2])
        elif m := _EXPANDED.match(line):
            self.expanded = int(m[1].replace(",", ""))
        elif line.strip() and not line.startswith(("Rated:", "Statistics", "\t")):
            self.said = [*self.said[-19:], line.strip()]

    @property
    def duration(self) -> float | None:
        """Seconds from the first to after the last packet, by the stamps (µs) where both are."""
        if self.started and self.completed:
            return (self.completed - self.started).total_seconds()
        return self.seconds


def parse_output(text: str) -> Printed:
    """Parse a whole output of tcpreplay (4.4 and later)."""
    printed = Printed()
    for line in text.splitlines():
        printed.feed(line)
    return printed


class TcpreplayGenerator:
    """`expand … - | tcpreplay -i IF -` on the generator host; implements `Generator`."""

    name = "tcpreplay"
    _expands = True
    axes: tuple[Axis, ...] = AXES["tcpreplay"]
    identity: Identity = "flow"
    templates: tuple[Template, ...] = ()

    def __init__(self, host: Host, spec: GeneratorSpec) -> None:
        self._host = host
        self._spec = spec
        self._corpus: Corpus | None = None
        self._capture = ""
        self._env: dict[str, str] = {}
        self._process: Process | None = None
        self._printed = Printed()
        self._schedule: Schedule | None = None

    @property
    def corpus(self) -> Corpus:
        """The prepared corpus. Raises GeneratorFailed before `prepare`."""
        if self._corpus is None:
            raise GeneratorFailed("generator used before a corpus was prepared")
        return self._corpus

    def prepare(self, corpus: Corpus) -> None:
        """See `Generator.prepare`; also refuses frames that the interface's MTU cannot carry."""
        version = self._host.run(["tcpreplay", "--version"], check=False)
        if version.returncode != 0:
            raise GeneratorFailed(
                f"{self._host.name}: tcpreplay does not run there; install the package tcpreplay"
            )
        must_carry(
            self._host,
            self._spec.interface,
            corpus.max_frame,
            "the corpus has",
            "capture without segmentation offload",
        )
        if self._expands:
            self._env = ship_expander(self._host)
        self._capture = ship_capture(self._host, Path(corpus.path), corpus.digest)
        self._corpus = corpus

    def plan(self, load: Load, first_iteration: int) -> Schedule:
        """See `harness.planning.plan`; flows are paced by counting packets too.

        One cycle of the expansion starts one iteration, so P/Δ packets/s start F/Δ flows/s, and
        tcpreplay holds a packet rate to 1e-5. Its pacing by timestamps sleeps from packet to packet
        and never catches up: measured, 0.7 % too slow at 2,400 packets/s, 10 % at 43,000, and 8 %
        at 2,400 on a busy machine. Lost is the spacing of packets inside one cycle of Δ seconds.
        """
        return planning.plan(self.corpus, load, first_iteration, pacing="pps")

    def _replay(self, schedule: Schedule, *more: str) -> list[str]:
        pin = ["taskset", "-c", self._spec.cpus] if self._spec.cpus else []
        # libpcap reads standard input 4 KiB at a time, a fifth of tcpreplay's time per packet.
        return [
            *pin,
            *["stdbuf", "-oL", "-i256K", "tcpreplay", "-i", self._spec.interface],
            *[f"--pps={schedule.pps:.6f}", "--stats=1", "--no-flow-stats", *more],
        ]

    def _command(self, schedule: Schedule) -> list[str]:
        corpus = self.corpus
        expand = expand_command(
            self._host, self._spec, self._env, corpus, self._capture, schedule, "-"
        )
        # The expander is the pipe's only writer, so that tcpreplay sees its end at once; that it
        # came to its end shows in its summary line on standard error.
        return ["sh", "-c", f"{shlex.join(expand)} | {shlex.join(self._replay(schedule, '-'))}"]

    def start(self, schedule: Schedule) -> None:
        """See `Generator.start`."""
        self._schedule, self._printed = schedule, Printed()
        self._process = self._host.start(
            self._command(schedule),
            max_seconds=4 * schedule.seconds + 60,
            log=f"{self._host.workdir}/generator.log",
            sudo=True,
        )

    def _read(self) -> None:
        if self._process is not None:
            for line in self._process.lines():
                self._printed.feed(line)

    def progress(self) -> Progress:
        """See `Generator.progress`."""
        if self._process is None:
            raise GeneratorFailed("generator polled before it was started")
        ended = self._process.poll()
        self._read()
        if ended is not None:
            self._judge(ended)
        return Progress(self._printed.packets, ended is not None)

    def _judge(self, ended: Exit) -> None:
        where = f"{self._host.name}: tcpreplay"
        status = ended.returncode
        number = ended.signal or (status - 128 if status is not None and status > 128 else None)
        if ended.reason == "deadline":
            raise GeneratorFailed(f"{where} did not end in its time and was stopped")
        if ended.reason in ("stopped", "orphaned"):
            raise GeneratorFailed(f"{where} was stopped before it had sent everything")
        if number is not None:
            raise GeneratorFailed(f"{where} was killed by signal {number} ({signal_name(number)})")
        last = next((s for s in reversed(self._printed.said) if not s.startswith(_NOISE)), "")
        if status:
            raise GeneratorFailed(f"{where} failed with status {status}: {last or 'no message'}")
        if self._expands and self._printed.expanded is None:
            raise GeneratorFailed(
                f"{self._host.name}: the expander feeding tcpreplay died before its end: "
                f"{last or 'no message'}"
            )

    def finish(self) -> Sent:
        """See `Generator.finish`. Fewer packets than planned is an error, never a result."""
        process, schedule = self._process, self._schedule
        if process is None or schedule is None:
            raise GeneratorFailed("generator finished before it was started")
        ended = process.wait(timeout=4 * schedule.seconds + 90)
        self._read()
        self._judge(ended)
        printed = self._printed
        duration = printed.duration
        if printed.successful is None or not duration:
            raise GeneratorFailed(
                f"{self._host.name}: tcpreplay ended without its statistics; see "
                f"{self._host.workdir}/generator.log there"
            )
        if printed.successful + printed.failed != schedule.packets:
            raise GeneratorFailed(
                f"{self._host.name}: tcpreplay took {printed.successful + printed.failed} packets "
                f"from the expander, {schedule.packets} were planned"
            )
        ended_ns = time.time_ns()  # our clock: the host's stamps carry no zone
        return Sent(
            packets=printed.successful,
            bytes=printed.bytes,
            flows=schedule.flows,
            seconds=duration,
            failed=printed.failed,
            started_ns=ended_ns - int(duration * 1e9),
            ended_ns=ended_ns,
            extra={f"retried_{name}": float(n) for name, n in printed.retried.items()},
        )

    def stop(self) -> None:
        """See `Generator.stop`."""
        if self._process is not None and self._process.poll() is None:
            self._process.stop()
        self._process = None


class LoopReplay(TcpreplayGenerator):
    """The naive ways, for comparison: tcpreplay's own `--loop`, with or without `--unique-ip`."""

    _expands = False

    def __init__(self, host: Host, spec: GeneratorSpec, *, unique_ip: bool = False) -> None:
        super().__init__(host, spec)
        self._unique = unique_ip
        self.name = "tcpreplay --unique-ip" if unique_ip else "tcpreplay --loop"

    def _command(self, schedule: Schedule) -> list[str]:
        unique = ["--unique-ip"] if self._unique else []
        loops = f"--loop={schedule.iterations}"
        return self._replay(schedule, loops, *unique, self._capture)
