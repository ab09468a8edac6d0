"""`probebench corpus remap|expand|invert`: fresh addresses, and back from them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]

KeyOption = Annotated[
    str, typer.Option("--key", metavar="TEXT", help="Selects the address permutations.")
]
HomeOption = Annotated[
    str | None,
    typer.Option(
        "--home",
        metavar="CIDR,...",
        help="Home networks, as in the sensor's HOME_NET; default: the private ranges.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("remap")(remap_command)
    app.command("expand")(expand_command)
    app.command("invert")(invert_command)


def _networks(home: str | None) -> tuple[str, ...]:
    from pcap_tools.pools import DEFAULT_HOME

    return tuple(part.strip() for part in home.split(",")) if home else DEFAULT_HOME


def _refuse_empty(key: str) -> None:
    from harness.errors import ConfigError

    if not key:  # most often a shell variable that was never set
        raise ConfigError("--key is empty; give any text, and keep it to repeat the experiment")


def _warn_unmapped(counts: dict[str, int]) -> None:
    same = counts["packets"] - counts["mapped"]
    if same:
        print(
            f"probebench: warning: {same:,} of {counts['packets']:,} packets of the corpus keep "
            "their addresses in every iteration (no IP header behind Ethernet and VLAN tags)",
            file=sys.stderr,
        )


def _plan_beside(output: Path) -> Path:
    return Path(f"{output}.plan.json")


def remap_command(
    captures: Annotated[list[Path], typer.Argument(metavar="IN...", help="Captures; - is stdin.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="The pcap file to write.")
    ],
    key: KeyOption,
    home: HomeOption = None,
    iteration: Annotated[
        int, typer.Option("--iteration", metavar="I", min=0, help="Whose addresses to use.")
    ] = 0,
    mapping: Annotated[
        Path | None,
        typer.Option("--map", metavar="mapping.csv", help="Write original,mapped,class here."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Give a capture the addresses of one iteration; everything else stays.

    The plan goes beside the output, as OUT.plan.json.

    Example: `probebench corpus remap clean.pcap -o other.pcap --key lab-7 --map mapping.csv`
    """
    from harness.cli.outputs import check_outputs
    from pcap_tools.remap import remap, write_mapping

    _refuse_empty(key)
    check_outputs([output, _plan_beside(output), mapping], captures)
    report, plan = remap(captures, output, key, _networks(home), iteration)
    _warn_unmapped(report.counts)
    if mapping:
        write_mapping(plan, iteration, mapping)
    if as_json:
        print(json.dumps(report.as_json(), indent=1))
        return
    fixed = report.counts["fixed_ip_checksums"] + report.counts["fixed_l4_checksums"]
    print(
        f"{report.output}: {report.packets:,} packets, {report.bytes:,} bytes, "
        f"{report.addresses:,} addresses, iteration {report.iteration}"
        + (f"; {fixed:,} wrong checksums put right" if fixed else "")
        + (
            f"; {report.ignored_bytes} bytes of a truncated tail ignored"
            if report.ignored_bytes
            else ""
        )
    )


def expand_command(
    captures: Annotated[list[Path], typer.Argument(metavar="IN", help="Cleaned capture(s).")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT|-", help="A pcap file, or - for stdout.")
    ],
    key: KeyOption,
    iterations: Annotated[
        int, typer.Option("--iterations", metavar="N", min=1, help="How many to play.")
    ],
    home: HomeOption = None,
    first: Annotated[
        int, typer.Option("--first", metavar="I", min=0, help="Number of the first iteration.")
    ] = 0,
    every: Annotated[
        float | None, typer.Option("--every", metavar="S", help="Start one every S seconds.")
    ] = None,
    flow_rate: Annotated[
        float | None, typer.Option("--flow-rate", metavar="F", help="Start F new flows a second.")
    ] = None,
    max_gap: Annotated[
        float | None,
        typer.Option("--max-gap", metavar="S", help="Cap silences, in flows and overall, at S s."),
    ] = None,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="One copy after the other (the default spacing).")
    ] = False,
    microseconds: Annotated[
        bool, typer.Option("--microseconds", help="Write µs timestamps instead of ns.")
    ] = False,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Where the plan goes; default OUT.plan.json."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No report at the end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The report as JSON (on stderr with -o -).")
    ] = False,
) -> None:
    """Write many iterations of a corpus, each with fresh addresses, interleaved in time.

    Every iteration is played whole; its packets keep their distances. The plan beside the output
    maps any address back, see `corpus invert`.

    Example: `probebench corpus expand clean.pcap -o - --key lab-7 --iterations 1000
    --flow-rate 500 | tcpreplay --no-flow-stats -i IF -`
    """
    from harness.cli.outputs import check_outputs
    from pcap_tools.expand import ExpandOptions, expand

    _refuse_empty(key)
    target = None if output == "-" else Path(output)
    check_outputs([target, plan or (target and _plan_beside(target))], captures)
    options = ExpandOptions(
        key=key,
        iterations=iterations,
        home=_networks(home),
        first=first,
        every=every,
        flow_rate=flow_rate,
        max_gap=max_gap,
        sequential=sequential,
        nanoseconds=not microseconds,
    )
    report = expand(captures, output, options, plan)
    _warn_unmapped(report.counts)
    if as_json:
        stream = sys.stderr if output == "-" else sys.stdout
        print(json.dumps(report.as_json()), file=stream)
    elif not quiet:
        print(report.summary(), file=sys.stderr)


def invert_command(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.json", help="An OUT.plan.json.")],
    addresses: Annotated[
        list[str], typer.Argument(metavar="ADDRESS...", help="Addresses seen on the wire.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Map addresses back: one line each, `address iteration original`.

    An address that the plan never hands out gives `address - -`, and exit status 1.

    Example: `probebench corpus invert big.pcap.plan.json 10.203.141.74`
    """
    import ipaddress

    from harness.errors import ConfigError
    from pcap_tools.plan import AddressPlan, invert_many

    for address in addresses:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ConfigError(
                f"{address!r} is not an IP address; write one as 10.203.141.74 or fd00::7"
            ) from None
    found = invert_many(AddressPlan.load(plan), addresses)
    if as_json:
        rows = [
            {
                "address": address,
                "iteration": origin[0] if origin else None,
                "original": origin[1] if origin else None,
            }
            for address, origin in zip(addresses, found, strict=True)
        ]
        print(json.dumps(rows, indent=1))
    else:
        for address, origin in zip(addresses, found, strict=True):
            print(f"{address} {origin[0]} {origin[1]}" if origin else f"{address} - -")
    if None in found:
        raise typer.Exit(1)
