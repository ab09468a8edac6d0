"""`probebench corpus clean`: what can be replayed, and why the rest cannot."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import replace
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
)
from harness.cli.hygiene import (
    Dedup,
    DedupWindow,
    Resegment,
    Snapped,
    Sort,
    ZeroTime,
    hygiene_of,
)
from harness.cli.progress import progress

if TYPE_CHECKING:
    from pcap_tools.fresh import FreshAddresses

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the corpus group."""
    app.command(
        help="Strip half-flows and write what a probe can analyse whole, with a report.\n\n"
        "Example: `probebench corpus clean raw.pcap -o clean.pcap`; with fresh addresses: "
        "`probebench corpus clean raw.pcap -o clean.pcap --remap --key lab-7`" + RULES
    )(clean)


def clean(
    inputs: Inputs,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT|-",
            help="The cleaned capture: .pcap or .pcapng, and .gz, .zst or .lz4 to compress.",
        ),
    ],
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Where the report goes; by default OUT.clean.json (with -o -: nowhere).",
        ),
    ] = None,
    keep: Keep = None,
    drop: Drop = None,
    edge: Edge = 1.0,
    idle: Idle = 60.0,
    flows_by: FlowsBy = "outer",
    checksums: Checksums = "keep",
    close: Annotated[
        str,
        typer.Option(
            "--close",
            metavar="fin|rst",
            help="End unterminated flows by a FIN exchange or a reset, where that can be done "
            "correctly, instead of dropping them.",
        ),
    ] = "",
    dedup: Dedup = "",
    dedup_window: DedupWindow = "5",
    sort: Sort = False,
    resegment: Resegment = 0,
    snapped: Snapped = "keep",
    zero_time: ZeroTime = "keep",
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
    from pcap_tools.changes import change_lines
    from pcap_tools.clean import clean as strip

    policy = replace(policy_of(keep, drop, edge, idle, flows_by, checksums), close=close)
    hygiene = hygiene_of(dedup, dedup_window, sort, resegment, snapped, zero_time)
    fresh = _fresh(remap, key, home, iteration)
    streamed = str(output) == "-"
    if not streamed:
        plan = Path(f"{output}.plan.json") if fresh else None
        check_outputs([output, report or Path(f"{output}.clean.json"), plan], inputs)
    else:
        check_outputs([report], inputs)
    with progress() as tell:
        done = strip(
            inputs,
            output,
            policy,
            report=report,
            hygiene=hygiene,
            fresh=fresh,
            sha256=sha256,
            progress=tell,
        )
    with redirect_stdout(sys.stderr if streamed else sys.stdout):
        if as_json:
            print(json.dumps(done.as_json(), indent=1))
            return
        print_forecast(done.result, "dropped")
        for line in [*done.treatment.lines(), *change_lines(done.changes)]:
            print(line)
        print(f"{done.output}: {done.result.kept}")
        if done.sha256:
            print(f"sha256 {done.sha256}")
    print_ignored(done.ignored_bytes)


def _fresh(remap: bool, key: str | None, home: str | None, iteration: int) -> FreshAddresses | None:
    from harness.errors import ConfigError

    if not remap:
        if key is not None or home is not None or iteration:
            raise ConfigError("--key, --home and --iteration need --remap; give it, or leave them")
        return None
    if not key:
        raise ConfigError("--remap needs --key TEXT, which selects the addresses")
    from pcap_tools.fresh import FreshAddresses
    from pcap_tools.space import Space

    space = Space(home=tuple(part.strip() for part in home.split(","))) if home else Space()
    return FreshAddresses(key, space, iteration)
