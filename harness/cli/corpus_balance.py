"""`probebench corpus balance`: how a replay would spread over a sensor's workers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pcap_tools.balance import Balance
    from pcap_tools.strategies import FlowGroup, Replay

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("balance")(balance_command)


def balance_command(
    captures: Annotated[
        list[str], typer.Argument(metavar="IN...", help="Captures; - is standard input.")
    ],
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, help="The sensor's workers or queues.")
    ],
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy", metavar="loop|unique-ip|fresh|remap", help="How the capture is replayed."
        ),
    ] = "fresh",
    iterations: Annotated[
        int, typer.Option("--iterations", metavar="N", min=1, help="How often it is replayed.")
    ] = 1000,
    first: Annotated[
        int,
        typer.Option("--first", metavar="I", min=0, help="First iteration (fresh), or which."),
    ] = 0,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="TEXT", help="Selects the permutations (fresh, remap)."),
    ] = None,
    home: Annotated[
        str | None,
        typer.Option("--home", metavar="CIDR,...", help="Home networks; default: private ranges."),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="PLAN.json", help="The plan of an expansion, instead of key and home."
        ),
    ] = None,
    balancer: Annotated[
        list[str] | None,
        typer.Option("--balancer", metavar="NAME", help="Only this balancer (may be repeated)."),
    ] = None,
    keys: Annotated[
        int | None,
        typer.Option(
            "--keys", metavar="K", min=1, help="Random keys tried; default 200, fewer for much."
        ),
    ] = None,
    idle: Annotated[
        float, typer.Option("--idle", metavar="S", help="Silence that ends a UDP or ICMP flow.")
    ] = 60.0,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FIG.png", help="Bar figure: .png, .svg or .pdf."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the prediction as JSON.")] = False,
) -> None:
    """Predict each worker's share of packets, bytes and flows, per load balancer.

    A replay whose flows hash to few workers drowns these while the others idle: what is lost then
    says nothing about the sensor. docs/balance.md explains the balancers and the strategies.

    Example: `probebench corpus balance clean.pcap --workers 8 --strategy unique-ip
    --iterations 1000 -o balance.png`
    """
    from harness.cli.outputs import check_outputs
    from pcap_tools.balance import balance
    from pcap_tools.balancers import pick
    from pcap_tools.flows import flow_table
    from pcap_tools.strategies import flow_groups

    check_outputs([output], captures)
    if output:
        from harness.report.balance_figure import check_suffix

        check_suffix(output)
    pick(balancer)
    table = flow_table(captures, idle)
    replay = _replay(flow_groups(table), strategy, iterations, first, key, home, plan)
    made = balance(table, replay, workers, balancer or (), keys)
    if output:
        from harness.report.balance_figure import draw, save_figure

        save_figure(draw(made), output)
    if as_json:
        print(json.dumps(made.as_json(), indent=1))
    else:
        _show(made)


def _replay(
    groups: list[FlowGroup],
    strategy: str,
    iterations: int,
    first: int,
    key: str | None,
    home: str | None,
    plan: Path | None,
) -> Replay:
    from harness.errors import ConfigError
    from pcap_tools.plan import AddressPlan
    from pcap_tools.pools import DEFAULT_HOME
    from pcap_tools.strategies import Replay, plan_of

    if strategy not in ("fresh", "remap"):
        if plan or key or home or first:
            raise ConfigError(
                f"--plan, --key, --home and --first belong to the strategies fresh and remap, not "
                f"to {strategy}"
            )
        return Replay(strategy, iterations)  # type: ignore[arg-type]
    if plan and (key or home):
        raise ConfigError("--plan already has key and home networks; leave out --key and --home")
    if plan:
        made = AddressPlan.load(plan)
    else:
        # Any key predicts the same load; a fixed one makes the prediction repeatable.
        networks = tuple(part.strip() for part in home.split(",")) if home else DEFAULT_HOME
        made = plan_of(groups, key or "balance", networks)
    return Replay(strategy, iterations, made, first)  # type: ignore[arg-type]


def _show(made: Balance) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("balancer", "packets", "bytes", "flows", "whole", "verdict", box=None)
    for column in table.columns[1:5]:
        column.justify = "right"
    table.columns[0].no_wrap = True
    for one in made.results:
        spread = f"{one.packets.peak:.2f}"
        if one.keyed:
            spread += f" ({one.packets.low:.2f}-{one.packets.high:.2f})"
        table.add_row(
            one.name,
            spread,
            f"{one.bytes.peak:.2f}",
            f"{one.flows.peak:.2f}",
            f"{100 * one.whole:.0f} %",
            made.verdict(one),
        )
    console.print(
        f"{made.strategy}, {made.iterations:,} iterations: {made.packets:,} packets, "
        f"{made.flows:,} flows on {made.workers} workers; max/mean of what a worker gets "
        f"(random keys: median of {made.keys}, 5-95 %)",
        markup=False,
        soft_wrap=True,
    )
    console.print(table)
    if made.outside:
        print(
            f"probebench: warning: {made.outside:,} packets an iteration are in no flow (not IP, "
            "malformed, fragments alone): where they go is not predicted",
            file=sys.stderr,
        )
