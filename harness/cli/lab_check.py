"""`probebench lab check`: what is wrong with a lab before the first packet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from harness.model import Corpus

__all__ = ["register"]

DEFAULT_LAB = Path("/run/probebench/default/lab.toml")


def check(
    lab: Annotated[Path, typer.Option(help="Inventory of the lab.")] = DEFAULT_LAB,
    profile: Annotated[
        Path | None, typer.Option("--for", help="Load profile: are its loads within the link?")
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Capture to be sent: do its frames fit the link?")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.0, max=600.0, help="How long the quiet link is watched.")
    ] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Examine both hosts and the link of a lab; nothing is sent and nothing is changed.

    Each finding has a code (docs/preflight.md), numbers, a remedy, and the bottleneck that it would
    look like. Exit status 1 when one is severe ("invalid"), 3 when a host cannot be asked.

    Example: `probebench lab check --lab lab.toml --for profiles/demo.toml`
    """
    from harness.preflight import asked_of, record
    from harness.profile import load_profile
    from lab.connect import connect_lab
    from lab.inventory import load_inventory
    from lab.preflight.examine import Preflight
    from lab.preflight.words import lines

    inventory = load_inventory(lab)
    wanted = None if profile is None else load_profile(profile)
    gap = None if wanted is None else wanted.corpus.max_gap
    known = None if corpus is None else _corpus(corpus, inventory.sensor.home, gap)
    with connect_lab(inventory) as hosts:
        preflight = Preflight(inventory, hosts, asked_of(wanted, known))
        preflight.begin()
        setup, report = preflight.finish(at_least=seconds, rest=True)
    if as_json:
        watched = max((quiet.seconds for quiet in setup.quiet.values()), default=0.0)
        value: dict[str, Any] = {"lab": inventory.name, **record(setup, report, watched)}
        typer.echo(json.dumps(value, indent=1))
    else:
        typer.echo(f"lab {inventory.name}, watched for {seconds:g} s")
        for line in lines(report):
            typer.echo(line)
    if report.severe:
        raise typer.Exit(1)


def _corpus(path: Path, home: tuple[str, ...], max_gap: float | None) -> Corpus:
    from harness.corpus import find_corpus, read_corpus

    return read_corpus(find_corpus(path).capture, home, "preflight", max_gap)[0]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("check")(check)
