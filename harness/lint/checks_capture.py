"""Checks on what the capture holds: whole flows, sound packets, representative traffic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.lint.check import Finding, Severity, check, share
from harness.lint.subject import Subject
from pcap_tools.pools import parse_networks

__all__: list[str] = []

_MANY = 0.01  # of flows or packets: from here on it is no longer an accident
_LOST = 1e-3  # of bytes
_ENCRYPTED = 0.5
_TUNNELLED = 0.1
_OUTSIDE = 0.5

_UDP = 17
_TUNNEL_PROTOCOLS = (4, 41, 47, 50, 51)  # IP in IP, IPv6 in IPv4, GRE, ESP, AH
_TUNNEL_PORTS = (2152, 3544, 4500, 4789, 6081, 8472)  # GTP-U, Teredo, ESP in UDP, VXLAN, Geneve

Flows = npt.NDArray[np.bool_]


def _of(subject: Subject, *reasons: str) -> Flows:
    return np.asarray(np.isin(subject.reasons, reasons))


def _portion(subject: Subject, flows: Flows) -> dict[str, float]:
    packets = int(subject.packets[flows].sum())
    return {
        "flows": int(flows.sum()),
        "flow_share": share(int(flows.sum()), len(subject.table)),
        "packets": packets,
        "packet_share": share(packets, subject.table.packets),
    }


def _grave(numbers: dict[str, float]) -> Severity:
    return "error" if max(numbers["flow_share"], numbers["packet_share"]) >= _MANY else "warning"


def _counted(numbers: dict[str, float]) -> str:
    return (
        f"{numbers['flows']:,} flows ({100 * numbers['flow_share']:.1f} %) with "
        f"{100 * numbers['packet_share']:.1f} % of the packets"
    )


@check(
    "half-flows",
    "Flows of which the capture misses the beginning or one side",
    "Strip them: `probebench corpus clean`.",
)
def _half_flows(subject: Subject) -> Finding | None:
    flows = _of(subject, "midstream", "unanswered", "edge")
    if not flows.any():
        return None
    numbers = _portion(subject, flows)
    return Finding(
        _grave(numbers),
        f"{_counted(numbers)} began before the capture or lack one side: a sensor that ignores "
        "midstream flows does not analyse them, and loses nothing",
        numbers,
    )


@check(
    "never-ending-flows",
    "Connections without an end",
    "Strip them: `probebench corpus clean`.",
)
def _never_ending_flows(subject: Subject) -> Finding | None:
    flows = _of(subject, "unterminated")
    if not flows.any():
        return None
    timeout = subject.sensor.timeouts.tcp_established
    numbers = {**_portion(subject, flows), "timeout_s": timeout}
    return Finding(
        _grave(numbers),
        f"{_counted(numbers)} never end: each copy stays in the sensor's flow table for "
        f"{timeout:g} s, until memory runs out and flows are evicted at random",
        numbers,
    )


@check(
    "capture-gaps",
    "Bytes that were sent but not captured",
    "Strip the flows: `probebench corpus clean`. Record again with a larger buffer (`tcpdump -B`).",
)
def _capture_gaps(subject: Subject) -> Finding | None:
    flows = subject.table.missing > 0
    if not flows.any():
        return None
    missing = int(subject.table.missing.sum())
    portion = share(missing, missing + subject.table.bytes)
    numbers = {**_portion(subject, flows), "missing_bytes": missing, "missing_share": portion}
    return Finding(
        "error" if portion >= _LOST or numbers["flow_share"] >= _MANY else "warning",
        f"{missing:,} bytes of {int(flows.sum()):,} flows are missing: the sensor sees gaps that "
        "are the recording's, and takes them for loss or evasion",
        numbers,
    )


@check(
    "snapped-packets",
    "Packets cut short by the capture's snapshot length",
    "Record again with the whole packet (`tcpdump -s 0`), or `probebench corpus clean`.",
)
def _snapped_packets(subject: Subject) -> Finding | None:
    table = subject.table
    cut = int(table.rows["truncated"].sum()) + int(table.frames[1, 0])
    if not cut:
        return None
    portion = share(cut, table.packets)
    return Finding(
        "error",
        f"{cut:,} packets ({100 * portion:.1f} %) are cut short: a sensor drops them as invalid, "
        "and the generator sends fewer bytes than were captured",
        {"packets": cut, "packet_share": portion},
    )


@check(
    "time-backwards",
    "Packets earlier than those before them",
    "Sort the capture (`corpus clean --sort`), or find out which clock was set while recording.",
)
def _time_backwards(subject: Subject) -> Finding | None:
    count = subject.survey.backwards.packets
    if not count:
        return None
    return Finding(
        "warning",
        f"time goes backwards {count:,} times, by up to {subject.survey.back_ns / 1e9:.6g} s: "
        "answers may overtake their requests in the replay",
        {"packets": count, "worst_s": subject.survey.back_ns / 1e9},
    )


@check(
    "duplicate-packets",
    "Frames that are in the capture twice",
    "Remove them (`corpus clean --dedup exact`), and let the mirror port copy one direction only.",
)
def _duplicate_packets(subject: Subject) -> Finding | None:
    count = subject.survey.duplicates.packets
    portion = share(count, subject.table.packets)
    if not count:
        return None
    return Finding(
        "warning" if portion >= _MANY else "info",
        f"{count:,} frames ({100 * portion:.1f} %) repeat one of the four before them: the sensor "
        "does work that real traffic does not ask for",
        {"packets": count, "packet_share": portion},
    )


@check(
    "oversized-frames",
    "Packets larger than the sensor's MTU",
    "Record with offloads off (`ethtool -K IF gro off lro off gso off tso off`), cut the segments "
    "(`corpus clean --resegment MTU`), or raise the MTU of the whole path.",
)
def _oversized_frames(subject: Subject) -> Finding | None:
    mtu = subject.sensor.mtu
    count = subject.survey.oversized.packets
    if not count:
        return None
    return Finding(
        "error",
        f"{count:,} packets are larger than the MTU of {mtu:,} (the largest has "
        f"{subject.survey.largest:,} bytes): the generator cannot send them, and their flows have "
        "holes",
        {"packets": count, "largest": subject.survey.largest, "mtu": mtu},
    )


@check(
    "outside-home",
    "Flows that do not touch HOME_NET",
    "Set HOME_NET to the capture's own networks, or move them: `probebench corpus remap --home`.",
)
def _outside_home(subject: Subject) -> Finding | None:
    rows = subject.table.rows
    inside = np.zeros(rows["hi"].shape, np.bool_)
    for network in parse_networks(subject.sensor.home, "HOME_NET"):
        first = int(network.network_address)
        last = int(network.broadcast_address)
        same = (rows["version"] == network.version)[:, None]
        low, high = rows["lo"], rows["hi"]
        above = (high > first >> 64) | ((high == first >> 64) & (low >= first & (1 << 64) - 1))
        below = (high < last >> 64) | ((high == last >> 64) & (low <= last & (1 << 64) - 1))
        inside |= same & above & below
    flows = np.asarray(~inside.any(axis=1))
    if not flows.any():
        return None
    numbers = _portion(subject, flows)
    grave = numbers["flow_share"] >= _OUTSIDE
    return Finding(
        "error" if grave else "warning" if numbers["flow_share"] >= _MANY else "info",
        f"{_counted(numbers)} have no end in HOME_NET: rules with $HOME_NET do not match them",
        numbers,
    )


@check(
    "elephant-flow",
    "One flow is a large part of the traffic",
    "Weigh it down or leave it out, or say in the report that one worker carries it.",
)
def _elephant_flow(subject: Subject) -> Finding | None:
    largest = int(subject.packets.max())
    portion = share(largest, subject.table.packets)
    fair = 1 / subject.sensor.workers
    if portion < 0.1:
        return None
    bytes_share = share(int(subject.octets.max()), subject.table.bytes)
    return Finding(
        "warning" if portion > fair else "info",
        f"the largest flow has {100 * portion:.0f} % of an iteration's packets; it stays on one "
        f"of {subject.sensor.workers} workers, whose even share is {100 * fair:.0f} %",
        {"packets": largest, "packet_share": portion, "byte_share": bytes_share, "even": fair},
    )


@check(
    "tunnels",
    "Traffic in tunnels",
    "Leave tunnels out, or spread them over many outer addresses; see what the balancer hashes.",
)
def _tunnels(subject: Subject) -> Finding | None:
    rows = subject.table.rows
    ported = (rows["proto"] == _UDP)[:, None] & np.isin(rows["port"], _TUNNEL_PORTS)
    flows = np.asarray(np.isin(rows["proto"], _TUNNEL_PROTOCOLS) | ported.any(axis=1))
    if not flows.any():
        return None
    numbers = _portion(subject, flows)
    largest = share(int(subject.packets[flows].max()), subject.table.packets)
    return Finding(
        "warning" if numbers["packet_share"] >= _TUNNELLED else "info",
        f"{_counted(numbers)} are tunnels, the largest {100 * largest:.1f} % of the packets: a "
        "balancer that hashes outer addresses sends all that is in a tunnel to one worker",
        {**numbers, "largest_share": largest},
    )


@check(
    "encrypted-share",
    "Much of the traffic is encrypted",
    "Say the share in the report; measure with a mix that has the share of the network to protect.",
)
def _encrypted_share(subject: Subject) -> Finding | None:
    flows = subject.encrypted
    if not flows.any():
        return None
    octets = int(subject.octets[flows].sum())
    portion = share(octets, subject.table.bytes)
    return Finding(
        "warning" if portion > _ENCRYPTED else "info",
        f"{int(flows.sum()):,} flows with {100 * portion:.0f} % of the bytes are encrypted: they "
        "cost a sensor little, and few of its rules look into them",
        {**_portion(subject, flows), "byte_share": portion},
    )
