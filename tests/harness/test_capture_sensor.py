"""The bare capture: what tcpdump and dumpcap say, and what becomes of it."""

from __future__ import annotations

import pytest

from harness.errors import ConfigError, SensorFailed
from harness.model import Counters
from harness.sensors.capture import BareCapture, dumpcap_counters, tcpdump_counters
from lab.fake import Call, FakeHost, FakeProcess, Reply
from lab.host import Exit
from lab.inventory import SensorSpec

# As tcpdump 4.99.3 and dumpcap 4.0.17 print it.
TCPDUMP = """\
tcpdump: listening on rx0, link-type EN10MB (Ethernet), snapshot length 96 bytes
tcpdump: 5 packets captured, 12 packets received by filter, 1 packet dropped by kernel
900 packets captured
1000 packets received by filter
100 packets dropped by kernel
7 packets dropped by interface
"""
DUMPCAP = """\
Capturing on 'rx0'
File: /dev/null
Packets captured: 880
Packets received/dropped on interface 'rx0': 900/120 (pcap:100/dumpcap:20/flushed:0/ps_ifdrop:7) (88.2%)
"""  # noqa: E501


def figures(counters: Counters | None) -> tuple[int | None, ...]:
    assert counters is not None
    return counters.received, counters.dropped, counters.decoded


def test_tcpdumps_received_includes_drops() -> None:
    assert figures(tcpdump_counters(TCPDUMP)) == (1000, 100, 900)
    asked = TCPDUMP[: TCPDUMP.index("900 ")]
    assert figures(tcpdump_counters(asked)) == (12, 1, 5)
    assert tcpdump_counters(TCPDUMP[:80]) is None


def test_dumpcaps_received_does_not() -> None:
    assert figures(dumpcap_counters(DUMPCAP)) == (1000, 100, 880)
    assert dumpcap_counters(DUMPCAP[:60]) is None


def made(process: FakeProcess, **options: object) -> tuple[BareCapture, FakeHost]:
    def answer(call: Call) -> Reply | FakeProcess:
        if call.leashed:
            return process
        if call.argv[1] == "--version":
            return Reply("", "tcpdump version 4.99.3\nlibpcap version 1.10.3\n")
        return Reply()

    host = FakeHost(answer)
    spec = SensorSpec(driver="capture", host="probe", interface="rx0", options=options)
    return BareCapture(host, spec), host


def test_a_trial() -> None:
    process = FakeProcess(TCPDUMP.splitlines()[:1])
    sensor, host = made(process, buffer=512, write="/data/x.pcap", filter="udp")
    sensor.check()
    assert (sensor.name, sensor.version) == ("tcpdump", "4.99.3")
    able = sensor.capabilities
    assert not able.alerts and not able.flows and able.kernel_drops and able.exact_totals
    sensor.prepare()
    started = next(call for call in host.calls if call.leashed)
    assert " ".join(started.argv) == ("tcpdump -i rx0 -n -s 96 -Z root -w /data/x.pcap -B 512 udp")
    assert sensor.footprint().logs == "/data"
    process.emit(*TCPDUMP.splitlines()[1:])
    after = sensor.finish()
    assert figures(after) == (1000, 100, 900) and after.exact and after.flows is None
    assert after.raw["tcpdump.ifdropped"] == 7
    assert list(sensor.alerts()) == []


def test_one_that_ends_in_mid_trial_has_no_numbers() -> None:
    process = FakeProcess(TCPDUMP.splitlines()[:1])
    sensor, _ = made(process)
    sensor.prepare()
    process.emit("tcpdump: pcap_loop: The interface disappeared")
    process.finish(Exit(1, None, "exited"))
    with pytest.raises(SensorFailed, match="ended during the trial: tcpdump: pcap_loop: The inter"):
        sensor.live()


def test_one_that_does_not_start() -> None:
    process = FakeProcess(["tcpdump: rx0: no permission"], Exit(1, None, "exited"))
    sensor, _ = made(process)
    with pytest.raises(SensorFailed, match="does not capture on rx0: tcpdump: rx0: no permission"):
        sensor.prepare()


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"sensor\.options\.snaplen"):
        made(FakeProcess(), snaplen=-1)
    with pytest.raises(ConfigError, match=r"sensor\.options\.colour: no such key"):
        made(FakeProcess(), colour="red")
