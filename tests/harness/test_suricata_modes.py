"""One formula a capture mode, on records of real runs where the mode runs here.

The records suricata-7.0.10-*.json are final statistics of overloads in a namespace (1,180,000
packets sent), cut to the groups that matter. Those of AF_XDP and netmap, and of Suricata 8, are
written after its sources (source-af-xdp.c, source-netmap.c, counters.c of 8.0.4): not recorded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError, SensorFailed
from harness.sensors.suricata_capture import (
    capture_argv,
    capture_yaml,
    check_capture,
    support_line,
)
from harness.sensors.suricata_config import Paths, render
from harness.sensors.suricata_counters import (
    FORMULAS,
    agrees,
    exact_pcap,
    pcap_totals,
    reconciles,
    to_counters,
)
from harness.sensors.suricata_host import check_support
from harness.sensors.suricata_options import Capture, read_options
from lab.fake import FakeHost, Reply
from lab.inventory import SensorSpec

SENT = 1_180_000
PCAP_LOG = (
    "Info: pcap: rx0: packets 1046323, bytes 71027090\n"
    "Info: pcap: rx0: pcap total:1180000 recv:1046323 drop:133677 (11.3%)\n"
)


def record(name: str) -> dict[str, Any]:
    path = Path(__file__).parent / "data" / f"suricata-7.0.10-{name}.json"
    stats: dict[str, Any] = json.loads(path.read_text())["stats"]
    return stats


def test_pcap_totals_come_from_its_last_words() -> None:
    """The record of a real overload is a second short; the log's line closes to the packet."""
    late = to_counters(record("pcap-overload"), exact=True, capture="pcap")
    assert late.raw["capture.kernel_packets"] == 1_057_519 and not reconciles_to(late, SENT)
    assert late.received == 1_046_323 + 120_279  # no less than was decoded and dropped
    exact = exact_pcap(late, pcap_totals(PCAP_LOG, "rx0"))
    assert (exact.received, exact.dropped, exact.decoded) == (SENT, 133_677, 1_046_323)
    assert reconciles(exact) and exact.exact
    assert not exact_pcap(late, pcap_totals("", "rx0")).exact
    assert pcap_totals(PCAP_LOG, "rx1") is None
    assert pcap_totals(PCAP_LOG + PCAP_LOG, "rx0") == (2 * SENT, 2 * 133_677)  # two threads


def reconciles_to(counters: Any, sent: int) -> bool:
    return bool(counters.received == sent and reconciles(counters))


def test_autofp_counts_packets_where_they_are_decoded() -> None:
    counters = to_counters(record("autofp-overload"), exact=True)
    assert reconciles_to(counters, SENT) and counters.dropped == 3_671
    assert counters.workers == {"RX#01": 340_000, "RX#02": 836_329}
    shares = {k: v for k, v in counters.raw.items() if k.startswith("threads.W#")}
    assert sum(shares.values()) == counters.flows == 10 and len(shares) == 2


def test_dpdk_on_a_real_record() -> None:
    counters = to_counters(record("dpdk"), exact=True, capture="dpdk")
    assert (counters.received, counters.dropped, counters.decoded) == (59, 0, 59)
    assert counters.workers == {"W#01-net_af_packet0": 59}
    assert reconciles(counters)


@pytest.mark.parametrize(
    ("capture", "counts", "received", "dropped"),
    [
        # Worker 0 took 600 and has the port's 50 errors; worker 1 took 400: totals are sums.
        ("dpdk", {"packets": 1050, "rx_errors": 50, "dpdk": {"imissed": 50}}, 1050, 50),
        ("af-xdp", {"afxdp_packets": 1000, "kernel_drops": 50}, 1050, 50),
        ("netmap", {"kernel_packets": 1000, "kernel_drops": 0}, 1000, None),
        ("af-packet", {"kernel_packets": 1050, "kernel_drops": 50}, 1050, 50),
        ("pcap", {"kernel_packets": 1050, "kernel_drops": 50, "kernel_ifdrops": 0}, 1050, 50),
    ],
)
def test_received_always_includes_drops(
    capture: Capture, counts: dict[str, Any], received: int, dropped: int | None
) -> None:
    stats = {"capture": counts, "decoder": {"pkts": 1000}}
    counters = to_counters(stats, exact=True, capture=capture)
    assert (counters.received, counters.dropped) == (received, dropped)
    assert reconciles(counters)
    seen = received if FORMULAS[capture].interface_includes else 1000
    assert agrees(counters, seen, capture)
    assert not agrees(counters, seen + 1, capture)


@pytest.mark.parametrize("capture", FORMULAS)
def test_suricata_8_leaves_out_counters_that_never_moved(capture: Capture) -> None:
    formula = FORMULAS[capture]
    group, name = formula.packets.split(".")
    stats = {group: {name: 7}, "decoder": {"pkts": 7, "bytes": 700}, "flow": {"total": 1}}
    counters = to_counters(stats, exact=True, capture=capture)
    assert (counters.received, counters.decoded, counters.alerts, counters.invalid) == (7, 7, 0, 0)
    assert counters.dropped == (None if formula.drops is None else 0)


# -- configuration ------------------------------------------------------------------------------

SPEC = SensorSpec(host="h", interface="rx0", workers=3, cpus="2-4")


@pytest.mark.parametrize(
    ("options", "argv", "lines"),
    [
        ({}, ["--af-packet=rx0"], ["threads: 3", "runmode: workers", "tpacket-v3: yes"]),
        (
            {"runmode": "autofp", "receive-threads": 2},
            ["--af-packet=rx0"],
            ["threads: 2", "runmode: autofp", "tpacket-v3: no", "detect-thread-ratio: 0.752500"],
        ),
        (
            {"capture": "pcap", "runmode": "autofp"},
            ["--pcap=rx0"],
            ["pcap:", f"buffer-size: {2048 * 1600}", "checksum-checks: yes"],
        ),
        (
            {"capture": "dpdk", "device": "0000:3b:00.0", "eal.main-lcore": 1},
            ["--dpdk"],
            ['    - interface: "0000:3b:00.0"', '    main-lcore: "1"', "rx-descriptors: 2048"],
        ),
        ({"capture": "af-xdp"}, ["--af-xdp=rx0"], ["af-xdp:", "    threads: 3"]),
        ({"capture": "netmap"}, ["--netmap=rx0"], ["netmap:", "    threads: 3"]),
        ({"alerts-via": "unix_dgram"}, ["--af-packet=rx0"], ["filename: alerts.sock"]),
    ],
)
def test_command_line_and_configuration(
    options: dict[str, Any], argv: list[str], lines: list[str]
) -> None:
    read = read_options(options)
    check_capture(SPEC, read) if read.capture != "pcap" else None
    assert capture_argv(SPEC, read) == argv
    host = FakeHost(lambda call: Reply("4\n" if call.argv[0] == "getconf" else ""))
    text = render(host, SPEC, read, Paths("/w"), ("/w/a.rules",), True)
    for line in lines:
        assert line in text
    offline = render(host, SPEC, read, Paths("/w"), ("/w/a.rules",), False)
    assert "runmode: workers" in offline and "filename: alerts.json" in offline


def test_the_ratio_gives_the_workers_asked_for() -> None:
    """Suricata truncates processors * ratio (util-runmodes.c)."""
    options = read_options({"runmode": "autofp"})
    for processors in range(1, 129):
        for workers in (1, 2, 3, 7, 16, 64):
            spec = SPEC.model_copy(update={"workers": workers})
            text = capture_yaml(spec, options, processors)
            ratio = float(text.rpartition("detect-thread-ratio: ")[2])
            assert int(processors * ratio) == workers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capture": "pfring"}, r"sensor\.options\.capture = 'pfring': give one of af-packet"),
        ({"capture": "dpdk"}, r"sensor\.options\.device is missing"),
        ({"capture": "dpdk", "device": "x", "runmode": "autofp"}, "DPDK has only workers"),
        ({"capture": "netmap", "runmode": "autofp"}, "use workers"),
        ({"control": "observed"}, r"sensor\.options\.eve is missing"),
        ({"control": "systemd", "eve": "/e"}, r"sensor\.options\.unit is missing"),
        ({"control": "observed", "eve": "e.json"}, "absolute path"),
        ({"control": "observed", "eve": "/e", "alerts-via": "unix_dgram"}, "control = 'own'"),
        ({"alerts-via": "redis"}, "unix_stream"),
        ({"receive-threads": 0}, "a number >= 1"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_options(options)
    assert "\n" not in str(caught.value)


def test_sizes_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match=r"every thread gets every packet"):
        check_capture(SPEC, read_options({"capture": "pcap"}))
    with pytest.raises(ConfigError, match=r"sensor\.cpus is missing"):
        check_capture(
            SPEC.model_copy(update={"cpus": None}),
            read_options({"capture": "dpdk", "device": "0000:3b:00.0"}),
        )
    with pytest.raises(ConfigError, match=r"sensor\.interface is missing"):
        check_capture(SPEC.model_copy(update={"interface": None}), read_options({}))


BUILD = "  AF_XDP support:                          no\n  DPDK support:                  yes\n"


def test_a_binary_built_without_the_mode() -> None:
    host = FakeHost(lambda call: Reply(BUILD), name="sen")
    with pytest.raises(SensorFailed, match=r"sen: suricata was built without af-xdp"):
        check_support(host, SPEC, read_options({"capture": "af-xdp"}))
    check_support(host, SPEC, read_options({"capture": "dpdk", "device": "x"}))
    assert support_line(read_options({"capture": "pcap"}), BUILD) is None
