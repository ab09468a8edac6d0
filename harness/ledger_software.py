"""What the sensor's own counters say of packets, flows and alerts behind the ring.

Names are Suricata's (7.0 and 8.0; files of its src/): a sensor with other names has no such counter,
and the stage is then not observable.

| counter | unit | source |
| --- | --- | --- |
| decoder.invalid | packets that could not be decoded | decode.c |
| flow.memcap | packets that got no flow | flow-hash.c FlowGetNew |
| tcp.invalid_checksum | packets that the stream engine refused | stream-tcp.c StreamTcp |
| tcp.ssn_memcap_drop | packets that would have opened a session | stream-tcp.c StreamTcpPacketStateNone |
| tcp.segment_memcap_drop | packets whose payload was not reassembled | stream-tcp-list.c, -reassemble.c |
| flow.get_used | flows thrown out for others | flow-hash.c FlowGetUsedFlow |
| tcp.reassembly_gap | holes in streams | stream-tcp-reassemble.c |
| tcp.pkt_on_wrong_thread | packets, analysed all the same | stream-tcp.c CheckThreadId |
| detect.alert_queue_overflow | alerts beyond the limit of a packet | detect-engine-alert.c |
| detect.alerts_suppressed | alerts held back by thresholds | detect.c |
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping

from harness.model import Counters, Detection
from harness.model_flows import FlowRecords
from harness.model_ledger import AlertLedger, FlowLedger, Stage, StageEvent

__all__ = [
    "MEMORY",
    "alert_ledger",
    "decoded_stages",
    "events",
    "flow_ledger",
    "grown",
    "increase",
    "unwritten",
]

MEMORY = (
    "flow.memcap",
    "flow.emerg_mode_entered",
    "flow.get_used",
    "tcp.ssn_memcap_drop",
    "tcp.segment_memcap_drop",
    "tcp.reassembly_memcap_drop",
    "http.memcap",
    "ftp.memcap",
    "host.memcap",
    "ippair.memcap",
    "defrag.max_frag_hits",
    "defrag.max_frags_reached",
    "defrag.max_trackers_reached",
    "defrag.tracker_hard_reuse",
    "memcap.flow",
)
"""Counters that grow when the sensor has no memory left, or is not allowed more."""

_LATE_ALERTS = 1e-3
_STREAM = ("tcp.invalid_checksum", "tcp.ssn_memcap_drop", "tcp.segment_memcap_drop")

_EVENTS: dict[str, tuple[str, str]] = {
    "flow.get_used": ("flow", "flows thrown out to make room for others"),
    "flow.emerg_mode_entered": ("flow", "times the flow engine went into emergency mode"),
    "flow.tcp_reuse": ("flow", "connections that came again under a known five-tuple"),
    "defrag.max_frag_hits": ("flow", "times the table of fragments was full"),
    "defrag.max_frags_reached": ("flow", "times the table of fragments was full"),
    "defrag.max_trackers_reached": ("flow", "times the table of fragmented packets was full"),
    "tcp.pkt_on_wrong_thread": ("stream", "packets of a flow on another worker than its first"),
    "tcp.reassembly_gap": ("stream", "holes in streams"),
    "tcp.stream_depth_reached": ("stream", "streams that were inspected to the depth limit only"),
    "tcp.midstream_pickups": ("stream", "connections picked up in their middle"),
    "tcp.ack_unseen_data": ("stream", "acknowledgements of data that was not seen"),
    "tcp.insert_data_normal_fail": ("stream", "segments that could not be stored"),
    "tcp.insert_data_overlap_fail": ("stream", "overlapping segments that could not be stored"),
    "http.memcap": ("detection", "times HTTP parsing had no memory left"),
    "ftp.memcap": ("detection", "times FTP parsing had no memory left"),
    "detect.alert_queue_overflow": ("detection", "alerts beyond the limit of one packet"),
    "detect.alerts_suppressed": ("detection", "alerts held back by a threshold"),
    "flow_bypassed.pkts": ("detection", "packets of flows that inspection had let go"),
    "capture.bypassed": ("detection", "packets of flows that the capture had let go"),
    "file_store.fs_errors": ("detection", "files that could not be stored"),
}
_POLICIES = ("exception_policy.", "app_layer.error.", "ips.drop_reason.")


def increase(before: int | None, after: int | None) -> int | None:
    """What was counted in the trial; None without both counts: a sensor that ran before has more
    on its counter than the trial's."""
    return None if before is None or after is None else after - before


def grown(before: Counters, after: Counters) -> dict[str, int]:
    """Growth of every raw counter that grew in the trial."""
    first = before.raw
    found = {name: int(value - first.get(name, 0)) for name, value in after.raw.items()}
    return {name: n for name, n in found.items() if n > 0}


def decoded_stages(before: Counters, after: Counters, decoded: int | None) -> tuple[Stage, ...]:
    """Stages decoder, flow and stream: packets that were decoded and not analysed."""
    more = grown(before, after)
    left = max(0, decoded or 0)
    invalid: int | None = None
    if decoded is not None:
        invalid = increase(before.invalid, after.invalid)
        invalid = None if invalid is None else min(left, max(0, invalid))
        left -= invalid or 0
    stages = [Stage("decoder", invalid, "decoder.invalid")]
    for key, names in (("flow", ("flow.memcap",)), ("stream", _STREAM)):
        knows = decoded is not None and any(
            name.startswith(("flow." if key == "flow" else "tcp.",)) for name in after.raw
        )
        causes = {name: more[name] for name in names if name in more}
        lost = min(left, sum(causes.values())) if knows else None
        left -= lost or 0
        stages.append(Stage(key, lost, ", ".join(names), causes))
    return tuple(stages)


def events(more: Mapping[str, int]) -> tuple[StageEvent, ...]:
    """What grew and is not packets lost, in the order of the way."""
    found = [
        StageEvent(stage, name, more[name], meaning)
        for name, (stage, meaning) in _EVENTS.items()
        if name in more
    ]
    found += [
        StageEvent("detection", name, n, "times an exception policy decided over a packet or flow")
        for name, n in sorted(more.items())
        if name.startswith(_POLICIES[0])
    ]
    return tuple(found)


def flow_ledger(
    before: Counters, after: Counters, offered: int, records: FlowRecords | None = None
) -> FlowLedger:
    """Flows offered and what became of them; `offered` in the sensor's units where known."""
    more = grown(before, after)
    seen = increase(before.flows, after.flows)

    def count(*names: str) -> int | None:
        group = names[0].split(".")[0] + "."
        if not any(name.startswith(group) for name in after.raw):
            return None
        return sum(more.get(name, 0) for name in names)

    return FlowLedger(
        offered=offered,
        seen=seen,
        missing=None if seen is None else offered - seen,
        without_memory=count("tcp.ssn_memcap_drop"),
        unflowed=count("flow.memcap"),
        evicted=count("flow.get_used"),
        emergencies=count("flow.emerg_mode_entered"),
        wrong_thread=count("tcp.pkt_on_wrong_thread"),
        gaps=count("tcp.reassembly_gap"),
        cut=count("tcp.stream_depth_reached"),
        midstream=count("tcp.midstream_pickups"),
        bypassed=count("flow_bypassed.closed"),
        forced=None if records is None else records.evicted,
        torn=None if records is None else records.wrong_thread,
        with_gaps=None if records is None else records.with_gaps,
        left=int(before.raw["flow.active"]) if "flow.active" in before.raw else None,
    )


def unwritten(ledger: AlertLedger, exact: bool) -> int:
    """Alerts that the output lost (negative: too many); 0 where it cannot be told, or where
    counters that are not `exact` may be that much older than the output."""
    if not ledger.unwritten or ledger.counted is None:
        return 0
    late = not exact and abs(ledger.unwritten) <= _LATE_ALERTS * ledger.counted
    return 0 if late else ledger.unwritten


def alert_ledger(found: Detection, before: Counters, after: Counters) -> AlertLedger:
    """Alerts due, raised and lost."""
    more = grown(before, after)
    knows = any(name.startswith("detect.") for name in after.raw)
    counted = increase(before.alerts, after.alerts)
    return AlertLedger(
        due=found.due,
        detected=found.detected,
        missed=found.due - found.detected,
        raised=found.raised,
        repeated=found.repeated,
        unexpected=found.unexpected,
        unmapped=found.unmapped,
        counted=counted,
        unwritten=None if counted is None else counted - found.raised,
        suppressed=more.get("detect.alerts_suppressed", 0) if knows else None,
        overflowed=more.get("detect.alert_queue_overflow", 0) if knows else None,
    )
