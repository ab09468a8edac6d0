"""Shaping a path on purpose with tc: a rate (tbf), and impairments (netem).

Both ends are shaped alike, so that each direction has the rate and the impairments that were asked
and the round-trip time is twice the delay. netem draws its own random numbers: what it does is
recorded in the capture, not reproducible from a seed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab import netns_tools as net
from lab.errors import MissingTool, OptionError

__all__ = ["Shape"]

_RATE_UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_TIME_UNITS = {"us": 1, "ms": 10**3, "s": 10**6}


@dataclass(frozen=True, slots=True)
class Shape:
    """What each direction of a path does to packets; None means nothing.

    `rate` as "100mbit", `delay` as "20ms"; `loss`, `duplicate` and `reorder` are percentages of the
    packets as "0.5%". Raises OptionError for a value that tc would not take as it is meant.
    """

    rate: str | None = None
    delay: str | None = None
    loss: str | None = None
    duplicate: str | None = None
    reorder: str | None = None

    def __post_init__(self) -> None:
        """Check every value before anything is built with it."""
        if self.rate is not None and self.rate_bps < 8_000:
            raise OptionError(f"--rate {self.rate}: at least 8kbit is needed to send a frame")
        if self.delay is not None:
            _scaled("--delay", self.delay, _TIME_UNITS, "20ms")
        for option in ("loss", "duplicate", "reorder"):
            value = getattr(self, option)
            if value is not None and not _is_percentage(value):
                raise OptionError(f"--{option} {value}: use a percentage from 0% to 100%, as 0.5%")
        if self.reorder is not None and self.delay is None:
            raise OptionError(
                "--reorder: netem reorders by letting packets overtake delayed ones; add --delay"
            )

    @property
    def rate_bps(self) -> float:
        """The rate in bits per second; 0 when there is none."""
        return _scaled("--rate", self.rate, _RATE_UNITS, "100mbit") if self.rate else 0.0

    @property
    def impairs(self) -> bool:
        """True when netem is needed."""
        return any((self.delay, self.loss, self.duplicate, self.reorder))

    @property
    def active(self) -> bool:
        """True when anything is shaped at all."""
        return self.impairs or self.rate is not None

    def check(self, namespace: str) -> None:
        """Try the queueing disciplines on a namespace's loopback. Raises MissingTool."""
        for needed, kind, words in (
            (self.impairs, "netem", ["delay", "1ms"]),
            (self.rate is not None, "tbf", ["rate", "100mbit", "burst", "32k", "latency", "50ms"]),
        ):
            if not needed:
                continue
            where = ["tc", "-n", namespace, "qdisc"]
            done = net.run([*where, "add", "dev", "lo", "root", kind, *words], check=False)
            if done.returncode != 0:
                options = (
                    "--rate needs"
                    if kind == "tbf"
                    else ("--delay, --loss, --duplicate and --reorder need")
                )
                raise MissingTool(
                    f"this kernel has no {kind} queueing discipline, which {options}; load the "
                    f"module sch_{kind} (on some systems: install linux-modules-extra), or leave "
                    "these options out"
                )
            net.run([*where, "delete", "dev", "lo", "root"])

    def commands(self, mtu: int) -> list[list[str]]:
        """Arguments of `tc qdisc add dev <interface>`, in order: netem at the root, then tbf."""
        done: list[list[str]] = []
        place = ["root"]
        if self.impairs:
            words = ["netem"]
            for option in ("delay", "loss", "duplicate", "reorder"):
                value = getattr(self, option)
                words += [] if value is None else [option, value]
            done.append([*place, "handle", "1:", *words, "limit", "100000"])
            place = ["parent", "1:1"]
        if self.rate is not None:
            burst = max(int(self.rate_bps / 8 * 0.010), 2 * (mtu + 18))  # 10 ms of the rate
            bucket = ["rate", self.rate, "burst", str(burst), "latency", "200ms"]
            done.append([*place, "handle", "10:", "tbf", *bucket])
        return done

    def apply(self, namespace: str, interface: str, mtu: int) -> None:
        """Shape what leaves an interface. Raises LabError with tc's words."""
        self.clear(namespace, interface)
        for command in self.commands(mtu):
            net.run(["tc", "-n", namespace, "qdisc", "add", "dev", interface, *command])

    @staticmethod
    def clear(namespace: str, interface: str) -> None:
        """Take all shaping from an interface; nothing happens when there is none."""
        net.run(["tc", "-n", namespace, "qdisc", "delete", "dev", interface, "root"], check=False)


def _scaled(option: str, text: str | None, units: dict[str, int], example: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]+)", text or "")
    if match is None or match[2] not in units:
        raise OptionError(
            f"{option} {text}: use a number and one of {', '.join(units)}, as {example}"
        )
    return float(match[1]) * units[match[2]]


def _is_percentage(text: str) -> bool:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    return match is not None and float(match[1]) <= 100
