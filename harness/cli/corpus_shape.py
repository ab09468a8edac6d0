"""`probebench corpus mix | impair`: dimensions and faults on purpose, seeded and written down."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.progress import progress

if TYPE_CHECKING:
    from pcap_tools.impair import Fault, ImpairReport
    from pcap_tools.labels import Event
    from pcap_tools.mix import MixPlan

__all__ = ["register"]

Inputs = Annotated[
    list[str], typer.Argument(metavar="IN...", help="Captures; - is standard input.")
]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", help="Selects what chance selects; any integer.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Share = Annotated[float, typer.Option(metavar="F", help="… in this share of the flows only.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("mix")(mix_command)
    app.command("impair")(impair_command)


def mix_command(
    inputs: Inputs,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT", help="The capture; none with --dry-run."),
    ] = None,
    mix: Annotated[
        Path | None,
        typer.Option("--mix", metavar="MIX.toml", help="Classes of flows, shares and weights."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="NAME=X,...",
            help="packets-per-flow, bytes-per-flow, frame-size; encrypted (share of bytes); "
            "attack, or a protocol such as udp (share of flows).",
        ),
    ] = None,
    flows: Annotated[
        int | None,
        typer.Option("--flows", metavar="N", min=1, help="How many flows; default: as the input."),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate",
            metavar="R,...",
            help="Dimensions at a rate: 500fps, 20kpps or 1Gbps. Two of them set their quotient.",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference", metavar="FILE", help="Of `corpus label`: its flows are attacks."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", metavar="CSV", help="Columns flow (its number), and label or weight."
        ),
    ] = None,
    seed: Seed = 0,
    idle: Annotated[
        float, typer.Option("--idle", metavar="S", help="Silence that ends a UDP or ICMP flow.")
    ] = 60.0,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="Take the nearest mix where targets cannot be met.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the dimensions, write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take some flows more often and others less, to set the dimensions on purpose.

    Flows stay whole. Copies get other start times and client ports. The dimensions are printed
    first; OUT.mix.json says which flow of the input each flow of the output is. Exit status 1:
    written, but whole flows miss a target by more than 5 %.

    Example: `probebench corpus mix clean.pcap -o mixed.pcap --target
    packets-per-flow=20,encrypted=0.4 --flows 2000 --rate 20kpps`
    """
    from harness.cli.outputs import check_outputs
    from harness.errors import ConfigError
    from pcap_tools.capture import open_capture
    from pcap_tools.classes import Mix, read_mix
    from pcap_tools.dimensions import Rate
    from pcap_tools.mix import MixOptions, plan_mix, write_mix
    from pcap_tools.policy import Policy

    if output is None and not dry_run:
        raise ConfigError("give -o OUT to write the mix, or --dry-run to look at it")
    Policy(idle_s=idle)  # refuses nonsense
    beside = None if output is None else Path(f"{output}.mix.json")
    check_outputs([output, beside], [*inputs, *(p for p in (mix, reference, labels) if p)])
    options = MixOptions(
        mix=Mix() if mix is None else read_mix(mix),
        targets=_targets(target or []),
        flows=flows,
        rates=tuple(Rate.parse(each) for each in (rate.split(",") if rate else ())),
        labels=labels,
        events=None if reference is None else _events(reference),
        seed=seed,
        idle_s=idle,
        nearest=nearest,
    )
    with open_capture(inputs) as capture, progress() as tell:
        plan = plan_mix(capture, options, tell)
        if not as_json:
            _print_plan(plan)
        if output is None or dry_run:
            if as_json:
                print(json.dumps(plan.as_json(), indent=1))
            missed = plan.missed()
        else:
            report = write_mix(capture, plan, output, tell)
            if as_json:
                print(json.dumps(report.as_json(), indent=1))
            else:
                print(f"{output}: {report.packets:,} packets, {len(report.replicas):,} flows")
                print(f"sha256 {report.sha256}")
            missed = plan.missed()
            if report.flows_found != len(report.replicas):
                missed.append(
                    f"the flow table finds {report.flows_found:,} flows in the output: some meet"
                )
    for text in missed:
        print(f"probebench: warning: {text}", file=sys.stderr)
    if missed and not nearest:
        raise typer.Exit(1)


def _targets(texts: list[str]) -> dict[str, float]:
    from harness.errors import ConfigError

    found: dict[str, float] = {}
    for part in ",".join(texts).split(",") if texts else ():
        name, _, value = part.strip().partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(f"--target {part}: write NAME=NUMBER, as encrypted=0.4") from None
    return found


def _events(path: Path) -> tuple[Event, ...]:
    from harness.label import load

    return tuple((e.proto, e.a, e.a_port, e.b, e.b_port) for e in load(path).due)


def _print_plan(plan: MixPlan) -> None:
    from rich.console import Console
    from rich.table import Table

    from pcap_tools.dimensions import Rate

    console = Console(highlight=False)
    before, after = plan.before, plan.after
    table = Table("dimension", "before", "after", "wanted", box=None, pad_edge=False)
    wanted = {name: value for name, value, _ in plan.targets}
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("flows", f"{before.flows:,}", f"{after.flows:,}", "")
    table.add_row("different flows", f"{before.sources:,}", f"{after.sources:,}", "")
    table.add_row("packets", f"{before.packets:,}", f"{after.packets:,}", "")
    table.add_row("bytes", f"{before.bytes:,}", f"{after.bytes:,}", "")
    shares = [
        ("packets-per-flow", before.packets_per_flow, after.packets_per_flow),
        ("bytes-per-flow", before.bytes_per_flow, after.bytes_per_flow),
        ("frame-size", before.frame_size, after.frame_size),
    ]
    for name, old, new in shares:
        goal = f"{wanted[name]:,.1f}" if name in wanted else ""
        table.add_row(name, f"{old:,.1f}", f"{new:,.1f}", goal)
    parts = [("encrypted", before.encrypted, after.encrypted, "bytes")]
    parts.append(("attack", before.attack, after.attack, "flows"))
    parts += [
        (name, tally[0] / before.flows, after.protocols.get(name, (0, 0, 0))[0] / after.flows, "")
        for name, tally in before.protocols.items()
    ]
    for name, old, new, of in parts:
        goal = f"{wanted[name]:.2%}" if name in wanted else ""
        table.add_row(f"{name} (of {of or 'flows'})", f"{old:.2%}", f"{new:.2%}", goal)
    largest = (each.largest / max(each.bytes, 1) for each in (before, after))
    table.add_row("largest flow (of bytes)", *(f"{share:.2%}" for share in largest), "")
    console.print(table)
    if len(plan.names) > 1:
        classes = Table("class", "flows before", "after", "bytes after", box=None, pad_edge=False)
        for name in plan.names:
            now = after.classes[name]
            shown = f"{before.classes[name][0]:,}", f"{now[0]:,}", f"{now[2] / after.bytes:.2%}"
            classes.add_row(name, *shown)
        console.print(classes)
    for rate in (Rate(1.0, "fps"), *plan.options.rates[:1]):
        at = after.at(rate)
        print(
            f"at {rate.value:g} {rate.unit}: {at['fps']:,.4g} flows/s, {at['pps']:,.4g} packets/s, "
            f"{at['bps'] / 1e6:,.4g} Mb/s, {at['concurrent']:,.4g} flows at a time"
        )
    if plan.outside:
        print(f"left out: {plan.outside:,} packets that belong to no flow", file=sys.stderr)


def impair_command(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="The capture.")],
    seed: Seed,
    loss: Annotated[
        str | None, typer.Option("--loss", metavar="P", help="Leave out packets.")
    ] = None,
    loss_flows: Share = 1.0,
    duplicate: Annotated[
        str | None,
        typer.Option("--duplicate", metavar="P", help="Repeat packets at once, as mirrors do."),
    ] = None,
    duplicate_flows: Share = 1.0,
    reorder: Annotated[
        str | None,
        typer.Option(
            "--reorder",
            metavar="P[:N]",
            help="Let the next N packets (1) of the same flow and sender overtake.",
        ),
    ] = None,
    reorder_flows: Share = 1.0,
    jitter: Annotated[
        str | None,
        typer.Option(
            "--jitter", metavar="S", help="Delay packets by 0 … S seconds; flows keep their order."
        ),
    ] = None,
    jitter_flows: Share = 1.0,
    truncate: Annotated[
        str | None,
        typer.Option("--truncate", metavar="P[:BYTES]", help="Cut packets to BYTES (68)."),
    ] = None,
    truncate_flows: Share = 1.0,
    corrupt: Annotated[
        str | None,
        typer.Option(
            "--corrupt",
            metavar="P",
            help="Make the transport checksum wrong; where there is none, the IPv4 header's.",
        ),
    ] = None,
    corrupt_flows: Share = 1.0,
    corrupt_ip: Annotated[
        str | None,
        typer.Option("--corrupt-ip", metavar="P", help="Make the IPv4 header checksum wrong."),
    ] = None,
    corrupt_ip_flows: Share = 1.0,
    payload: Annotated[
        str | None,
        typer.Option(
            "--payload", metavar="P", help="Flip a bit of payload and keep the checksum right."
        ),
    ] = None,
    payload_flows: Share = 1.0,
    as_json: AsJson = False,
) -> None:
    """Impair a capture on purpose; P is the probability for each packet.

    OUT.impair.csv lists every packet touched, OUT.impair.json what each flow suffered. The same
    seed gives the same output, and one impairment does not change what another one draws.

    Example: `probebench corpus impair clean.pcap -o lossy.pcap --seed 7 --loss 0.01
    --reorder 0.02:3 --loss-flows 0.1`
    """
    from harness.cli.outputs import check_outputs
    from harness.errors import ConfigError
    from pcap_tools.impair import impair

    asked = {
        "loss": (loss, loss_flows),
        "duplicate": (duplicate, duplicate_flows),
        "reorder": (reorder, reorder_flows),
        "jitter": (jitter, jitter_flows),
        "truncate": (truncate, truncate_flows),
        "corrupt": (corrupt, corrupt_flows),
        "corrupt-ip": (corrupt_ip, corrupt_ip_flows),
        "payload": (payload, payload_flows),
    }
    for kind, (text, flows) in asked.items():
        if text is None and flows != 1:
            raise ConfigError(f"--{kind}-flows needs --{kind} as well: how much in those flows")
    faults = [_fault(kind, text, flows) for kind, (text, flows) in asked.items() if text]
    if not faults:
        raise ConfigError(f"nothing to do; give one of {', '.join(f'--{kind}' for kind in asked)}")
    check_outputs([output, *(Path(f"{output}.impair.{end}") for end in ("csv", "json"))], inputs)
    with progress() as tell:
        report = impair(inputs, output, seed, faults, progress=tell)
    if as_json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        _print_impaired(report)


def _fault(kind: str, text: str, flows: float) -> Fault:
    from harness.errors import ConfigError
    from pcap_tools.impair import Fault

    wanted = {"reorder": "P:N, as 0.02:3", "truncate": "P:BYTES, as 0.01:68", "jitter": "seconds"}
    first, _, second = text.partition(":")
    try:
        if kind == "jitter":
            return Fault(kind, flows=flows, amount=float(text))
        return Fault(kind, float(first), flows, float(second) if ":" in text else None)
    except ValueError:
        raise ConfigError(
            f"--{kind} {text}: wanted is {wanted.get(kind, 'a probability, as 0.01')}"
        ) from None


def _print_impaired(report: ImpairReport) -> None:
    touched = ", ".join(f"{kind} {n:,}" for kind, n in report.touched.items() if n) or "none"
    totals = report.flows.totals
    print(f"{report.output}: {report.packets_out:,} packets of {report.packets_in:,}")
    print(f"packets touched: {touched}")
    print(
        f"flows touched: {totals['touched']:,} of {report.flows_in:,}; {totals['with_gap']:,} have "
        f"a new gap, {totals['state_changed']:,} end in another state, {totals['split']:,} are "
        f"split, {totals['gone']:,} are gone"
    )
    print(f"sha256 {report.sha256}")
    if report.ignored_bytes:
        print(
            f"ignored {report.ignored_bytes:,} bytes of a truncated tail of the input",
            file=sys.stderr,
        )
