"""What ethtool prints, as values. Every function takes whole output; None: it does not say.

The forms are those of ethtool 3.16 to 6.x, by ioctl and by netlink ("n/a" for what a driver does
not have), and of its drivers: what a driver cannot tell is an error text in the middle of the rest.
"""

from __future__ import annotations

import re

from lab.preflight.facts import Channels, Rings, Rss

__all__ = ["channels", "driver", "features", "pause", "rings", "rss"]


def features(text: str) -> dict[str, bool] | None:
    """`ethtool -k`: long names to on or off; nested features are flat here."""
    found = re.findall(r"^\s*([\w-]+): (on|off)\b", text, re.MULTILINE)
    return {name: value == "on" for name, value in found} or None


def driver(text: str) -> dict[str, str]:
    """`ethtool -i`: driver, version, firmware-version, bus-info; empty values are left out."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs if value.strip()}


def _sections(text: str) -> tuple[dict[str, int], dict[str, int]]:
    """The numbers under "Pre-set maximums:" and "Current hardware settings:"."""
    most, _, now = text.partition("Current hardware settings:")

    def numbers(part: str) -> dict[str, int]:
        found = re.findall(r"^([\w ]+):\s+(\d+)\s*$", part, re.MULTILINE)
        return {name: int(value) for name, value in found}

    return numbers(most), numbers(now)


def rings(text: str) -> Rings | None:
    """`ethtool -g`."""
    most, now = _sections(text)
    if not most and not now:
        return None
    return Rings(now.get("RX"), most.get("RX"), now.get("TX"), most.get("TX"))


def channels(text: str) -> Channels | None:
    """`ethtool -l`: a queue for both directions ("Combined") receives too."""
    most, now = _sections(text)
    if not now:
        return None

    def receive(part: dict[str, int]) -> int:
        return part.get("RX", 0) + part.get("Combined", 0)

    return Channels(receive(now), receive(most)) if receive(now) else None


def rss(text: str) -> Rss | None:
    """`ethtool -x`: None where there is no receive side scaling to tell of."""
    head = re.search(r"indirection table for \S+ with (\d+) RX ring", text)
    if head is None:
        return None
    rows = re.findall(r"^\s*\d+:((?:\s+\d+)+)\s*$", text, re.MULTILINE)
    key = re.search(r"^RSS hash key:\s*\n((?:[0-9a-f]{2}:)+[0-9a-f]{2})\s*$", text, re.MULTILINE)
    on = re.findall(r"^\s+(toeplitz|xor|crc32): on", text, re.MULTILINE)
    return Rss(
        queues=int(head[1]),
        table=tuple(int(word) for row in rows for word in row.split()),
        key=None if key is None else bytes.fromhex(key[1].replace(":", "")),
        function=on[0] if on else None,
        symmetric_xor=bool(re.search(r"^\s+symmetric-(?:or-)?xor: on", text, re.MULTILINE)),
    )


def pause(text: str) -> tuple[bool, bool] | None:
    """`ethtool -a`: whether pause frames are (obeyed, sent)."""
    found = dict(re.findall(r"^(RX|TX):\s+(on|off)\b", text, re.MULTILINE))
    if "RX" not in found or "TX" not in found:
        return None
    return found["RX"] == "on", found["TX"] == "on"
