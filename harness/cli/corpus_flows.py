"""`probebench corpus inspect | flows | clean`: what a capture holds, and what can be replayed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pcap_tools.clean import Forecast, Tally
    from pcap_tools.inspect import Inspection
    from pcap_tools.policy import Policy
    from pcap_tools.readdress import FreshAddresses

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
        help="Tell what a capture holds, and what cleaning would drop; with --for, whether it is "
        "fit for a profile and a sensor (exit status 1 if not; docs/linting.md).\n\n"
        "Example: `probebench corpus inspect raw.pcap`, or "
        "`probebench corpus inspect clean.pcap --for demo --sensor suricata`" + _RULES
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
    as_json: AsJson = False,
) -> None:
    """Tell what a capture holds, or judge it for a profile and a sensor."""
    if profile is not None:
        from harness.cli.corpus_lint import lint_command

        with _progress() as progress:
            chosen = _policy(keep, drop, edge, idle)
            lint_command(inputs, profile, sensor, rules or (), chosen, progress, as_json)
        return
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
    from pcap_tools.beside import compile_beside
    from pcap_tools.capture import open_capture
    from pcap_tools.clean import forecast, read_table
    from pcap_tools.table import check_suffix, write_flows

    policy = _policy(keep, drop, edge, idle)
    check_suffix(output)
    check_outputs([output], inputs)
    compile_beside("tables")
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
    remap: Annotated[
        bool, typer.Option("--remap", help="Give fresh addresses too, as `corpus remap` would.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="TEXT", help="With --remap: the permutation's key."),
    ] = None,
    home: Annotated[
        str | None,
        typer.Option("--home", metavar="CIDR,...", help="With --remap: the home networks."),
    ] = None,
    iteration: Annotated[
        int, typer.Option("--iteration", metavar="I", min=0, help="With --remap: which iteration.")
    ] = 0,
    sha256: Annotated[
        bool, typer.Option("--sha256", help="Put the output's SHA-256 into the report.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Strip half-flows."""
    from harness.cli.outputs import check_outputs
    from pcap_tools.clean import clean as strip

    policy = _policy(keep, drop, edge, idle)
    fresh = _fresh(remap, key, home, iteration)
    plan = _beside(output, "plan") if fresh else None
    check_outputs([output, report or _beside(output, "clean"), plan], inputs)
    with _progress() as progress:
        done = strip(
            inputs,
            output,
            policy,
            report=report,
            fresh=fresh,
            sha256=sha256,
            progress=progress,
        )
    if as_json:
        print(json.dumps(done.as_json(), indent=1))
        return
    _print_forecast(done.result, "dropped")
    print(f"{done.output}: {done.result.kept}")
    if done.sha256:
        print(f"sha256 {done.sha256}")
    _print_ignored(done.ignored_bytes)


def _beside(output: Path, what: str) -> Path:
    return Path(f"{output}.{what}.json")


def _fresh(remap: bool, key: str | None, home: str | None, iteration: int) -> FreshAddresses | None:
    from harness.errors import ConfigError

    if not remap:
        if key is not None or home is not None or iteration:
            raise ConfigError("--key, --home and --iteration need --remap; give it, or leave them")
        return None
    if not key:
        raise ConfigError("--remap needs --key TEXT, which selects the addresses")
    from pcap_tools.readdress import FreshAddresses
    from pcap_tools.space import Space

    space = Space(home=tuple(home.split(","))) if home else Space()
    return FreshAddresses(key, space, iteration)


def _policy(keep: list[str] | None, drop: list[str] | None, edge: float, idle: float) -> Policy:
    from pcap_tools.policy import DEFAULT_DROP, Policy

    wanted = frozenset(keep or ())
    Policy(drop=wanted)  # refuses unknown names
    return Policy((DEFAULT_DROP | frozenset(drop or ())) - wanted, edge, idle)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A live line on a terminal; elsewhere a plain line every few seconds, for long work only."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            tasks: dict[str, object] = {}

            def show(step: str, done: int, total: int) -> None:
                if step not in tasks:
                    tasks[step] = bar.add_task(step, total=total)
                bar.update(tasks[step], completed=min(done, total))  # type: ignore[arg-type]

            yield show
        return
    last = time.monotonic()

    def tell(step: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= 5:
            last = time.monotonic()
            print(f"{step}: {min(100 * done // max(total, 1), 100)} %", file=sys.stderr, flush=True)

    yield tell


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
    for line in found.survey.lines():
        console.print(f"{'damage':>9}  {line}", markup=False, soft_wrap=True)
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
