"""The figure of the time budget: what there is for a packet against what a packet took."""

from __future__ import annotations

from harness.report import words
from harness.report.accounts import Accounts
from harness.report.style import COLOURS, INK, Drawn, figure, load_axis

__all__ = ["time_budget"]


def time_budget(accounts: Accounts, name: str) -> Drawn | None:
    """Budget line and CPU time per packet over load offered, a mark a worker; None without data."""
    known = [
        (t, t.budget)
        for t in accounts.sweep
        if t.budget is not None and t.budget.spent_us is not None and t.offered_pps
    ]
    if not known:
        return None
    from matplotlib.ticker import LogLocator

    made, (axes,) = figure(4.2)
    loads = [float(t.offered_pps or 0.0) for t, _ in known]
    axes.plot(
        loads,
        [b.budget_us for _, b in known],
        color=INK,
        linestyle="--",
        linewidth=1.4,
        label="time there is: workers / (packets/s)",
    )
    axes.plot(
        loads,
        [b.spent_us or 0.0 for _, b in known],
        color=COLOURS["vermillion"],
        marker="s",
        markersize=5,
        linewidth=1.8,
        label="CPU time a packet took",
    )
    single = [
        (float(t.offered_pps or 0.0), w.spent_us, w.budget_us)
        for t, b in known
        if len(b.workers) > 1
        for w in b.workers
        if w.spent_us is not None and w.budget_us is not None
    ]
    for values, mark, colour, label in (
        ([spent for _, spent, _ in single], "o", COLOURS["orange"], "one worker, spent"),
        ([there for _, _, there in single], "_", INK, "one worker, there is"),
    ):
        if single:
            x = [load for load, _, _ in single]
            axes.plot(x, values, mark, color=colour, markersize=6, alpha=0.8, label=label)
    load_axis(axes, min(loads), max(loads))
    axes.set_xlabel("Load really offered (packets/s)")
    axes.set_ylabel("Microseconds per packet")
    shown = [b.budget_us for _, b in known] + [b.spent_us or 0.0 for _, b in known]
    shown += [us for _, spent, there in single for us in (spent, there)]
    if max(shown) > 12 * min(shown) > 0:  # the curves meet at the foot of a linear axis
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 3, 5, 7)))
        axes.yaxis.set_minor_formatter(lambda value, _: "")
    else:
        axes.set_ylim(0, 1.06 * max(shown))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="y", alpha=0.25, linewidth=0.8)
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.16), ncols=2)
    return Drawn(name, _title(accounts), made)


def _title(accounts: Accounts) -> str:
    rows = [
        (t, t.budget, t.budget.spent_us)
        for t in accounts.sweep
        if t.budget is not None and t.budget.spent_us is not None and t.offered_pps
    ]
    trial, budget, spent = rows[-1]
    at = words.load(float(trial.offered_pps or 0.0), "pps")
    return (
        f"At {at} there are {budget.budget_us:,.3g} µs for a packet; a packet analysed took "
        f"{spent:,.3g} µs of CPU time"
    )
