"""A run on disk: `run.json`, `trials.jsonl`, `timeline.csv`, and nothing that is not measured.

`trials.jsonl` is append-only, one fsynced line a trial; a torn last line is what a crash leaves,
and is ignored (and cut off before the next append). Everything in a report is recomputed from
this directory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from harness.errors import ResultsError
from harness.model import (
    Counters,
    Detection,
    Failure,
    GateResult,
    InterfaceCounters,
    Ledger,
    Load,
    LossOf,
    Schedule,
    Sent,
    SignatureScore,
)
from harness.model_flows import FlowRecords
from harness.model_host import HostReading, HostTrial
from harness.model_ledger import AlertLedger, Balance, FlowLedger, TimeBudget, Verdict
from harness.results_read import alert_ledger, balance, flow_ledger, ledger, time_budget, verdict

__all__ = ["SCHEMA", "RunDir", "RunInfo", "Trial"]

SCHEMA = 1

Phase = Literal["calibration", "sweep", "bias"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial, whole. A field is None when it was not measured (see `failure`).

    `name` is unique in the run ("c01" calibration, "t01" … sweep, "b-loop" … bias). `before` and
    `after` are the sensor's counters; `nic` is what the sensor's interface counted during the
    trial, `port` what the generator's did. `drop_rate` is
    1 - analysed / offered; for a sensor that does not tell what it analysed it is the capture loss
    (see `harness.ledger.capture_loss`), and `loss_of` says so.
    `method` names the replay method: "fresh" (this product's), "loop", "unique-ip", "raw-loop".
    `bottleneck` is the verdict on what stopped the sensor. It, `budget`, `balance` and the ledgers
    of flows and alerts follow from the other fields; they are kept so that a record speaks for
    itself.
    """

    name: str
    phase: Phase
    repeat: int
    method: str
    started: str
    ended: str
    load: Load
    schedule: Schedule
    state: str
    sent: Sent | None = None
    before: Counters | None = None
    after: Counters | None = None
    nic: InterfaceCounters | None = None
    port: InterfaceCounters | None = None
    ledger: Ledger | None = None
    detection: Detection | None = None
    drop_rate: float | None = None
    settled: bool | None = None
    gates: tuple[GateResult, ...] = ()
    failure: Failure | None = None
    sensor_cpu_s: float | None = None
    host: HostTrial | None = None
    flow_ledger: FlowLedger | None = None
    alert_ledger: AlertLedger | None = None
    bottleneck: Verdict | None = None
    budget: TimeBudget | None = None
    balance: Balance | None = None
    flow_records: FlowRecords | None = None
    loss_of: LossOf = "analysed"

    @property
    def valid(self) -> bool:
        """True when it was measured whole and no gate of severity "invalid" fired."""
        return self.failure is None and all(g.severity != "invalid" for g in self.gates)

    def _achieved(self, asked: float) -> float | None:
        """An asked rate times what of it was really sent in the time it really took."""
        if self.sent is None or not self.sent.seconds or not self.schedule.packets:
            return None
        if self.schedule.settings.get("packets_are_estimates"):  # flows are what was asked
            share = self.sent.flows / self.schedule.flows
            return asked * share * self.schedule.seconds / self.sent.seconds
        share = self.sent.packets / self.schedule.packets
        return asked * share * self.schedule.seconds / self.sent.seconds

    def _counted(self, asked: float, sent: float) -> float | None:
        """`_achieved`, or what was sent over the time where what was asked is an estimate."""
        if self.sent is None or not self.sent.seconds:
            return None
        if self.schedule.settings.get("packets_are_estimates"):
            return sent / self.sent.seconds
        return self._achieved(asked)

    @property
    def offered_pps(self) -> float | None:
        """Packets/s really offered while iterations were being started."""
        return self._counted(self.schedule.pps, self.sent.packets if self.sent else 0)

    @property
    def offered_flows_per_s(self) -> float | None:
        """New flows/s really offered while iterations were being started."""
        return self._achieved(self.schedule.flows_per_s)

    @property
    def offered_bps(self) -> float | None:
        """Bits/s of frames (without FCS, preamble and gap) really offered."""
        return self._counted(self.schedule.bps, 8 * self.sent.bytes if self.sent else 0)

    @property
    def offered(self) -> float | None:
        """What was really offered, in the unit of the load's axis."""
        if self.load.axis == "concurrent":
            return self._achieved(self.schedule.concurrent_flows)
        return {
            "pps": self.offered_pps,
            "flows": self.offered_flows_per_s,
            "bps": self.offered_bps,
        }[self.load.axis]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as written to `trials.jsonl`."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Trial:
        """The inverse of `to_json`; unknown keys are ignored, so newer files stay readable."""
        known = {f.name for f in fields(cls)}
        kw = {k: v for k, v in data.items() if k in known}
        kw["load"] = Load(**kw["load"])
        kw["schedule"] = Schedule(**{**kw["schedule"], "load": Load(**kw["schedule"]["load"])})
        for key, kind in (
            ("sent", Sent),
            ("before", Counters),
            ("after", Counters),
            ("nic", InterfaceCounters),
            ("port", InterfaceCounters),
            ("failure", Failure),
            ("flow_records", FlowRecords),
        ):
            if kw.get(key) is not None:
                kw[key] = kind(**kw[key])
        for key, read in _NESTED:
            if kw.get(key) is not None:
                kw[key] = read(kw[key])
        if kw.get("host") is not None:
            kw["host"] = _host(kw["host"])
        if kw.get("detection") is not None:
            found = dict(kw["detection"])
            found["by_signature"] = tuple(SignatureScore(**s) for s in found["by_signature"])
            kw["detection"] = Detection(**found)
        kw["gates"] = tuple(GateResult(**g) for g in kw.get("gates") or ())
        return cls(**kw)


_NESTED: tuple[tuple[str, Callable[[dict[str, Any]], Any]], ...] = (
    ("ledger", ledger),
    ("flow_ledger", flow_ledger),
    ("alert_ledger", alert_ledger),
    ("bottleneck", verdict),
    ("budget", time_budget),
    ("balance", balance),
)


def _host(data: dict[str, Any]) -> HostTrial:
    readings = {
        key: HostReading(**data[key]) if data[key] is not None else None
        for key in ("before", "after")
    }
    return HostTrial(**{**data, **readings})


@dataclass(frozen=True, slots=True)
class RunInfo:
    """`run.json`: everything that describes a run and is known before its first trial.

    `profile` and `inventory` are the validated configurations as plain data (no secret is in
    them); `corpus` is `harness.model.Corpus` as a dict plus "clean" (totals by reason) when known;
    `reference` is `harness.model.Reference` as a dict; `hosts` maps a host name to its facts
    (kernel, cpu model, cores, memory, tool versions); `seeds` holds the permutation key.
    """

    profile: dict[str, Any]
    inventory: dict[str, Any]
    corpus: dict[str, Any]
    reference: dict[str, Any]
    hosts: dict[str, dict[str, str]]
    tools: dict[str, str]
    seeds: dict[str, str]
    started: str
    sensor: str
    notes: tuple[str, ...] = ()
    loads: tuple[float, ...] = ()
    schema: int = SCHEMA
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunDir:
    """A run directory. Nothing is cached: what it returns is what is on disk."""

    path: Path

    @property
    def trials_path(self) -> Path:
        """The append-only record of trials."""
        return self.path / "trials.jsonl"

    @property
    def timeline_path(self) -> Path:
        """Samples: trial,t_s,sent,received,dropped,alerts (empty field: not observable)."""
        return self.path / "timeline.csv"

    def write_info(self, info: RunInfo) -> None:
        """Write `run.json` under a temporary name, fsync it, and rename it."""
        self.path.mkdir(parents=True, exist_ok=True)
        target = self.path / "run.json"
        partial = target.with_suffix(".json.partial")
        with partial.open("w") as out:
            json.dump(asdict(info), out, indent=1, default=str)
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        partial.replace(target)

    def info(self) -> RunInfo:
        """Read `run.json`. Raises ResultsError."""
        target = self.path / "run.json"
        try:
            data = json.loads(target.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise ResultsError(
                f"{self.path}: not a run directory (no run.json there); give one that "
                "`probebench sweep` made, by default under results/"
            ) from None
        except OSError as error:
            raise ResultsError(f"{target}: cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ResultsError(f"{target}: damaged: not JSON ({error})") from None
        if not isinstance(data, dict):
            raise ResultsError(f"{target}: damaged: not a table of keys")
        if data.get("schema") != SCHEMA:
            raise ResultsError(
                f"{target}: schema {data.get('schema')!r}, this version reads {SCHEMA}; "
                "use the probebench that wrote it"
            )
        known = {f.name for f in fields(RunInfo)}
        kw = {k: v for k, v in data.items() if k in known}
        kw["notes"] = tuple(kw.get("notes", ()))
        kw["loads"] = tuple(kw.get("loads", ()))
        try:
            return RunInfo(**kw)
        except TypeError as error:
            raise ResultsError(f"{target}: {error}") from None

    def _whole_lines(self) -> tuple[list[bytes], int]:
        """Whole lines of `trials.jsonl`, and the number of bytes they take."""
        try:
            data = self.trials_path.read_bytes()
        except FileNotFoundError:
            return [], 0
        end = data.rfind(b"\n") + 1
        return data[:end].splitlines(), end

    def trials(self) -> Iterator[Trial]:
        """Every whole trial, in order of execution. Raises ResultsError on a damaged one."""
        for number, line in enumerate(self._whole_lines()[0], 1):
            try:
                yield Trial.from_json(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise ResultsError(
                    f"{self.trials_path}: line {number} is damaged ({error!r}); "
                    "remove that line to read the rest"
                ) from None

    def append(self, trial: Trial) -> None:
        """Add one trial: cut off a torn tail, write the line, fsync."""
        self.path.mkdir(parents=True, exist_ok=True)
        _, end = self._whole_lines()
        with self.trials_path.open("ab") as out:
            if out.tell() != end:
                out.truncate(end)
            out.write(json.dumps(trial.to_json()).encode() + b"\n")
            out.flush()
            os.fsync(out.fileno())
