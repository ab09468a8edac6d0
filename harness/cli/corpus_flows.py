"""`probebench corpus inspect | flows | clean`: what a capture holds, and what can be replayed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.progress import progress as _progress

if TYPE_CHECKING:
    from pcap_tools.clean import Forecast, Tally
    from pcap_tools.inspect import Inspection
    from pcap_tools.policy import Policy

__all__ = ["register"]

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
        "--drop", metavar="RULE", help="Apply this rule too: rejected, one-way (may be repeated)."
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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]

_RULES = (
    "\n\nRules: midstream, unanswered, capture-loss, unterminated, truncated, edge, fragment, "
    "malformed, non-ip (on); rejected, one-way (off)."
)


def register(app: typer.Typer) -> None:
    """Add the commands to the corpus group."""
    app.command(
        help="Tell what a capture holds, and what cleaning would drop.\n\n"
        "Example: `probebench corpus inspect raw.pcap`" + _RULES
    )(inspect)
    app.command(
        help="Write the flow table: one row a flow, as CSV, JSON lines or Parquet.\n\n"
        "Example: `probebench corpus flows raw.pcap -o flows.csv`" + _RULES
    )(flows)
    app.command(
        help="Strip half-flows and write what a probe can analyse whole, with a report.\n\n"
        "Example: `probebench corpus clean raw.pcap -o clean.pcap`" + _RULES
    )(clean)


def inspect(
    inputs: Inputs,
    keep: Keep = None,
    drop: Drop = None,
    edge: Edge = 1.0,
    idle: Idle = 60.0,
    as_json: AsJson = False,
) -> None:
    """Tell what a capture holds."""
    from pcap_tools.inspect import inspect as look

    with _progress() as progress:
        found = look(inputs, _policy(keep, drop, edge, idle), progress)
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        _print_inspection(found)


def flows(
    inputs: Inputs,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Table: .csv, .jsonl or .parquet.")
    ],
    keep: Keep = None,
    drop: Drop = None,
    edge: Edge = 1.0,
    idle: Idle = 60.0,
    as_json: AsJson = False,
) -> None:
    """Write the flow table."""
    from harness.cli.outputs import check_outputs
    from pcap_tools.capture import open_capture
    from pcap_tools.clean import forecast, read_table
    from pcap_tools.table import check_suffix, write_flows

    policy = _policy(keep, drop, edge, idle)
    check_suffix(output)
    check_outputs([output], inputs)
    with open_capture(inputs) as capture, _progress() as progress:
        table = read_table(capture, policy.idle_s, progress)
        write_flows(table, output, policy)
    result = forecast(table, policy)
    if as_json:
        print(json.dumps({"output": str(output), "flows": len(table), "states": table.states()}))
        return
    print(f"{output}: {len(table):,} flows, {result.kept.flows:,} to keep")
    _print_ignored(capture.ignored_bytes)


def clean(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("-o", "--output", help="The cleaned capture (pcap).")],
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Where the report goes; OUT.clean.json by default."),
    ] = None,
    keep: Keep = None,
    drop: Drop = None,
    edge: Edge = 1.0,
    idle: Idle = 60.0,
    as_json: AsJson = False,
) -> None:
    """Strip half-flows."""
    from harness.cli.outputs import check_outputs
    from pcap_tools.clean import clean as strip

    policy = _policy(keep, drop, edge, idle)
    check_outputs([output, report or _beside(output, "clean")], inputs)
    with _progress() as progress:
        done = strip(inputs, output, policy, report=report, progress=progress)
    if as_json:
        print(json.dumps(done.as_json(), indent=1))
        return
    _print_forecast(done.result, "dropped")
    print(f"{done.output}: {done.result.kept}")
    print(f"sha256 {done.sha256}")
    _print_ignored(done.ignored_bytes)


def _beside(output: Path, what: str) -> Path:
    return Path(f"{output}.{what}.json")


def _policy(keep: list[str] | None, drop: list[str] | None, edge: float, idle: float) -> Policy:
    from pcap_tools.policy import DEFAULT_DROP, Policy

    wanted = frozenset(keep or ())
    Policy(drop=wanted)  # refuses unknown names
    return Policy((DEFAULT_DROP | frozenset(drop or ())) - wanted, edge, idle)


def _print_inspection(found: Inspection) -> None:
    from datetime import UTC, datetime

    from rich.console import Console

    console = Console(highlight=False)
    start = datetime.fromtimestamp(found.first_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    clock = "nanoseconds" if found.nanoseconds else "microseconds"
    facts = {
        "capture": f"{', '.join(found.paths)} ({found.format}, {found.link}, {clock}, "
        f"snapshot length {found.snaplen or 'not declared'})",
        "time": f"{start}, {found.span_s:,.3f} s",
        "packets": f"{found.packets:,} ({found.pps:,.1f}/s)",
        "bytes": f"{found.bytes:,} on the wire ({found.bps / 1e6:,.3f} Mb/s, "
        f"mean frame {found.bytes / max(found.packets, 1):,.0f})",
        "flows": f"{found.flows:,} ({found.flows_per_s:,.2f}/s, {found.concurrent_flows:,.1f} at a "
        f"time; {', '.join(f'{n:,} {name}' for name, n in found.versions.items() if n)}"
        + (f"; {found.vlans} VLANs)" if found.vlans else ")"),
        "cut short": f"{found.snapped_packets:,} packets by the snapshot length"
        if found.snapped_packets
        else "",
        "missing": f"{found.missing_bytes:,} bytes were sent but not captured"
        if found.missing_bytes
        else "",
        "ignored": f"{found.ignored_bytes:,} bytes of a truncated tail"
        if found.ignored_bytes
        else "",
    }
    for name, text in facts.items():
        if text:
            console.print(f"{name:>9}  {text}", markup=False, soft_wrap=True)
    console.print(_tally_table("protocol", {**found.protocols, **found.outside}))
    if found.states:
        console.print(_state_table(found))
    _print_forecast(found.forecast, "would be dropped")


def _state_table(found: Inspection) -> object:
    from rich.table import Table

    from pcap_tools.connstate import MEANINGS

    table = Table("TCP state", "flows", "meaning", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for state, flows in found.states.items():
        table.add_row(state, f"{flows:,}", MEANINGS[state])
    return table


def _tally_table(title: str, tallies: dict[str, Tally], meanings: bool = False) -> object:
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


def _print_forecast(result: Forecast, verb: str) -> None:
    from rich.console import Console

    rows = {"in": result.all, "kept": result.kept, **result.dropped}
    Console(highlight=False).print(_tally_table(verb, rows, meanings=True))


def _print_ignored(ignored: int) -> None:
    if ignored:
        print(f"ignored {ignored:,} bytes of a truncated tail of the input", file=sys.stderr)
