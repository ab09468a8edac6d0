"""Options and output that the commands over flows share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pcap_tools.forecast import Forecast, Tally
    from pcap_tools.policy import Policy

__all__ = [
    "RULES",
    "AsJson",
    "Checksums",
    "Drop",
    "Edge",
    "FlowsBy",
    "Idle",
    "Inputs",
    "Keep",
    "policy_of",
    "print_forecast",
    "print_ignored",
    "tally_table",
]

Inputs = Annotated[
    list[str], typer.Argument(metavar="IN...", help="pcap or pcapng files; - is standard input.")
]
Keep = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="RULE", help="Do not apply this rule (may be repeated)."),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(
        "--drop",
        metavar="RULE",
        help="Apply this rule too: checksum, rejected, one-way (may be repeated).",
    ),
]
Edge = Annotated[
    float,
    typer.Option(
        "--edge",
        metavar="S",
        help="One-way UDP and ICMP flows this close to an end of the capture are dropped, in "
        "seconds; at most 5 % of the capture's span.",
    ),
]
Idle = Annotated[
    float,
    typer.Option("--idle", metavar="S", help="Silence that ends a UDP or ICMP flow, in seconds."),
]
FlowsBy = Annotated[
    str,
    typer.Option(
        "--flows-by",
        metavar="outer|inner",
        help="Packets of a tunnel make the tunnel's flow (outer), or those inside it (inner).",
    ),
]
Checksums = Annotated[
    str,
    typer.Option(
        "--checksums",
        metavar="keep|drop|fix",
        help="Wrong checksums: keep, drop the whole flow (rule checksum), or put right (clean).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]

RULES = (
    "\n\nRules: midstream, unanswered, one-sided, capture-loss, unterminated, truncated, edge, "
    "fragment, malformed, non-ip (on); checksum, rejected, one-way (off)."
)


def policy_of(
    keep: list[str] | None,
    drop: list[str] | None,
    edge: float,
    idle: float,
    flows_by: str,
    checksums: str,
) -> Policy:
    """The cleaning policy that the options ask for. Raises PcapError."""
    from pcap_tools.errors import PcapError
    from pcap_tools.policy import DEFAULT_DROP, NEEDS_CHECKSUMS, Policy

    if flows_by not in ("outer", "inner"):
        raise PcapError(f"--flows-by {flows_by}: give outer or inner")
    wanted, more = frozenset(keep or ()), frozenset(drop or ())
    Policy(drop=wanted)  # refuses unknown names
    if checksums == "drop":
        more, checksums = more | {NEEDS_CHECKSUMS}, "keep"
    rules = (DEFAULT_DROP | more) - wanted
    return Policy(rules, edge, idle, inner=flows_by == "inner", checksums=checksums)


def tally_table(title: str, tallies: dict[str, Tally], meanings: bool = False) -> object:
    """A table for the terminal: flows, packets and bytes by name, and what a rule means."""
    from rich.table import Table

    from pcap_tools.policy import RULES

    table = Table(title, "flows", "packets", "bytes", box=None, pad_edge=False)
    if meanings:
        table.add_column("why")
    for column in table.columns[1:4]:
        column.justify = "right"
    for name, tally in tallies.items():
        row = [name, f"{tally.flows:,}", f"{tally.packets:,}", f"{tally.bytes:,}"]
        table.add_row(*row, *([RULES.get(name, "")] if meanings else []))
    return table


def print_forecast(result: Forecast, verb: str) -> None:
    """Print what came in, what is kept, and what each rule drops."""
    from rich.console import Console

    rows = {"in": result.all, "kept": result.kept, **result.dropped}
    Console(highlight=False).print(tally_table(verb, rows, meanings=True))


def print_ignored(ignored: int) -> None:
    """Say on standard error how much of a truncated tail was ignored."""
    if ignored:
        print(f"ignored {ignored:,} bytes of a truncated tail of the input", file=sys.stderr)
