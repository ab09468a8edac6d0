"""All frames of a run in one value."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from harness.errors import ResultsError
from harness.report import tables
from harness.report.samples import timeline_frame
from harness.results import RunDir

__all__ = ["Frames", "read_frames"]


@dataclass(frozen=True, slots=True)
class Frames:
    """Every frame of a run; their columns are documented in `harness.report.tables`, `samples`."""

    trials: pd.DataFrame
    curves: pd.DataFrame
    signatures: pd.DataFrame
    workers: pd.DataFrame
    bias: pd.DataFrame
    gates: pd.DataFrame
    timeline: pd.DataFrame


def read_frames(run: RunDir) -> Frames:
    """Every frame of a run. Raises ResultsError, also when it has no trial."""
    trials = tables.trials_frame(run)
    if trials.empty:
        raise ResultsError(
            f"{run.trials_path}: no trial was recorded yet; run "
            f"`probebench sweep PROFILE --resume {run.path}` first"
        )
    return Frames(
        trials=trials,
        curves=tables.curves_frame(run),
        signatures=tables.signatures_frame(run),
        workers=tables.workers_frame(run),
        bias=tables.bias_frame(run),
        gates=tables.gates_frame(run),
        timeline=timeline_frame(run),
    )
