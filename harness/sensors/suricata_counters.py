"""Suricata's statistics, read into `harness.model.Counters`, by one formula a capture mode.

`Counters.received` always means "reached the capture method, drops included". Suricata's own packet
counters do not all mean that:

| mode | packets | holds drops? | drops | source (7.0.10; 8.0.4 the same) |
| --- | --- | --- | --- | --- |
| af-packet | capture.kernel_packets | yes | capture.kernel_drops | source-af-packet.c, AFPDumpCounters: tp_packets, which the kernel gives with tp_drops in it |
| pcap | capture.kernel_packets | yes | capture.kernel_drops | source-pcap.c, PcapDumpCounters: ps_recv and ps_drop of libpcap, which on Linux are tp_packets and tp_drops (measured: 1,180,000 sent = 1,046,323 read + 133,677 dropped, and ps_recv was 1,180,000) |
| dpdk | capture.packets | yes | capture.rx_errors | source-dpdk.c, DPDKDumpCounters: worker 0 adds imissed + ierrors + rx_nombuf of the port to its own packets, and is the only one that has them |
| af-xdp | capture.afxdp_packets | no | capture.kernel_drops | source-af-xdp.c, AFXDPDumpCounters: descriptors taken from the ring; rx_dropped + rx_invalid_descs + rx_ring_full of XDP_STATISTICS |
| netmap | capture.kernel_packets | no | none | source-netmap.c, NetmapDumpCounters: its drops count packets that could not be sent on (inline), never lost ones; what a full ring loses shows in the NIC's counters |

Other counters used: `decoder.pkts` (taken from the ring), `decoder.invalid` (of those, not
decodable), `flow.total` (else the sum over protocols), `detect.alert`.

What each mode's last record is worth, once Suricata has ended: exact, but in mode pcap. That mode
reads libpcap's counters only while packets come, once a second, and not when it stops, so its
record is up to a second short; exact are the lines it logs at its end (`pcap_totals`).
"""  # noqa: E501

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.model import Counters
from harness.sensors.suricata_options import Capture

__all__ = [
    "BUSY_POLLING",
    "FORMULAS",
    "Formula",
    "agrees",
    "exact_pcap",
    "flatten",
    "last_record",
    "pcap_totals",
    "reconciles",
    "to_counters",
]


@dataclass(frozen=True, slots=True)
class Formula:
    """How a mode's counters become `received` and `dropped`.

    `packets` and `drops` name the counters (`drops` is None where the mode does not count what it
    lost), `includes` tells whether `packets` holds the drops, `interface_includes` whether the
    `pkts` of iface-stat and of the log line at shutdown does. `drops_exact` is False where the
    `drop` beside that `pkts` is that of one thread or late.
    """

    packets: str
    drops: str | None
    includes: bool
    interface_includes: bool
    drops_exact: bool


FORMULAS: dict[Capture, Formula] = {
    "af-packet": Formula("capture.kernel_packets", "capture.kernel_drops", True, True, True),
    "pcap": Formula("capture.kernel_packets", "capture.kernel_drops", True, False, False),
    "dpdk": Formula("capture.packets", "capture.rx_errors", True, True, True),
    "af-xdp": Formula("capture.afxdp_packets", "capture.kernel_drops", False, False, False),
    "netmap": Formula("capture.kernel_packets", None, False, False, False),
}


BUSY_POLLING: tuple[Capture, ...] = ("dpdk",)
"""Modes whose workers never sleep, and whose counters stand while no packet comes."""


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


def _threads(stats: Mapping[str, Any], raw: dict[str, float]) -> dict[str, int]:
    """Packets by the thread that decoded them; puts what else is known by thread into `raw`.

    In `workers` the threads `W#..` decode and analyse. In `autofp` the threads `RX#..` decode and
    the `W#..` analyse, of which Suricata counts flows but no packets.
    """
    decoded: dict[str, int] = {}
    for name, tree in (stats.get("threads") or {}).items():
        if not isinstance(tree, Mapping) or not name.startswith(("W#", "RX#")):
            continue
        # A worker that got nothing may have no such counter (null-values), and is a worker still.
        decoded[name] = int(tree.get("decoder", {}).get("pkts", 0))
        raw.update(flatten(tree.get("capture", {}), f"threads.{name}.capture."))
        flow = tree.get("flow")
        if isinstance(flow, Mapping):
            raw[f"threads.{name}.flow.total"] = _flows(dict(flatten(tree)))
    if any(name.startswith("RX#") for name in decoded):
        decoded = {name: count for name, count in decoded.items() if name.startswith("RX#")}
    return decoded


def to_counters(
    stats: Mapping[str, Any], *, exact: bool, capture: Capture = "af-packet"
) -> Counters:
    """One stats record (eve `stats`, or the answer to dump-counters) as Counters.

    An absent counter is 0: Suricata 8 leaves out those that never moved. In mode pcap the two
    capture counters are late: `received` is then the larger of what they and the decoder prove.
    """
    raw = dict(flatten({k: v for k, v in stats.items() if k != "threads"}))
    if capture in BUSY_POLLING:
        raw["probebench.busy_polling"] = 1.0
    workers = _threads(stats, raw)

    def count(name: str) -> int:
        return int(raw.get(name, 0))

    formula = FORMULAS[capture]
    dropped = None if formula.drops is None else count(formula.drops)
    received = count(formula.packets)
    if not formula.includes:
        received += dropped or 0
    if capture == "pcap":
        received = max(received, count("decoder.pkts") + (dropped or 0))
    return Counters(
        received=received,
        dropped=dropped,
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
    """received − dropped = decoded: nothing is between the ring and the decoder."""
    if counters.received is None or counters.decoded is None:
        return False
    return counters.received - (counters.dropped or 0) == counters.decoded


def agrees(counters: Counters, packets: int, capture: Capture) -> bool:
    """Whether counters and iface-stat's `pkts` tell of the same packets, with none in between."""
    if FORMULAS[capture].interface_includes:
        return reconciles(counters) and counters.received == packets
    return counters.decoded == packets


def pcap_totals(log: str, interface: str) -> tuple[int, int] | None:
    """(received, dropped) of the interface, summed over the lines that threads log at their end.

    The line: `rx0: pcap total:1180000 recv:1046323 drop:133677 (11.3%)` (source-pcap.c); its total
    is ps_recv. None where there is no such line.
    """
    form = rf"{re.escape(interface)}: pcap total:(\d+) recv:\d+ drop:(\d+)"
    found = re.findall(form, log)
    if not found:
        return None
    return sum(int(total) for total, _ in found), sum(int(drop) for _, drop in found)


def exact_pcap(counters: Counters, totals: tuple[int, int] | None) -> Counters:
    """The last record of mode pcap with the totals of the log; not exact where there are none."""
    if totals is None:
        return replace(counters, exact=False)
    return replace(counters, received=totals[0], dropped=totals[1])
