"""Our suricata.yaml: every placeholder filled, and what must hold in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.sensors.suricata_config import Paths, digest_of, read_options, render, ship_rules
from lab.fake import Call, FakeHost, Reply
from lab.inventory import SensorSpec

SPEC = SensorSpec(host="h", interface="rx0", home=("10.0.0.0/8", "fd00::/8"), workers=3)


def absent(call: Call) -> Reply:
    """A host that has none of our files yet."""
    return Reply(returncode=1 if call.argv[0] == "test" else 0)


def text(spec: SensorSpec = SPEC, live: bool = True) -> str:
    return render(FakeHost(absent), spec, read_options({}), Paths("/w"), ("/w/a.rules",), live)


def test_placeholders_are_filled() -> None:
    config = text()
    assert "@" not in config
    assert 'HOME_NET: "[10.0.0.0/8,fd00::/8]"' in config
    assert "threads: 3" in config and 'interface: "rx0"' in config
    assert 'filename: "/w/run/command.sock"' in config
    assert "classification.config: not on this host" in config


@pytest.mark.parametrize(
    "line",
    [
        "checksum-checks: yes", "cluster-type: cluster_flow", "tpacket-v3: yes", "defrag: yes",
        "midstream: no", "exception-policy: ignore", "randomize-chunk-size: no", "threads: yes",
    ],
)  # fmt: skip
def test_what_must_hold(line: str) -> None:
    assert line in text()


def test_the_reference_differs_only_in_the_socket() -> None:
    live, offline = text(live=True).splitlines(), text(live=False).splitlines()
    different = [(a, b) for a, b in zip(live, offline, strict=True) if a != b]
    assert different == [("  enabled: yes", "  enabled: no")]


@pytest.mark.parametrize(("ring", "block"), [(2048, 131072), (328, 131072), (64, 32768)])
def test_blocks_fit_the_ring(ring: int, block: int) -> None:
    assert f"block-size: {block}" in text(SPEC.model_copy(update={"ring_size": ring}))


@pytest.mark.parametrize(("ring", "pending"), [(8, 32), (64, 64), (2048, 1024)])
def test_small_rings_are_not_enlarged(ring: int, pending: int) -> None:
    """Suricata raises ring-size to max-pending-packets; measured on the mapped ring."""
    assert f"max-pending-packets: {pending}" in text(SPEC.model_copy(update={"ring_size": ring}))


def test_home_must_be_networks() -> None:
    with pytest.raises(ConfigError, match=r"sensor\.home: 'ten'"):
        text(SPEC.model_copy(update={"home": ("ten",)}))


def test_rules_travel_by_digest(tmp_path: Path) -> None:
    rules = tmp_path / "a.rules"
    rules.write_text("# one\n")
    host = FakeHost(absent)
    remote, digest = ship_rules(host, Paths("/w"), (rules,))
    assert host.files[remote[0]] == b"# one\n"
    assert digest == digest_of([b"# one\n"])
    rules.write_text("# two\n")
    again, other = ship_rules(host, Paths("/w"), (rules,))
    assert other != digest and again != remote
    with pytest.raises(ConfigError, match="no rule file given"):
        ship_rules(host, Paths("/w"), ())


def test_digests_do_not_run_together() -> None:
    assert digest_of([b"ab", b"c"]) != digest_of([b"a", b"bc"])
