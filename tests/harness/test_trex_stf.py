"""TRex's stateful mode without a TRex: options, files, console, scoring."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.corpus import describe
from harness.errors import ConfigError, GeneratorFailed
from harness.generators.axes import AXES
from harness.generators.registry import DRIVERS
from harness.generators.trex.console import Console, cause_of_failure
from harness.generators.trex.flows import prepare_flows
from harness.generators.trex.install import end_ours, find_trex, require_trex
from harness.generators.trex.options import read_options
from harness.generators.trex.platform_file import platform_yaml
from harness.generators.trex.pools import Allocator
from harness.generators.trex.stf import TrexStf
from harness.generators.trex.stf_profile import traffic_yaml
from harness.model import Alert, DueEvent, Load, Reference
from harness.profile import Profile
from harness.templates import Pool, Template, score_templates
from lab.fake import Call, FakeHost, Reply
from lab.inventory import GeneratorSpec
from pcap_tools.capture import open_capture

OPTIONS = {"path": "/opt/trex/v3.08", "software": True, "low_end": True}


# -- what is asked ------------------------------------------------------------------------------


def test_every_driver_has_its_axes() -> None:
    assert set(AXES) == set(DRIVERS)


def test_a_profile_with_an_axis_that_the_generator_cannot_set_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(AXES, "trex-stf", ("pps",))
    with pytest.raises(ValueError, match="trex-stf cannot set the axis 'flows'; it can set pps"):
        Profile.model_validate(
            {"name": "x", "generator": "trex-stf", "load": {"axis": "flows", "values": [1]}}
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "path"),
        ({"path": "trex"}, "path: .*'trex' is not an absolute path"),
        ({"path": "/t", "ips": ["1.1.1.1", "x"]}, "ips: .*'x' is not an IPv4 address"),
        ({"path": "/t", "colour": 1}, "colour"),
        ({"path": "/t", "cores": 0}, "cores"),
    ],
)
def test_wrong_options_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"generator.options: {message}"):
        read_options(wrong)


def test_one_port_is_not_enough() -> None:
    spec = GeneratorSpec(driver="trex-stf", host="gen", interface="a", options=OPTIONS)
    with pytest.raises(ConfigError, match="server_interface is missing"):
        TrexStf(FakeHost(), spec)


# -- what is on the host ------------------------------------------------------------------------

FOUND = """\
wrapper=yes
binary=yes
version=v3.08
stl=yes
astf=yes
hugepages=0
hugepages_free=0
cores=2
runtime=3
process=4711 ./_t-rex-64 -f /w/traffic.yaml --cfg /w/trex.yaml
"""


def host_that_says(text: str, status: int = 0) -> FakeHost:
    def answer(call: Call) -> Reply:
        return Reply("1500\n") if call.argv[0] == "cat" else Reply(text, "", status)

    return FakeHost(answer, name="gen")


def test_what_is_found_is_told() -> None:
    found = find_trex(host_that_says(FOUND), read_options(OPTIONS))
    assert (found.version, found.modes, found.client) == ("v3.08", ("stf", "stl", "astf"), True)
    assert found.processes == ((4711, "./_t-rex-64 -f /w/traffic.yaml --cfg /w/trex.yaml"),)
    assert found.leftovers == 3 and not found.missing


def test_what_is_missing_is_told_at_once() -> None:
    hard = read_options({"path": "/opt/trex"})
    with pytest.raises(GeneratorFailed) as told:
        require_trex(host_that_says("version=v3.08\nhugepages=0\ncores=2\n"), hard)
    text = str(told.value)
    assert text.startswith("gen: TRex cannot run: /opt/trex/t-rex-64 is not there")
    assert "no hugepages are set up" in text and "set low_end = true" in text
    with pytest.raises(GeneratorFailed, match="/opt/trex is not a directory there"):
        require_trex(host_that_says("", 9), hard)


def test_leftovers_of_ours_are_ended_and_others_are_not() -> None:
    other = "process=99 ./_t-rex-64 -i --cfg /etc/trex_cfg.yaml\n"
    killed = []

    def answer(call: Call) -> Reply:
        if call.argv[0] == "kill":
            killed.append(call.argv[1:])
        if call.argv[0] == "test":
            return Reply("", "", 1)  # gone
        return Reply("")

    spec = GeneratorSpec(
        driver="trex-stf", host="gen", interface="a", server_interface="b", options=OPTIONS
    )
    host = FakeHost(answer, name="gen")
    TrexStf(host, spec)
    ours = FOUND.replace("/w/trex.yaml", f"{host.workdir}/trex.yaml")
    found = find_trex(host_that_says(ours + other), read_options(OPTIONS))
    end_ours(host, found, f"{host.workdir}/trex.yaml")
    assert killed == [("-TERM", "4711")]


# -- the files it is given ----------------------------------------------------------------------


def test_the_platform_file() -> None:
    (back,) = yaml.safe_load(platform_yaml(read_options(OPTIONS), ("la0", "la1")))
    assert back["interfaces"] == ["la0", "la1"] and back["port_limit"] == 2 and back["low_end"]
    assert back["port_info"] == [
        {"ip": "1.1.1.1", "default_gw": "2.2.2.2"},
        {"ip": "2.2.2.2", "default_gw": "1.1.1.1"},
    ]
    macs = {**OPTIONS, "dest_macs": ["02:00:00:00:00:01", "02:00:00:00:00:02"]}
    ports = ("0000:03:00.0", "0000:03:00.1")
    hard = read_options({**macs, "software": False})
    (tapped,) = yaml.safe_load(platform_yaml(hard, ports))
    assert tapped["interfaces"] == list(ports)
    assert tapped["port_info"][1] == {"dest_mac": "02:00:00:00:00:02"}
    with pytest.raises(ConfigError, match="is a PCI address, which software = true cannot drive"):
        platform_yaml(read_options(macs), ports)
    with pytest.raises(ConfigError, match="'la1' is a kernel interface: name the port by PCI"):
        platform_yaml(hard, (ports[0], "la1"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 65536)), max_size=60))
def test_pools_are_disjoint_and_home_stays_home(wanted: list[tuple[bool, int]]) -> None:
    home = ("10.0.0.0/8", "172.16.0.0/12", "fc00::/7")
    networks = [ipaddress.ip_network(text) for text in home[:2]]
    pools = Allocator(home)
    taken: list[Pool] = []
    for inside, size in wanted:
        pool = pools.take(inside, size)
        assert pool.size == size
        for end in (pool.first, pool.last):
            assert any(ipaddress.IPv4Address(end) in n for n in networks) == inside
        assert all(pool.last < other.first or other.last < pool.first for other in taken)
        taken.append(pool)


def test_pools_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"home networks \(256 addresses\) are too small"):
        Allocator(["10.0.0.0/24"]).take(True, 1000)


def test_flows_of_a_corpus_and_the_profile_of_them(tmp_path: Path) -> None:
    from pcap_tools.clean import clean

    corpus_file = small_corpus(tmp_path)
    clean([corpus_file], tmp_path / "corpus.pcap")
    corpus = describe(tmp_path / "corpus.pcap", ("10.0.0.0/8",), "k", None)
    flows = prepare_flows(
        corpus, read_options({**OPTIONS, "clients": 50}), tmp_path / "flows", "stf"
    )
    assert flows.left_out == {"ipv6": 1}
    assert len(flows.templates) == 2 and flows.packets == 2 * 14
    for template in flows.templates:
        with open_capture([tmp_path / "flows" / f"{template.name}.pcap"]) as capture:
            assert sum(len(batch) for batch in capture.batches()) == template.packets
    (profile,) = yaml.safe_load(traffic_yaml(flows.templates, "/w/flows", 5))
    assert [cap["name"] for cap in profile["cap_info"]] == [
        f"/w/flows/{template.name}.pcap" for template in flows.templates
    ]
    names = {pool["name"]: pool for pool in profile["generator"]["generator_clients"]}
    for cap, template in zip(profile["cap_info"], flows.templates, strict=True):
        pool = names[cap["client_pool"]]
        assert int(ipaddress.IPv4Address(pool["ip_start"])) == template.clients.first
        assert cap["cps"] == 1.0
    with pytest.raises(ConfigError, match=r"2 flows are more templates than .* = 1"):
        prepare_flows(
            corpus, read_options({**OPTIONS, "most_templates": 1}), tmp_path / "again", "stf"
        )


def small_corpus(directory: Path) -> Path:
    """Two whole TCP flows over IPv4 and one over IPv6."""
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pcap_tools"))
    from synth import Talk, merged, write_pcap

    talks = [
        Talk(sport=1, client="10.0.0.1").whole(),
        Talk(sport=2, client="203.0.113.5", server="10.0.0.9").whole(),
        Talk(client="fd00::5", server="2600::6").whole(),
    ]
    return write_pcap(directory / "raw.pcap", merged(*talks))


@pytest.mark.parametrize(
    ("axis", "value"), [("flows", 20), ("pps", 280), ("bps", 1e6), ("concurrent", 2)]
)
def test_every_axis_becomes_a_multiplier(tmp_path: Path, axis: Any, value: float) -> None:
    spec = GeneratorSpec(
        driver="trex-stf", host="gen", interface="a", server_interface="b", options=OPTIONS
    )
    generator = TrexStf(host_that_says(FOUND), spec)
    from pcap_tools.clean import clean

    clean([small_corpus(tmp_path)], tmp_path / "corpus.pcap")
    generator.prepare(describe(tmp_path / "corpus.pcap", ("10.0.0.0/8",), "k", None))
    plan = generator.plan(Load(axis, value, 10), 0)
    rate = {
        "flows": plan.flows_per_s,
        "pps": plan.pps,
        "bps": plan.bps,
        "concurrent": plan.concurrent_flows,
    }[axis]
    assert rate == pytest.approx(value)
    assert plan.settings["multiplier"] == pytest.approx(plan.flows_per_s / 2)
    assert plan.packets == pytest.approx(plan.pps * 10, abs=1)
    assert "2 templates (1 flows of the corpus left out)" in plan.how
    with pytest.raises(ConfigError, match="less than one flow of each of 2 templates"):
        generator.plan(Load("flows", 0.1, 10), 0)


# -- what it prints -----------------------------------------------------------------------------

PANEL = """\
\x1b[2J-Per port stats table
      ports |               0 |               1
 -----------------------------------------------------------------------------------------
   opackets |             {} |             {}
     obytes |           46667 |          886804
   ipackets |             499 |             500
    ierrors |               0 |               0
 Cpu Utilization : 12.1  %  0.5 Gb/core
 Platform_factor : 1.0
 Total-PPS       :      10.10 Kpps
 Total-CPS       :     277.60  cps

 Active-flows    :      101  Clients :      255   Socket-util : 0.0001 %
 Open-flows      :     {}  Servers :      255   Socket :      101 Socket/Clients :  0.4
 Total_queue_full : 7
 drop-rate       :       0.00  bps
 current time    : 3.1 sec
"""
END = """\
*** TRex is shutting down - cause: 'test has ended'
==================
interface sum
port : 0
 opackets                                 : 499
 summary stats
 --------------
 Total-pkt-drop       : 0 pkts
 Total-tx-bytes       : 933471 bytes
 Total-tx-sw-bytes    : 0 bytes
 Total-rx-bytes       : 933471 byte

 Total-tx-pkt         : 999 pkts
 Total-rx-pkt         : 999 pkts
 Total-sw-tx-pkt      : 0 pkts
 Total-sw-err         : 0 pkts
 Total ARP sent       : 4 pkts
 latency-any-error : ERROR
"""


def test_panels_and_summary_are_read() -> None:
    console = Console()
    for moment, (one, two, opened) in enumerate([(0, 0, 0), (200, 150, 9), (499, 500, 27)]):
        for line in PANEL.format(one, two, opened).splitlines():
            console.feed(line, float(moment))
    for line in END.splitlines():
        console.feed(line, 9.0)
    assert console.summary["Total-tx-pkt"] == 999 and console.summary["Total-tx-bytes"] == 933471
    assert (console.first, console.last, console.sent) == (1.0, 2.0, 999)
    assert console.panel["Total-PPS"] == 10_100 and console.panel["Cpu Utilization"] == 12.1
    assert console.peaks["Open-flows"] == 27 and console.peaks["Active-flows"] == 101
    assert console.peaks["Total_queue_full"] == 7
    assert console.whole and console.cause == "test has ended"


def test_the_reason_is_found_in_what_was_said() -> None:
    lines = ["Starting  TRex", "Failed resolving dest MAC for default gateway:2.2.2.2 on port 0"]
    assert cause_of_failure([*lines, "bye"]) == lines[1]
    assert cause_of_failure([" latency-any-error : ERROR", "last"]) == "last"
    assert cause_of_failure([]) == "no message"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_no_line_breaks_the_reader(line: str) -> None:
    Console().feed(line, 0.0)


# -- scoring ------------------------------------------------------------------------------------


def template(number: int) -> Template:
    base = (20 + number) << 24
    return Template(
        name=f"{number}-tcp-80",
        proto="TCP",
        client=f"10.0.0.{number}",
        client_port=1000,
        server="203.0.113.1",
        server_port=80,
        packets=10,
        bytes=1000,
        seconds=0.1,
        clients=Pool(base, base + 99),
        servers=Pool(base + 1000, base + 1099),
    )


def alert(number: int, host: int, port: int, sid: int, *, back: bool = False) -> Alert:
    client, server = f"{20 + number}.0.0.{host}", f"{20 + number}.0.3.235"
    ends = (server, 80, client, port) if back else (client, port, server, 80)
    return Alert("", "TCP", *ends, sid, "")


def test_detection_by_template() -> None:
    templates = [template(1), template(2), template(3)]
    due = tuple(
        DueEvent("TCP", f"10.0.0.{n}", 1000, "203.0.113.1", 80, sid)
        for n, sid in ((1, 7), (1, 8), (2, 7))
    )
    reference = Reference("c", "r", "suricata", 3, due, {7: "seven", 8: "eight"})
    alerts = [
        alert(1, 5, 2000, 7),
        alert(1, 5, 2000, 7, back=True),  # the same event seen the other way
        alert(1, 6, 2000, 7),
        alert(1, 5, 2000, 8),
        alert(2, 5, 2000, 8),  # not due on this template
        alert(3, 5, 2000, 7),
        Alert("", "TCP", "20.0.0.5", 1, "21.0.3.235", 80, 7, ""),  # two templates' ends
        Alert("", "TCP", "fe80::1", 1, "10.0.0.1", 80, 7, ""),
    ]
    sent = {"1-tcp-80": 10, "2-tcp-80": 10, "3-tcp-80": 10}
    found = score_templates(alerts, reference, templates, sent)
    assert (found.due, found.detected, found.scored_by) == (30, 3, "template")
    assert (found.raised, found.repeated, found.unexpected, found.unmapped) == (8, 1, 2, 2)
    assert found.raised == found.detected + found.repeated + found.unexpected + found.unmapped
    assert {s.signature_id: (s.due, s.detected) for s in found.by_signature} == {
        7: (20, 2),
        8: (10, 1),
    }
    assert found.low < found.rate == 0.1 < found.high


def test_more_found_than_the_estimate_of_flows_is_no_rate_above_one() -> None:
    reference = Reference(
        "c", "r", "s", 1, (DueEvent("TCP", "10.0.0.1", 1000, "203.0.113.1", 80, 7),), {7: "x"}
    )
    alerts = [alert(1, 5, port, 7) for port in range(2000, 2011)]
    found = score_templates(alerts, reference, [template(1)], {"1-tcp-80": 10})
    assert (found.due, found.detected, found.rate) == (11, 11, 1.0)
