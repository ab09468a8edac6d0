"""`probebench corpus label`: which alerts are due, from a sensor at zero load."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harness.model import Reference

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("label")(label_command)


def label_command(
    capture: Annotated[Path, typer.Argument(metavar="IN", help="A cleaned capture.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="REFERENCE.json", help="Where to write.")
    ],
    rules: Annotated[
        list[Path], typer.Option("--rules", metavar="FILE", help="Rule file; may be repeated.")
    ],
    home: Annotated[
        str | None,
        typer.Option("--home", metavar="CIDR,...", help="HOME_NET; default: the private ranges."),
    ] = None,
    binary: Annotated[str, typer.Option(help="Suricata to run on this machine.")] = "suricata",
    as_json: Annotated[bool, typer.Option("--json", help="Print the reference as JSON.")] = False,
) -> None:
    """Find which (flow, signature) of a corpus are due, with Suricata offline.

    Every packet must be decoded, or there is no reference. Rules with a threshold or a
    detection_filter are named: how often they alert depends on load.

    Example: `probebench corpus label clean.pcap -o reference.json --rules profiles/demo.rules`
    """
    import tempfile

    from harness.cli.outputs import check_outputs
    from harness.label import label, load_dependent, save
    from lab.connect import connect
    from lab.inventory import HostSpec, SensorSpec
    from pcap_tools.pools import parse_networks

    check_outputs([output], [capture, *rules])
    cidrs = [str(network) for network in parse_networks(home.split(","))] if home else None
    for finding in load_dependent(rules):
        print(f"probebench: warning: {finding}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="probebench-label-") as workdir:
        host = connect("this machine", HostSpec(connection="local", workdir=workdir))
        try:
            spec = SensorSpec(host=host.name, interface="-", rules=tuple(rules), binary=binary)
            reference = label(host, spec, capture, home=cidrs)
        finally:
            host.close()
    save(reference, output)
    if as_json:
        print(output.read_text(), end="")
    else:
        _print_table(reference, output)


def _print_table(reference: Reference, output: Path) -> None:
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Due per iteration ({reference.sensor}, offline)")
    for heading in ("sid", "flows due"):
        table.add_column(heading, justify="right")
    table.add_column("signature")
    for sid, flows in sorted(Counter(due.signature_id for due in reference.due).items()):
        table.add_row(str(sid), str(flows), reference.signatures.get(sid, ""))
    console = Console()
    console.print(table)
    console.print(
        f"{len(reference.due)} events due from {reference.raised} alerts; written to {output}",
        markup=False,
        highlight=False,
    )
    if not reference.due:
        print(
            "probebench: warning: nothing is due: no rule matches this corpus, so detection "
            "cannot be measured with it",
            file=sys.stderr,
        )
