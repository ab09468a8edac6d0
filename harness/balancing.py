"""How the load was spread over the sensor's workers, beside what the hash model predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from harness.model_ledger import Balance
from harness.results import Trial

if TYPE_CHECKING:
    from pcap_tools.flows import FlowTable
    from pcap_tools.plan import AddressPlan

__all__ = ["Predict", "measured_balance", "predictor"]

Predict = Callable[[Trial, int], "Balance | None"]
"""From a trial and a number of workers to its predicted `Balance` (measured is 0), if there is."""

# Flows × iterations worth predicting between two trials; more iterations only come closer to even.
_MOST = 500_000


def measured_balance(trial: Trial, predict: Predict | None = None) -> Balance | None:
    """The busiest worker's load over the mean, in packets that arrived (or that were decoded).

    None with fewer than two workers, or where the sensor does not tell. A prediction that fails is
    left out: it is about the corpus, and the measurement stands without it.
    """
    from pcap_tools.errors import PcapError

    if trial.after is None or len(trial.after.workers) < 2:
        return None
    base = trial.before.workers if trial.before is not None else {}
    loads = [float(n - base.get(name, 0)) for name, n in trial.after.workers.items()]
    raw, first = trial.after.raw, trial.before.raw if trial.before is not None else {}
    names = [f"threads.{name}.capture.kernel_packets" for name in trial.after.workers]
    if all(name in raw for name in names):
        loads = [raw[name] - first.get(name, 0.0) for name in names]
    mean = sum(loads) / len(loads)
    if mean <= 0:
        return None
    found = Balance(len(loads), max(loads) / mean)
    try:
        told = predict(trial, len(loads)) if predict is not None else None
    except PcapError:
        told = None
    return found if told is None else replace(told, measured=found.measured)


def predictor(capture: Path, plan: AddressPlan) -> Predict:
    """Predictions by the model of AF_PACKET's fanout hash for a corpus under a plan's addresses.

    The corpus is read when the first prediction is asked for.
    """
    known: list[FlowTable] = []
    answers: dict[tuple[str, int, int], Balance] = {}

    def predict(trial: Trial, workers: int) -> Balance | None:
        from pcap_tools.balance import balance
        from pcap_tools.flows import flow_table
        from pcap_tools.strategies import Replay

        if trial.method not in ("fresh", "loop", "unique-ip"):
            return None
        if not known:
            known.append(flow_table(capture))
        flows = max(1, len(known[0].rows))
        iterations = trial.schedule.iterations
        if trial.method != "loop":
            iterations = max(1, min(iterations, _MOST // flows))
        key = (trial.method, workers, iterations)
        if key not in answers:
            method = cast('Literal["fresh", "loop", "unique-ip"]', trial.method)
            first = trial.schedule.first_iteration if trial.method == "fresh" else 0
            replay = Replay(method, iterations, plan if trial.method == "fresh" else None, first)
            said = balance(known[0], replay, workers, ["af_packet-hash"])
            spread = said.results[0].packets
            answers[key] = Balance(
                workers, 0.0, spread.peak, spread.low, spread.high, said.floor, iterations
            )
        return answers[key]

    return predict
