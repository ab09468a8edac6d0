"""`probebench corpus convert`: captures to one capture of another format, put right on the way."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.hygiene import Dedup, DedupWindow, Resegment, Snapped, Sort, ZeroTime

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the corpus group."""
    app.command("convert")(convert_command)


def convert_command(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="IN...", help="pcap, pcapng or ERF, also compressed; - is stdin."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="OUT|-", help=".pcap or .pcapng, then .gz, .zst or .lz4."
        ),
    ],
    comments: Annotated[
        str,
        typer.Option(
            "--comments",
            metavar="keep|drop",
            help="Comments, interface names and packet options of pcapng.",
        ),
    ] = "keep",
    dedup: Dedup = "",
    window: DedupWindow = "5",
    sort: Sort = False,
    resegment: Resegment = 0,
    snapped: Snapped = "keep",
    zero_time: ZeroTime = "keep",
    as_json: Annotated[
        bool, typer.Option("--json", help="The report as JSON (on stderr with -o -).")
    ] = False,
) -> None:
    """Write captures as one, in the format of the output's name; tell and mend what is wrong.

    Several inputs are merged in time. With -o - the output is pcap on standard output. In this
    order: packets are dropped, sorted, freed of duplicates, cut.

    Example: `probebench corpus convert mirror.pcapng.gz -o clean.pcap --sort --dedup exact
    --resegment 1500`
    """
    from harness.cli.hygiene import hygiene_of
    from harness.cli.outputs import check_outputs
    from harness.cli.progress import progress
    from harness.errors import ConfigError
    from pcap_tools.convert import convert

    check_outputs([output], inputs, stdout=True)
    if comments not in ("keep", "drop"):
        raise ConfigError(f"--comments {comments}: give keep or drop")
    hygiene = hygiene_of(dedup, window, sort, resegment, snapped, zero_time)
    with progress() as tell:
        done = convert(inputs, output, hygiene, comments=comments == "keep", progress=tell)
    stream = sys.stderr if str(output) == "-" else sys.stdout
    if as_json:
        print(json.dumps(done.as_json(), indent=1), file=stream)
        return
    for line in done.lines():
        print(line, file=sys.stderr)
    print(f"{done.output}: {done.packets:,} packets, {done.bytes:,} bytes", file=stream)
