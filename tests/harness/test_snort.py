"""Snort 3's outputs in the forms its sources write, and its driver. No real Snort ran here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.errors import SensorFailed
from harness.sensors.registry import make_sensor
from harness.sensors.snort import SnortSensor
from harness.sensors.snort_logs import (
    fast_alerts,
    from_csv,
    from_json,
    from_text,
    json_alerts,
    signature_of,
    to_counters,
)
from lab.fake import Call, FakeHost, FakeProcess, Reply
from lab.inventory import SensorSpec

# perf_monitor: zero pegs are left out of JSON; the array is closed when Snort ends.
ROWS: list[dict[str, Any]] = [
    {"timestamp": 1, "daq": {"received": 400, "analyzed": 400, "rx_bytes": 9, "outstanding": 3}},
    {
        "timestamp": 2,
        "daq": {"received": 100, "analyzed": 100, "dropped": 50, "outstanding": 1},
        "stream": {"flows": 4},
    },
]
JSON = json.dumps(ROWS)
SHUTDOWN = """\
-- [0] rx0
--------------------------------------------------
Packet Statistics
--------------------------------------------------
daq
                 received: 940
                 analyzed: 930
                  dropped: 60
                    allow: 930
                 rx_bytes: 93000
--------------------------------------------------
codec
                    total: 930       \t(100.000%)
                 discards: 7         \t(  0.753%)
                      eth: 930       \t(100.000%)
--------------------------------------------------
Module Statistics
--------------------------------------------------
detection
                 analyzed: 930
             total_alerts: 12
                   alerts: 11
--------------------------------------------------
stream
                    flows: 9
--------------------------------------------------
Summary Statistics
--------------------------------------------------
timing
                  runtime: 00:00:05
                  seconds: 5.000001
"""


def test_perf_monitors_json_while_it_runs_and_after() -> None:
    wanted = {"daq.received": 500, "daq.analyzed": 500, "daq.dropped": 50, "daq.rx_bytes": 9,
              "daq.outstanding": 3, "stream.flows": 4}  # fmt: skip
    assert from_json(JSON, "x") == wanted
    assert from_json(JSON.removesuffix("]"), "x") == wanted
    torn = json.dumps(ROWS).replace(" ", "")[:-1] + ',{"timestamp":3,"daq":{"rec'
    assert from_json(torn, "x") == wanted
    assert from_json("[", "x") == from_json("", "x") == {}
    with pytest.raises(SensorFailed, match="x: not perf_monitor's JSON"):
        from_json("[{]", "x")


def test_perf_monitors_csv() -> None:
    text = "#timestamp,daq.received,daq.dropped\n1,10,1\n2,20,2\n3,4"
    assert from_csv(text, "x") == {"daq.received": 30, "daq.dropped": 3}
    with pytest.raises(SensorFailed, match="without a header"):
        from_csv("1,2,3\n", "x")


def test_what_is_printed_at_shutdown() -> None:
    pegs = from_text(SHUTDOWN)
    assert pegs["daq.received"] == 940 and pegs["codec.discards"] == 7
    assert "timing.seconds" not in pegs and "timing.runtime" not in pegs
    found = to_counters(pegs, {"thread 0": {"daq.analyzed": 930}}, exact=True)
    # libdaq's `received` has the drops taken out; ours has them in.
    assert (found.received, found.dropped, found.decoded) == (1000, 60, 930)
    assert (found.invalid, found.flows, found.alerts) == (7, 9, 12)
    assert found.workers == {"thread 0": 930}


ALERTS = """\
{ "timestamp" : "01/02-03:04:05.678901", "seconds" : 9, "proto" : "TCP", "src_addr" : "10.0.0.1", "src_port" : 5, "dst_addr" : "192.0.2.1", "dst_port" : 80, "gid" : 1, "sid" : 77, "rev" : 1, "msg" : "one" }
{ "timestamp" : "01/02-03:04:06.0", "proto" : "ICMP", "src_addr" : "2001:db8::1", "dst_addr" : "2001:db8::2", "gid" : 116, "sid" : 5, "rev" : 1, "msg" : "two" }
"""  # noqa: E501


def test_alert_json() -> None:
    one, two = json_alerts(ALERTS.splitlines(), "x")
    assert (one.proto, one.src_port, one.dst_port, one.signature_id) == ("TCP", 5, 80, 77)
    assert (two.proto, two.src, two.src_port) == ("IPv6-ICMP", "2001:db8::1", 0)
    assert two.signature_id == signature_of(116, 5) == 116_000_000_005
    assert len(list(json_alerts([*ALERTS.splitlines(), '{ "time'], "x"))) == 2
    with pytest.raises(SensorFailed, match="x: line 1 is not"):
        list(json_alerts(["{ torn", *ALERTS.splitlines()], "x"))


def test_alert_fast() -> None:
    lines = [
        '01/02-03:04:05.678901 [**] [1:77:3] "one [x] two" [**] [Classification: Misc activity] '
        "[Priority: 3] {TCP} 10.0.0.1:5 -> 192.0.2.1:80",
        '01/02-03:04:05.7 [**] [116:5:1] "(ipv4) bad" [**] [Priority: 2] {ICMP} 10.0.0.1 -> 10.0.0.2',  # noqa: E501
        "something else",
    ]
    one, two = fast_alerts(lines)
    assert (one.signature_id, one.signature, one.dst_port) == (77, "one [x] two", 80)
    assert (two.signature_id, two.proto, two.src_port) == (116_000_000_005, "ICMP", 0)


class Snort:
    def __init__(self) -> None:
        self.process = FakeProcess(["Commencing packet processing", "++ [0] rx0", "++ [1] rx0"])
        self.files: dict[str, str] = {}
        self.test = Reply()

    def __call__(self, call: Call) -> Reply | FakeProcess:
        if call.leashed:
            return self.process
        if call.argv[-1] == "-V":
            return Reply('   ,,_     -*> Snort++ <*-\n  o"  )~   Version 3.1.84.0\n')
        if call.argv[-1] == "-T":
            return self.test
        if call.argv[0] == "find":
            base, ending = call.argv[1], call.argv[-1].lstrip("*")
            return Reply("".join(f"{base}/{n}\n" for n in self.files if n.endswith(ending)))
        if call.argv[0] == "cat":
            return Reply(self.files.get(call.argv[1].rsplit("/", 1)[1], "1000\n"))
        return Reply()


def made(snort: Snort) -> tuple[SnortSensor, FakeHost]:
    host = FakeHost(snort)
    sensor = make_sensor(host, SensorSpec(driver="snort", host="p", interface="rx0", workers=2))
    assert isinstance(sensor, SnortSensor)
    return sensor, host


def test_a_trial() -> None:
    snort = Snort()
    sensor, host = made(snort)
    sensor.check()
    assert sensor.version == "3.1.84.0"
    sensor.prepare()
    line = " ".join(next(call.argv for call in host.calls if call.leashed))
    assert (
        "-i rx0 -z 2 --daq afpacket --daq-var buffer_size_mb=128 --daq-var fanout_type=hash" in line
    )
    assert "HOME_NET = '[10.0.0.0/8," in line and "alert_json = { file = true" in line
    assert sensor.snapshot().received == sensor.snapshot().flows == 0
    snort.files = {"0_perf_monitor_base.json": JSON, "1_perf_monitor_base.json": JSON,
                   "0_alert_json.txt": ALERTS}  # fmt: skip
    assert sensor.settle(10)
    snort.process.emit(*SHUTDOWN.splitlines())
    after = sensor.finish()
    assert (after.received, after.decoded, after.exact) == (1000, 930, True)
    assert after.workers == {"thread 0": 500, "thread 1": 500}
    assert [alert.signature_id for alert in sensor.alerts()] == [77, 116_000_000_005]


def test_one_that_says_nothing_has_no_numbers() -> None:
    sensor, _ = made(Snort())
    sensor.prepare()
    with pytest.raises(SensorFailed, match="printed no packet statistics"):
        sensor.finish()


def test_rules_that_are_refused() -> None:
    snort = Snort()
    snort.test = Reply("ERROR: probe.rules:3 unknown rule keyword\n", "", 1)
    sensor, _ = made(snort)
    with pytest.raises(SensorFailed, match="refuses its configuration or rules: ERROR: probe"):
        sensor.check()
