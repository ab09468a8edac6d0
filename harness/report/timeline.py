"""The samples of `timeline.csv` as a frame, with rates."""

from __future__ import annotations

import pandas as pd

from harness.errors import ResultsError
from harness.results import RunDir

__all__ = ["timeline_frame"]


def _usual_step(times: pd.Series[float]) -> float:
    return float(times.diff().median()) if len(times) > 1 else 0.0


def timeline_frame(run: RunDir) -> pd.DataFrame:
    """Samples taken during the trials, with rates. Empty when there is no timeline.csv.

    Columns as in the file (trial, t_s, sent, received, dropped, alerts: cumulative in the trial;
    missing: not observable) and sent_per_s, received_per_s, dropped_per_s, alerts_per_s: growth
    since the sample before, over the time between them. A counter that went backwards (a
    sensor that was restarted) gives no rate, nor does a last sample that came early: counters that
    lag by up to a second would look like a burst there. Raises ResultsError on an unreadable file.
    """
    values = ["sent", "received", "dropped", "alerts"]
    columns = ["trial", "t_s", *values]
    if not run.timeline_path.exists():
        return pd.DataFrame(columns=[*columns, *(f"{name}_per_s" for name in values)])
    try:
        frame = pd.read_csv(run.timeline_path, dtype={"trial": "str"}, on_bad_lines="skip")
        frame = frame[columns]
        for name in columns[1:]:
            frame[name] = pd.to_numeric(frame[name], errors="coerce").astype("float64")
    except (KeyError, ValueError, OSError) as error:
        raise ResultsError(
            f"{run.timeline_path}: not a readable timeline ({error}); remove it to report without"
        ) from None
    frame = frame[frame["t_s"].notna() & frame["trial"].notna()].reset_index(drop=True)
    groups = frame.groupby("trial", sort=False)
    step = groups["t_s"].diff()
    last = groups.cumcount(ascending=False) == 0
    whole = (step > 0) & ~(last & (step < 0.9 * groups["t_s"].transform(_usual_step)))
    for name in values:
        growth = groups[name].diff()
        frame[f"{name}_per_s"] = (growth / step).where(whole & (growth >= 0))
    return frame
