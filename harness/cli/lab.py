"""`probebench lab …`: the virtual lab and the recorder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The virtual lab: build it, look at it, record in it.")

Name = Annotated[str, typer.Option("--name", help="Name of the lab; several can coexist.")]


@app.command()
def up(
    name: Name = "default",
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="State directory (default /run/probebench/NAME)."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker threads of the sensor.")] = 1,
    ring_size: Annotated[int, typer.Option(min=8, help="Packets in each worker's ring.")] = 2048,
    mtu: Annotated[int, typer.Option(min=1280, max=65535, help="MTU of the links, bytes.")] = 1500,
) -> None:
    """Build the virtual lab, or verify and repair it; prints the path of its inventory.

    Example: `probebench lab up --workers 2 --ring-size 1024`
    """
    from lab import virtual

    options = virtual.Options(mtu=mtu, workers=workers, ring_size=ring_size)
    typer.echo(virtual.up(name, options, directory))


@app.command()
def down(
    name: Name = "default",
    every: Annotated[bool, typer.Option("--all", help="Every lab of this machine.")] = False,
) -> None:
    """Remove every trace of a lab, whole or half-built.

    Example: `probebench lab down --all`
    """
    from lab import virtual

    gone = virtual.down_all() if every else [name] if virtual.down(name) else []
    typer.echo(f"removed: {', '.join(gone)}" if gone else "nothing to remove")
