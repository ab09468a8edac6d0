"""Names of virtual labs: everything follows from the lab's name, and fits."""

from __future__ import annotations

import os
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import netns_tools, virtual
from lab.errors import MissingTool, OptionError
from lab.inventory import load_inventory
from lab.virtual_files import State, read_state, write_inventory, write_state
from lab.virtual_layout import Layout, Options, layout

fit = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?", fullmatch=True)


@given(name=fit, other=fit)
def test_interface_names_fit_and_differ(name: str, other: str) -> None:
    """At most 15 characters, different for the two ends and for different labs."""
    ours, theirs = layout(name).management, layout(other).management
    assert all(len(interface) <= 15 for interface in ours)
    assert len(set(ours)) == 2
    if name != other:
        assert not set(ours) & set(theirs)


@pytest.mark.parametrize("name", ["", "Lab", "a_b", "-a", "a-", "a/b", "..", "x" * 25, "a b"])
def test_unfit_names_are_refused(name: str) -> None:
    """A name becomes file, namespace and interface names; nothing else gets through."""
    with pytest.raises(OptionError, match="lab name"):
        layout(name)


def test_finds_labs_by_any_trace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A namespace is enough, a state directory is enough, other people's names are not ours."""
    (tmp_path / "filed").mkdir()
    (tmp_path / ".lock").touch()
    there = {"pb-half-built-srv", "pb-x-other", "vpn"}
    monkeypatch.setattr(virtual, "RUN_DIR", tmp_path)
    monkeypatch.setattr(netns_tools, "namespaces", lambda: there)
    assert virtual.names() == ["filed", "half-built"]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A lab whose files are in a temporary directory."""
    monkeypatch.setattr(Layout, "directory", property(lambda self: tmp_path))
    return Layout("t")


def test_the_inventory_written_is_the_one_read(lab: Layout) -> None:
    """lab.toml passes the checks of lab/inventory.py, test interfaces and sensor size included."""
    subnets = (IPv4Network("172.31.224.0/30"), IPv4Network("172.31.224.4/30"))
    write_inventory(lab, State(Options(mtu=9000, workers=3, ring_size=64), subnets))
    read = load_inventory(lab.inventory)
    assert read.hosts["generator"].address == "172.31.224.2"
    assert read.hosts["sensor"].address == "172.31.224.6"
    assert read.hosts["sensor"].interfaces["rx0"].test
    assert read.hosts["generator"].interfaces["tx0"].mtu == 9000
    assert (read.sensor.workers, read.sensor.ring_size) == (3, 64)
    assert [path.name for path in read.sensor.rules] == ["demo.rules", "ballast.rules"]


def test_state_survives_a_round_trip_and_not_a_torn_file(lab: Layout) -> None:
    """What `up` wrote is read back whole; anything else is no lab."""
    subnets = (IPv4Network("172.31.224.0/30"), IPv4Network("172.31.224.4/30"))
    state = State(Options(workers=2), subnets)
    write_state(lab, state)
    assert read_state(lab) == state
    whole = lab.state.read_text()
    for torn in (whole[: len(whole) // 2], "[]", whole.replace('"version": 2', '"version": 99')):
        lab.state.write_text(torn)
        assert read_state(lab) is None


def test_without_root_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Namespaces need root: the message says what to do."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingTool, match="needs root; run it with sudo"):
        virtual.up("t")


def test_missing_tools_are_named_with_their_packages() -> None:
    """Every missing program and every package, in one line."""
    with pytest.raises(MissingTool, match="needs no-such-a, no-such-b; run `apt install"):
        netns_tools.require_tools("this", ["sh", "no-such-a", "no-such-b"])
