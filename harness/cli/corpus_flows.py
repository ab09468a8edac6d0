"""`probebench corpus inspect | flows`: what a capture holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.flow_options import (
    RULES,
    AsJson,
    Checksums,
    Drop,
    Edge,
    FlowsBy,
    Idle,
    Inputs,
    Keep,
    policy_of,
    print_forecast,
    print_ignored,
    print_tallies,
)
from harness.cli.progress import progress

if TYPE_CHECKING:
    from pcap_tools.inspect import Inspection

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the corpus group."""
    app.command(
        help="Tell what a capture holds, and what cleaning would drop; with --for, whether it is "
        "fit for a profile and a sensor (exit status 1 if not; docs/linting.md).\n\n"
        "Example: `probebench corpus inspect raw.pcap`, or "
        "`probebench corpus inspect clean.pcap --for demo --sensor suricata`" + RULES
    )(inspect)
    app.command(
        help="Write the flow table: one row a flow, as CSV, JSON lines or Parquet.\n\n"
        "Example: `probebench corpus flows raw.pcap -o flows.csv`" + RULES
    )(flows)


def inspect(
    inputs: Inputs,
    keep: Keep = None,
    drop: Drop = None,
    edge: Edge = 1.0,
    idle: Idle = 60.0,
    profile: Annotated[
        str | None,
        typer.Option("--for", metavar="PROFILE", help="Lint for this profile: a path or a name."),
    ] = None,
    sensor: Annotated[
        str,
        typer.Option(
            "--sensor",
            metavar="SENSOR",
            help="With --for: suricata, a suricata.yaml, an inventory or a sensor's TOML.",
        ),
    ] = "suricata",
    rules: Annotated[
        list[Path] | None,
        typer.Option("--rules", metavar="FILE", help="With --for: the rules under test."),
    ] = None,
    flows_by: FlowsBy = "outer",
    checksums: Checksums = "keep",
    as_json: AsJson = False,
) -> None:
    """Tell what a capture holds, or judge it for a profile and a sensor."""
    if profile is not None:
        from harness.cli.corpus_lint import lint_command

        with progress() as tell:
            chosen = policy_of(keep, drop, edge, idle, flows_by, checksums)
            lint_command(inputs, profile, sensor, rules or (), chosen, tell, as_json)
        return
    from pcap_tools.inspect import inspect as look

    with progress() as tell:
        found = look(inputs, policy_of(keep, drop, edge, idle, flows_by, checksums), tell)
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
    flows_by: FlowsBy = "outer",
    checksums: Checksums = "keep",
    as_json: AsJson = False,
) -> None:
    """Write the flow table."""
    from harness.cli.outputs import check_outputs
    from pcap_tools.beside import compile_beside
    from pcap_tools.capture import open_capture
    from pcap_tools.forecast import forecast, read_table
    from pcap_tools.table import check_suffix, write_flows

    policy = policy_of(keep, drop, edge, idle, flows_by, checksums)
    check_suffix(output)
    check_outputs([output], inputs)
    compile_beside("track")
    with open_capture(inputs) as capture, progress() as tell:
        table = read_table(capture, policy.idle_s, tell, policy=policy)
        write_flows(table, output, policy)
    result = forecast(table, policy)
    if as_json:
        print(json.dumps({"output": str(output), "flows": len(table), "states": table.states()}))
        return
    print(f"{output}: {len(table):,} flows, {result.kept.flows:,} to keep")
    print_ignored(capture.ignored_bytes)


def _print_inspection(found: Inspection) -> None:
    from datetime import UTC, datetime

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
            print(f"{name:>9}  {text}")
    for line in found.survey.lines():
        print(f"{'damage':>9}  {line}")
    print_tallies("protocol", {**found.protocols, **found.outside})
    if found.states:
        _print_states(found)
    print_forecast(found.forecast, "would be dropped")


def _print_states(found: Inspection) -> None:
    from harness.cli.plain_table import print_table
    from pcap_tools.connstate import MEANINGS

    rows = [[state, f"{flows:,}", MEANINGS[state]] for state, flows in found.states.items()]
    print_table(["TCP state", "flows", "meaning"], rows, range(1, 2))
