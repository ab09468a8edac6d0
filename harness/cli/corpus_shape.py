"""`probebench corpus impair`: faults on purpose, seeded and written down."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pcap_tools.impair import Fault, ImpairReport

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
    app.command("impair")(impair_command)


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
    report = impair(inputs, output, seed, faults)
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
