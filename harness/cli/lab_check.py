"""`probebench lab check`: what is wrong with a lab before the first packet."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from harness.model import Corpus

__all__ = ["register"]


def check(
    lab: Annotated[
        Path | None, typer.Option(help="Inventory [default: that of the virtual lab].")
    ] = None,
    name: Annotated[
        str, typer.Option("--name", help="Name of the virtual lab, without --lab.")
    ] = "default",
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
    """Examine the hosts and the link of a lab; nothing is sent and nothing is changed.

    First whether a run could start (tools, interfaces, TRex), then what would spoil it: each
    finding has a code (docs/preflight.md), numbers, a remedy, and the bottleneck that it would look
    like. Exit status 1 when a run would fail or a finding is severe ("invalid"), 3 when a host
    cannot be asked.

    Example: `probebench lab check --lab lab.toml --for profiles/demo.toml`
    """
    from harness.lab_check import readiness
    from harness.preflight import asked_of, record
    from harness.profile import load_profile
    from lab.connect import connect_lab
    from lab.inventory import load_inventory
    from lab.preflight.examine import Preflight
    from lab.preflight.words import lines
    from lab.virtual_layout import layout

    inventory = load_inventory(lab or layout(name).inventory)
    wanted = None if profile is None else load_profile(profile)
    gap = None if wanted is None else wanted.corpus.max_gap
    known = None if corpus is None else _corpus(corpus, inventory.sensor.home, gap)
    with connect_lab(inventory) as hosts:
        ready = list(readiness(inventory, hosts))
        preflight = Preflight(inventory, hosts, asked_of(inventory.sensor, wanted, known))
        preflight.begin()
        setup, report = preflight.finish(at_least=seconds, rest=True)
    if as_json:
        watched = max((quiet.seconds for quiet in setup.quiet.values()), default=0.0)
        value: dict[str, Any] = {
            "lab": inventory.name,
            "readiness": [asdict(line) for line in ready],
            **record(setup, report, watched),
        }
        typer.echo(json.dumps(value, indent=1))
    else:
        typer.echo(f"lab {inventory.name}, watched for {seconds:g} s")
        width = max(len(f"{line.host} {line.about}") for line in ready)
        for one in ready:
            typer.echo(f"{one.level.upper():<8} {f'{one.host} {one.about}':<{width}}  {one.text}")
        for text in lines(report):
            typer.echo(text)
    if report.severe or any(line.level == "problem" for line in ready):
        raise typer.Exit(1)


def _corpus(path: Path, home: tuple[str, ...], max_gap: float | None) -> Corpus:
    from harness.corpus import find_corpus, read_corpus

    return read_corpus(find_corpus(path).capture, home, "preflight", max_gap)[0]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("check")(check)
