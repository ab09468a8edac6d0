"""The recorder: real applications between two namespaces, captured late and stopped early."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab import netns_tools as net
from lab import virtual
from lab.addresses import add_addresses, clear_addresses
from lab.apps import Site, start_servers
from lab.capture import Capture, Counts
from lab.crew import Crew, Member
from lab.errors import LabError, OptionError
from lab.record_manifest import Done, Recording, write_manifest
from lab.scenario import Step, long_steps, short_steps
from lab.shaping import Shape
from lab.sshd import Server
from lab.virtual_files import read_state
from lab.virtual_layout import Layout, layout

__all__ = ["RecordOptions", "Recording", "record"]

MIN_SECONDS = 8.0
MAX_SECONDS = 300.0
_TOOLS = (
    "ip", "ss", "tc", "tcpdump", "nginx", "dnsmasq", "sshd", "ssh", "scp", "ssh-keygen",
    "curl", "dig", "openssl", "setpriv",
)  # fmt: skip
_LEAD = 0.8  # how long cut flows run before the capture, once they are established
_TAIL = 1.8  # how long unterminated flows are captured


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """`seconds` is about how long the whole recording takes; `shape` what the path does to it."""

    seconds: float = 15.0
    shape: Shape = field(default_factory=Shape)


def record(
    lab_name: str,
    output: Path,
    options: RecordOptions | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Recording:
    """Record in a lab into `output` and write `<output>.manifest.json` beside it.

    Raises LabError when the lab is not whole, an application fails on a path without impairments,
    or a flow that was to be cut was not; then nothing is left at `output`. Everything that was
    started is ended, also after an interrupt.
    """
    chosen = options or RecordOptions()
    lab = _checked(lab_name, output, chosen)
    # AppArmor lets a confined tcpdump write names that end in .pcap and start with no dot.
    partial = output.with_name(f"{output.stem}.partial-{os.getpid()}.pcap")
    with _exclusive(lab):
        _forget_partials(output)
        try:
            recording = _Recorder(lab, chosen, say).run(partial)
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
    return write_manifest(output, recording, chosen.shape)


def _checked(lab_name: str, output: Path, options: RecordOptions) -> Layout:
    """Everything that can be refused before anything is started."""
    if not MIN_SECONDS <= options.seconds <= MAX_SECONDS:
        raise OptionError(
            f"--seconds {options.seconds:g}: use {MIN_SECONDS:g} to {MAX_SECONDS:g}; every kind of "
            "flow needs its time"
        )
    if not output.parent.is_dir():
        raise OptionError(f"{output}: the directory {output.parent} does not exist; make it first")
    net.require_root("recording")
    net.require_tools("recording", _TOOLS)
    lab = layout(lab_name)
    if wrong := virtual.problems(lab_name):
        more = "" if len(wrong) == 1 else f" (and {len(wrong) - 1} more)"
        raise LabError(
            f"lab {lab_name!r}: {wrong[0]}{more}; run `probebench lab up --name {lab_name}`"
        )
    options.shape.check(lab.namespaces.client)
    return lab


def _forget_partials(output: Path) -> None:
    """Remove what killed recorders left beside the output."""
    for path in output.parent.iterdir():
        match = re.fullmatch(re.escape(output.stem) + r"\.partial-(\d+)\.pcap", path.name)
        if match and not Path("/proc", match[1]).exists():
            path.unlink()


@contextmanager
def _exclusive(lab: Layout) -> Iterator[None]:
    with (lab.directory / "record.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(
                f"lab {lab.name!r}: another recording is running in it; wait for its end, or use "
                "another lab (--name)"
            ) from None
        yield


class _Recorder:
    """One recording: prepare the path, run the phases, put everything back."""

    def __init__(self, lab: Layout, options: RecordOptions, say: Callable[[str], None]) -> None:
        self._lab = lab
        self._options = options
        self._say = say
        self._client = lab.namespaces.client
        self._server = lab.namespaces.server
        self._home = lab.directory / "record"
        self._crew = Crew(self._home, lab.directory / "record.pids")
        self._site = Site(self._home / "site")
        self._running: list[tuple[Done, Member]] = []
        self._zero = time.monotonic()
        state = read_state(lab)
        self._mtu = state.options.mtu if state else 1500

    def run(self, partial: Path) -> Recording:
        """Record into `partial`."""
        before = self._clear()
        self._home.mkdir()
        try:
            self._shape_path()
            with self._crew:
                server = start_servers(self._crew, self._site, self._server)
                try:
                    return self._phases(partial)
                finally:
                    server.stop()
        finally:
            self._put_back(before)

    def _clear(self) -> set[int]:
        """Take away what a killed recorder left; returns the pids that are not ours."""
        spaces = (self._client, self._server)
        self._crew.end_leftovers(spaces)
        Server(self._server, self._site.sshd, "", "").stop()
        self._remove_files()
        return {pid for space in spaces for pid in net.processes_in(space)}

    def _shape_path(self) -> None:
        clear_addresses(self._client, self._server)
        add_addresses(self._client, self._server)
        for namespace, interface in ((self._client, "cl0"), (self._server, "sv0")):
            self._options.shape.clear(namespace, interface)
            self._options.shape.apply(namespace, interface, self._mtu)

    def _put_back(self, before: set[int]) -> None:
        spaces = (self._client, self._server)
        for namespace, interface in zip(spaces, ("cl0", "sv0"), strict=True):
            Shape.clear(namespace, interface)
        # Sessions that our sshd had forked are no children of ours, but they are in here.
        net.end_processes({p for space in spaces for p in net.processes_in(space)} - before)
        clear_addresses(self._client, self._server)
        self._remove_files()

    def _remove_files(self) -> None:
        shutil.rmtree(self._home, ignore_errors=True)
        (self._lab.directory / "record.pids").unlink(missing_ok=True)

    def _phases(self, partial: Path) -> Recording:
        long = long_steps(self._site)
        for step in long:
            if step.part in ("begun-before", "spanning"):
                self._start(step)
        self._until_established(_LEAD)
        capture = Capture.start(self._crew, self._client, "cl0", partial)
        self._zero = time.monotonic()
        self._mark_running(("begun-before", "spanning"), start=True)
        self._say("capturing; flows that began before it are running")
        self._short(self._options.seconds - 6.0)
        for step in long:
            if step.part == "unterminated":
                self._start(step)
        self._until_established(_TAIL)
        self._mark_running(("unterminated", "spanning"), start=False)
        counts = capture.stop()
        ended_ns = time.time_ns()
        self._say(f"captured {counts.captured} packets; ending what still runs")
        self._collect()
        done = tuple(replace(entry, at=entry.at - self._zero) for entry, _ in self._running)
        self._judge(done, counts)
        return Recording(
            path=partial,
            counts=counts,
            started_ns=capture.started_ns,
            ended_ns=ended_ns,
            steps=done,
            mtu=self._mtu,
        )

    def _start(self, step: Step) -> None:
        started = time.monotonic()
        member = self._crew.start(step.application, step.argv, namespace=self._client)
        self._running.append((Done(step, started), member))

    def _short(self, spread: float) -> None:
        """Start the short steps over `spread` seconds, then wait until all of them have ended."""
        steps = short_steps(self._site)
        for number, step in enumerate(steps):
            due = self._zero + 0.2 + number * spread / len(steps)
            time.sleep(max(0.0, due - time.monotonic()))
            self._start(step)
        until = time.monotonic() + 15.0
        ending = [m for d, m in self._running if d.step.part in ("whole", "begun-before")]
        while any(m.popen.poll() is None for m in ending) and time.monotonic() < until:
            time.sleep(0.02)
        self._collect()

    def _until_established(self, seconds: float) -> None:
        """Wait until every long flow now running has its connection, and `seconds` more."""
        long = [m for d, m in self._running if d.step.part != "whole" and m.popen.poll() is None]
        count = ["ss", "-Htn", "state", "established"]
        until = time.monotonic() + 8.0
        while True:
            shown = net.run(net.in_namespace(self._client, count)).stdout.splitlines()
            if len(shown) >= len(long):
                break
            for member in long:
                self._crew.check(member)
            if time.monotonic() > until:
                raise LabError(
                    f"only {len(shown)} of {len(long)} long connections came about within 8 s; "
                    "is the path shaped too hard?"
                )
            time.sleep(0.03)
        time.sleep(seconds)

    def _mark_running(self, parts: tuple[str, ...], *, start: bool) -> None:
        """Note which long flows are alive as the capture starts, or as it is about to stop."""
        for index, (done, member) in enumerate(self._running):
            if done.step.part in parts and member.popen.poll() is None:
                now = (
                    replace(done, running_at_start=True)
                    if start
                    else replace(done, running_at_stop=True)
                )
                self._running[index] = (now, member)

    def _collect(self) -> None:
        """Note how every ended step ended (a step ended by us later keeps None)."""
        for index, (done, member) in enumerate(self._running):
            status = member.popen.poll()
            if done.status is None and status is not None:
                ended = replace(done, status=status, words=member.last_words())
                self._running[index] = (ended, member)

    def _judge(self, done: tuple[Done, ...], counts: Counts) -> None:
        if counts.captured == 0:
            raise LabError("tcpdump captured no packet; is the recording path up?")
        for entry in done:
            if entry.cut_as_planned is False:
                raise LabError(
                    f"{entry.step.application} ({entry.step.about}) was to be cut by the capture, "
                    f"but ended by itself: {entry.words}"
                )
            if entry.failed and not self._options.shape.impairs:
                raise LabError(
                    f"{entry.step.application} ({entry.step.about}) ended with status "
                    f"{entry.status}: {entry.words}"
                )
