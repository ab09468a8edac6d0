"""Each gate fires on its fault and on nothing else, and each is documented."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.gates import GATES, Context, evaluate
from harness.model import (
    Capabilities,
    Counters,
    Detection,
    Failure,
    InterfaceCounters,
    Ledger,
    Load,
    Schedule,
    Sent,
    Severity,
    SignatureScore,
)
from harness.model_host import HostReading, HostTrial
from harness.model_ledger import AlertLedger, Balance, ByteLedger, FlowLedger
from harness.results import Trial
from harness.sweep import describe_trial
from lab.preflight.check import Finding as Noticed

CONTEXT = Context(Capabilities(True, True, True, True, True, True))


def counters(n: int, **changes: Any) -> Counters:
    workers = {"W#01": n // 2, "W#02": n - n // 2}
    return replace(Counters(n, 0, n, n * 100, 0, n // 10, n // 100, workers, {}, True), **changes)


def good() -> Trial:
    """A sound trial of 1,000,000 packets in 10 s."""
    load = Load("pps", 100_000.0, 10.0)
    return Trial(
        name="t01",
        phase="sweep",
        repeat=0,
        method="fresh",
        started="",
        ended="",
        load=load,
        schedule=Schedule(load, 100, 1000, 0.01, "pps", 1_000_000, 10**8, 100_000, 10.0, 1e5, 8e7,
                          1e4, 500.0, 0.9),
        state="restarted",
        sent=Sent(1_000_000, 10**8, 100_000, 10.0, 0, 0, 0),
        before=counters(0),
        after=counters(1_000_000),
        nic=InterfaceCounters(1_000_000, 10**8, 0, 0, 0, 0, 0, 0, 0),
        ledger=Ledger(1_000_000, 0, 0, 0, 0, 1_000_000, 0, 10),
        detection=Detection(10_000, 10_000, 1.0, 0.996, 1.0, 10_000, 0, 0, 0, ()),
        drop_rate=0.0,
        settled=True,
    )  # fmt: skip


def changed(**changes: Any) -> Trial:
    return replace(good(), **changes)


def part(name: str, **changes: Any) -> Trial:
    return changed(**{name: replace(getattr(good(), name), **changes)})


ALERTS = AlertLedger(10_000, 10_000, 0, 10_000, 0, 0, 0, 10_000, 0, 0, 0)
FLOWS = FlowLedger(100_000, 100_000, 0)


def host(
    wall: float = 10.0,
    sampler_cpu_s: float = 0.05,
    throttled: dict[str, int] | None = None,
    disk: dict[str, float] | None = None,
) -> HostTrial:
    """Ten seconds of a host in good order."""
    before = HostReading(t=0.0, wall=0.0, throttled={"0": 0})
    after = HostReading(t=10.0, wall=wall, throttled=throttled or {"0": 0}, disk=disk or {})
    return HostTrial(before, after, 10, 1.0, sampler_cpu_s=sampler_cpu_s)


MISSING = {"detected": 9_000, "rate": 0.9, "low": 0.88, "high": 0.92}
FAULTS: dict[str, Trial] = {
    "generator-limited": part("sent", seconds=10.2),
    "generator-failed-packets": part("sent", failed=3),
    "ledger-open": part("ledger", unexplained=-11),
    "counters-inconsistent": changed(after=counters(1_000_000, decoded=999_999)),
    "not-settled": changed(settled=False),
    "sensor-state": changed(before=counters(0, alerts=20_000)),
    "background-packets": part("nic", rx_packets=1_000_011),
    "foreign-alerts": part("detection", unmapped=1),
    "few-events": part("detection", low=0.85),
    "short-steady-state": part("schedule", steady_fraction=0.49),
    "address-reuse": changed(state="observed"),
    "invalid-checksums": changed(after=counters(1_000_000, raw={"tcp.invalid_checksum": 4.0})),
    "flows-collapsed": changed(after=counters(1_000_000, flows=80_000)),
    "software-silent": part("detection", **MISSING),
    "memory-limited": changed(after=counters(1_000_000, raw={"flow.emerg_mode_entered": 1.0})),
    "worker-imbalance": changed(
        after=counters(1_000_000, workers={"W#01": 900_000, "W#02": 100_000})
    ),
    "co-located": good(),
    "duration-stretched": part("sent", seconds=10.07),
    "wire-disagrees": part("sent", wire_packets=999_900),
    "bytes-open": part("ledger", bytes=ByteLedger(10**8, None, None, 10**8 - 9, 0, 9, 0)),
    "alerts-unwritten": changed(alert_ledger=replace(ALERTS, counted=10_001, unwritten=1)),
    "thresholds-active": changed(alert_ledger=replace(ALERTS, suppressed=2)),
    "few-due": part("detection", due=99, detected=99),
    "state-carried-over": changed(flow_ledger=replace(FLOWS, left=1_001)),
    "wrong-thread": changed(flow_ledger=replace(FLOWS, wrong_thread=1)),
    "imbalance-unpredicted": changed(balance=Balance(4, 1.4, 1.05, 1.01, 1.1, 1.0, 1000)),
    "template-scoring": part("detection", scored_by="template"),
    "generator-queue-full": part("sent", extra={"queue_full": 1_001.0}),
    "generator-trouble": part("sent", extra={"alloc_error": 1.0}),
    "generator-retransmits": part("sent", extra={"tcps_sndrexmitpack": 1.0}),
    "sampler-failed": changed(host=HostTrial(None, None, 0, 1.0, failure="probe: no python")),
    "sampler-cost": changed(host=host(sampler_cpu_s=0.2)),
    "clock-step": changed(host=host(wall=11.0)),
    "throttled": changed(host=host(throttled={"0": 3})),
    "disk-nearly-full": changed(host=host(disk={"free_bytes": 2.0**29})),
    "preflight": good(),
    "clock": good(),
    "offloads": good(),
    "thresholds-in-rules": part(
        "detection",
        by_signature=(SignatureScore(7, "x", 4_000, 4_000), SignatureScore(8, "y", 6_000, 6_000)),
    ),
    "reuse-too-soon": part("schedule", settings={"reuse_s": 5.0}),
    "intake-lost": changed(after=counters(1_000_000, raw={"intake.dropped": 3.0})),
    "alerts-missing": changed(after=counters(1_000_000, raw={"intake.alerts": 9_999.0})),
}


def noticed(code: str, severity: Severity = "warning", **numbers: float) -> Noticed:
    return Noticed(code, severity, "sen: rx0", code, "told", numbers, "nothing", "do")


def context_for(code: str) -> Context:
    if code == "preflight":
        return replace(CONTEXT, preflight=(noticed("ring-size", rx=256),))
    if code == "clock":
        return replace(CONTEXT, preflight=(noticed("clock-offset", low_s=0.2, high_s=0.3),))
    if code == "offloads":
        return replace(CONTEXT, preflight=(noticed("receive-offloads", on=2),))
    if code == "thresholds-in-rules":
        return replace(CONTEXT, limited=(7,))
    if code == "reuse-too-soon":
        return replace(CONTEXT, flow_timeout=60.0)
    if code == "co-located":
        return replace(CONTEXT, co_located=True)
    if code == "address-reuse":
        return replace(CONTEXT, earlier=(part("schedule", first_iteration=1099),))
    return CONTEXT


def test_a_sound_trial_has_no_finding() -> None:
    assert evaluate(good(), CONTEXT) == ()


@pytest.mark.parametrize("code", sorted(GATES))
def test_a_gate_fires_on_its_fault_alone(code: str) -> None:
    found = evaluate(FAULTS[code], context_for(code))
    assert [g.code for g in found] == [code]
    result = found[0]
    assert result.severity == GATES[code].severity
    assert result.title and result.advice and result.message
    assert "\n" not in result.message
    if code not in ("not-settled", "co-located", "template-scoring", "sampler-failed"):
        assert result.numbers


def test_the_sentences_have_the_numbers() -> None:
    (limited,) = evaluate(part("sent", packets=980_000, seconds=9.8), replace(CONTEXT))[:1]
    assert limited.message == (
        "sent 980,000 of 1,000,000 packets at 100,000 packets/s; asked were 100,000 (100.0 %)"
    )


@pytest.mark.parametrize("code", sorted(GATES))
def test_default_marks_the_trial_and_strict_fails_the_run(code: str) -> None:
    """`Sweeper` counts trials that are not valid, and --strict ends with status 1 for any."""
    marked = replace(FAULTS[code], gates=evaluate(FAULTS[code], context_for(code)))
    assert marked.valid is (GATES[code].severity != "invalid")
    line = describe_trial(marked)
    assert (code in line) is (GATES[code].severity != "info")


def test_what_the_preflight_found_is_said_with_its_numbers() -> None:
    context = replace(
        CONTEXT,
        preflight=(
            noticed("clock-offset", low_s=0.2, high_s=0.3),
            noticed("receive-offloads", "invalid", on=2),
            noticed("transmit-offloads", on=1),
            noticed("ring-size", rx=256),
            noticed("swap", used_bytes=1),
            noticed("swap", used_bytes=2),
            noticed("virtual-link", "info"),
        ),
    )
    found = {g.code: g for g in evaluate(good(), context)}
    assert found["clock"].numbers == {"low_s": 0.2, "high_s": 0.3}
    assert found["offloads"].numbers == {"receive-offloads": 2, "transmit-offloads": 1}
    assert "sen: rx0: receive-offloads told" in found["offloads"].message
    assert found["preflight"].message.endswith(": ring-size, swap")
    assert {g.severity for g in found.values()} == {"warning"} and good().valid
    notes = replace(CONTEXT, preflight=(noticed("vlan-offload", "info"),))
    assert evaluate(good(), notes) == ()


def test_rules_that_count_matter_where_they_are_due() -> None:
    trial = FAULTS["thresholds-in-rules"]
    (one,) = evaluate(trial, replace(CONTEXT, limited=(7, 99)))
    assert one.numbers == {"signatures": 1, "events": 4_000, "due": 10_000}
    (every,) = evaluate(trial, replace(CONTEXT, limited=(0,)))
    assert every.numbers["events"] == 10_000
    assert evaluate(trial, replace(CONTEXT, limited=(99,))) == ()


def test_just_inside_is_silent() -> None:
    assert evaluate(part("sent", seconds=10.04), CONTEXT) == ()
    assert evaluate(part("ledger", unexplained=10), CONTEXT) == ()
    assert evaluate(part("nic", rx_packets=1_000_010), CONTEXT) == ()


def test_loss_explains_missing_alerts_and_flows() -> None:
    ledger = replace(good().ledger or Ledger(0, 0, 0, 0, 0, 0, 0, 0), kernel=5, analysed=999_995)
    lossy = changed(
        ledger=ledger,
        after=counters(1_000_000, dropped=5, decoded=999_995, flows=80_000),
        detection=part("detection", **MISSING).detection,
    )
    assert evaluate(lossy, CONTEXT) == ()


def test_a_closed_sensor_may_lose_packets_behind_its_capture() -> None:
    closed = replace(CONTEXT, capabilities=replace(CONTEXT.capabilities, adjacent=False))
    assert evaluate(changed(after=counters(1_000_000, decoded=999_000)), closed) == ()


def test_what_was_not_measured_is_not_judged() -> None:
    blind = changed(sent=None, before=None, after=None, nic=None, ledger=None, detection=None,
                    settled=None)  # fmt: skip
    assert evaluate(blind, CONTEXT) == ()
    appliance = changed(after=Counters(None, None, None, None, None, None, None))
    assert evaluate(appliance, CONTEXT) == ()


def test_a_failed_trial_has_a_failure_and_no_gates() -> None:
    failed = part("sent", failed=3)
    assert evaluate(replace(failed, failure=Failure("sensor-failed", "x")), CONTEXT) == ()


def test_the_most_severe_come_first() -> None:
    trial = replace(part("sent", failed=3), settled=False)
    trial = replace(trial, schedule=replace(trial.schedule, steady_fraction=0.1))
    found = evaluate(trial, replace(CONTEXT, co_located=True))
    assert [g.severity for g in found] == ["invalid", "invalid", "warning", "info"]


def test_every_gate_is_documented_with_its_severity() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "gates.md").read_text()
    sections = dict(re.findall(r"^## ([\w-]+)\n\*\*(\w+)\.\*\*", text, re.MULTILINE))
    assert sections == {code: gate.severity for code, gate in GATES.items()}


def codes(trial: Trial, context: Context = CONTEXT) -> list[str]:
    return [result.code for result in evaluate(trial, context)]


@pytest.mark.parametrize("blind", [{"kernel": None}, {"before_nic": None, "nic": None}])
def test_no_drop_is_not_said_where_drops_are_not_observable(blind: dict[str, None]) -> None:
    missing = changed(
        detection=replace(good().detection, **MISSING),  # type: ignore[type-var]
        ledger=replace(good().ledger, **blind),  # type: ignore[type-var]
        after=counters(1_000_000, flows=80_000),
    )
    assert codes(missing) == []


def test_a_nic_that_nobody_reads_is_in_what_was_lost_before() -> None:
    assert codes(replace(FAULTS["software-silent"], ledger=replace(good().ledger, nic=None))) == [  # type: ignore[type-var]
        "software-silent"
    ]


def test_counters_that_contradict_each_other_when_the_trial_began() -> None:
    stale = changed(before=counters(1000, decoded=900), after=counters(1_001_000))
    assert codes(stale) == ["counters-inconsistent"]


def test_a_closed_sensor_may_lose_packets_and_makes_none() -> None:
    closed = replace(CONTEXT, capabilities=replace(CONTEXT.capabilities, adjacent=False))
    fewer = changed(after=counters(1_000_000, decoded=900_000))
    assert codes(fewer, closed) == []
    # `received` is without the drops, and the inventory says that it has them.
    more = changed(after=counters(1_000_000, dropped=300_000, decoded=1_000_000))
    assert codes(more, closed) == ["counters-inconsistent"]


def test_the_sensor_s_own_agent_is_part_of_the_sampler_s_cost() -> None:
    both = {"probebench.sampler_cpu_s": 0.12, "probebench.sampler_s": 20.0}
    cheap = changed(host=host(sampler_cpu_s=0.05), after=counters(1_000_000, raw=both))
    (found,) = evaluate(cheap, CONTEXT)
    assert found.code == "sampler-cost"
    assert found.numbers["share"] == pytest.approx(0.011)
    both["probebench.sampler_cpu_s"] = 0.08
    assert codes(changed(host=host(sampler_cpu_s=0.05), after=counters(1_000_000, raw=both))) == []


def test_a_generator_that_sent_nothing_is_limited() -> None:
    estimates = part("schedule", settings={"packets_are_estimates": 1.0})
    nothing = replace(estimates, sent=Sent(0, 0, 0, 0.0, 0, 0, 0))
    assert "generator-limited" in codes(nothing)


def test_flows_of_a_sensor_that_ran_before_need_a_first_count() -> None:
    ran = changed(
        state="observed", before=counters(0, flows=None), after=counters(1_000_000, flows=80_000)
    )
    assert codes(ran) == []
