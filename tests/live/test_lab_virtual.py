"""The virtual lab on a real kernel: built, quiet, repaired, and gone without a trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from typer.testing import CliRunner

from harness.cli.lab import app
from lab import netns_tools as net
from lab import virtual
from lab.errors import LabError, OptionError
from lab.inventory import load_inventory
from lab.virtual_layout import layout

pytestmark = pytest.mark.live


@pytest.fixture
def name() -> Iterator[str]:
    """A lab's name; whatever a test leaves of it is taken away."""
    name = f"own{os.getpid()}"
    yield name
    virtual.down(name)


def _traces(name: str) -> list[str]:
    """Everything of a lab that is still on the machine, found by means of our own."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    found = [line for line in listed.stdout.splitlines() if name in line]
    found += [link for link in os.listdir("/sys/class/net") if name in link]  # noqa: PTH208
    for pid in (entry for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        command = net.process_command(int(pid.name))
        if f"/probebench/{name}/" in command:
            found.append(command)
    places = (Path("/run/probebench"), Path("/etc/netns"), Path("/dev/shm"), Path("/run/netns"))
    found += [str(path) for place in places for path in place.glob(f"*{name}*")]
    return found


def _ssh(inventory: Path, host: str, command: str) -> str:
    spec = load_inventory(inventory).hosts[host]
    client = paramiko.SSHClient()
    client.load_host_keys(str(spec.known_hosts))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(
        str(spec.address), username=spec.user, key_filename=str(spec.identity),
        allow_agent=False, look_for_keys=False, timeout=5,
    )  # fmt: skip
    try:
        return client.exec_command(command, timeout=5)[1].read().decode()
    finally:
        client.close()


def test_up_is_a_lab_that_ssh_gets_into(live_lab: Path, lab_name: str) -> None:
    """Host keys verified by the known_hosts written; each host sees its own interfaces only."""
    for host, interface in (("generator", "tx0"), ("sensor", "rx0")):
        seen = _ssh(live_lab, host, "ls /sys/class/net").split()
        assert sorted(seen) == sorted(["lo", "mg0", interface])
        assert _ssh(live_lab, host, "id -u").strip() == "0"
    assert virtual.problems(lab_name) == []


def test_offloads_are_off_and_the_mtu_is_set(live_lab: Path, lab_name: str) -> None:
    """What is sent is what arrives: nothing merged, split or half-finished."""
    spaces = layout(lab_name).namespaces
    for space, interface in ((spaces.generator, "tx0"), (spaces.sensor, "rx0")):
        shown = net.run(["ip", "netns", "exec", space, "ethtool", "-k", interface]).stdout
        for feature in ("tcp-segmentation-offload", "generic-receive-offload", "tx-checksumming"):
            assert f"{feature}: off" in shown
        [link] = net.ip_json("link", "show", interface, namespace=space)
        assert link["mtu"] == 1500
        assert "NOARP" in link["flags"]


def test_links_are_quiet(live_lab: Path, lab_name: str) -> None:
    """Not one packet in two seconds, on either end of the test link and of the recording path.

    A recording just before leaves neighbours to be confirmed (5 s, `delay_first_probe_time`) on its
    path, so that one may take a few seconds to fall silent; the test link may not.
    """

    def packets() -> dict[str, int]:
        return {
            link.name: link.rx_packets + link.tx_packets
            for host in virtual.status(lab_name).hosts
            for link in host.interfaces
            if link.name != "mg0"
        }

    for _ in range(8):
        before = packets()
        time.sleep(2)
        after = packets()
        assert len(before) == 4
        assert {n: after[n] for n in ("tx0", "rx0")} == {n: before[n] for n in ("tx0", "rx0")}
        if after == before:
            return
    pytest.fail(f"never silent: {before} then {after}")


def test_up_again_changes_nothing(live_lab: Path, lab_name: str) -> None:
    """Same processes, same keys, same inventory: an edited one too."""
    before = virtual.status(lab_name)
    live_lab.write_text(live_lab.read_text() + "# a note\n")
    assert virtual.up(lab_name) == live_lab
    assert [host.sshd for host in virtual.status(lab_name).hosts] == [h.sshd for h in before.hosts]
    assert live_lab.read_text().endswith("# a note\n")


def test_up_with_another_sensor_size_rewrites_the_inventory_only(
    live_lab: Path, lab_name: str
) -> None:
    """The command line keeps what is not given."""
    before = virtual.status(lab_name)
    result = CliRunner().invoke(app, ["up", "--name", lab_name, "--workers", "2"])
    assert result.exit_code == 0, result.output
    again = CliRunner().invoke(app, ["up", "--name", lab_name, "--ring-size", "512"])
    assert again.output.strip() == str(live_lab)
    sensor = load_inventory(live_lab).sensor
    assert (sensor.workers, sensor.ring_size) == (2, 512)
    assert [host.sshd for host in virtual.status(lab_name).hosts] == [h.sshd for h in before.hosts]


def test_status_as_json(live_lab: Path, lab_name: str) -> None:
    """Hosts, interfaces with counters, processes."""
    result = CliRunner().invoke(app, ["status", "--name", lab_name, "--json"])
    assert result.exit_code == 0
    data = json.loads(result.output)
    assert data["state"] == "up"
    assert [host["role"] for host in data["hosts"]] == ["generator", "sensor", "client", "server"]
    for host in data["hosts"][:2]:
        assert host["sshd"] in [process["pid"] for process in host["processes"]]
        assert {"rx_packets", "tx_packets", "rx_dropped"} <= set(host["interfaces"][0])


def test_labs_coexist_and_down_leaves_no_trace(live_lab: Path, lab_name: str, name: str) -> None:
    """A second lab has subnets of its own; taking it away does not touch the first."""
    second = load_inventory(virtual.up(name))
    first = load_inventory(live_lab)
    addresses = {host.address for lab in (first, second) for host in lab.hosts.values()}
    assert len(addresses) == 4
    straggler = subprocess.Popen(  # as a test that forgot its process
        ["ip", "netns", "exec", layout(name).namespaces.client, "sleep", "600"]
    )
    assert virtual.down(name)
    assert straggler.wait(timeout=5) == -signal.SIGTERM
    assert _traces(name) == []
    assert not virtual.down(name)
    assert virtual.problems(lab_name) == []


def test_a_killed_sshd_comes_back(name: str) -> None:
    """Only the server is started again; keys and addresses stay as the inventory says."""
    inventory = virtual.up(name)
    before = inventory.read_text()
    pid = virtual.status(name).hosts[0].sshd
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    assert virtual.problems(name) == ["sshd of the generator does not run"]
    virtual.up(name)
    assert inventory.read_text() == before
    assert _ssh(inventory, "generator", "echo in").strip() == "in"


@pytest.mark.parametrize(
    "damage", ["test link", "management link", "namespace", "state", "torn", "all but sshd"]
)
def test_damage_is_repaired_or_removed(name: str, damage: str) -> None:
    """Whatever is missing, `up` makes the lab whole and `down` takes all of it away."""
    inventory = virtual.up(name)
    lab = layout(name)

    def break_it() -> None:
        if damage == "test link":
            net.delete_link("rx0", lab.namespaces.sensor)
        elif damage == "management link":
            net.delete_link(lab.management[0])
        elif damage == "namespace":  # its processes live on in a namespace without a name
            net.run(["ip", "netns", "delete", lab.namespaces.generator])
        elif damage == "all but sshd":
            net.run(["ip", "netns", "delete", lab.namespaces.sensor])
            shutil.rmtree(lab.directory)
        elif damage == "state":
            lab.state.unlink()
        else:
            lab.state.write_text(lab.state.read_text()[:40])

    break_it()
    assert virtual.problems(name) != []
    virtual.up(name)
    assert virtual.problems(name) == []
    assert _ssh(inventory, "sensor", "echo in").strip() == "in"
    break_it()
    assert virtual.down(name)
    assert _traces(name) == []


@pytest.mark.parametrize("step", ["netns add", "type veth", "ethtool -k", "sshd -f", "addr add"])
def test_a_build_killed_at_any_point_goes_away(name: str, step: str) -> None:
    """SIGKILL in the middle of `up`: `down` finds the half-built lab, and `up` builds it whole."""
    script = f"""
import os, signal
from lab import netns_tools as net
from lab import virtual, virtual_links, sshd
real = net.run
def run(argv, **options):
    done = real(argv, **options)
    if {step!r} in " ".join(argv):
        os.kill(os.getpid(), signal.SIGKILL)
    return done
net.run = sshd.run = run
virtual.up({name!r})
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False, cwd=Path.cwd())
    assert killed.returncode == -signal.SIGKILL
    assert name in virtual.names()
    assert virtual.down(name)
    assert _traces(name) == []


def test_a_failed_build_leaves_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the middle of `up` is one line, and what was built is gone."""

    def fail(*_: object) -> None:
        raise LabError("the test link is not to be")

    monkeypatch.setattr(virtual, "test_link", fail)
    with pytest.raises(LabError, match="not to be"):
        virtual.up(name)
    assert _traces(name) == []


def test_a_directory_of_ones_own(name: str, tmp_path: Path) -> None:
    """--dir holds the state; one that holds something else is refused and left alone."""
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").touch()
    with pytest.raises(OptionError, match="not empty"):
        virtual.up(name, directory=full)
    with pytest.raises(OptionError, match="sshd's configuration"):
        virtual.up(name, directory=tmp_path / "with blank")
    assert list(full.iterdir()) == [full / "thesis.tex"]
    own = tmp_path / "own"
    assert virtual.up(name, directory=own) == own / "lab.toml"
    assert virtual.up(name) == own / "lab.toml"
    assert virtual.down(name)
    assert not own.exists()
    assert _traces(name) == []


def test_status_of_no_lab() -> None:
    """Absent, exit status 1, and what to do."""
    result = CliRunner().invoke(app, ["status", "--name", "nosuchlab"])
    assert result.exit_code == 1
    assert "absent" in result.output
    assert "probebench lab up --name nosuchlab" in result.output
