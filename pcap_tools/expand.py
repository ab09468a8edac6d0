"""Expand a corpus: many iterations of it, each with fresh addresses, interleaved in time.

The output is a pcap savefile with every iteration whole: a ramp-up while the first ones begin, a
steady state, and a play-out until the last one has ended. Timestamps are t_j + iΔ after the
capture's first packet, i counted from 0 whatever the first iteration is, so that two parts of one
expansion fit together. Work and memory do not grow with the number of iterations.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pcap_tools.emit import Emitter, Interleave
from pcap_tools.errors import OutputError, PlanError
from pcap_tools.plan import AddressPlan
from pcap_tools.pools import DEFAULT_HOME
from pcap_tools.population import Population
from pcap_tools.schedule import Dimensions, Timing, every_for_flow_rate, every_in_sequence
from pcap_tools.space import Space
from pcap_tools.template import HEADER, Template, load_template
from pcap_tools.timeline import cap_gaps, find_flows

__all__ = ["ExpandOptions", "ExpandReport", "Expansion", "expand", "file_header", "prepare"]

STDOUT = "-"
_BUFFER = 1 << 18  # bytes of one write: stays in the second-level cache
_PAUSE, _LONGEST_PAUSE = 0.0002, 0.002  # s; see `_write`
_PIPE = 1 << 20  # Linux: /proc/sys/fs/pipe-max-size is 1 MiB for users without privilege


_LONGEST_S = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class ExpandOptions:
    """What to make of a corpus; times in seconds.

    At most one of `every` (Δ), `flow_rate` (new flows per second) and `sequential` (one copy after
    the other); with none of them copies are sequential. `max_gap` caps silences, see `timeline`.
    `hosts` bounds the population; then no five-tuple may come back within the sensor's timeouts,
    or within `timeout` when it is given (0: whatever comes).
    """

    key: str
    iterations: int
    home: tuple[str, ...] = DEFAULT_HOME
    home_pool: tuple[str, ...] = ()
    external_pool: tuple[str, ...] = ()
    hosts: Population | None = None
    timeout: float | None = None
    first: int = 0
    every: float | None = None
    flow_rate: float | None = None
    max_gap: float | None = None
    sequential: bool = False
    nanoseconds: bool = True

    def __post_init__(self) -> None:
        chosen = [
            name
            for name, given in (
                ("--every", self.every is not None),
                ("--flow-rate", self.flow_rate is not None),
                ("--sequential", self.sequential),
            )
            if given
        ]
        if len(chosen) > 1:
            raise PlanError(f"{' and '.join(chosen)} exclude each other; give one")
        for name, seconds in (("--every", self.every), ("--max-gap", self.max_gap)):
            if seconds is not None and not 1e-9 <= seconds <= _LONGEST_S:
                raise PlanError(
                    f"{name} {seconds:g}: it must be at least one nanosecond, and at most the "
                    f"{_LONGEST_S} s that a pcap timestamp holds"
                )


@dataclass(frozen=True)
class ExpandReport:
    """What was written: packets, bytes of frames, iterations, wall-clock seconds, and the timing.

    `counts` is what the corpus's frames were found to be, `fixed_…_checksums` among them.
    """

    output: str
    packets: int
    bytes: int
    iterations: int
    first: int
    every_s: float
    flows: int
    timeline_s: float
    flows_per_s: float
    concurrent_flows: float
    capacity: int
    wall_s: float
    ignored_bytes: int
    counts: dict[str, int]
    reuse: dict[str, Any] = field(default_factory=dict)

    @property
    def packets_per_s(self) -> float:
        """Packets written per second of wall-clock time."""
        return self.packets / self.wall_s if self.wall_s else 0.0

    def summary(self) -> str:
        """The report in one line."""
        fixed = self.counts["fixed_ip_checksums"] + self.counts["fixed_l4_checksums"]
        notes = f"; {fixed} wrong checksums of the corpus put right" if fixed else ""
        if self.reuse.get("by_protocol"):
            notes += (
                f"; a client's port comes back after {self.reuse['iterations']:,} iterations, "
                f"{self.reuse['seconds']:.6g} s"
            )
        if self.reuse.get("fixed_flows"):
            notes += (
                f"; {self.reuse['fixed_flows']:,} flows have no port that moves, they come back "
                f"after {self.reuse['fixed_iterations']:,} iterations, "
                f"{self.reuse['fixed_seconds']:.6g} s"
            )
        if self.ignored_bytes:
            notes += f"; {self.ignored_bytes} bytes of a truncated tail ignored"
        return (
            f"{self.packets:,} packets, {self.bytes:,} bytes, {self.iterations:,} iterations "
            f"every {self.every_s:.6g} s over {self.timeline_s:.6g} s "
            f"({self.flows_per_s:.6g} flows/s, {self.concurrent_flows:.6g} in flight); written in "
            f"{self.wall_s:.3f} s, {self.packets_per_s:,.0f} packets/s{notes}"
        )

    def as_json(self) -> dict[str, Any]:
        """The report's JSON form."""
        return {**asdict(self), "packets_per_s": self.packets_per_s}


@dataclass(frozen=True)
class Expansion:
    """A corpus in memory and what shall be made of it."""

    template: Template
    timing: Timing
    plan: AddressPlan
    options: ExpandOptions

    def emitter(self) -> Emitter:
        """A fresh writer of the whole expansion."""
        asked = Interleave(
            self.options.first, self.options.iterations, round(self.timing.every_s * 1e9)
        )
        return Emitter(self.template, asked, self.options.nanoseconds)


def prepare(paths: Sequence[Path | str], options: ExpandOptions) -> Expansion:
    """Read the corpus and settle addresses and timing. Raises PlanError and CaptureError."""
    space = Space(options.home, options.home_pool, options.external_pool)
    template = load_template(paths, options.key, space, options.hosts)
    template.plan.require(options.first, options.iterations)
    flows = find_flows(template)
    if options.max_gap is not None:
        template, flows = cap_gaps(template, flows, round(options.max_gap * 1e9))
    corpus = Dimensions(
        packets=template.packets,
        bytes=template.bytes,
        flows=flows.count,
        span_s=template.span_ns / 1e9,
        flow_seconds=flows.seconds,
    )
    if options.every is not None:
        every = options.every
    elif options.flow_rate is not None:
        every = every_for_flow_rate(corpus.flows, options.flow_rate)
    else:
        every = every_in_sequence(corpus.packets, corpus.span_s)
    timing = Timing(corpus, options.iterations, max(1, round(every * 1e9)) / 1e9)
    end = template.first_ns / 1e9 + options.first * timing.every_s + timing.seconds
    if end >= 1 << 32:
        raise PlanError(
            f"iteration {options.first + options.iterations - 1} would end at {end:.0f} s after "
            "1970, past what a pcap timestamp holds (4294967295); give smaller --first, "
            "--iterations or --every"
        )
    reuse = _checked(template, timing, options)
    run = {
        "first": options.first,
        "iterations": options.iterations,
        "every_s": timing.every_s,
        "max_gap_s": options.max_gap,
        "packets": timing.packets,
        "bytes": timing.bytes,
        "flows": timing.flows,
        "seconds": timing.seconds,
        "flows_per_s": timing.flows_per_s,
        "concurrent_flows": timing.concurrent_flows,
        "corpus": asdict(corpus),
        **({"reuse": reuse} if reuse else {}),
    }
    return Expansion(template, timing, replace(template.plan, run=run), options)


def _checked(template: Template, timing: Timing, options: ExpandOptions) -> dict[str, Any]:
    """What there is to say about reuse. Raises PlanError when a flow would come back too early."""
    reuse = template.reuse
    if reuse is None:
        return {}
    early = reuse.too_short(
        options.iterations, timing.every_s, timing.corpus.span_s, options.timeout
    )
    if early:
        raise PlanError(
            f"--hosts: {'; '.join(early)}. Give more hosts, fewer iterations or a lower rate, or "
            "--timeout S if the sensor forgets sooner"
        )
    return {
        **reuse.as_json(),
        "seconds": reuse.iterations * timing.every_s if reuse.by_protocol else None,
        "fixed_seconds": reuse.fixed_iterations * timing.every_s if reuse.fixed_flows else None,
    }


def expand(
    paths: Sequence[Path | str],
    output: str,
    options: ExpandOptions,
    plan_path: Path | None = None,
) -> ExpandReport:
    """Write the expansion of a corpus to a file, or to standard output when `output` is "-".

    The plan goes to `plan_path`, by default beside the file as OUTPUT.plan.json (nowhere for "-").
    Raises PcapError; BrokenPipeError when the reader of standard output has gone.
    """
    if output == STDOUT and sys.stdout.isatty():
        raise OutputError("standard output is a terminal; redirect it or give -o FILE")
    if output != STDOUT:
        # A stream starts without them.
        from pcap_tools.write import plain_pcap_only, refuse_inputs

        plain_pcap_only(output)
        refuse_inputs(output, paths)
        plan_path = plan_path or Path(f"{output}.plan.json")
    expansion = prepare(paths, options)
    if plan_path and output == STDOUT:
        # Beside a file it comes after that: an earlier plan belongs to the output that stands.
        expansion.plan.save(plan_path)
    began = time.perf_counter()
    try:
        with _opened(output) as sink:
            packet_bytes = _write_all(expansion, sink)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"{output}: {error.strerror}; the output was removed") from None
    timing = expansion.timing
    if packet_bytes != timing.bytes + HEADER * timing.packets:
        raise OutputError(f"{output}: {packet_bytes} bytes written, {timing.bytes} expected")
    if plan_path and output != STDOUT:
        expansion.plan.save(plan_path)
    return ExpandReport(
        output=output,
        packets=timing.packets,
        bytes=timing.bytes,
        iterations=options.iterations,
        first=options.first,
        every_s=timing.every_s,
        flows=timing.flows,
        timeline_s=timing.seconds,
        flows_per_s=timing.flows_per_s,
        concurrent_flows=timing.concurrent_flows,
        capacity=expansion.plan.capacity,
        wall_s=time.perf_counter() - began,
        ignored_bytes=expansion.template.ignored_bytes,
        counts=expansion.template.counts,
        reuse=dict(expansion.plan.run.get("reuse", {})),
    )


def file_header(link: int, snaplen: int, nanoseconds: bool) -> bytes:
    """Header of a pcap savefile (draft-ietf-opsawg-pcap), little-endian."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    return struct.pack("<IHHiIII", magic, 2, 4, 0, 0, snaplen, link)


def _write_all(expansion: Expansion, sink: int) -> int:
    """Write header and records; returns the bytes of the records."""
    template = expansion.template
    header = file_header(template.link, template.snaplen, expansion.options.nanoseconds)
    _write(sink, memoryview(header))
    largest = int(np.diff(template.start).max())
    out = np.empty(max(_BUFFER, largest), np.uint8)
    view = memoryview(out.data)
    emitter = expansion.emitter()
    total = 0
    while not emitter.done:
        used = emitter.fill(out)
        _write(sink, view[:used])
        total += used
    return total


def _write(sink: int, data: memoryview) -> None:
    """Write all of it; when a pipe is full, come back once the reader has taken a good part.

    A blocking writer would be woken for every page that the reader takes, at the cost of a context
    switch per 4 KiB: on a small machine that slows the reader, a replay tool, by a quarter. The
    pauses add up to about the time that `data` takes, while four times as much is in the pipe.
    """
    pause = _PAUSE
    while data:
        try:
            written = os.write(sink, data)
        except BlockingIOError:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            continue
        data = data[written:]


@contextlib.contextmanager
def _pipe(sink: int) -> Iterator[int]:
    """The same pipe, enlarged, opened once more so that it does not block; else `sink` itself.

    Opened anew because O_NONBLOCK on `sink` would be shared with every process that has it.
    """
    own = sink
    if stat.S_ISFIFO(os.fstat(sink).st_mode):
        with contextlib.suppress(OSError):  # a quota or another limit: smaller is slower only
            fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, _PIPE)
        with contextlib.suppress(OSError):  # no /proc, or a pipe of another user: it blocks
            own = os.open(f"/proc/self/fd/{sink}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        yield own
    finally:
        if own != sink:
            os.close(own)


@contextlib.contextmanager
def _opened(output: str) -> Iterator[int]:
    """A file descriptor to write to; a file appears under its name only when it is complete."""
    if output == STDOUT:
        sink = sys.stdout.fileno()
        with _pipe(sink) as own:
            yield own
        # The reader sees the end now, not when the interpreter has gone (0.1 s later): a replay
        # tool that waits for it would count that wait as sending time.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sink)
        return
    path = Path(output)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    sink = -1
    try:  # around the opening too: a signal may come right behind it
        sink = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        yield sink
        os.close(sink)
        sink = -1
        temporary.replace(path)
    finally:
        if sink >= 0:
            os.close(sink)
        temporary.unlink(missing_ok=True)
