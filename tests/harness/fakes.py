"""In memory: a sensor of known capacity, and a generator of known speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from harness import planning
from harness.generators.base import Progress as Sending
from harness.model import (
    Alert,
    Axis,
    Capabilities,
    Corpus,
    Counters,
    DueEvent,
    Identity,
    Load,
    Reference,
    Schedule,
    Sent,
)
from harness.progress import Progress
from harness.sensors.base import Live
from harness.templates import Template
from harness.trial import Port, Rig
from lab.fake import Call, FakeHost, FakeProcess, Reply

CORPUS = Corpus(
    "corpus.pcap", "d" * 64, packets=100, bytes=50_000, flows=10, span_s=0.05,
    home=("10.0.0.0/8",), key="k", flow_seconds=0.2, max_frame=1514,
)  # fmt: skip
DUE = (
    DueEvent("TCP", "10.0.0.1", 1000, "192.0.2.1", 80, 1),
    DueEvent("TCP", "10.0.0.2", 1000, "192.0.2.1", 80, 2),
)
REFERENCE = Reference("d" * 64, "r" * 64, "suricata 7", 3, DUE, {1: "one", 2: "two"}, flows=9)
NAMES = [
    *("rx_packets", "rx_bytes", "rx_dropped", "rx_missed_errors", "rx_errors"),
    *("tx_packets", "tx_bytes", "tx_dropped", "tx_errors"),
]
SEES_ALL = Capabilities(True, True, True, True, True, True)


@dataclass
class Wire:
    """What was sent over a link: read by both ends' counters."""

    packets: int = 0

    def host(self, name: str) -> FakeHost:
        def answer(call: Call) -> Reply | FakeProcess:
            value = {"rx_packets": self.packets, "tx_packets": self.packets}
            return Reply("".join(f"{n}:{value.get(n, 0)}\n" for n in NAMES))

        return FakeHost(answer, name=name)


@dataclass
class FakeGenerator:
    """Sends at most `top` packets/s; `trouble(trial number, step)` may raise."""

    wire: Wire
    top: float = 1e9
    name: str = "fake"
    axes: tuple[Axis, ...] = ("pps", "flows")
    identity: Identity = "flow"
    templates: tuple[Template, ...] = ()
    corpus: Corpus = CORPUS
    started: list[Schedule] = field(default_factory=list)
    stopped: int = 0
    trouble: Callable[[int, str], None] = lambda number, step: None

    def prepare(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def plan(self, load: Load, first_iteration: int) -> Schedule:
        return planning.plan(self.corpus, load, first_iteration)

    def start(self, schedule: Schedule) -> None:
        self.started.append(schedule)
        self.trouble(len(self.started), "start")

    def progress(self) -> Sending:
        self.trouble(len(self.started), "progress")
        return Sending(0, True)

    def finish(self) -> Sent:
        self.trouble(len(self.started), "finish")
        schedule = self.started[-1]
        self.wire.packets += schedule.packets
        seconds = max(schedule.seconds, schedule.packets / self.top)
        return Sent(schedule.packets, schedule.bytes, schedule.flows, seconds, 0, 0, 1)

    def stop(self) -> None:
        self.stopped += 1


@dataclass
class FakeSensor:
    """Analyses at most `capacity` packets/s of what the generator sends, and drops the rest."""

    generator: FakeGenerator
    capacity: float = 1e9
    name: str = "fake"
    version: str = "1"
    state: str = "restarted"
    capabilities: Capabilities = SEES_ALL
    prepared: int = 0
    stopped: int = 0
    raised: list[Alert] = field(default_factory=list)
    trouble: Callable[[int, str], None] = lambda number, step: None

    def check(self) -> None:
        pass

    def prepare(self) -> None:
        self.prepared += 1
        self.trouble(self.prepared, "prepare")

    def snapshot(self) -> Counters:
        return Counters(0, 0, 0, 0, 0, 0, 0)

    def live(self) -> Live:
        self.trouble(self.prepared, "live")
        return Live(None, None, None)

    def settle(self, timeout: float) -> bool:
        return True

    def finish(self) -> Counters:
        self.trouble(self.prepared, "finish")
        sent = self.generator.started[-1]
        seconds = max(sent.seconds, sent.packets / self.generator.top)
        analysed = min(sent.packets, int(self.capacity * seconds))
        dropped = sent.packets - analysed
        return Counters(sent.packets, dropped, analysed, None, 0, 9, len(self.raised), exact=True)

    def alerts(self) -> Iterator[Alert]:
        yield from self.raised

    def collect(self, into: Path) -> None:
        self.trouble(self.prepared, "collect")

    def stop(self) -> None:
        self.stopped += 1
        self.trouble(self.prepared, "stop")


def make_rig(directory: Path, *, capacity: float = 1e9, top: float = 1e9) -> Rig:
    """A rig whose sensor and generator are the fakes; nothing of it sleeps."""
    wire = Wire()
    generator = FakeGenerator(wire, top)
    return Rig(
        generator=generator,
        sensor=FakeSensor(generator, capacity),
        transmit=(Port(wire.host("gen"), "tx0"),),
        receive=Port(wire.host("sen"), "rx0"),
        reference=REFERENCE,
        invert=invert,
        directory=directory,
        progress=Progress(stream=StringIO()),
        settle_timeout=1.0,
    )


def invert(addresses: list[str]) -> list[tuple[int, str] | None]:
    """Addresses are "iteration/original" here."""
    found: list[tuple[int, str] | None] = []
    for address in addresses:
        iteration, slash, original = address.partition("/")
        found.append((int(iteration), original) if slash else None)
    return found


def alert(iteration: int, due: DueEvent) -> Alert:
    """The alert that a due event raises in an iteration."""
    return Alert(
        "2026-01-01T00:00:00+0000", due.proto, f"{iteration}/{due.a}", due.a_port,
        f"{iteration}/{due.b}", due.b_port, due.signature_id, "x",
    )  # fmt: skip


def fakes(rig: Rig) -> tuple[FakeGenerator, FakeSensor]:
    """The two fakes of a rig, as what they are."""
    assert isinstance(rig.generator, FakeGenerator)
    assert isinstance(rig.sensor, FakeSensor)
    return rig.generator, rig.sensor
