"""Statistics of a real Suricata 7.0.10, read into Counters."""

from __future__ import annotations

import json
from pathlib import Path

from harness.sensors.suricata_counters import flatten, last_record, reconciles, to_counters
from harness.sensors.suricata_host import (
    first_error,
    last_log_line,
    parse_version,
    shutdown_totals,
)

RECORD = (Path(__file__).parent / "data" / "suricata-7.0.10-stats.json").read_text()


def test_a_real_record() -> None:
    stats = last_record(RECORD)
    assert stats is not None
    counters = to_counters(stats, exact=True)
    assert (counters.received, counters.dropped, counters.decoded) == (59, 0, 59)
    assert (counters.invalid, counters.decoded_bytes, counters.flows) == (0, 4005, 10)
    assert counters.alerts == 6
    assert set(counters.workers) == {"W#01-rx0", "W#02-rx0"}
    assert sum(counters.workers.values()) == 59
    assert counters.raw["tcp.sessions"] == 7
    assert not any(name.startswith("threads.W#01-rx0.decoder") for name in counters.raw)
    assert counters.exact and reconciles(counters)


def test_drops_are_inside_received() -> None:
    """The figures of a real overload: 5,772,000 - 192,072 = 5,579,928."""
    stats = {
        "capture": {"kernel_packets": 5_772_000, "kernel_drops": 192_072},
        "decoder": {"pkts": 5_579_928},
    }
    assert reconciles(to_counters(stats, exact=True))
    stats["decoder"]["pkts"] += 1
    assert not reconciles(to_counters(stats, exact=True))


def test_absent_counters_are_zero_and_old_flow_names_count() -> None:
    counters = to_counters({"flow": {"tcp": 3, "udp": 2, "icmpv4": 1}}, exact=False)
    assert (counters.received, counters.flows, counters.workers) == (0, 6, {})
    assert not counters.exact


def test_the_last_whole_record_of_a_cut_tail() -> None:
    other = json.dumps({"event_type": "stats", "stats": {"uptime": 1}})
    tail = f'ne":1}}\n{other}\n{RECORD}{{"event_type":"stats","st'
    found = last_record(tail)
    assert found is not None and found["uptime"] == json.loads(RECORD)["stats"]["uptime"]
    assert last_record("garbage\n") is None
    assert last_record("") is None


def test_flatten_leaves_out_what_is_no_number() -> None:
    tree = {"a": {"b": 1, "c": "x", "d": [1], "e": True}, "f": 2.5}
    assert dict(flatten(tree)) == {"a.b": 1, "f": 2.5}


def test_versions() -> None:
    assert parse_version("This is Suricata version 7.0.10 RELEASE\n") == "7.0.10"
    assert parse_version("This is Suricata version 8.0.1-dev\n") == "8.0.1-dev"
    assert parse_version("no such thing") == ""


LOG = """\
[1 - M] 2026-01-01 00:00:00 Notice: suricata: Signal Received.  Stopping engine.
[1 - M] 2026-01-01 00:00:00 Notice: device: rx0: packets: 5772000, drops: 192072 (3.33%), \
invalid chksum: 0
"""


def test_log_lines() -> None:
    assert shutdown_totals(LOG, "rx0") == (5_772_000, 192_072)
    assert shutdown_totals(LOG, "rx1") is None
    assert last_log_line(LOG).endswith("invalid chksum: 0")
    assert last_log_line("a Error: b: no\nlater\n") == "a Error: b: no"
    assert last_log_line("") == "(none)"
    assert first_error("x\n[1] Error: detect: no rule\n") == "detect: no rule"
    assert first_error("fine\n") == ""


def test_a_worker_that_got_nothing_is_a_worker() -> None:
    """With null-values off a thread's counters of zero are left out (output-json-stats.c)."""
    threads = {
        "W#01-rx0": {"decoder": {"pkts": 900}},
        "W#02-rx0": {"flow": {"wrk": {"spare_sync_avg": 100}}},
    }
    counters = to_counters({"decoder": {"pkts": 900}, "threads": threads}, exact=True)
    assert counters.workers == {"W#01-rx0": 900, "W#02-rx0": 0}


def test_dpdk_says_that_its_workers_poll() -> None:
    assert to_counters({}, exact=True, capture="dpdk").raw == {"probebench.busy_polling": 1.0}
    assert to_counters({}, exact=True).raw == {}
