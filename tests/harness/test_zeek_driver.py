"""The Zeek drivers against a host that answers as Zeek and zeekctl do. No real Zeek ran here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.errors import ConfigError, SensorFailed
from harness.sensors.appliance.readings import Reading
from harness.sensors.registry import make_sensor
from harness.sensors.zeek import ZeekOptions, ZeekSensor, own_script
from harness.sensors.zeek_cluster import ClusterOptions, NetstatsSource, ZeekCluster
from lab.fake import Call, FakeHost, FakeProcess, Reply
from lab.host import Exit
from lab.inventory import SensorSpec


def stats(proc: int, dropped: int, conns: int) -> str:
    row = {"ts": 1.0, "peer": "zeek", "mem": 90, "pkts_proc": proc, "bytes_recv": proc * 100}
    row |= {"pkts_dropped": dropped, "pkts_link": proc + dropped, "tcp_conns": conns}
    return json.dumps(row) + "\n"


class Zeek:
    """Two workers; the second one drops."""

    def __init__(self) -> None:
        self.logs: dict[str, str] = {}
        self.workers: list[FakeProcess] = []
        self.parse = Reply()

    def __call__(self, call: Call) -> Reply | FakeProcess:
        if call.leashed:
            process = FakeProcess(["1700000000.0 listening on af_packet::rx0"])
            self.workers.append(process)
            return process
        if call.argv[1:] == ("--version",):
            return Reply("zeek version 7.0.3\n")
        if "--parse-only" in call.argv:
            return self.parse
        if call.argv[0] == "cat":
            if call.argv[1].endswith("rx_packets"):
                return Reply("1000\n")
            name = "/".join(call.argv[1].rsplit("/", 2)[1:])
            return Reply(self.logs[name]) if name in self.logs else Reply("", "no such file", 1)
        return Reply()

    def traffic(self) -> None:
        notice = {"ts": 1.0, "id.orig_h": "10.0.0.1", "id.orig_p": 5, "id.resp_h": "192.0.2.1",
                  "id.resp_p": 80, "proto": "tcp", "note": "My::Attack"}  # fmt: skip
        self.logs = {
            "worker-1/stats.log": stats(400, 0, 3) + stats(100, 0, 1),
            "worker-2/stats.log": stats(440, 60, 2),
            "worker-2/notice.log": json.dumps(notice) + "\n",
            "worker-1/capture_loss.log": json.dumps({"gaps": 3, "acks": 60}) + "\n",
        }

    def end(self, worker: int, received: int, dropped: int) -> None:
        self.workers[worker].emit(
            f"1.0 {received} packets received on interface af_packet::rx0, {dropped} (0.00%) "
            "dropped, 0 (0.00%) not processed"
        )


def made(zeek: Zeek, **options: Any) -> tuple[ZeekSensor, FakeHost]:
    host = FakeHost(zeek)
    spec = SensorSpec(driver="zeek", host="p", interface="rx0", workers=2, options=options)
    sensor = make_sensor(host, spec)
    assert isinstance(sensor, ZeekSensor)
    return sensor, host


def test_a_trial() -> None:
    zeek = Zeek()
    sensor, host = made(zeek, settings={"SSL::x": "T"})
    sensor.check()
    assert sensor.version == "7.0.3"
    sensor.prepare()
    started = [call for call in host.calls if call.leashed]
    assert [call.argv[4].rsplit("/", 1)[1] for call in started] == ["worker-1", "worker-2"]
    line = " ".join(started[0].argv)
    assert "zeek -i af_packet::rx0 -C local" in line and line.endswith("probebench.zeek SSL::x=T")
    assert sensor.snapshot().received == 0
    zeek.traffic()
    assert sensor.settle(10)
    zeek.end(0, 500, 0)
    zeek.end(1, 440, 60)
    after = sensor.finish()
    assert (after.received, after.dropped, after.decoded, after.flows) == (1000, 60, 940, 6)
    assert after.workers == {"worker-1": 500, "worker-2": 440} and after.exact
    assert after.raw["capture_loss.percent"] == 5.0
    assert [alert.signature for alert in sensor.alerts()] == ["My::Attack"]
    assert after.alerts == 1


def test_last_words_win_over_statistics_and_are_not_exact() -> None:
    zeek = Zeek()
    sensor, _ = made(zeek)
    sensor.prepare()
    zeek.traffic()
    zeek.end(0, 520, 0)
    zeek.end(1, 440, 60)
    after = sensor.finish()
    assert (after.received, after.decoded, after.exact) == (1020, 960, False)


def test_a_worker_that_dies_ends_the_trial() -> None:
    zeek = Zeek()
    sensor, _ = made(zeek)
    sensor.prepare()
    zeek.workers[1].emit("fatal error: out of memory")
    zeek.workers[1].finish(Exit(None, 6, "killed"))
    with pytest.raises(
        SensorFailed, match=r"zeek \(worker 2\) ended during the trial: fatal error"
    ):
        sensor.live()


def test_scripts_that_do_not_parse() -> None:
    zeek = Zeek()
    zeek.parse = Reply("", "error in local.zeek, line 3: unknown identifier x\n", 1)
    sensor, _ = made(zeek)
    with pytest.raises(SensorFailed, match="refuses its scripts: error in local"):
        sensor.check()


def test_the_script_of_ours() -> None:
    text = own_script(ZeekOptions(interval=0.5), ("10.0.0.0/8", "fc00::/7"), 7)
    assert "redef Stats::report_interval = 0.5secs;" in text
    assert "Site::local_nets += { 10.0.0.0/8, [fc00::]/7 };" in text
    assert "AF_Packet::fanout_id = 7;" in text
    assert "AF_Packet" not in own_script(ZeekOptions(capture="pcap"), ("10.0.0.0/8",), 7)


def test_two_workers_on_libpcap_would_both_see_everything() -> None:
    with pytest.raises(ConfigError, match="every worker would see every packet"):
        made(Zeek(), capture="pcap")


class Cluster:
    """zeekctl: two workers with a history, and a notice log that grows."""

    def __init__(self) -> None:
        self.base = 0
        self.inode = 7
        self.log = (
            "#separator \\x09\n#fields\tts\tnote\tsrc\tdst\n#types\ttime\tstring\taddr\taddr\n"
        )
        self.log += "1.0\tOld::One\t10.0.0.1\t10.0.0.2\n"

    def __call__(self, call: Call) -> Reply | FakeProcess:
        argv = call.argv
        if argv[1:] == ("--version",):
            return Reply("2.5.0-12\n")
        if argv[1:] == ("netstats",):
            n = self.base
            return Reply(
                f" worker-1: 1361132271.857447 recvd={7000 + n} dropped=5 link={7005 + n}\n"
                f" worker-2: 1361132271.9 recvd={90 + n} dropped={n // 9} link={90 + n + n // 9}\n"
            )
        if argv[0] == "stat":
            return Reply(f"{self.inode} {len(self.log)}\n")
        if argv[0] == "head":
            return Reply("\n".join(self.log.splitlines()[:12]))
        if argv[0] == "tail":
            return Reply(self.log[int(argv[2][1:]) - 1 :])
        return Reply()


def cluster() -> tuple[ZeekCluster, Cluster]:
    box = Cluster()
    spec = SensorSpec(driver="zeek-cluster", host="p", options={"refresh": 0})
    sensor = make_sensor(FakeHost(box), spec)
    assert isinstance(sensor, ZeekCluster)
    return sensor, box


def test_a_cluster() -> None:
    sensor, box = cluster()
    sensor.check()
    assert sensor.version == "cluster (zeekctl 2.5.0-12)" and sensor.state == "observed"
    sensor.prepare()
    box.base = 900
    box.log += "2.0\tMy::Attack\t10.0.0.3\t10.0.0.4\n"
    assert sensor.settle(5)
    after = sensor.finish()
    assert (after.received, after.dropped, after.decoded) == (1900, 100, 1800)
    assert after.workers == {"worker-1": 900, "worker-2": 900} and after.flows is None
    assert [alert.signature for alert in sensor.alerts()] == ["My::Attack"]


def netstats(text: str, status: int = 0, stderr: str = "") -> Reading:
    host = FakeHost(lambda call: Reply(text, stderr, status), name="p")
    return NetstatsSource(host, ClusterOptions()).read()


def test_netstats_as_zeekctl_s_own_tests_have_it() -> None:
    """The line of its baselines (command.netstats), with a time stamp put in again."""
    text = (
        "Getting cluster status ...\n"
        "   worker-1: 1700000000.123456 recvd=7 dropped=0 link=7\n"
        " a-long-worker-name: 1700000001.000001 recvd=5 dropped=2 link=7\n"
    )
    found = netstats(text).values
    assert found["received"] == {"worker-1": 7, "a-long-worker-name": 7}
    assert found["decoded"] == {"worker-1": 7, "a-long-worker-name": 5}
    assert found["dropped"] == {"worker-1": 0, "a-long-worker-name": 2}


def test_a_packet_source_that_does_not_know_its_link() -> None:
    found = netstats("   worker-1: 1.5 recvd=90 dropped=10 link=0\n").values
    assert found["received"] == {"worker-1": 100}


def test_a_worker_that_does_not_answer_is_no_reading() -> None:
    half = "   worker-1: 1.5 recvd=90 dropped=10 link=100\n"
    with pytest.raises(SensorFailed, match="worker-2: <error: cannot connect>"):
        netstats(half, 1, "   worker-2: <error: cannot connect>\n")


def test_a_log_that_is_rotated_in_mid_trial() -> None:
    sensor, box = cluster()
    sensor.prepare()
    box.inode = 8
    with pytest.raises(SensorFailed, match="was rotated in mid-trial"):
        sensor.finish()
