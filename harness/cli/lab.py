"""`probebench lab …`: the virtual lab and the recorder."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import lab_check
from harness.errors import GateFailed

if TYPE_CHECKING:
    from lab.status import HostStatus, LabStatus

app = typer.Typer(
    no_args_is_help=True,
    help="Labs: check one before a run; the virtual lab: build it, look at it, record in it.",
)
lab_check.register(app)

Name = Annotated[str, typer.Option("--name", help="Name of the lab; several can coexist.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command()
def up(
    name: Name = "default",
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir", help="State directory (default /run/probebench/NAME); `down` removes it."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker threads of the sensor (default 1).")
    ] = None,
    ring_size: Annotated[
        int | None, typer.Option(min=8, help="Packets in each worker's ring (default 1024).")
    ] = None,
    rules: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Rule file of the sensor, may be repeated (default profiles/demo.rules and "
            "profiles/ballast.rules).",
        ),
    ] = None,
    mtu: Annotated[
        int | None, typer.Option(min=1280, max=65535, help="MTU of the links (default 1500).")
    ] = None,
    tap: Annotated[
        bool | None,
        typer.Option(
            "--tap/--no-tap",
            help="Two ports of the generator, clients' and servers' side, before an optical tap "
            "(for TRex).",
        ),
    ] = None,
) -> None:
    """Build the virtual lab, or verify and repair it; prints the path of its inventory.

    Four network namespaces: a generator and a sensor with a test link between them and an SSH
    server each, and a client and a server to record real traffic between. Needs root.

    Example: `probebench lab up --workers 2 --ring-size 1024`
    """
    from lab import virtual

    given = {
        "workers": workers,
        "ring_size": ring_size,
        "mtu": mtu,
        "tap": tap,
        "rules": tuple(path.resolve() for path in rules) if rules else None,
    }
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    options = None
    if changes:  # what is not given stays as the lab has it
        options = replace(virtual.current_options(name) or virtual.Options(), **changes)
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


@app.command()
def status(name: Name = "default", as_json: Json = False) -> None:
    """Show hosts, interfaces with their counters, and processes; status 1 when it is not whole.

    Example: `probebench lab status --json`
    """
    from lab import virtual

    now = virtual.status(name)
    if as_json:
        typer.echo(json.dumps(asdict(now), indent=2))
    else:
        for line in _status_lines(now):
            typer.echo(line)
    if now.state != "up":
        raise typer.Exit(1)


@app.command()
def record(
    output: Annotated[Path, typer.Option("--output", "-o", help="Capture to write (pcap).")],
    name: Name = "default",
    seconds: Annotated[float, typer.Option(help="About how long the recording takes.")] = 15.0,
    rate: Annotated[str | None, typer.Option(help="Rate of each direction, e.g. 100mbit.")] = None,
    delay: Annotated[str | None, typer.Option(help="Delay of each direction, e.g. 20ms.")] = None,
    loss: Annotated[str | None, typer.Option(help="Packets to lose, e.g. 0.5%.")] = None,
    duplicate: Annotated[str | None, typer.Option(help="Packets to duplicate, e.g. 0.1%.")] = None,
    reorder: Annotated[
        str | None, typer.Option(help="Packets to reorder, e.g. 1%; needs --delay.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Record real applications into a capture that starts late and stops early.

    HTTP, TLS, DNS, SSH, SMTP, a bulk download, ICMP and attacks run between two namespaces of the
    lab. Some flows begin before the capture and some outlast it, as in every capture from the
    field. What was run, shaped and lost is in OUTPUT.manifest.json.

    Example: `probebench lab record -o raw.pcap --rate 100mbit`
    """
    from lab.record import RecordOptions
    from lab.record import record as run
    from lab.shaping import Shape

    shape = Shape(rate=rate, delay=delay, loss=loss, duplicate=duplicate, reorder=reorder)
    with _termination_as_interrupt():
        done = run(name, output, RecordOptions(seconds, shape), lambda s: typer.echo(s, err=True))
    assert done.manifest is not None  # `record` has just written it
    if as_json:
        typer.echo(done.manifest.read_text(), nl=False)
    else:
        typer.echo(
            f"{done.path}: {done.counts.captured} packets, {len(done.steps)} programs run, "
            f"{sum(done.attacks.values())} attacks, manifest {done.manifest.name}"
        )
    if done.counts.dropped:
        raise GateFailed(
            f"{output}: tcpdump lost {done.counts.dropped} packets by accident; such gaps look "
            "like evasion: record again on a less busy machine"
        )


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let TERM clean up as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _status_lines(now: LabStatus) -> Iterator[str]:
    yield f"lab {now.name}: {now.state}"
    if now.inventory is not None:
        yield f"inventory {now.inventory}"
    for problem in now.problems:
        yield f"problem: {problem}"
    if now.problems:
        yield f"run `probebench lab up --name {now.name}` to build or repair it"
    for host in now.hosts:
        yield ""
        yield from _host_lines(host)


def _host_lines(host: HostStatus) -> Iterator[str]:
    access = f"  ssh root@{host.address}" if host.address else ""
    yield f"{host.role}  (namespace {host.namespace}){access}"
    for link in host.interfaces:
        yield (
            f"  {link.name:<4} {'up' if link.up else 'DOWN':<4} mtu {link.mtu}"
            f"  received {link.rx_packets} packets {link.rx_bytes} B, dropped {link.rx_dropped}"
            f"  sent {link.tx_packets} packets {link.tx_bytes} B, dropped {link.tx_dropped}"
        )
    for process in host.processes:
        yield f"  {process.pid:>7}  {process.command[:110]}"
