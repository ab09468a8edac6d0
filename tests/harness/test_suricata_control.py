"""systemd's Suricata, and one that is only observed, on a host in memory.

No systemd runs where the tests run: what `systemctl` answers here is its documented output.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.errors import SensorFailed, SensorRestarted
from harness.sensors.registry import make_sensor
from harness.sensors.suricata_foreign import ObservedSuricata
from harness.sensors.suricata_systemd import SystemdSuricata
from lab.fake import Call, FakeHost, FakeProcess, Reply
from lab.inventory import SensorSpec

RECORD = (Path(__file__).parent / "data" / "suricata-7.0.10-stats.json").read_text()
STATS = json.loads(RECORD.splitlines()[-1])["stats"]
ALERTS = (Path(__file__).parent / "data" / "suricata-7.0.10-alerts.json").read_text()
GAINED = "/var/tmp/probebench/suricata/run/gained.json.gz"


def sample(t: float, pkts: int, event: str = "sample") -> str:
    values = {
        "event": event, "t": t, "pid": 7, "rx": pkts, "pkts": pkts, "drop": 0, "alerts": 0,
        "cpu": 0.5, "workers": {"W#01-rx0": 0.5}, "own_cpu": 0.01, "captures": 2,
    }  # fmt: skip
    return json.dumps(values)


class Agent(FakeProcess):
    """Says of an idle Suricata that it is idle, with each reading 1.5 s later."""

    def __init__(self, *lines: str) -> None:
        super().__init__(lines)
        self.t = 0.0

    def lines(self) -> list[str]:
        now = super().lines()
        self.t += 1.5
        return now or [sample(self.t, 59)]


@dataclass
class World:
    pid: int = 7
    uptime: int = 3
    active: str = "active"
    loaded: str = "loaded"
    mode: str = "AF_PACKET_DEV"
    failing: str = ""
    stats: dict[str, Any] = field(default_factory=lambda: dict(STATS, uptime=30))
    marks: list[dict[str, Any]] = field(default_factory=lambda: [{"path": "/e", "offset": 1}])
    verbs: list[str] = field(default_factory=list)

    def __call__(self, call: Call) -> Reply | FakeProcess:
        argv = call.argv
        if call.leashed:
            return Agent(sample(0, 0, "ready"))
        if argv[:2] == ("systemctl", "show"):
            return Reply({"LoadState": self.loaded, "ActiveState": self.active}[argv[4]] + "\n")
        if argv[0] == "systemctl":
            assert call.sudo
            self.verbs.append(argv[1])
            if argv[1] == self.failing:
                return Reply(stderr="Job for suricata.service failed.\n", returncode=1)
            return Reply()
        if argv[0] == "tail":
            return Reply(json.dumps({"event_type": "stats", "stats": self.stats}) + "\n")
        return self.agent(argv) if len(argv) > 2 else Reply()

    def agent(self, argv: tuple[str, ...]) -> Reply:
        if argv[2] == "mark":
            return Reply(json.dumps({"marks": self.marks}))
        if argv[2] == "since":
            return Reply('{"files": ["/e"], "lines": 9, "kept": 6, "torn": 0}')
        if argv[2] != "ask":
            return Reply()
        answers = {
            "version": "7.0.10 RELEASE",
            "capture-mode": self.mode,
            "uptime": self.uptime,
            "conf-get": "75",
            "iface-stat": {"pkts": 59, "drop": 0},
            "dump-counters": STATS,
        }
        asked = [command[0] for command in json.loads(argv[3])["commands"]]
        return Reply(
            json.dumps({"pid": self.pid, "answers": [{"message": answers[c]} for c in asked]})
        )


def made(world: World, tmp_path: Path, **options: str) -> Any:
    rules = tmp_path / "t.rules"
    rules.write_text('alert ip any any -> any any (msg:"x"; sid:1;)\n')
    spec = SensorSpec.model_validate(
        {"host": "sen", "interface": "rx0", "rules": (rules,),
         "options": {"eve": "/var/log/suricata/eve.json", "ready-timeout": 1, **options}}
    )  # fmt: skip
    host = FakeHost(world, name="sen")
    host.files[GAINED] = gzip.compress(ALERTS.encode())
    return make_sensor(host, spec)


def test_observed_trial(tmp_path: Path) -> None:
    sensor = made(World(), tmp_path, control="observed")
    assert isinstance(sensor, ObservedSuricata) and sensor.state == "observed"
    sensor.check()
    assert sensor.version == "7.0.10"
    assert sensor.flow_timeout == 75
    sensor.prepare()
    assert sensor.footprint().pids == (7,) and sensor.footprint().logs == "/var/log/suricata"
    assert sensor.settle(5)
    counters = sensor.finish()
    assert (counters.received, counters.decoded, counters.exact) == (59, 59, False)
    assert counters.raw["eve.kept"] == 6
    assert len(list(sensor.alerts())) == len(ALERTS.splitlines())
    assert sensor.flow_records() is None
    sensor.stop()


@pytest.mark.parametrize(("pid", "uptime"), [(8, 3), (7, 1)])
def test_a_restart_is_found_by_pid_or_uptime(tmp_path: Path, pid: int, uptime: int) -> None:
    world = World()
    sensor = made(world, tmp_path, control="observed")
    sensor.prepare()
    world.pid, world.uptime = pid, uptime
    with pytest.raises(
        SensorRestarted, match=r"^sen: suricata restarted in mid-trial \(pid 7, now"
    ):
        sensor.finish()


@pytest.mark.parametrize(
    ("pid", "kind", "message"),
    [
        (8, SensorRestarted, r"suricata restarted in mid-trial \(pid 7, now 8;"),
        (7, SensorFailed, r"command socket went away during the trial \(connection refused\)"),
    ],
)
def test_a_socket_that_goes_away_is_a_restart_when_another_answers(
    tmp_path: Path, pid: int, kind: type[SensorFailed], message: str
) -> None:
    world = World()
    sensor = made(world, tmp_path, control="observed")
    sensor.prepare()
    watch = sensor._watch
    watch._take({"event": "gone", "why": "connection refused"})
    world.pid = pid
    with pytest.raises(kind, match=message) as raised:
        sensor.live()
    assert type(raised.value) is kind


def test_what_its_configuration_does_not_say_is_not_known(tmp_path: Path) -> None:
    world = World()
    sensor = made(world, tmp_path, control="observed")
    answer = world.agent

    def without(argv: tuple[str, ...]) -> Reply:
        if "conf-get" in argv[-1]:
            return Reply('{"pid": 7, "answers": [{"message": "Unable to get value"}]}')
        return answer(argv)

    world.agent = without  # type: ignore[method-assign]
    sensor.check()
    assert sensor.flow_timeout is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "PCAP_DEV"}, r"captures with PCAP_DEV, the inventory says .*'af-packet'"),
        ({"marks": []}, r"there is no file /var/log/suricata/eve\.json"),
    ],
)
def test_check_says_what_is_wrong(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SensorFailed, match=message):
        made(World(**change), tmp_path, control="observed").check()


def test_alerts_of_a_failed_trial_are_not_read(tmp_path: Path) -> None:
    sensor = made(World(), tmp_path, control="observed")
    sensor.prepare()
    with pytest.raises(SensorFailed, match="the eve output was not read"):
        list(sensor.alerts())


@pytest.mark.parametrize("active", ["active", "inactive"])
def test_systemd_trial_leaves_the_unit_as_it_was(tmp_path: Path, active: str) -> None:
    world = World(active=active)
    sensor = made(world, tmp_path, control="systemd", unit="suricata.service")
    assert isinstance(sensor, SystemdSuricata) and sensor.state == "restarted"
    sensor.check()
    sensor.prepare()
    assert sensor.settle(5)
    counters = sensor.finish()
    assert counters.exact and counters.received == 59
    assert world.verbs == ["restart", "restart", "stop"]
    assert len(list(sensor.alerts())) == len(ALERTS.splitlines())
    sensor.stop()
    sensor.stop()
    assert world.verbs[3:] == ["start" if active == "active" else "stop"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loaded": "not-found"}, r"systemd has no unit suricata\.service \(not-found\)"),
        ({"failing": "restart"}, r"systemctl restart suricata\.service failed: Job for"),
    ],
)
def test_units_that_do_not_run(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SensorFailed, match=message):
        made(World(**change), tmp_path, control="systemd", unit="suricata.service").check()


@pytest.mark.parametrize(
    ("stats", "message"),
    [({"uptime": 2}, r"final record is missing"), (None, r"no statistics in .*add `stats`")],
)
def test_systemd_without_a_final_record_has_no_number(
    tmp_path: Path, stats: dict[str, Any] | None, message: str
) -> None:
    world = World()
    sensor = made(world, tmp_path, control="systemd", unit="suricata.service")
    sensor.prepare()
    world.stats = stats  # type: ignore[assignment]
    with pytest.raises(SensorFailed, match=message):
        sensor.finish()
