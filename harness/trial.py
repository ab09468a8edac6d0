"""One trial: a known state, counters, load, settling, counters and alerts, score.

The order is the experiment's: nothing reads the sensor while it is loaded but the live line, and
whatever fails is named and never becomes a number.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from harness import gates, ledger
from harness.balancing import Predict
from harness.conclusions import conclude
from harness.detection import score
from harness.errors import GeneratorFailed, HarnessError, SensorFailed, SensorRestarted
from harness.generators.base import Generator
from harness.hostwatch import HostWatch
from harness.model import (
    UNITS,
    Detection,
    Failure,
    InterfaceCounters,
    Load,
    Reference,
    Schedule,
)
from harness.preflight import stored_findings
from harness.progress import Progress, count
from harness.results import Phase, Trial
from harness.sensors.base import KeepsFlows, Live, Sensor
from harness.templates import score_templates
from lab.errors import ConnectError, ConnectionLost, LabError
from lab.facts import interface_statistics
from lab.host import Host

__all__ = ["Port", "Rig", "TrialSpec", "interface_counters", "run_trial", "stop_quietly"]

Invert = Callable[[list[str]], list[tuple[int, str] | None]]


@dataclass(frozen=True, slots=True)
class Port:
    """An interface on a host."""

    host: Host
    interface: str


@dataclass(frozen=True, slots=True)
class Rig:
    """Everything a trial needs and that stays the same from trial to trial.

    `transmit` are the interfaces the generator sends on that its kernel knows (none where DPDK took
    them), `receive` the sensor's (None where nobody can read it), `watch` the sampler on its host.
    `predict` says how the load should spread over workers; frames have up to `max_frame` bytes;
    `limited` are the signatures due whose rules count or limit.
    """

    generator: Generator
    sensor: Sensor
    transmit: tuple[Port, ...]
    receive: Port | None
    reference: Reference
    invert: Invert
    directory: Path
    progress: Progress
    settle_timeout: float
    co_located: bool = False
    watch: HostWatch | None = None
    predict: Predict | None = None
    max_frame: int | None = None
    limited: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """What is asked of one trial; `first_iteration` makes its addresses fresh in the run."""

    name: str
    phase: Phase
    load: Load
    first_iteration: int
    repeat: int = 0
    method: str = "fresh"


def interface_counters(port: Port) -> InterfaceCounters:
    """Read /sys/class/net/<if>/statistics of a port."""
    read = interface_statistics(port.host, port.interface)
    return InterfaceCounters(
        rx_packets=read["rx_packets"],
        rx_bytes=read["rx_bytes"],
        rx_dropped=read["rx_dropped"],
        rx_missed=read["rx_missed_errors"],
        rx_errors=read["rx_errors"],
        tx_packets=read["tx_packets"],
        tx_bytes=read["tx_bytes"],
        tx_dropped=read["tx_dropped"],
        tx_errors=read["tx_errors"],
    )


def _sum(ports: tuple[Port, ...]) -> InterfaceCounters | None:
    """Counters summed over interfaces; None where there is none to read."""
    if not ports:
        return None
    first, *rest = (interface_counters(port) for port in ports)
    return sum(rest, start=first)


def _since(
    after: InterfaceCounters | None, before: InterfaceCounters | None
) -> InterfaceCounters | None:
    return None if after is None or before is None else after.since(before)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def run_trial(
    rig: Rig,
    spec: TrialSpec,
    generator: Generator | None = None,
    earlier: tuple[Trial, ...] = (),
) -> Trial:
    """Run one trial to its end and return its record (not yet stored).

    `earlier` are the run's trials so far, for the gates that compare.
    A generator or sensor that fails, or a host that cannot do what it was told (disk full, a
    program missing), gives a record with `failure` set. A lost connection (ConnectionLost) and
    interruptions are raised, after both were stopped.
    """
    source = generator or rig.generator
    trial = Trial(
        name=spec.name,
        phase=spec.phase,
        repeat=spec.repeat,
        method=spec.method,
        started=_now(),
        ended="",
        load=spec.load,
        schedule=source.plan(spec.load, spec.first_iteration),
        state=rig.sensor.state,
    )
    try:
        trial = _measure(rig, source, trial)
    except GeneratorFailed as error:
        trial = replace(trial, failure=Failure("generator-failed", str(error)))
    except SensorFailed as error:
        code = "sensor-restarted" if isinstance(error, SensorRestarted) else "sensor-failed"
        trial = replace(trial, failure=Failure(code, str(error)))
    except (ConnectError, ConnectionLost):
        raise
    except LabError as error:
        trial = replace(trial, failure=Failure("host-failed", str(error)))
    finally:
        stop_quietly(source, rig.sensor)
        if rig.watch is not None:
            rig.watch.close()
    trial = conclude(replace(trial, ended=_now()), rig.reference.flows, rig.predict)
    context = gates.Context(
        rig.sensor.capabilities,
        rig.co_located,
        earlier,
        rig.reference.flows,
        stored_findings(rig.directory),
        getattr(rig.sensor, "flow_timeout", None),
        rig.limited,
    )
    return replace(trial, gates=gates.evaluate(trial, context))


def stop_quietly(*parts: Generator | Sensor) -> None:
    """Stop each, whatever becomes of the others.

    A host that cannot be told any more must not hide why the work ended; its leash ends what runs
    there.
    """
    for part in parts:
        with suppress(LabError, HarnessError):
            part.stop()


def _measure(rig: Rig, source: Generator, trial: Trial) -> Trial:
    sensor = rig.sensor
    sensor.prepare()
    before = sensor.snapshot()
    if rig.watch is not None:
        rig.watch.begin(sensor.footprint(), trial.name)
    receive = () if rig.receive is None else (rig.receive,)
    nic0, port0 = _sum(receive), _sum(rig.transmit)
    source.start(trial.schedule)
    _watch(rig, source, trial)
    sent = source.finish()
    settled = sensor.settle(rig.settle_timeout)
    nic = _since(_sum(receive), nic0)
    port = _since(_sum(rig.transmit), port0)
    host = rig.watch.end() if rig.watch is not None else None
    after = sensor.finish()
    if port is not None:
        sent = replace(sent, wire_packets=port.tx_packets, wire_bytes=port.tx_bytes)
    account = ledger.build(
        sent,
        nic,
        before,
        after,
        sensor.capabilities,
        port=port,
        host=host,
        max_frame=rig.max_frame,
    )
    loss = ledger.drop_rate(account)
    captured = ledger.capture_loss(account, before, after) if loss is None else None
    trial = replace(
        trial,
        sent=sent,
        before=before,
        after=after,
        nic=nic,
        port=port,
        host=host,
        settled=settled,
        ledger=account,
        drop_rate=captured if loss is None else loss,
        loss_of="analysed" if captured is None else "capture",
        sensor_cpu_s=getattr(sensor, "cpu_seconds", None),
    )
    if sensor.capabilities.alerts and rig.reference.due:
        trial = replace(trial, detection=_score(rig, source, trial))
    if isinstance(sensor, KeepsFlows):
        trial = replace(trial, flow_records=sensor.flow_records())
    sensor.collect(rig.directory / "logs" / trial.name)
    return trial


def _score(rig: Rig, source: Generator, trial: Trial) -> Detection | None:
    schedule = trial.schedule
    if source.identity == "template" and trial.sent is not None:
        if not source.templates:
            return None  # its packets carry nothing to detect
        return score_templates(
            rig.sensor.alerts(), rig.reference, source.templates, trial.sent.templates
        )
    if trial.method == "fresh":
        first, number = schedule.first_iteration, schedule.iterations
        return score(rig.sensor.alerts(), rig.reference, rig.invert, first, number)
    return naive_score(rig, schedule)


def naive_score(rig: Rig, schedule: Schedule) -> Detection:
    """Score a replay whose copies cannot be told apart: alerts raised against alerts due.

    Only good where no rule has a threshold; used for the comparison of replay methods alone.
    """
    due = schedule.iterations * len(rig.reference.due)
    raised = sum(1 for _ in rig.sensor.alerts())
    expected = schedule.iterations * rig.reference.raised
    rate = min(1.0, raised / expected) if expected else 0.0
    return Detection(
        due=due,
        detected=round(rate * due),
        rate=rate,
        low=rate,
        high=rate,
        raised=raised,
        repeated=0,
        unexpected=0,
        unmapped=0,
        by_signature=(),
    )


def _watch(rig: Rig, source: Generator, trial: Trial) -> None:
    """Follow the sending: one line and one row of `timeline.csv` a second."""
    start = time.monotonic()
    tick = 0
    with _timeline(rig) as rows:
        while True:
            state = source.progress()
            live = rig.sensor.live()
            elapsed = time.monotonic() - start
            _row(rows, trial.name, elapsed, state.packets, live)
            rig.progress.live(_line(trial, elapsed, state.packets, live))
            if state.done:
                return
            tick += 1
            while (left := start + tick - time.monotonic()) > 0:
                time.sleep(min(left, 0.1))
                if left > 0.15 and source.progress().done:
                    break


def _timeline(rig: Rig) -> TextIO:
    path = rig.directory / "timeline.csv"
    fresh = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = path.open("a", buffering=1)
    if fresh:
        rows.write("trial,t_s,sent,received,dropped,alerts\n")
    return rows


def _row(rows: TextIO, name: str, elapsed: float, sent: int, live: Live) -> None:
    cells = ["" if v is None else str(v) for v in (live.received, live.dropped, live.alerts)]
    rows.write(f"{name},{elapsed:.3f},{sent},{','.join(cells)}\n")


def _line(trial: Trial, elapsed: float, sent: int, live: Live) -> str:
    unit = UNITS[trial.load.axis]
    return (
        f"{trial.name:>8} {trial.method:<9} {count(trial.load.value):>7} {unit} "
        f"{elapsed:5.1f}/{trial.schedule.seconds:.0f} s  sent {count(sent):>7}  "
        f"received {count(live.received):>7}  dropped {count(live.dropped):>7}  "
        f"alerts {count(live.alerts):>7}"
    )
