"""A run directory made up from a formula, with every case a report must show.

No number in it was measured: it serves the tests of what reads a run. The sensor of the formula
has a capacity in packets/s; beyond it the ring drops, and detection falls faster than packets do.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

from harness.model import (
    Counters,
    Detection,
    Failure,
    GateResult,
    InterfaceCounters,
    Ledger,
    Load,
    Schedule,
    Sent,
    SignatureScore,
)
from harness.results import RunDir, RunInfo, Trial

CAPACITY = 60_000.0
PACKETS, BYTES, FLOWS = 962, 380_000, 18  # of one iteration
SIGNATURES = {
    9000001: "PROBEBENCH Log4Shell lookup in a header",
    9000002: "PROBEBENCH directory traversal",
    9000003: "PROBEBENCH EICAR test file in a download <b>",
}
LOADS = (10_000.0, 20_000.0, 40_000.0, 60_000.0, 80_000.0, 120_000.0, 160_000.0)
BIAS = {  # method: (flows seen, alerts raised) of 500 iterations
    "raw-loop": (14, 190),
    "loop": (9, 502),
    "unique-ip": (9_000, 1_500),
    "fresh": (9_000, 1_500),
}


@dataclass(frozen=True)
class Options:
    """What to put into the run."""

    axes: tuple[str, ...] = ("pps",)
    loads: tuple[float, ...] = LOADS
    repeats: int = 2
    workers: int = 2
    specials: bool = True  # generator-limited, invalid and failed trials
    observable: bool = True  # False: the sensor tells neither kernel drops nor decoded packets
    bias: bool = True
    calibration: bool = True
    timeline: bool = True


def interval(detected: int, due: int) -> tuple[float, float]:
    """A plausible interval; its formula is another module's business."""
    rate = detected / due
    half = 0.5 / due**0.5
    return max(0.0, rate - half), min(1.0, rate + half)


def detection(iterations: int, share: float) -> Detection:
    """Score with each signature a little worse than the one before."""
    scores = tuple(
        SignatureScore(sid, name, iterations, int(iterations * share ** (1 + i)))
        for i, (sid, name) in enumerate(SIGNATURES.items())
    )
    due, detected = sum(s.due for s in scores), sum(s.detected for s in scores)
    low, high = interval(detected, due)
    return Detection(due, detected, detected / due, low, high, detected + 2, 2, 0, 0, scores)


def schedule(load: Load) -> Schedule:
    """Iterations for the load."""
    flow_rate = load.value if load.axis == "flows" else load.value / PACKETS * FLOWS
    iterations = max(1, int(flow_rate / FLOWS * load.duration))
    return Schedule(
        load=load,
        first_iteration=0,
        iterations=iterations,
        every_s=FLOWS / flow_rate,
        pacing="pps" if load.axis == "pps" else "timestamps",
        packets=iterations * PACKETS,
        bytes=iterations * BYTES,
        flows=iterations * FLOWS,
        seconds=load.duration,
        pps=iterations * PACKETS / load.duration,
        bps=iterations * BYTES * 8 / load.duration,
        flows_per_s=flow_rate,
        concurrent_flows=flow_rate * 0.8,
        steady_fraction=0.8,
    )


def counters(received: int, dropped: int, flows: int, workers: int) -> Counters:
    """Counters of a sensor that was restarted before the trial."""
    decoded = received - dropped
    first = int(decoded * 0.6) if workers > 1 else decoded
    rest = [(decoded - first) // max(1, workers - 1)] * (workers - 1)
    shares = {f"W#{i + 1:02d}-rx0": n for i, n in enumerate([first, *rest])}
    return Counters(
        received, dropped, decoded, decoded * 395, 0, flows, None, shares, {"x": 1.0}, True
    )


def good_trial(name: str, load: Load, options: Options, repeat: int = 1) -> Trial:
    """A measured trial of the sweep: loss beyond the capacity."""
    plan = schedule(load)
    pps = plan.pps
    lost = int(plan.packets * max(0.0, 1 - CAPACITY * (1 + 0.01 * repeat) / pps))
    share = 1 - min(1.0, 1.6 * lost / plan.packets)
    sent = Sent(
        plan.packets, plan.bytes, plan.flows, load.duration * 1.001, 0, 10**18, 10**18 + 10**10
    )
    seen = options.observable
    after = counters(plan.packets, lost, int(plan.flows * share), options.workers)
    zero = InterfaceCounters(plan.packets, plan.bytes, 0, 0, 0, 0, 0, 0, 0)
    return Trial(
        name=name,
        phase="sweep",
        repeat=repeat,
        method="fresh",
        started="2026-02-03T04:05:06Z",
        ended="2026-02-03T04:05:16Z",
        load=load,
        schedule=plan,
        state="restarted",
        sent=sent,
        before=Counters(0, 0, 0, 0, 0, 0, 0),
        after=after if seen else replace(after, received=None, dropped=None, decoded=None),
        nic=zero,
        ledger=Ledger(
            offered=plan.packets,
            before_nic=0,
            nic=None if not seen else 0,
            kernel=lost if seen else None,
            software=0 if seen else None,
            analysed=plan.packets - lost if seen else None,
            unexplained=0 if seen else plan.packets,
            tolerance=0,
        ),
        detection=detection(plan.iterations, share),
        drop_rate=lost / plan.packets if seen else None,
        settled=True,
        sensor_cpu_s=4.25,
    )


def specials(axis: str, options: Options) -> list[Trial]:
    """A generator-limited trial, an invalid one and a failed one."""
    load = Load(axis, options.loads[-1], 4.0)  # type: ignore[arg-type]
    limited = good_trial(f"{axis}-limited", load, options, repeat=8)
    assert limited.sent is not None and limited.ledger is not None
    limited = replace(
        limited,
        sent=replace(limited.sent, seconds=4.8),
        gates=(
            GateResult(
                "generator-limited",
                "invalid",
                "The generator sent less than was asked",
                "sent 83.3 % of the load asked",
                "Lower the load or give the generator more cores.",
                {"asked": load.value, "share": 0.833},
            ),
        ),
    )
    open_ledger = good_trial(f"{axis}-open", replace(load, value=options.loads[0]), options, 9)
    assert open_ledger.ledger is not None
    open_ledger = replace(
        open_ledger,
        ledger=replace(
            open_ledger.ledger,
            analysed=open_ledger.ledger.offered + 1500 if options.observable else None,
            unexplained=-1500,
        ),
        gates=(
            GateResult(
                "ledger-open",
                "invalid",
                "The ledger does not add up",
                "1,500 packets more came out than went in",
                "Look for background traffic on the sensor's interface.",
                {"unexplained": -1500},
            ),
            GateResult(
                "co-located", "info", "One machine", "generator and sensor share it", "Use two.", {}
            ),
        ),
    )
    failed = replace(
        good_trial(f"{axis}-failed", load, options, repeat=10),
        sent=None,
        before=None,
        after=None,
        nic=None,
        ledger=None,
        detection=None,
        drop_rate=None,
        settled=None,
        sensor_cpu_s=None,
        failure=Failure("generator-killed", "gen: tcpreplay was killed by signal 9 after 1.2 s"),
    )
    return [limited, open_ledger, failed]


def bias_trials(options: Options) -> list[Trial]:
    """The four replay methods at one modest load, 500 iterations."""
    trials = []
    for method, (flows, raised) in BIAS.items():
        base = good_trial(f"b-{method}", Load("pps", 20_000.0, 24.1), options)
        plan = replace(base.schedule, iterations=500, packets=481_000, flows=9_000)
        found = Detection(1500, raised, raised / 1500, 0.0, 1.0, raised, 0, 0, 0, ())
        trials.append(
            replace(
                base,
                phase="bias",
                method=method,
                schedule=plan,
                sent=Sent(481_000, 190_000_000, 9_000, 24.05, 0, 1, 2),
                after=counters(481_000, 0, flows, options.workers),
                ledger=Ledger(481_000, 0, 0, 0, 0, 481_000, 0, 0),
                drop_rate=0.0,
                detection=found,
            )
        )
    return trials


def run_info(options: Options) -> RunInfo:
    """`run.json` of the synthetic run."""
    return RunInfo(
        profile={"name": "demo", "description": "Made up for tests.", "repeats": options.repeats},
        inventory={
            "name": "virtual",
            "generator": {"driver": "tcpreplay", "host": "gen", "interface": "tx0"},
            "sensor": {"driver": "suricata", "workers": options.workers, "ring_size": 512},
        },
        corpus={
            "path": "corpus.pcap",
            "digest": "ab" * 32,
            "packets": PACKETS,
            "bytes": BYTES,
            "flows": FLOWS,
            "span_s": 1.5,
            "home": ["10.0.0.0/8"],
            "key": "test",
            "max_gap": 0.2,
            "clean": {
                "packets": {"in": 1200, "kept": PACKETS, "dropped": 238},
                "dropped": {"midstream": 138, "unterminated": 100},
            },
        },
        reference={
            "corpus_digest": "ab" * 32,
            "rules_digest": "cd" * 32,
            "sensor": "suricata 7.0.10",
            "raised": 3,
            "due": [{}, {}, {}],
            "signatures": {str(sid): name for sid, name in SIGNATURES.items()},
        },
        hosts={"gen": {"kernel": "6.1.0", "cores": "2"}, "sen": {"kernel": "6.1.0", "cores": "2"}},
        tools={"probebench": "0.1.0", "tcpreplay": "4.4.3"},
        seeds={"key": "test"},
        started="2026-02-03T04:05:00Z",
        sensor="suricata 7.0.10",
        notes=("Generator and sensor share one machine.",),
        loads=options.loads,
    )


def write_timeline(run: RunDir, trials: list[Trial]) -> None:
    """A sample every 0.5 s of each measured trial."""
    with run.timeline_path.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["trial", "t_s", "sent", "received", "dropped", "alerts"])
        for trial in trials:
            if trial.sent is None:
                continue
            kernel = trial.ledger.kernel if trial.ledger else None
            found = trial.detection.raised if trial.detection else 0
            for i in range(9):
                sent = trial.sent.packets * i // 8
                drops = "" if kernel is None else kernel * i // 8
                received = "" if kernel is None else sent
                row = [trial.name, i * 0.5, sent, received, drops, found * i // 8]
                table.writerow(row)


def make_run(path: Path, options: Options = Options()) -> RunDir:
    """Write the run directory and return it."""
    run = RunDir(path)
    run.write_info(run_info(options))
    trials: list[Trial] = []
    for axis in options.axes:
        if options.calibration:
            base = good_trial(f"{axis}-c01", Load(axis, options.loads[-1], 2.0), options)  # type: ignore[arg-type]
            trials.append(replace(base, phase="calibration"))
        for repeat in range(1, options.repeats + 1):
            for i, value in enumerate(options.loads):
                load = Load(axis, value, 4.0)  # type: ignore[arg-type]
                trials.append(good_trial(f"{axis}-t{i + 1:02d}-{repeat}", load, options, repeat))
        if options.specials:
            trials += specials(axis, options)
    if options.bias:
        trials += bias_trials(options)
    for trial in trials:
        run.append(trial)
    if options.timeline:
        write_timeline(run, trials)
    return run
