"""Reading tcpreplay, and never taking a death for a result."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.errors import GeneratorFailed
from harness.generators.tcpreplay import LoopReplay, TcpreplayGenerator, parse_output
from harness.model import Corpus, Load
from lab.fake import FakeHost, Reply
from lab.host import Exit
from lab.inventory import GeneratorSpec

# Printed by tcpreplay 4.4.3.
OUTPUT = """\
Test start: 2026-11-22 04:38:37.611775 ...
Actual: 9 packets (1991 bytes) sent in 1.20 seconds
Rated: 1658.9 Bps, 0.013 Mbps, 7.49 pps
Test complete: 2026-11-22 04:38:38.541521
Actual: 39 packets (5477 bytes) sent in 0.929746 seconds
Rated: 5890.8 Bps, 0.047 Mbps, 41.94 pps
Statistics for network device: a0
\tSuccessful packets:        39
\tFailed packets:            57
\tTruncated packets:         0
\tRetried packets (ENOBUFS): 0
\tRetried packets (EAGAIN):  0
"""

DONE = "96 packets, 5,477 bytes, 1 iterations every 1 s over 1 s (5 flows/s); written in 0.1 s\n"


def test_the_recorded_output_is_read() -> None:
    printed = parse_output(OUTPUT)
    assert (printed.packets, printed.bytes) == (39, 5477)
    assert (printed.successful, printed.failed) == (39, 57)
    assert printed.duration == pytest.approx(0.929746)
    assert printed.said == []
    assert parse_output(DONE).expanded == 96


class Scripted:
    """A leashed process that has already printed everything and ended."""

    pid = 1

    def __init__(self, output: str, ended: Exit) -> None:
        self._output, self._ended = output.splitlines(), ended

    def poll(self) -> Exit:
        return self._ended

    def wait(self, timeout: float | None = None) -> Exit:
        return self._ended

    def lines(self) -> list[str]:
        lines, self._output = self._output, []
        return lines

    def stop(self, grace: float = 3.0) -> Exit:
        return self._ended


class OneProcessHost:
    name, python, workdir = "gen", "python3", "/w"

    def __init__(self, process: Scripted) -> None:
        self.process = process
        self.started: list[str] = []

    def start(self, argv: Sequence[str], **kwargs: object) -> Scripted:
        self.started = list(argv)
        return self.process


def ready(
    output: str, ended: Exit, kind: type[TcpreplayGenerator] = TcpreplayGenerator, packets: int = 96
) -> TcpreplayGenerator:
    host = OneProcessHost(Scripted(output, ended))
    generator = kind(host, GeneratorSpec(host="gen", interface="tx0"))  # type: ignore[arg-type]
    generator._corpus = Corpus("c", "0", packets, 100 * packets, 5, 1.0, ("10.0.0.0/8",), "k")
    generator._capture = "/w/c.pcap"
    schedule = generator.plan(Load("pps", 96, 2), 0)
    generator.start(replace(schedule, packets=packets))
    return generator


def test_a_whole_run_is_what_it_says() -> None:
    sent = ready(DONE + OUTPUT, Exit(0, None, "exited")).finish()
    assert (sent.packets, sent.failed, sent.bytes) == (39, 57, 5477)
    assert sent.seconds == pytest.approx(0.929746)


@pytest.mark.parametrize(
    ("output", "ended", "says"),
    [
        (OUTPUT, Exit(137, None, "exited"), "signal 9"),
        (OUTPUT, Exit(None, 9, "killed"), "SIGKILL"),
        (OUTPUT, Exit(0, None, "deadline"), "did not end"),
        ("sh: 1: tcpreplay: not found", Exit(127, None, "exited"), "not found"),
        (
            "pcap_tools: no such file\n" + OUTPUT,
            Exit(0, None, "exited"),
            "no such file",
        ),
        (DONE, Exit(0, None, "exited"), "without its statistics"),
    ],
)
def test_every_death_is_named(output: str, ended: Exit, says: str) -> None:
    with pytest.raises(GeneratorFailed, match=says):
        ready(output, ended).finish()


def test_a_pipe_that_ended_early_is_not_a_result() -> None:
    # tcpreplay itself ends with status 0 there.
    with pytest.raises(GeneratorFailed, match="97 were planned"):
        ready(DONE + OUTPUT, Exit(0, None, "exited"), packets=97).finish()


def test_the_naive_replays_have_no_expander() -> None:
    loop = ready(OUTPUT, Exit(0, None, "exited"), LoopReplay)
    assert "--loop=2" in loop._host.started  # type: ignore[attr-defined]
    assert "expand" not in " ".join(loop._host.started)  # type: ignore[attr-defined]


def test_flows_are_paced_by_counting_packets() -> None:
    generator = ready(DONE + OUTPUT, Exit(0, None, "exited"))
    schedule = generator.plan(Load("flows", 10, 60), 3)  # 5 flows and 96 packets a copy
    assert (schedule.pacing, schedule.every_s, schedule.iterations) == ("pps", 0.5, 120)
    assert schedule.pps == pytest.approx(192)
    assert schedule.seconds == pytest.approx(schedule.packets / schedule.pps) == 60
    assert schedule.flows_per_s == 10 and schedule.first_iteration == 3
    assert schedule.steady_fraction == pytest.approx(59 / 60)
    generator.start(schedule)
    sent = " ".join(generator._host.started)  # type: ignore[attr-defined]
    assert "--pps=192.000000" in sent and "--every 0.5" in sent and "--multiplier" not in sent


def test_a_host_without_tcpreplay() -> None:
    host = FakeHost(lambda call: Reply(returncode=127), name="gen")
    generator = TcpreplayGenerator(host, GeneratorSpec(host="gen", interface="tx0"))
    corpus = Corpus("c", "0", 96, 9600, 5, 1.0, ("10.0.0.0/8",), "k")
    with pytest.raises(GeneratorFailed, match=r"^gen: .*install the package tcpreplay"):
        generator.prepare(corpus)
