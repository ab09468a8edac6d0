"""A sweep with TRex's stateful mode against a live Suricata, through the virtual lab's tap.

The TRex is the fake one of tests/harness/fake_trex.py; with PROBEBENCH_TREX=DIR (an installed or
built TRex), the same tests run on that one too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweeping import good, probebench, trials

from harness.corpus import describe
from harness.errors import GeneratorFailed
from harness.generators.trex.stf import TrexStf
from harness.model import Load
from lab import netns_tools as net
from lab import virtual
from lab.connect import connect
from lab.inventory import Inventory, load_inventory
from lab.virtual_layout import layout
from pcap_tools.capture import open_capture
from pcap_tools.clean import clean

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pcap_tools"))
from fake_trex import make_tree
from synth import Talk, merged, write_pcap

pytestmark = pytest.mark.live

RULES = """\
alert tcp any any -> any 80 (msg:"TEST marker"; flow:established; content:"MARKER"; sid:9000001;)
alert udp any any -> any 9999 (msg:"TEST datagram"; content:"datagram"; sid:9000002;)
"""
REAL = os.environ.get("PROBEBENCH_TREX")
TREXES = [
    "fake",
    pytest.param(
        "real",
        marks=pytest.mark.skipif(not REAL, reason="PROBEBENCH_TREX=DIR names no TRex to try"),
    ),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Path]:
    name = f"trex{os.getpid()}"
    try:
        yield virtual.up(name, virtual.Options(tap=True, ring_size=4096))
    finally:
        virtual.down(name)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four flows: two with a marker, one datagram pair, one that raises nothing."""
    raw = tmp_path_factory.mktemp("trex") / "raw.pcap"
    talks = [
        Talk(sport=1000 + n, client=f"10.1.0.{n}", server=f"203.0.113.{n}", dport=80)
        for n in (1, 2, 3)
    ]
    for talk, data in zip(talks, (b"GET /MARKER", b"POST /MARKER", b"GET /nothing"), strict=True):
        talk.open()
        talk.tcp(0, "PA", data)
        talk.tcp(1, "PA", b"x" * 900)
        talk.close()
    datagram = Talk(sport=2000, client="203.0.113.77", server="10.1.0.77", dport=9999)
    datagram.udp(0, b"a datagram").udp(1, b"its answer")
    write_pcap(raw, merged(*talks, datagram))
    out = raw.with_name("corpus.pcap")
    clean([raw], out)
    return out


def inventory(lab: Path, tmp_path: Path, trex: Path) -> Path:
    """The lab's inventory with TRex instead of tcpreplay."""
    name = load_inventory(lab).name
    rules = tmp_path / "test.rules"
    rules.write_text(RULES)
    space = layout(name).namespaces.generator
    macs = [
        net.ip_json("link", "show", "dev", port, namespace=space)[0]["address"]
        for port in ("tx1", "tx0")
    ]
    lines = []
    for line in lab.read_text().splitlines():
        if line.startswith("rules = "):
            line = f"rules = [{json.dumps(str(rules))}]"
        if line.startswith('driver = "tcpreplay"'):
            line = 'driver = "trex-stf"'
        if line == "[sensor]":
            # TRex's software mode leaves wrong TCP checksums, and Suricata ignores such segments.
            unchecked = ["[sensor.options]", '"set.stream.checksum-validation" = "no"', ""]
            lines += [
                "[generator.options]",
                f"path = {json.dumps(str(trex))}",
                "software = true",
                "low_end = true",
                f"prefix = {json.dumps(name)}",  # other labs of this machine may have a TRex too
                f"dest_macs = {json.dumps(macs)}",
                "clients = 256",
                "servers = 16",
                "",
                *unchecked,
            ]
        lines.append(line)
    path = tmp_path / "lab.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def running(lab: Path) -> dict[str, int]:
    """Pids of what is TRex's in the generator's namespace, by program."""
    space = layout(load_inventory(lab).name).namespaces.generator
    found = {}
    for pid in net.run(["ip", "netns", "pids", space]).stdout.split():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        for word in words[:2]:  # of a script, the second word
            name = Path(word).name
            if name in ("t-rex-64", "_t-rex-64", "tcpreplay"):
                found[name] = int(pid)
    return found


def trex_of(kind: str, tmp_path: Path, behaviour: str = "normal") -> Path:
    return Path(REAL or "") if kind == "real" else make_tree(tmp_path / "trex", behaviour)


@pytest.mark.parametrize("kind", TREXES)
def test_a_sweep_over_flows_per_second(lab: Path, corpus: Path, tmp_path: Path, kind: str) -> None:
    profile = tmp_path / "stf.toml"
    profile.write_text(
        'name = "stf"\ngenerator = "trex-stf"\n[load]\naxis = "flows"\n'
        "values = [40, 120]\nduration = 4\n"
    )
    where = inventory(lab, tmp_path, trex_of(kind, tmp_path))
    run = tmp_path / "run"
    good("sweep", profile, "--lab", where, "--corpus", corpus, "-o", run)
    found = trials(run)
    assert [trial["load"]["value"] for trial in found] == [40, 120]
    for trial in found:
        assert trial["failure"] is None
        sent, ledger, detection = trial["sent"], trial["ledger"], trial["detection"]
        assert trial["schedule"]["how"].startswith("TRex multiplier ")
        # Independent: the kernel's counters of both ports, and what Suricata decoded.
        assert sent["packets"] == sent["wire_packets"] == ledger["offered"]
        assert ledger["unexplained"] == 0  # what a busy machine lost was counted
        assert sent["bytes"] == sent["wire_bytes"]
        assert abs(sent["flows"] - trial["load"]["value"] * 4) <= 4
        assert abs(sent["extra"]["flows_opened"] - sent["flows"]) <= 0.02 * sent["flows"]
        assert detection["scored_by"] == "template"
        assert detection["unmapped"] == detection["unexpected"] == 0
        alerting = [n for name, n in sent["templates"].items() if name != "2-tcp-80"]
        assert len(alerting) == 3 and detection["due"] == sum(alerting)
        # Independent: if TRex's flows per template are what we say, then nothing is missing.
        assert sent["extra"]["templates_exact"] == 1
        if ledger["analysed"] == sent["packets"]:
            assert detection["detected"] == detection["due"]
        invalid = {g["code"] for g in trial["gates"] if g["severity"] == "invalid"}
        assert invalid <= {"generator-limited"}  # the fake one on a busy machine
    assert found[0]["detection"]["detected"] > 100
    good("report", run)
    assert "template" in (run / "report.html").read_text()


def test_an_unknown_generator_is_refused_when_the_profile_is_read(tmp_path: Path) -> None:
    profile = tmp_path / "bad.toml"
    profile.write_text('name = "bad"\ngenerator = "trex-nothing"\n')
    outcome = probebench("sweep", profile, "--dry-run")
    assert outcome.status == 2
    assert "generator = 'trex-nothing' is not known" in outcome.complaint


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("dies", "was killed by SIGKILL"),
        ("no-arp", "Failed resolving dest MAC for default gateway"),
        ("no-summary", "failed with status 0"),
        ("hangs", "hangs: it said nothing for 3 s"),
        ("silent", "did not begin to send for 2 s"),
    ],
)
def test_a_trex_that_fails_says_why(
    lab: Path,
    corpus: Path,
    tmp_path: Path,
    behaviour: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness.generators.trex.stf._SILENT_S", 3.0)
    path = inventory(lab, tmp_path, make_tree(tmp_path / "trex", behaviour))
    if behaviour == "silent":
        path.write_text(path.read_text().replace("clients =", "start_timeout = 2.0\nclients ="))
    found: Inventory = load_inventory(path)
    host = connect("generator", found.hosts["generator"])
    generator = TrexStf(host, found.generator)
    try:
        generator.prepare(describe(corpus, ("10.0.0.0/8",), "k", None))
        generator.start(generator.plan(Load("flows", 40, 3), 0))
        with pytest.raises(GeneratorFailed, match=message):
            generator.finish()
    finally:
        generator.stop()
        host.close()
    assert not running(lab)


def test_a_stopped_trex_leaves_nothing(lab: Path, corpus: Path, tmp_path: Path) -> None:
    found = load_inventory(inventory(lab, tmp_path, make_tree(tmp_path / "trex")))
    host = connect("generator", found.hosts["generator"])
    generator = TrexStf(host, found.generator)
    try:
        generator.prepare(describe(corpus, ("10.0.0.0/8",), "k", None))
        generator.start(generator.plan(Load("flows", 40, 30), 0))
        while not generator.progress().packets:
            pass
        generator.stop()
    finally:
        host.close()
    assert not running(lab)


def test_lab_check_finds_it_and_what_is_missing(lab: Path, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "trex")
    where = inventory(lab, tmp_path, tree)
    outcome = probebench("lab", "check", "--lab", where)
    assert outcome.status == 0, outcome.stdout
    assert f"v3.08 in {tree}; modes stf, stl, astf" in outcome.stdout
    assert outcome.stdout.count("is for tests, and carries nothing else") == 2
    (tree / "_t-rex-64").unlink()
    outcome = probebench("lab", "check", "--lab", where, "--json")
    assert outcome.status == 1
    ready = json.loads(outcome.stdout)["readiness"]
    problems = [line for line in ready if line["level"] == "problem"]
    assert [line["about"] for line in problems] == ["trex"]


def test_the_tap_shows_what_either_port_sends(lab: Path, corpus: Path, tmp_path: Path) -> None:
    """Counted by tcpdump at the sensor and at the opposite port, and by the kernel."""
    spaces = layout(load_inventory(lab).name).namespaces
    watchers = []
    for number, (space, port) in enumerate(
        ((spaces.sensor, "rx0"), (spaces.generator, "tx1"), (spaces.generator, "tx0"))
    ):
        argv = [
            "tcpdump",
            "--immediate-mode",
            "-i",
            port,
            "-Q",
            "in",
            "-U",
            "-w",
            str(tmp_path / f"{number}.pcap"),
        ]
        watchers.append(
            subprocess.Popen(net.in_namespace(space, argv), stderr=subprocess.PIPE, text=True)
        )
    for watcher in watchers:
        assert watcher.stderr is not None
        assert "listening" in watcher.stderr.readline()
    with open_capture([corpus]) as capture:
        packets = sum(len(batch) for batch in capture.batches())
    for port in ("tx0", "tx1"):
        argv = ["tcpreplay", "-q", "--pps=500", "-i", port, str(corpus)]
        net.run(net.in_namespace(spaces.generator, argv))
    time.sleep(0.5)
    found = []
    for number, watcher in enumerate(watchers):
        watcher.terminate()
        watcher.wait(10)
        with open_capture([tmp_path / f"{number}.pcap"]) as capture:
            found.append(sum(len(batch) for batch in capture.batches()))
    assert found == [2 * packets, packets, packets]


@pytest.mark.skipif(not REAL, reason="PROBEBENCH_TREX=DIR names no TRex to try")
@pytest.mark.parametrize(
    ("driver", "options", "load"),
    [
        ("trex-stl", "", 'axis = "pps"\nvalues = [1000, 4000]'),
        ("trex-stl", "", 'axis = "bps"\nvalues = [2e6]'),
        ("trex-stl", 'push = "fresh"', 'axis = "pps"\nvalues = [1000, 4000]'),
        ("trex-stl", 'push = "fresh"\npush_gaps = "corpus"', 'axis = "flows"\nvalues = [200]'),
        ("trex-stl", 'push = "remote"', 'axis = "pps"\nvalues = [1000, 4000]'),
        ("trex-stl", 'push = "local"', 'axis = "bps"\nvalues = [2e6]'),
        ("trex-astf", "", 'axis = "flows"\nvalues = [40, 120]'),
        ("trex-astf", "", 'axis = "pps"\nvalues = [400, 1200]'),
    ],
)
def test_interactive_modes_on_a_real_trex(
    lab: Path, corpus: Path, tmp_path: Path, driver: str, options: str, load: str
) -> None:
    profile = tmp_path / "interactive.toml"
    profile.write_text(
        f'name = "i"\ngenerator = "{driver}"\n[generator_options]\n{options}\n[load]\n{load}\n'
        "duration = 4\n"
    )
    where = inventory(lab, tmp_path, Path(REAL or ""))
    run = tmp_path / "run"
    good("sweep", profile, "--lab", where, "--corpus", corpus, "-o", run)
    for trial in trials(run):
        assert trial["failure"] is None
        sent, ledger, detection = trial["sent"], trial["ledger"], trial["detection"]
        print(driver, options, trial["load"], sent, detection and detection["detected"], ledger)
        # TRex clears its counters while it runs: a packet or two are on the wire before.
        assert abs(sent["packets"] - sent["wire_packets"]) <= 4
        assert abs(ledger["unexplained"]) <= 4
        marks = {gate["code"] for gate in trial["gates"] if gate["severity"] == "invalid"}
        assert marks <= {"generator-limited"}  # on a busy machine
        if driver == "trex-astf":
            assert sent["flows"] == sum(sent["templates"].values())
            assert detection["scored_by"] == "template" and detection["unmapped"] == 0
            assert detection["due"] == detection["detected"] or ledger["kernel"]
            if trial["load"]["axis"] == "pps":
                assert sent["packets"] / 4 == pytest.approx(trial["load"]["value"], rel=0.05)
        elif not options:
            assert detection is None
            assert abs(sent["packets"] - trial["schedule"]["packets"]) <= 4 + 6
        else:
            assert sent["packets"] == trial["schedule"]["packets"]
            assert sent["bytes"] == trial["schedule"]["bytes"]
        if "fresh" in options:  # exactly: the addresses are ours
            assert trial["method"] == "fresh" and detection["scored_by"] == "flow"
            assert detection["due"] == 3 * trial["schedule"]["iterations"]
            assert detection["due"] == detection["detected"] or ledger["kernel"]
        elif options:
            assert trial["method"] == "loop"
            codes = {gate["code"] for gate in trial["gates"]}
            assert "reuse-too-soon" in codes or "flows-collapsed" in codes
    good("report", run)
