"""The corpus pushed as a capture through TRex's stateless mode (`push_remote`, `push_pcap`).

TRex changes no address of what it pushes, only the MACs. So either the iterations are expanded into
a file on TRex's host first ("fresh": every flow has addresses of its own, which we planned), or the
same flows are sent over and over ("remote", "local"), which is the naive loop: a five-tuple comes
back every iteration, and a sensor may take the copies for one flow. The trial says so, and its
alerts are no rate.

Limits, from trex-core v3.08: `push_pcap` takes files to 1 MiB, since it makes a stream of every
packet (trex_stl_client.py), and documents a 16-bit count; `push_remote` has 30 bits for the count
(of which two tell the MACs, trex_stl_rpc_cmds.cpp) and one traffic core reads the file, at some
3 million packets/s. Both send everything out of the first port; two would need ERF files. Seen on
v3.08: `push_remote` sends frames as they are, `push_pcap` pads those under 60 bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import planning
from harness.errors import ConfigError, GeneratorFailed
from harness.generators.shipping import expand_command, ship_capture, ship_expander
from harness.generators.trex.traffic import LARGEST, StlTraffic
from harness.model import Corpus, Load, Schedule
from lab.errors import CommandFailed
from lab.host import Host
from lab.inventory import GeneratorSpec
from lab.shipping import ship_file
from pcap_tools.capture import open_capture
from pcap_tools.parts import HEADER, RECORD
from pcap_tools.write import PcapWriter

__all__ = ["Push", "check_push", "plan_push"]

_FCS, _LEAST = 4, 60  # bytes of a frame's check sequence, and of the least frame without it
_LOCAL_BYTES = 1 << 20
_COUNTS = {"local": 0xFFFF, "remote": 0x3FFFFFFF}
_EXPANDED_PER_S = 50_000  # packets; a slow host does ten times that


def check_push(traffic: StlTraffic, corpus: Corpus, loads: Iterable[Load]) -> None:
    """Refuse a corpus or loads that cannot be pushed that way. Raises ConfigError, PcapError."""
    where = f"{corpus.path}: push = {traffic.push!r}"
    size = HEADER + RECORD * corpus.packets + corpus.bytes
    if traffic.push == "local" and size > _LOCAL_BYTES:
        raise ConfigError(
            f"{where}: {size:,} bytes are more than the {_LOCAL_BYTES:,} that push_pcap takes: use "
            'push = "fresh" or "remote"'
        )
    if corpus.max_frame > LARGEST - _FCS:
        raise ConfigError(
            f"{where}: a frame of {corpus.max_frame:,} bytes; TRex takes {LARGEST - _FCS:,}"
        )
    if traffic.push != "fresh" and traffic.push_gaps == "corpus" and corpus.max_gap is not None:
        raise ConfigError(
            f"{where}: the file's own gaps go with corpus.max_gap only where the file is expanded: "
            'use push = "fresh", or push_gaps = "even"'
        )
    with open_capture([corpus.path]) as capture:
        cut = sum(int((b.caplen < b.wirelen).sum()) for b in capture.batches())
    if cut:
        raise ConfigError(
            f"{where}: {cut:,} frames were cut when they were captured, and TRex would fill them "
            "with what is in its memory: clean the capture (`corpus clean`)"
        )
    for load in loads:
        plan_push(traffic, corpus, load, 0)


def plan_push(
    traffic: StlTraffic, corpus: Corpus, load: Load, first_iteration: int, padding: int = 0
) -> Schedule:
    """A load as whole iterations pushed; `padding` is what TRex adds to one, in bytes.

    Raises ConfigError.
    """
    pacing: Any = "pps" if traffic.push_gaps == "even" else "timestamps"
    if traffic.push == "fresh":
        plan = planning.plan(corpus, load, first_iteration, pacing)
        gaps = f"a packet every {1e6 / plan.pps:.4g} µs" if pacing == "pps" else "at its due times"
        return replace(
            plan,
            how=f"TRex push_remote: {plan.iterations:,} iterations with fresh addresses, {gaps}, "
            "out of the first port",
            settings=_settings(traffic, corpus, plan),
        )
    plan = planning.plan(corpus, load, 0, "pps")  # one copy after the other, however it is paced
    assert traffic.push is not None
    most = _COUNTS[traffic.push]
    if plan.iterations > most:
        raise ConfigError(
            f"load {load.value:g} {load.axis} for {load.duration:g} s is {plan.iterations:,} "
            f"copies; push = {traffic.push!r} sends {most:,} at most: shorten the trial, or use "
            + ('"remote"' if traffic.push == "local" else '"fresh"')
        )
    if traffic.push_gaps == "corpus" and corpus.span_s <= 0:
        raise ConfigError(f"{corpus.path}: has no gaps to keep: use push_gaps = 'even'")
    gaps = f"a packet every {1e6 / plan.pps:.4g} µs"
    if traffic.push_gaps == "corpus":
        gaps = f"its gaps divided by {corpus.span_s / plan.every_s:.4g}"
    open_at_once = corpus.flow_seconds / corpus.span_s if corpus.span_s else float(corpus.flows)
    call = "push_remote" if traffic.push == "remote" else "push_pcap"
    return replace(
        plan,
        bytes=plan.bytes + padding * plan.iterations,
        bps=plan.bps + padding * 8 / plan.every_s,
        concurrent_flows=open_at_once,
        steady_fraction=1.0,
        how=f"TRex {call}: the corpus {plan.iterations:,} times under its own addresses, {gaps}, "
        f"out of the first port; every five-tuple comes back after {plan.every_s:.3g} s",
        settings=_settings(traffic, corpus, plan),
    )


def _settings(traffic: StlTraffic, corpus: Corpus, plan: Schedule) -> dict[str, float]:
    """What the agent is told: gap in µs (0: the file's own), its divisor, and how often."""
    even = traffic.push_gaps == "even"
    fresh = traffic.push == "fresh"
    return {
        "ipg_usec": 1e6 / plan.pps if even else 0.0,
        "speedup": 1.0 if even or fresh else corpus.span_s / plan.every_s,
        "count": 1.0 if fresh else float(plan.iterations),
    }


class Push:
    """The file that is pushed, on TRex's host."""

    def __init__(self, host: Host, spec: GeneratorSpec, traffic: StlTraffic) -> None:
        self._host, self._spec, self._traffic = host, spec, traffic
        self._corpus: Corpus | None = None
        self._file = ""
        self._env: dict[str, str] = {}
        self._padding = 0
        self._expanded = f"{host.workdir}/push.pcap"

    def prepare(self, corpus: Corpus) -> None:
        """Bring the corpus there, once. Raises ConfigError, GeneratorFailed, LabError."""
        check_push(self._traffic, corpus, ())
        self._corpus, self._padding = corpus, 0
        if self._traffic.push == "fresh":
            self._env = ship_expander(self._host)
            self._file = ship_capture(self._host, Path(corpus.path), corpus.digest)
            return
        with tempfile.TemporaryDirectory(prefix="probebench-") as scratch:
            # In microseconds: the client's reader takes the nanoseconds of a file for them.
            local = Path(scratch) / "push.pcap"
            with (
                open_capture([corpus.path]) as capture,
                PcapWriter(local, digest=True) as writer,
            ):
                for batch in capture.batches():
                    writer.write(batch)
                    if self._traffic.push == "local":
                        short = _LEAST - batch.caplen.astype(np.int64)
                        self._padding += int(short[short > 0].sum())
            remote = f"{self._host.workdir}/captures/push-{writer.digest}.pcap"
            self._file = ship_file(self._host, local, remote, writer.digest)

    def plan(self, load: Load, first_iteration: int) -> Schedule:
        """See `plan_push`."""
        if self._corpus is None:
            raise GeneratorFailed("generator used before a corpus was prepared")
        return plan_push(self._traffic, self._corpus, load, first_iteration, self._padding)

    def expand(self, schedule: Schedule) -> None:
        """Before a trial: write the file of its iterations, where that is the way.

        Raises GeneratorFailed when it does not fit on the disk or the expander fails.
        """
        if self._traffic.push != "fresh" or self._corpus is None:
            return
        host = self._host
        need = HEADER + RECORD * schedule.packets + schedule.bytes
        lines = host.run(["df", "-Pk", host.workdir]).stdout.splitlines()
        free = int(lines[-1].split()[3]) * 1024
        if need > free:
            raise GeneratorFailed(
                f"{host.name}: {need / 1e9:,.1f} GB of expanded iterations do not fit into "
                f"{host.workdir} ({free / 1e9:,.1f} GB are free): shorten the trials, or give "
                f"hosts.{host.name}.workdir on a larger disk"
            )
        command = expand_command(
            host, self._spec, self._env, self._corpus, self._file, schedule, self._expanded
        )
        try:
            host.run(command, timeout=120 + schedule.packets / _EXPANDED_PER_S)
        except CommandFailed as error:
            raise GeneratorFailed(f"{host.name}: the expander failed: {error}") from None

    def job(self, schedule: Schedule) -> dict[str, Any]:
        """What the agent shall do."""
        settings = schedule.settings
        return {
            "do": "push",
            "file": self._expanded if self._traffic.push == "fresh" else self._file,
            "remote": self._traffic.push != "local",
            "ipg_usec": settings["ipg_usec"] or None,
            "speedup": settings["speedup"],
            "count": int(settings["count"]),
        }

    def clean(self) -> None:
        """After a trial: the expanded file goes."""
        if self._traffic.push == "fresh":
            self._host.run(["rm", "-f", self._expanded, f"{self._expanded}.plan.json"], check=False)
