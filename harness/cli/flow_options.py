"""Options and output that the commands over flows share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.plain_table import print_table

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
    "print_tallies",
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


def print_tallies(title: str, tallies: dict[str, Tally], *, meanings: bool = False) -> None:
    """Print flows, packets and bytes by name, and what a rule means."""
    from pcap_tools.policy import RULES

    head = [title, "flows", "packets", "bytes", *(["why"] if meanings else [])]
    rows = [
        [name, f"{tally.flows:,}", f"{tally.packets:,}", f"{tally.bytes:,}"]
        + ([RULES.get(name, "")] if meanings else [])
        for name, tally in tallies.items()
    ]
    print_table(head, rows, range(1, 4))


def print_forecast(result: Forecast, verb: str) -> None:
    """Print what came in, what is kept, and what each rule drops."""
    rows = {"in": result.all, "kept": result.kept, **result.dropped}
    print_tallies(verb, rows, meanings=True)


def print_ignored(ignored: int) -> None:
    """Say on standard error how much of a truncated tail was ignored."""
    if ignored:
        print(f"ignored {ignored:,} bytes of a truncated tail of the input", file=sys.stderr)
