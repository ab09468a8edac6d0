"""Shaping options: what tc is told, and what is refused before anything starts."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from lab import netns_tools
from lab.errors import MissingTool, OptionError
from lab.shaping import Shape


def test_no_option_shapes_nothing() -> None:
    """A path is left alone unless asked."""
    assert Shape().commands(1500) == []
    assert not Shape().active


def test_rate_alone_is_a_token_bucket_at_the_root() -> None:
    """The bucket holds 10 ms of the rate: 125,000 bytes at 100 Mb/s."""
    [command] = Shape(rate="100mbit").commands(1500)
    words = " ".join(command)
    assert words == "root handle 10: tbf rate 100mbit burst 125000 latency 200ms"


def test_a_bucket_holds_at_least_two_frames() -> None:
    """A bucket smaller than a frame would pass nothing."""
    [command] = Shape(rate="64kbit").commands(9000)
    assert int(command[command.index("burst") + 1]) == 2 * 9018


def test_impairments_and_rate_stack() -> None:
    """netem at the root, the rate below it, every impairment by its own name."""
    shape = Shape(rate="10mbit", delay="20ms", loss="0.5%", duplicate="0.1%", reorder="1%")
    netem, tbf = (" ".join(words) for words in shape.commands(1500))
    assert netem.startswith("root handle 1: netem delay 20ms loss 0.5% duplicate 0.1% reorder 1%")
    assert tbf.startswith("parent 1:1 handle 10: tbf rate 10mbit")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate": "10mbt"}, "--rate 10mbt"),
        ({"rate": "100bit"}, "at least 8kbit"),
        ({"rate": "-1mbit"}, "--rate -1mbit"),
        ({"delay": "20"}, "--delay 20"),
        ({"loss": "0.5"}, "--loss 0.5: use a percentage"),
        ({"loss": "101%"}, "--loss 101%"),
        ({"duplicate": "1%; reboot"}, "--duplicate"),
        ({"reorder": "1%"}, "add --delay"),
    ],
)
def test_refuses_unfit_values(options: dict[str, str], words: str) -> None:
    """The option and its value are named; the exit status is that of bad usage."""
    with pytest.raises(OptionError, match=words) as caught:
        Shape(**options)
    assert caught.value.exit_status == 2


def test_a_kernel_without_netem_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is asked for is tried; a missing discipline is MissingTool, exit status 3."""
    tried: list[str] = []

    def tc(argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        tried.append(" ".join(argv))
        missing = "netem" in argv
        return subprocess.CompletedProcess(argv, 2 if missing else 0, "", "unknown qdisc")

    monkeypatch.setattr(netns_tools, "run", tc)
    Shape(rate="1mbit").check("somewhere")
    assert not any("netem" in line for line in tried)
    with pytest.raises(MissingTool, match=r"no netem.*sch_netem") as caught:
        Shape(delay="1ms").check("somewhere")
    assert caught.value.exit_status == 3
