"""Inventories: the examples hold, and what is wrong is said with file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import InventoryError
from lab.inventory import load_inventory

EXAMPLES = Path(__file__).parents[2] / "lab"

GOOD = """
name = "x"
[hosts.a]
connection = "local"
[hosts.a.interfaces.eth1]
test = true
[generator]
host = "a"
interface = "eth1"
[sensor]
host = "a"
interface = "eth1"
rules = ["r.rules", "/abs.rules", "~/home.rules"]
"""


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("example-*.toml")), ids=lambda f: f.stem)
def test_the_examples_are_valid(file: Path) -> None:
    inventory = load_inventory(file)
    named = [(inventory.generator.host, name) for name in inventory.generator.interfaces]
    if inventory.sensor.interface is not None:  # of a closed appliance there is none
        named.append((inventory.sensor.host, inventory.sensor.interface))
    for host, interface in named:
        assert inventory.hosts[host].interfaces[interface].test
    assert {host.connection for host in inventory.hosts.values()} <= {"ssh", "local"}
    rules = [path.name for path in inventory.sensor.rules]
    assert rules == (["demo.rules"] if inventory.sensor.driver == "suricata" else [])


def test_there_are_examples() -> None:
    assert {f.stem for f in EXAMPLES.glob("example-*.toml")} >= {
        "example-two-hosts",
        "example-jump",
        "example-trex",
    }


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(GOOD.replace('"local"', '"ssh"\naddress = "h"\nidentity = "keys/k"'))
    inventory = load_inventory(file)
    rules = (tmp_path / "r.rules", Path("/abs.rules"), Path.home() / "home.rules")
    assert inventory.sensor.rules == rules
    assert inventory.hosts["a"].identity == tmp_path / "keys" / "k"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"local"', '"telnet"', "hosts.a.connection"),
        ('"local"', '"ssh"', "address"),
        ('"local"', '"netns"', "netns"),
        ("test = true", "tset = true", "hosts.a.interfaces.eth1.tset"),
        ('interface = "eth1"\n[sensor]', 'interface = "eth2"\n[sensor]', "eth2"),
        ('[sensor]\nhost = "a"', '[sensor]\nhost = "b"', "'b'"),
        ('name = "x"', "", "name"),
        ("[generator]", "[generator", "line"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    file = tmp_path / "lab.toml"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(InventoryError) as error:
        load_inventory(file)
    text = str(error.value)
    assert text.startswith(f"{file}: ") and words in text and "\n" not in text
    assert error.value.exit_status == 2


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="lab up"):
        load_inventory(tmp_path / "none.toml")
