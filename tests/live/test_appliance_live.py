"""A closed appliance is swept: what it is inside, nobody asks; it has counters and sends alerts.

Inside it is a Suricata that the test runs. The harness sees its counters by SNMP, which a daemon
brings up to date twice a second, by a command, or over HTTP from a server in its namespace
(`exporter.py`), and its alerts as syslog or CEF over UDP, sent by util-linux's logger.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from suricata_traffic import RULES, write_capture
from sweeping import good, probebench, trials

from lab import virtual
from lab.inventory import load_inventory
from lab.virtual_layout import layout

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
from snmp_agent import BASE, SNMPD, Agent, snmpd

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(SNMPD is None, reason="needs snmpd (Debian: snmpd)"),
    pytest.mark.skipif(shutil.which("suricatasc") is None, reason="needs suricatasc"),
]

YAML = """\
%YAML 1.1
---
vars:
  address-groups:
    HOME_NET: "[10.0.0.0/8,fc00::/7]"
    EXTERNAL_NET: "!$HOME_NET"
default-log-dir: {work}
stats: {{enabled: yes, interval: 1}}
unix-command: {{enabled: yes, filename: {work}/command.socket}}
outputs:
  - fast: {{enabled: yes, filename: fast.log, append: yes}}
af-packet:
  - {{interface: rx0, cluster-id: 97, cluster-type: cluster_flow, use-mmap: yes, tpacket-v3: yes}}
app-layer:
  protocols:
    http: {{enabled: yes}}
    dns: {{udp: {{enabled: yes, detection-ports: {{dp: 53}}}}}}
"""
COUNTERS = {
    "received": "capture.kernel_packets",
    "dropped": "capture.kernel_drops",
    "decoded": "decoder.pkts",
    "alerts": "detect.alert",
}


WEB = 9117
TOKEN = "web-geheim"
# One line of fast.log as a CEF event.
TO_CEF = (
    r"s/.*\[\*\*\] \[1:([0-9]+):[0-9]+\] (.*) \[\*\*\].*\{([A-Za-z0-9-]+)\} "
    r"(.+):([0-9]+) -> (.+):([0-9]+)$"
    r"/CEF:0|Acme|Probe|1.0|\1|\2|5|proto=\3 src=\4 spt=\5 dst=\6 dpt=\7/"
)


@dataclass
class Appliance:
    """The running appliance."""

    lab: Path
    work: Path
    agent: Agent
    address: str
    syslog: tuple[str, int]
    cef: tuple[str, int]
    inside: tuple[str, ...]
    ending: threading.Event = field(default_factory=threading.Event)

    def counters(self) -> dict[str, int] | None:
        """Suricata's statistics table, by its own client."""
        argv = [*self.inside, "suricatasc", "-c", "dump-counters", f"{self.work}/command.socket"]
        said = subprocess.run(argv, capture_output=True, text=True, timeout=20).stdout
        try:
            tree = json.loads(said)["message"]
            return {
                name: int(tree[path.partition(".")[0]].get(path.partition(".")[2], 0))
                for name, path in COUNTERS.items()
            }
        except (ValueError, KeyError, TypeError):
            return None  # "stats not yet synchronized"

    def received(self) -> int:
        """Packets of its capture sockets until now."""
        argv = [*self.inside, "suricatasc", "-c", "iface-stat rx0", f"{self.work}/command.socket"]
        said = subprocess.run(argv, capture_output=True, text=True, timeout=20).stdout
        return int(json.loads(said)["message"]["pkts"])

    def publish(self) -> None:
        """What the appliance's own daemon does."""
        while not self.ending.wait(0.5):
            if found := self.counters():
                values = {n: ("counter", found[name]) for n, name in enumerate(COUNTERS, 1)}
                self.agent.set(values)

    def inventory(self, path: Path, sensor: str) -> Path:
        """The lab's generator, and a sensor of which only this is known."""
        text = self.lab.read_text()
        head = text[: text.index("[sensor]")]
        path.write_text(
            f'{head}[hosts.here]\nconnection = "local"\nworkdir = "{path.parent}/w"\n\n{sensor}'
        )
        return path


def _until(true: Any, what: str, patience: float = 40) -> None:
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def _listens(address: str) -> bool:
    try:
        socket.create_connection((address, WEB), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    name = f"appl{os.getpid()}"
    work = tmp_path_factory.mktemp("appliance")
    (work / "suricata.yaml").write_text(YAML.format(work=work))
    (work / "t.rules").write_text(RULES)
    with ExitStack() as stack:
        stack.callback(virtual.down, name)
        lab = virtual.up(name)
        inside = ("ip", "netns", "exec", layout(name).namespaces.sensor)
        address = str(load_inventory(lab).hosts["sensor"].address)
        agent = stack.enter_context(snmpd(work, inside, address, "lab-geheim"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            ours = probe.getsockname()[0]
        ports = []
        for _ in range(2):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((ours, 0))
                ports.append((ours, probe.getsockname()[1]))
        syslog, cef = ports
        box = Appliance(lab, work, agent, address, syslog, cef, inside)

        def start(*argv: str) -> subprocess.Popen[bytes]:
            with (work / "out.log").open("ab") as out:
                process = subprocess.Popen(
                    [*inside, *argv], stdout=out, stderr=out, start_new_session=True
                )
            stack.callback(process.wait, 20)
            stack.callback(os.killpg, process.pid, 15)
            return process

        start("suricata", "-c", f"{work}/suricata.yaml", "-S", f"{work}/t.rules", "--af-packet=rx0",
              "-l", str(work), "-k", "none")  # fmt: skip
        (work / "fast.log").touch()
        forward = (
            f"tail -n0 -F {work}/fast.log | logger -n {ours} -P {syslog[1]} -d --rfc5424 -t probe"
        )
        start("sh", "-c", forward)
        forward = (
            f"tail -n0 -F {work}/fast.log | sed -u -E '{TO_CEF}' | "
            f"logger -n {ours} -P {cef[1]} -d --rfc5424 -t probe"
        )
        start("sh", "-c", forward)
        _until(lambda: box.counters() is not None, (work / "out.log").read_text())
        exporter = Path(__file__).with_name("exporter.py")
        start(sys.executable, str(exporter), f"{work}/command.socket", address, str(WEB), TOKEN)
        _until(lambda: _listens(address), "the web interface does not listen")
        thread = threading.Thread(target=box.publish)
        thread.start()
        stack.callback(thread.join)
        stack.callback(box.ending.set)
        _until(lambda: "4 counter" in (work / "values").read_text(), "no counters were published")
        yield box


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.pcap"
    write_capture(path)
    return path


PROFILE = """\
name = "closed"
settle_timeout = 40
[load]
axis = "pps"
values = [3000]
duration = 2
[reference]
pps = 400
iterations = 3
"""


def by_snmp(box: Appliance) -> str:
    oids = "".join(f'{name} = {{ oid = "{BASE}.{n}" }}\n' for n, name in enumerate(COUNTERS, 1))
    return f"""\
[sensor]
driver = "snmp"
host = "here"
[sensor.options]
address = "{box.address}"
port = {box.agent.port}
community = {{ env = "PROBE_COMMUNITY" }}
received_includes_drops = true
refresh = 4.5
[sensor.options.counters]
{oids}
[sensor.options.intake]
listen = "{box.syslog[0]}"
port = {box.syslog[1]}
"""


def by_command(box: Appliance) -> str:
    """Here nobody says what was analysed; the figures are those of the capture alone."""
    return f"""\
[sensor]
driver = "command"
host = "sensor"
[sensor.options]
command = ["suricatasc", "-c", "iface-stat rx0", "{box.work}/command.socket"]
version_command = ["suricata", "-V"]
received_includes_drops = true
refresh = 1.5
[sensor.options.counters]
received = {{ path = "message.pkts" }}
dropped = {{ path = "message.drop" }}
[sensor.options.intake]
listen = "{box.syslog[0]}"
port = {box.syslog[1]}
"""


def by_prometheus(box: Appliance) -> str:
    """Scraped; its alerts are CEF."""
    metrics = "".join(
        f'{name} = {{ metric = "suricata_{path.replace(".", "_")}", absent = "zero" }}\n'
        for name, path in COUNTERS.items()
    )
    return f"""\
[sensor]
driver = "prometheus"
host = "here"
[sensor.options]
url = "http://{box.address}:{WEB}/metrics"
received_includes_drops = true
refresh = 4.5
workers = {{ metric = "suricata_worker_packets" }}
[sensor.options.counters]
{metrics}
[sensor.options.intake]
format = "cef"
listen = "{box.cef[0]}"
port = {box.cef[1]}
"""


def by_rest(box: Appliance) -> str:
    paths = "".join(
        f'{name} = {{ path = "{path}", absent = "zero" }}\n' for name, path in COUNTERS.items()
    )
    return f"""\
[sensor]
driver = "rest"
host = "here"
[sensor.options]
url = "http://{box.address}:{WEB}/api/counters"
version_path = "version"
token = {{ env = "PROBE_TOKEN" }}
received_includes_drops = true
refresh = 4.5
uptime = {{ path = "uptime" }}
[sensor.options.counters]
{paths}
[sensor.options.intake]
listen = "{box.syslog[0]}"
port = {box.syslog[1]}
"""


@pytest.mark.parametrize("sensor", [by_snmp, by_command, by_prometheus, by_rest])
def test_a_closed_appliance_is_swept(
    appliance: Appliance, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sensor: Any
) -> None:
    monkeypatch.setenv("PROBE_COMMUNITY", "lab-geheim")
    monkeypatch.setenv("PROBE_TOKEN", TOKEN)
    profile = tmp_path / "closed.toml"
    profile.write_text(PROFILE)
    lab = appliance.inventory(tmp_path / "lab.toml", sensor(appliance))
    run = tmp_path / "run"
    before = appliance.received()
    good("sweep", profile, "--lab", lab, "--corpus", corpus, "-o", run)
    info = json.loads((run / "run.json").read_text())
    assert len(info["reference"]["due"]) == 6
    assert info["extra"]["reference"] == {"source": "live", "iterations": 3}
    kept = json.loads((run / "reference.json").read_text())
    assert info["reference"]["due"] == kept["due"]
    everything = "".join(p.read_text() for p in run.rglob("*") if p.suffix in (".json", ".jsonl"))
    named = {by_snmp: "PROBE_COMMUNITY", by_rest: "PROBE_TOKEN"}.get(sensor)
    assert named is None or named in everything
    assert "geheim" not in everything

    (trial,) = trials(run)
    assert trial["failure"] is None
    found, ledger = trial["detection"], trial["ledger"]
    assert trial["state"] == "observed" and trial["settled"] is True
    assert trial["after"]["received"] == trial["sent"]["packets"]
    assert (ledger["before_nic"], ledger["nic"], ledger["kernel"]) == (0, None, 0)
    assert ledger["unexplained"] == 0 and trial["nic"] is None
    known = sensor is not by_command
    assert (trial["loss_of"], trial["drop_rate"]) == ("analysed" if known else "capture", 0)
    assert ledger["analysed"] == (trial["sent"]["packets"] if known else None)
    assert found["due"] == found["detected"] == 6 * trial["schedule"]["iterations"]
    assert found["unexpected"] == found["unmapped"] == 0
    if sensor is by_prometheus:
        workers = trial["after"]["workers"]
        assert len(workers) >= 1 and sum(workers.values()) == trial["sent"]["packets"]
    if sensor in (by_prometheus, by_rest):
        assert info["sensor"].split()[1].startswith(("7.", "8."))
    raw = trial["after"]["raw"]
    assert raw["intake.alerts"] == found["raised"] and raw["intake.dropped"] == 0
    assert trial["after"]["alerts"] == (found["raised"] if known else None)
    assert not [gate for gate in trial["gates"] if gate["severity"] == "invalid"]
    assert trial["schedule"]["first_iteration"] == 3  # the reference's are not used again

    checks = json.loads((run / "preflight.json").read_text())["checks"]
    assert "background-packets" not in [f["code"] for f in checks[-1]["findings"]]

    # The appliance itself saw the reference's packets and the trial's, and no others.
    packets = 3 * info["corpus"]["packets"] + trial["sent"]["packets"]
    assert appliance.received() - before == packets
    if not known:  # every table and figure without the sensor's own count of what it analysed
        good("report", run)
        page = (run / "report.html").read_text()
        assert "not observable" in page and "capture ring size" not in page
        assert "alerts on all of 3 iterations at 400 packets/s" in page
        assert "Capture loss (packets lost before or in the capture" in page


AUTO = """\
name = "found"
settle_timeout = 40
[load]
duration = 1
[load.auto]
points = 2
lowest = 0.5
highest = 1.0
probe = 4000
seconds = 1
refine = 0
[reference]
source = "none"
"""


def test_loads_are_found_by_capture_loss(
    appliance: Appliance, corpus: Path, tmp_path: Path
) -> None:
    """Nobody says what was analysed; what the capture took is enough to look for loads."""
    profile = tmp_path / "found.toml"
    profile.write_text(AUTO)
    lab = appliance.inventory(tmp_path / "lab.toml", by_command(appliance))
    run = tmp_path / "run"
    good("sweep", profile, "--lab", lab, "--corpus", corpus, "-o", run)
    info = json.loads((run / "run.json").read_text())
    assert any("the sensor's capture took" in note for note in info["notes"])
    done = trials(run)
    assert [t["phase"] for t in done[:3]] == ["calibration", "sweep", "sweep"]
    assert tuple(info["loads"]) == tuple(t["load"]["value"] for t in done[1:])
    for trial in done:
        assert trial["failure"] is None and trial["loss_of"] == "capture"
        # Oracle: packets that its capture did not hand on, of those that the generator sent.
        counters = trial["after"]
        taken = counters["received"] - counters["dropped"]
        assert trial["drop_rate"] == pytest.approx(1 - taken / trial["sent"]["packets"])


def test_loads_are_not_looked_for_where_nothing_tells_a_loss(
    appliance: Appliance, corpus: Path, tmp_path: Path
) -> None:
    profile = tmp_path / "found.toml"
    profile.write_text(AUTO.replace('"none"', '"live"'))
    sensor = by_command(appliance)
    sensor = sensor.replace("received = {", "alerts = {").replace("dropped = {", "flows = {")
    lab = appliance.inventory(tmp_path / "lab.toml", sensor)
    before = appliance.received()
    outcome = probebench("sweep", profile, "--lab", lab, "--corpus", corpus, "-o", tmp_path / "run")
    assert outcome.status == 2
    assert 'load.values = "auto" needs a loss rate' in outcome.complaint
    assert appliance.received() == before, "something was sent"
