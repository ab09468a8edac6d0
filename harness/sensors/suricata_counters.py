"""Suricata's statistics, read into `harness.model.Counters`.

The names and what they hold (Suricata 7.0 and 8.0, src/source-af-packet.c, src/decode.c,
src/flow-manager.c):

| counter | holds |
| --- | --- |
| capture.kernel_packets | packets that reached the AF_PACKET sockets, drops included (the kernel's PACKET_STATISTICS adds tp_drops to tp_packets) |
| capture.kernel_drops | of those, dropped because the ring was full |
| decoder.pkts | packets the workers took from the ring |
| decoder.invalid | of those, not decodable (truncated, bad header) |
| flow.total | flows created |
| detect.alert | alerts |

The record that Suricata writes at shutdown is the only exact one.
"""  # noqa: E501

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness.model import Counters

__all__ = ["flatten", "last_record", "reconciles", "to_counters"]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a nested record under its dotted name; lists and texts are left out."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, value


def last_record(text: str) -> dict[str, Any] | None:
    """The `stats` object of the last whole stats line of an eve file's tail, or None.

    A first line cut in the middle (the tail begins anywhere) is skipped.
    """
    for line in reversed(text.splitlines()):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("event_type") == "stats":
            stats = record.get("stats")
            if isinstance(stats, dict):
                return stats
    return None


def _flows(raw: Mapping[str, float]) -> int:
    if "flow.total" in raw:
        return int(raw["flow.total"])
    return int(sum(raw.get(f"flow.{p}", 0) for p in ("tcp", "udp", "icmpv4", "icmpv6")))


def to_counters(stats: Mapping[str, Any], *, exact: bool) -> Counters:
    """One stats record (eve `stats`, or the answer to dump-counters) as Counters.

    An absent counter is 0: Suricata 8 leaves out those that never moved.
    """
    totals = {k: v for k, v in stats.items() if k != "threads"}
    raw = dict(flatten(totals))
    workers: dict[str, int] = {}
    for name, tree in (stats.get("threads") or {}).items():
        if isinstance(tree, Mapping) and "decoder" in tree and name.startswith(("W#", "RX#")):
            workers[name] = int(tree["decoder"].get("pkts", 0))
            raw.update(flatten(tree.get("capture", {}), f"threads.{name}.capture."))

    def count(name: str) -> int:
        return int(raw.get(name, 0))

    return Counters(
        received=count("capture.kernel_packets"),
        dropped=count("capture.kernel_drops"),
        decoded=count("decoder.pkts"),
        decoded_bytes=count("decoder.bytes"),
        invalid=count("decoder.invalid"),
        flows=_flows(raw),
        alerts=count("detect.alert"),
        workers=workers,
        raw=raw,
        exact=exact,
    )


def reconciles(counters: Counters) -> bool:
    """kernel_packets − kernel_drops = decoder.pkts: nothing is between the ring and the decoder."""
    if counters.received is None or counters.dropped is None or counters.decoded is None:
        return False
    return counters.received - counters.dropped == counters.decoded
