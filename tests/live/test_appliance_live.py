"""A closed appliance is swept: what it is inside, nobody asks; it has counters and sends alerts.

Inside it is a Suricata that the test runs. The harness sees its counters by SNMP, which a daemon
brings up to date twice a second, or by a command, and its alerts as syslog over UDP, sent by
util-linux's logger.
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
from sweeping import good, trials

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


@dataclass
class Appliance:
    """The running appliance."""

    lab: Path
    work: Path
    agent: Agent
    address: str
    syslog: tuple[str, int]
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
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((ours, 0))
            syslog = (ours, probe.getsockname()[1])
        box = Appliance(lab, work, agent, address, syslog, inside)

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
        _until(lambda: box.counters() is not None, (work / "out.log").read_text())
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


@pytest.mark.parametrize("sensor", [by_snmp, by_command])
def test_a_closed_appliance_is_swept(
    appliance: Appliance, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sensor: Any
) -> None:
    monkeypatch.setenv("PROBE_COMMUNITY", "lab-geheim")
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
    assert "PROBE_COMMUNITY" in everything or sensor is by_command
    assert "geheim" not in everything

    (trial,) = trials(run)
    assert trial["failure"] is None
    found, ledger = trial["detection"], trial["ledger"]
    assert trial["state"] == "observed" and trial["settled"] is True
    assert trial["after"]["received"] == trial["sent"]["packets"]
    assert (ledger["before_nic"], ledger["nic"], ledger["kernel"]) == (None, None, 0)
    assert ledger["unexplained"] == 0 and trial["nic"] is None
    known = sensor is by_snmp
    assert ledger["analysed"] == (trial["sent"]["packets"] if known else None)
    assert found["due"] == found["detected"] == 6 * trial["schedule"]["iterations"]
    assert found["unexpected"] == found["unmapped"] == 0
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
