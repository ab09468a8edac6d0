"""What the generator says of itself, by trial: connections, retransmissions, its own drops."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from harness.report import words
from harness.report.grids import Grid, Row
from harness.report.tables import status_of
from harness.results import Trial

__all__ = ["generator_grid"]


def _percent(value: float) -> str:
    return words.percent(value / 100)


def _count(value: float) -> str:
    return words.count(round(value))


# Names of `Sent.extra`, in the order of a trial: what was opened, what went wrong, what was full.
_COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "flows_opened": ("flows opened", _count),
    "connections": ("connections", _count),
    "active_flows_peak": ("active flows, peak", _count),
    "connection_drops": ("connections dropped", _count),
    "retransmissions": ("retransmitted segments", _count),
    "queue_full": ("queue full", _count),
    "alloc_error": ("out of buffers", _count),
    "transmit_errors": ("transmit errors", _count),
    "received_packets": ("packets back at its ports", _count),
    "receive_errors": ("receive errors", _count),
    "retried_enobufs": ("retries (no buffer)", _count),
    "retried_eagain": ("retries (busy)", _count),
    "cpu_percent_peak": ("its CPU, peak", _percent),
}
_RATE = "connections/s"


def generator_grid(trials: Iterable[Trial]) -> Grid:
    """A row a trial whose generator tells more than packets; columns that any of them tells.

    What a trial does not tell is said to be so, and never shown as zero.
    """
    told = [trial for trial in trials if trial.sent is not None and trial.sent.extra]
    names = [n for n in _COLUMNS if any(t.sent and n in t.sent.extra for t in told)]
    rated = "connections" in names
    rows = []
    for trial in told:
        assert trial.sent is not None
        extra, seconds = trial.sent.extra, trial.sent.seconds
        cells = [trial.name]
        if rated:
            some = "connections" in extra and seconds > 0
            cells.append(f"{extra['connections'] / seconds:,.1f}" if some else words.NOT_OBSERVABLE)
        for name in names:
            known = name in extra
            cells.append(_COLUMNS[name][1](extra[name]) if known else words.NOT_OBSERVABLE)
        rows.append(Row(tuple(cells), status_of(trial)))
    heads = ("trial", *([_RATE] if rated else []), *(_COLUMNS[name][0] for name in names))
    return Grid(heads, tuple(rows) if names else (), frozenset(range(1, len(heads))))
