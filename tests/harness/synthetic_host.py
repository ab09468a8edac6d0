"""A synthetic run with what newer runs have: ledgers by stage, host samples, a lab check.

Everything is made up from formulas, as in `synthetic_run`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthetic_run import Options, make_run

from harness.conclusions import conclude
from harness.host_peaks import peaks
from harness.host_samples import SampleWriter, to_reading
from harness.model import Ledger
from harness.model_host import HostTrial
from harness.model_ledger import ByteLedger, Stage
from harness.preflight import FILE as PREFLIGHT
from harness.report.accounts import STAGE_NAMES
from harness.results import RunDir, Trial

SECONDS = 5
START = {"t": 1000.0, "wall": 1.8e9}
FINDINGS = (
    ("rss-queues", "warning", "sensor: rx0", {"queues": 1, "workers": 2}),
    ("virtual-link", "info", "generator: tx0", {}),
    ("virtual-link", "info", "sensor: rx0", {}),
    ("receive-offloads", "invalid", "sensor: rx0", {}),
)


def stages(ledger: Ledger, blind: tuple[str, ...] = ()) -> Ledger:
    """The ledger with stages: what the ring lost is split, a little of it to every stage.

    `blind` names stages that nobody can read; they lose nothing.
    """
    lost = ledger.kernel or 0
    open_ = [key for key in STAGE_NAMES if key not in blind and key != "ring"]
    share = lost // 20
    parts: dict[str, int | None] = dict.fromkeys(open_, share)
    parts |= {"ring": lost - share * len(open_), **dict.fromkeys(blind)}
    kept = tuple(Stage(key, parts[key], f"counter of {key}") for key in STAGE_NAMES)
    size = ByteLedger(ledger.offered * 400, None, None, None, lost * 400, 0)
    if ledger.analysed is not None:
        size = replace(size, analysed=ledger.analysed * 400)

    def of(*keys: str) -> int | None:
        known = [n for key in keys if (n := parts[key]) is not None]
        return sum(known) if known else None

    return replace(
        ledger,
        before_nic=of("transmit", "wire"),
        nic=of("nic"),
        kernel=of("backlog", "ring"),
        software=of("undecoded", "decoder", "flow", "stream"),
        stages=kept,
        bytes=size,
    )


def samples(trial: Trial, number: int, workers: int) -> list[dict[str, Any]]:
    """Raw samples a second apart, as the sampler sends them; the load arrives in the middle."""
    assert trial.sent is not None and trial.ledger is not None
    rate = trial.sent.packets / (SECONDS - 1)
    start = 100.0 * number
    made = []
    for i in range(SECONDS + 1):
        came = int(rate * min(max(0.0, i - 0.5), SECONDS - 1))
        busy = min(1.0, rate / 60_000)
        names = [f"W#{w + 1:02d}-rx0" for w in range(workers)]
        made.append(
            {
                "t": START["t"] + start + i,
                "wall": START["wall"] + start + i,
                "interface": {"rx_packets": came, "rx_missed_errors": 0},
                "softnet": {"0": {"processed": came, "dropped": came // 500, "time_squeeze": 0}},
                "cpus": {
                    "0": {"user": 0.5 * i, "softirq": 0.1 * i, "idle": 0.4 * i, "steal": 0.0},
                    "1": {"user": 0.2 * i, "softirq": 0.0, "idle": 0.8 * i, "steal": 0.0},
                },
                "threads": {**dict.fromkeys(names, busy * i), "FM#01": 0.01 * i, "CW": 0.001 * i},
                "memory": {"rss": 2**27 + came * 100, "total": 2**34, "available": 2**33},
                "disk": {"writes": 10 * i, "write_s": 0.02 * i, "written_bytes": 0, "busy_s": 0.0},
                "cost": 0.002 * i,
            }
        )
    return made


def make_host_run(
    path: Path,
    options: Options = Options(bias=False, specials=False, calibration=False),
    *,
    blind: tuple[str, ...] = (),
    change: Callable[[Trial], Trial] = lambda trial: trial,
    raw: Callable[[dict[str, Any]], dict[str, Any]] = lambda sample: sample,
) -> RunDir:
    """Write the run. `change` has the last word on a trial, `raw` on a sample."""
    run = make_run(path, options)
    trials = list(run.trials())
    run.trials_path.unlink()
    for number, trial in enumerate(trials):
        if trial.ledger is None:
            run.append(trial)
            continue
        read = [raw(sample) for sample in samples(trial, number, options.workers)]
        writer = SampleWriter(path, trial.name)
        for sample in read:
            writer.write(sample)
        writer.close()
        readings = [to_reading(sample) for sample in read]
        cost = readings[-1].cost - readings[0].cost
        host = HostTrial(readings[0], readings[-1], len(read), 1.0, peaks(readings), cost)
        ledger = stages(trial.ledger, blind)
        whole = replace(trial, ledger=ledger, host=host)
        run.append(change(conclude(whole)))
    (path / PREFLIGHT).write_text(json.dumps({"schema": 1, "checks": [lab_check()]}))
    return run


def lab_check() -> dict[str, Any]:
    """An entry of `preflight.json`."""
    findings = [
        {
            "code": code,
            "severity": severity,
            "where": where,
            "title": f"Title of {code}",
            "message": f"message of {code}",
            "numbers": numbers,
            "fakes": f"what {code} fakes",
            "remedy": f"remedy of {code}",
        }
        for code, severity, where, numbers in FINDINGS
    ]
    return {
        "at": "2026-02-03T04:05:00+00:00",
        "seconds": 5.2,
        "findings": findings,
        "unseen": [{"code": "governor", "where": "sensor", "message": "not <controlled> here"}],
        "fine": [{"code": "mtu", "where": "sensor: rx0", "message": "1500"}],
        "facts": {},
    }


__all__ = ["FINDINGS", "lab_check", "make_host_run", "samples", "stages"]
