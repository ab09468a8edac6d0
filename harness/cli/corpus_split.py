"""`probebench corpus split | merge | sides`: one flow a file, back again, and one side a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pcap_tools.merge import MergeReport
    from pcap_tools.split import SplitReport

__all__ = ["register"]

Idle = Annotated[
    float,
    typer.Option("--idle", metavar="S", help="Silence that ends a UDP or ICMP flow, in seconds."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("split")(split_command)
    app.command("merge")(merge_command)
    app.command("sides")(sides_command)


def split_command(
    captures: Annotated[
        list[Path],
        typer.Argument(metavar="IN...", help="Captures; - is stdin. With --merge: a split's DIR."),
    ],
    directory: Annotated[
        Path | None,
        typer.Option("-d", "--directory", metavar="DIR", help="A new or empty directory."),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="any|stf|astf",
            help="any: every flow, unchanged. stf, astf: only flows that TRex's loader of that "
            "name takes; for stf, TTL and time are adapted where that is enough.",
        ),
    ] = "any",
    reply_gap: Annotated[
        float,
        typer.Option(
            "--min-reply-gap",
            metavar="S",
            min=0.0,
            help="With --for stf: at least S seconds from a packet to one of the other end.",
        ),
    ] = 0.0,
    idle: Idle = 60.0,
    merge: Annotated[
        bool, typer.Option("--merge", help="The way back: same as `corpus merge`.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT", help="With --merge: the pcap.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write each flow to a file of its own, as TRex wants it, and DIR/split.csv that lists them.

    Files are `DIR/<flow>-<protocol>-<server port>.pcap`. split.csv says of every flow whether
    TRex's STF and ASTF loaders take it, and if not, why.

    Example: `probebench corpus split clean.pcap -d flows --for stf --min-reply-gap 0.005`
    """
    from harness.cli.outputs import check_outputs
    from harness.cli.progress import progress
    from harness.errors import ConfigError
    from pcap_tools.split import SplitOptions, split

    if merge:
        if len(captures) != 1 or output is None or directory is not None:
            raise ConfigError(
                "--merge takes one directory and -o OUT: corpus split DIR --merge -o OUT"
            )
        merge_command(captures[0], output, as_json)
        return
    if directory is None or output is not None:
        raise ConfigError("give the directory for the files: corpus split IN -d DIR")
    options = SplitOptions(target, reply_gap, idle)
    check_outputs([], captures)
    with progress() as show:
        report = split(captures, directory, options, show)
    if as_json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        _print_split(report)


def merge_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What `corpus split` wrote.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="The pcap file to write.")
    ],
    as_json: AsJson = False,
) -> None:
    """Put the files of a split back into one capture, in the order they came from.

    After `--for any` the output is the input byte for byte, when that was a pcap file.

    Example: `probebench corpus merge flows -o again.pcap`
    """
    from harness.cli.outputs import check_outputs
    from pcap_tools.merge import merge

    check_outputs([output], [])
    report = merge(directory, output)
    if as_json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        _print_merge(report)


def sides_command(
    captures: Annotated[list[Path], typer.Argument(metavar="IN...", help="Captures; - is stdin.")],
    client: Annotated[
        Path | None,
        typer.Option("--client", metavar="A.pcap", help="What the clients sent goes here."),
    ] = None,
    server: Annotated[
        Path | None,
        typer.Option("--server", metavar="B.pcap", help="What the servers sent goes here."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", metavar="F", help="A tcpprep cache of IN, for tcpreplay --cachefile."
        ),
    ] = None,
    outside: Annotated[
        str,
        typer.Option(
            "--outside",
            metavar="client|server|drop",
            help="Where packets without a flow go (ARP, malformed ones, lone fragments …).",
        ),
    ] = "client",
    idle: Idle = 60.0,
    as_json: AsJson = False,
) -> None:
    """Write the client side and the server side apart, to replay them over two interfaces.

    Times are kept. The cache is for tcpreplay, which then reads IN itself.

    Example: `probebench corpus sides clean.pcap --client c.pcap --server s.pcap --cache c.cache`
    """
    from harness.cli.outputs import check_outputs
    from harness.cli.progress import progress
    from pcap_tools.sides import SidesOutputs, sides

    outputs = SidesOutputs(client, server, cache)
    check_outputs([client, server, cache], captures)
    with progress() as show:
        report = sides(captures, outputs, outside, idle, show)
    if as_json:
        print(json.dumps(report.as_json(), indent=1))
        return
    for name, path, side in (
        ("client", client, report.client),
        ("server", server, report.server),
    ):
        where = f"{path}" if path else "in no file of its own"
        print(f"{name} side: {side.packets:,} packets, {side.bytes:,} bytes, {where}")
    if report.outside:
        went = "dropped" if outside == "drop" else f"counted with the {outside} side"
        print(f"{report.outside:,} packets have no flow: {went}")
    if cache:
        print(
            f"{cache}: tcpreplay --cachefile={cache} --intf1=CLIENTS --intf2=SERVERS {captures[0]}"
        )
    _tell_ignored(report.ignored_bytes)


def _print_split(report: SplitReport) -> None:
    from pcap_tools.trexfit import REASONS

    print(
        f"{report.directory}: {report.files:,} files, {report.packets:,} packets, "
        f"{report.bytes:,} bytes; {report.flows:,} flows in split.csv"
    )
    if report.other:
        went = "in other.pcap" if report.target == "any" else "left out"
        print(f"{report.other:,} packets have no flow: {went}")
    for reason, flows in report.dropped.items():
        print(f"dropped {flows:,} flows, {reason}: {REASONS[reason]}")
    for what, packets in report.adapted.items():
        if packets:
            print(f"adapted {packets:,} packets, {what}: {REASONS[what]}")
    if report.target == "any":
        for loader, reasons in (("STF", report.stf), ("ASTF", report.astf)):
            listed = ", ".join(f"{name} {flows:,}" for name, flows in reasons.items())
            print(f"TRex {loader}: {listed or 'every flow fits as it is'}")
    _tell_ignored(report.ignored_bytes)


def _print_merge(report: MergeReport) -> None:
    print(
        f"{report.output}: {report.packets:,} packets, {report.bytes:,} bytes, from "
        f"{report.files:,} files"
    )
    if not report.exact:
        print(
            "not the capture that was split, byte for byte: flows were dropped or adapted, or it "
            "was no single pcap file of this machine's byte order",
            file=sys.stderr,
        )


def _tell_ignored(ignored: int) -> None:
    if ignored:
        print(f"ignored {ignored:,} bytes of a truncated tail of the input", file=sys.stderr)
