"""Where the linter's knowledge of a sensor comes from."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.lint.sensor import SURICATA, load_sensor
from harness.lint.suricata_yaml import bytes_of, flatten, read_suricata_yaml

DEBIAN = Path("/etc/suricata/suricata.yaml")


@pytest.mark.skipif(
    not DEBIAN.exists() or shutil.which("suricata") is None, reason="needs suricata's own file"
)
def test_settings_are_those_that_suricata_reads() -> None:
    dumped = subprocess.run(
        ["suricata", "--dump-config", "-c", str(DEBIAN)], capture_output=True, text=True, check=True
    ).stdout
    expected = dict(line.split(" = ", 1) for line in dumped.splitlines() if " = " in line)
    ours = read_suricata_yaml(DEBIAN)
    wanted = [
        k
        for k, value in expected.items()
        if k.startswith(("flow", "vars.address-groups.HOME", "af-packet.", "defrag", "stream"))
        and value != "(null)"
        and not k.split(".")[-1].isdigit()
        and value not in [*k.split("."), "interface"]
    ]
    assert len(wanted) > 40
    assert {k: ours.get(k) for k in wanted} == {k: expected[k] for k in wanted}
    facts = load_sensor(str(DEBIAN))
    assert facts.timeouts == SURICATA.timeouts
    assert (facts.flow_limit, facts.hash_size) == (SURICATA.flow_limit, SURICATA.hash_size)
    assert facts.flow_limit == 453_438  # as Suricata's log has it
    assert facts.home == SURICATA.home


def test_our_own_template_is_read_too() -> None:
    values = flatten(files("harness.sensors").joinpath("suricata.yaml").read_text())
    assert values["flow.memcap"] == "512mb"
    assert values["af-packet.0.cluster-type"] == "cluster_flow"
    assert values["stream.reassembly.depth"] == "1mb"


def test_a_lab_inventory(tmp_path: Path) -> None:
    lab = tmp_path / "lab.toml"
    lab.write_text(
        'name = "x"\n[hosts.s]\nconnection = "local"\n[hosts.s.interfaces.rx0]\ntest = true\n'
        'mtu = 9000\n[generator]\nhost = "s"\ninterface = "rx0"\n[sensor]\nhost = "s"\n'
        'interface = "rx0"\nworkers = 3\nhome = ["10.1.0.0/16"]\nrules = ["a.rules"]\n'
        '[sensor.options]\n"set.flow.memcap" = "1gb"\n'
    )
    facts = load_sensor(str(lab))
    assert (facts.workers, facts.mtu, facts.home) == (3, 9000, ("10.1.0.0/16",))
    assert facts.rules == (tmp_path / "a.rules",)
    assert facts.flow_limit == (1 << 30) // 296 and facts.hash_size == 262144


def test_a_sensors_own_file(tmp_path: Path) -> None:
    own = tmp_path / "box.toml"
    own.write_text(
        'home = ["172.16.0.0/12"]\nworkers = 16\nbalancer = "rss-6d5a-512"\nrules = ["r.rules"]\n'
        "[timeouts]\ntcp_closed = 5\n"
    )
    facts = load_sensor(str(own))
    assert (facts.name, facts.workers, facts.balancer) == ("box", 16, "rss-6d5a-512")
    assert facts.timeouts.tcp_closed == 5 and facts.timeouts.tcp_established == 600
    assert facts.flow_limit is None and facts.rules == (tmp_path / "r.rules",)


def test_what_suricata_yaml_says_of_the_balancer(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"

    def said(text: str) -> tuple[str, int]:
        path.write_text("%YAML 1.1\n---\n" + text)
        facts = load_sensor(str(path))
        return facts.balancer, facts.workers

    capture = "af-packet:\n  - interface: eth0\n    threads: 8\n    cluster-type: "
    assert said(capture + "cluster_flow\n") == ("af_packet-hash", 8)
    assert said(capture + "cluster_qm\n") == ("rss-6d5a-128", 8)
    assert said("runmode: autofp\nautofp-scheduler: ippair\n") == ("autofp-ippair", 1)
    assert said("runmode: autofp\n") == ("autofp-hash", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('home = ["10.0.0.1/8"]', "home: '10.0.0.1/8' is not a network"),
        ('balancer = "x"', "balancer: unknown balancer 'x'"),
        ("speed = 3", "speed: no such key"),
        ("workers = 0", "workers"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    own = tmp_path / "box.toml"
    own.write_text(text + "\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load_sensor(str(own))
    assert "box.toml" in str(caught.value)


def test_what_is_neither_name_nor_file() -> None:
    with pytest.raises(ConfigError, match="neither the name suricata nor a file"):
        load_sensor("zeek")
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_sensor("none.yaml")
    with pytest.raises(ConfigError, match="not a size"):
        bytes_of("many", "flow.memcap")
    assert (bytes_of("32mb", ""), bytes_of("1 GiB", ""), bytes_of("100", "")) == (
        32 << 20,
        1 << 30,
        100,
    )
