"""The driver's life cycle on a host in memory: ready, dead, killed, hung, wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.errors import ConfigError, SensorFailed
from harness.sensors.registry import make_sensor
from harness.sensors.suricata import SuricataSensor
from harness.sensors.suricata_config import Paths, read_options
from lab.errors import MissingTool
from lab.fake import Call, FakeHost, FakeProcess, Reply
from lab.host import Exit
from lab.inventory import SensorSpec

RECORD = (Path(__file__).parent / "data" / "suricata-7.0.10-stats.json").read_text()


class Agent(FakeProcess):
    """The agent's stream; `later` is printed after the next reading."""

    def __init__(self, *lines: str) -> None:
        super().__init__(lines)
        self.later: list[str] = []

    def lines(self) -> list[str]:
        now = super().lines()
        self.emit(*self.later)
        self.later = []
        return now


def sample(t: float, pkts: int, cpu: float = 0.0, **changes: object) -> str:
    values: dict[str, object] = {
        "event": "sample", "t": t, "pid": 7, "rx": pkts, "pkts": pkts, "drop": 0, "alerts": 3,
        "cpu": cpu, "workers": {"W#01-rx0": cpu}, "own_cpu": 0.04 + 0.01 * t,
    }  # fmt: skip
    return json.dumps({**values, **changes})


@dataclass
class World:
    """What the host says; tests change it."""

    version: str = "This is Suricata version 7.0.10 RELEASE"
    stats: str = RECORD
    log: str = "Notice: threads: Engine started.\nrx0: packets: 59, drops: 0 (0.00%)\n"
    test_status: int = 0
    ask: list[dict[str, object]] = field(default_factory=list)
    suricata: FakeProcess = field(default_factory=FakeProcess)
    watch: Agent = field(default_factory=lambda: Agent(sample(0, 0, event="ready", captures=1)))

    def __call__(self, call: Call) -> Reply | FakeProcess:
        argv = call.argv
        if call.leashed:
            return self.watch if "watch" in argv else self.suricata
        if argv[-1] == "-V":
            return Reply(self.version)
        if argv[1:2] == ("-T",):
            return Reply(returncode=self.test_status)
        if "reset" in argv:
            return Reply('{"ended": null}\n')
        if "ask" in argv:
            return Reply(json.dumps({"answers": self.ask}) + "\n")
        if argv[0] == "tail":
            return Reply(self.stats if argv[-1].endswith("stats.json") else self.log)
        return Reply()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def sensor(world: World, tmp_path: Path) -> SuricataSensor:
    rules = tmp_path / "t.rules"
    rules.write_text('alert ip any any -> any any (msg:"x"; sid:1;)\n')
    spec = SensorSpec(host="sen", interface="rx0", rules=(rules,), cpus="1-2", workers=2)
    made = make_sensor(FakeHost(world, name="sen"), spec)
    assert isinstance(made, SuricataSensor)
    return made


def host_of(sensor: SuricataSensor) -> FakeHost:
    assert isinstance(sensor._host, FakeHost)
    return sensor._host


def test_check_fills_the_version(sensor: SuricataSensor) -> None:
    sensor.check()
    assert sensor.version == "7.0.10"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("Suricata version 6.0.4 RELEASE", r"sen: suricata says it is version 6\.0\.4"),
        ("", "unknown"),
    ],
)
def test_check_refuses_other_versions(
    world: World, sensor: SuricataSensor, version: str, message: str
) -> None:
    world.version = version
    with pytest.raises(SensorFailed, match=message):
        sensor.check()


def test_check_quotes_the_rule_error(world: World, sensor: SuricataSensor) -> None:
    world.test_status, world.log = 1, "[1 - M] now Error: detect: error parsing signature 'x'\n"
    with pytest.raises(SensorFailed, match=r"^sen: suricata -T refuses .*: detect: error parsing"):
        sensor.check()


def test_a_missing_binary(sensor: SuricataSensor) -> None:
    def missing(call: Call) -> Reply:
        raise MissingTool("sen: suricata: no such program")

    host_of(sensor).handler = missing
    with pytest.raises(SensorFailed, match="sen: suricata is not installed; install Suricata"):
        sensor.check()


def test_the_command_line(sensor: SuricataSensor) -> None:
    sensor.prepare()
    started = next(c for c in host_of(sensor).calls if c.leashed and "watch" not in c.argv)
    assert started.argv[:4] == ("taskset", "-c", "1-2", "suricata")
    assert "--af-packet=rx0" in started.argv and started.sudo
    written = [t for p, t in host_of(sensor).files.items() if p.endswith(".yaml")]
    # `test -s` says that everything is there already, so nothing is shipped twice.
    assert written == []


def test_a_trial(world: World, sensor: SuricataSensor) -> None:
    sensor.prepare()
    world.watch.emit(sample(1.0, 59, 0.5), sample(1.5, 59, 0.5), sample(2.8, 59, 0.5))
    live = sensor.live()
    assert (live.received, live.dropped, live.alerts) == (59, 0, 3)
    world.watch.later = [sample(3.0, 59, 0.5), sample(4.4, 59, 0.51)]
    assert sensor.settle(1.0)
    counters = sensor.finish()
    assert counters.exact and counters.received == 59
    # Of its first sample's 0.04 s, Python's start has most; the samples are of 4.4 s.
    assert counters.raw["probebench.sampler_cpu_s"] == pytest.approx(0.044)
    assert counters.raw["probebench.sampler_s"] == pytest.approx(4.4)
    assert sensor.cpu_seconds == pytest.approx(0.51)
    sensor.stop()
    sensor.stop()


@pytest.mark.parametrize(
    "busy",
    [
        {"workers": {"W#01-rx0": 1.9}},  # still at it
        {"pkts": 90},  # counters moving
        {"drop": 1},
        {"rx": 90},  # packets still arriving
    ],
)
def test_not_settled_while_anything_moves(
    world: World, sensor: SuricataSensor, busy: dict[str, object]
) -> None:
    sensor.prepare()
    moved = json.loads(sample(1.4, 59, 0.5)) | busy
    world.watch.later = [sample(0.0, 59, 0.5), json.dumps(moved)]
    assert not sensor.settle(0.2)


def test_samples_from_before_are_no_proof(world: World, sensor: SuricataSensor) -> None:
    sensor.prepare()
    world.watch.emit(sample(0.0, 59), sample(1.4, 59))
    assert not sensor.settle(0.2)


@pytest.mark.parametrize("moment", ["live", "settle", "finish", "snapshot"])
def test_death_is_said_at_every_moment(world: World, sensor: SuricataSensor, moment: str) -> None:
    sensor.prepare()
    world.suricata.finish(Exit(None, 9, "killed"))
    call = {
        "live": sensor.live, "settle": lambda: sensor.settle(1.0),
        "finish": sensor.finish, "snapshot": sensor.snapshot,
    }[moment]  # fmt: skip
    with pytest.raises(SensorFailed, match=r"sen: suricata was killed by SIGKILL .*last log line"):
        call()


@pytest.mark.parametrize(
    ("exit_", "words"),
    [
        (Exit(1, None, "exited"), "ended with status 1"),
        (Exit(None, 11, "killed"), "was killed by SIGSEGV"),
        (Exit(None, 15, "deadline"), "reached its time limit"),
        (Exit(None, 15, "orphaned"), "connection was lost"),
    ],
)
def test_how_it_died(world: World, sensor: SuricataSensor, exit_: Exit, words: str) -> None:
    sensor.prepare()
    world.suricata.finish(exit_)
    with pytest.raises(SensorFailed, match=words):
        sensor.finish()


def test_one_that_dies_while_starting(world: World, sensor: SuricataSensor) -> None:
    world.suricata.finish(Exit(1, None, "exited"))
    world.watch.lines()
    with pytest.raises(SensorFailed, match="ended with status 1 while it started"):
        sensor.prepare()


def test_one_that_never_captures(world: World, sensor: SuricataSensor) -> None:
    world.watch = Agent('{"event": "not-ready", "captures": 1}')
    with pytest.raises(SensorFailed, match=r"did not begin to capture .*1 captures are running"):
        sensor.prepare()


def test_the_socket_going_away_ends_the_settling(world: World, sensor: SuricataSensor) -> None:
    sensor.prepare()
    world.watch.emit('{"event": "gone", "why": "Connection refused"}')
    with pytest.raises(SensorFailed, match="Connection refused"):
        sensor.settle(1.0)


@pytest.mark.parametrize(
    ("stats", "log", "message"),
    [
        ("", "", "left no statistics"),
        (RECORD, "rx0: packets: 60, drops: 0 (0.00%)", "its log says 60 packets and 0 drops"),
    ],
)
def test_no_final_record_no_number(
    world: World, sensor: SuricataSensor, stats: str, log: str, message: str
) -> None:
    sensor.prepare()
    world.stats, world.log = stats, log
    with pytest.raises(SensorFailed, match=message):
        sensor.finish()


def test_counters_younger_than_the_process(world: World, sensor: SuricataSensor) -> None:
    sensor.prepare()
    sensor._started -= 100
    with pytest.raises(SensorFailed, match="it restarted"):
        sensor.finish()


def test_one_that_ignores_term(world: World, sensor: SuricataSensor) -> None:
    class Deaf(FakeProcess):
        def stop(self, grace: float = 3.0) -> Exit:
            return Exit(None, 9, "stopped")

    world.suricata = Deaf()
    sensor.prepare()
    with pytest.raises(SensorFailed, match="did not end by itself"):
        sensor.finish()


def test_finish_before_prepare(sensor: SuricataSensor) -> None:
    with pytest.raises(SensorFailed, match="sen: suricata is not running"):
        sensor.finish()


def test_snapshot_waits_for_the_table(world: World, sensor: SuricataSensor) -> None:
    sensor.prepare()
    iface = {"message": {"pkts": 5, "drop": 1}, "return": "OK"}
    world.ask = [iface, {"message": "stats not yet synchronized", "return": "NOK"}]
    answers = iter(
        [
            {"capture": {"kernel_packets": 5, "kernel_drops": 1}, "decoder": {"pkts": n}}
            for n in (2, 4)
        ]
    )

    original = host_of(sensor).handler

    def later(call: Call) -> Reply | FakeProcess:
        reply = original(call)
        if "ask" in call.argv:
            world.ask = [iface, {"message": next(answers, None), "return": "OK"}]
        return reply

    host_of(sensor).handler = later
    counters = sensor.snapshot()
    assert (counters.received, counters.dropped, counters.decoded) == (5, 1, 4)
    assert not counters.exact


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"confg": "/x"},
            r"sensor\.options\.confg: unknown option; known: alerts-via",
        ),
        ({"config": "relative.yaml"}, "absolute path"),
        ({"ready-timeout": "long"}, "give a number"),
        ({"ready-timeout": 0}, "give a number >= 0.1"),
        ({"flow-events": 1}, "true or false"),
    ],
)
def test_options_are_checked(options: dict[str, str | int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_options(options)


def test_set_overrides() -> None:
    options = read_options({"set.flow.memcap": "1gb", "set.stream.midstream": True})
    assert options.settings == (("flow.memcap", "1gb"), ("stream.midstream", "yes"))


def test_a_workdir_too_long_for_a_socket() -> None:
    with pytest.raises(ConfigError, match="too long for a unix socket"):
        Paths("/" + "x" * 100).check()


def test_unknown_driver() -> None:
    with pytest.raises(ConfigError, match=r"'nothing' is not known; known drivers: .*suricata"):
        make_sensor(FakeHost(), SensorSpec(host="h", interface="i", driver="nothing"))
