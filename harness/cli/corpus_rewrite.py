"""`probebench corpus remap|expand`: other addresses, fresh ones for many iterations."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pcap_tools.population import Population
    from pcap_tools.remap import RemapReport
    from pcap_tools.space import Space

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
HomePoolOption = Annotated[
    str | None,
    typer.Option("--home-pool", metavar="CIDR,...", help="Stand-ins of home addresses; --home."),
]
ExternalPoolOption = Annotated[
    str | None,
    typer.Option(
        "--external-pool",
        metavar="CIDR,...",
        help="Stand-ins of all others; default: global unicast outside home.",
    ),
]
PoolsOption = Annotated[
    Path | None,
    typer.Option("--pools", metavar="FILE", help="TOML with home, home_pool and external_pool."),
]
HostsOption = Annotated[
    str | None,
    typer.Option(
        "--hosts",
        metavar="N",
        help="Bound the hosts of each class, N or home=N,external=M; client ports move along.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("remap")(remap_command)
    app.command("expand")(expand_command)


def _space(
    home: str | None, home_pool: str | None, external_pool: str | None, pools: Path | None
) -> Space:
    from harness.errors import ConfigError
    from pcap_tools.pools import DEFAULT_HOME
    from pcap_tools.space import Space, read_space

    if pools:
        if home or home_pool or external_pool:
            raise ConfigError("--pools excludes --home, --home-pool and --external-pool; give one")
        return read_space(pools)
    given = [
        tuple(part.strip() for part in text.split(",")) if text else ()
        for text in (home, home_pool, external_pool)
    ]
    return Space(given[0] or DEFAULT_HOME, given[1], given[2])


def _population(hosts: str | None) -> Population | None:
    from pcap_tools.population import parse_hosts

    return parse_hosts(hosts) if hosts else None


def _refuse_empty(key: str) -> None:
    from harness.errors import ConfigError

    if not key:  # most often a shell variable that was never set
        raise ConfigError("--key is empty; give any text, and keep it to repeat the experiment")


def _warn_unmapped(counts: dict[str, int]) -> None:
    same = counts["packets"] - counts["mapped"] - counts["arp"]
    if same > 0:
        print(
            f"probebench: warning: {same:,} of {counts['packets']:,} packets of the corpus keep "
            "their addresses in every iteration (neither IP nor ARP was found in them)",
            file=sys.stderr,
        )


def _warn_mentions(mentions: dict[str, dict[str, int]]) -> None:
    for protocol, found in mentions.items():
        print(
            f"probebench: warning: {found['packets']:,} {protocol.upper()} packets quote a mapped "
            f"address in their payload, packet {found['first']:,} first; payloads stay as they are",
            file=sys.stderr,
        )


def _plan_beside(output: Path) -> Path:
    return Path(f"{output}.plan.json")


def remap_command(
    captures: Annotated[list[Path], typer.Argument(metavar="IN...", help="Captures; - is stdin.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="The pcap file to write.")
    ],
    key: Annotated[
        str | None, typer.Option("--key", metavar="TEXT", help="Selects the permutations.")
    ] = None,
    home: HomeOption = None,
    home_pool: HomePoolOption = None,
    external_pool: ExternalPoolOption = None,
    pools: PoolsOption = None,
    iteration: Annotated[
        int, typer.Option("--iteration", metavar="I", min=0, help="Whose addresses to use.")
    ] = 0,
    prefix: Annotated[
        bool, typer.Option("--prefix-preserving", help="Crypto-PAn instead of fresh addresses.")
    ] = False,
    hosts: HostsOption = None,
    macs: Annotated[
        str,
        typer.Option(
            "--macs",
            metavar="keep|map|client=MAC,server=MAC",
            help="What becomes of MAC addresses.",
        ),
    ] = "keep",
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Use this plan, make none.")
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", metavar="IN", help="The plan covers this capture too."),
    ] = None,
    invert: Annotated[
        Path | None,
        typer.Option("--invert", metavar="FILE", help="Back to the original, by this plan."),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option("--map", metavar="mapping.csv", help="Write original,mapped,class here."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Give a capture other addresses, those of one iteration; everything else stays.

    The plan goes beside the output, as OUT.plan.json.

    Example: `probebench corpus remap clean.pcap -o other.pcap --key lab-7 --map mapping.csv`
    and back: `probebench corpus remap other.pcap -o back.pcap --invert other.pcap.plan.json`
    """
    from harness.cli.outputs import check_outputs
    from harness.errors import ConfigError
    from pcap_tools.macs import parse_macs
    from pcap_tools.plan import AddressPlan
    from pcap_tools.remap import RemapOptions, restore, rewrite, write_mapping

    making = {
        "--key": key is not None,
        "--home": home,
        "--home-pool": home_pool,
        "--external-pool": external_pool,
        "--pools": pools,
        "--prefix-preserving": prefix,
        "--hosts": hosts,
        "--also": also,
    }
    for option, taken in (("--plan", plan), ("--invert", invert)):
        extra = [name for name, given in making.items() if given]
        if taken and extra:
            raise ConfigError(f"{option} has a plan that says all of {', '.join(extra)}; drop them")
    if invert:
        if plan or mapping or macs != "keep":
            raise ConfigError("--invert excludes --plan, --map and --macs: the plan has it all")
        check_outputs([output], [*captures, invert])
        report, _ = restore(captures, output, AddressPlan.load(invert))
        _print_remap(report, as_json)
        return
    if prefix and hosts:
        raise ConfigError(
            "--prefix-preserving excludes --hosts: its mapping is one to one; give one"
        )
    if plan is None:
        if key is None:
            raise ConfigError("--key is missing; give any text, or a --plan that exists")
        _refuse_empty(key)
    check_outputs([output, _plan_beside(output), mapping], [*captures, *(also or [])])
    options = RemapOptions(
        key=key or "",
        space=_space(home, home_pool, external_pool, pools),
        iteration=iteration,
        prefix=prefix,
        hosts=_population(hosts),
        macs=parse_macs(macs),
        plan=AddressPlan.load(plan) if plan else None,
        also=tuple(also or ()),
    )
    report, made = rewrite(captures, output, options)
    if mapping:
        write_mapping(made, iteration, mapping)
    _print_remap(report, as_json)


def _print_remap(report: RemapReport, as_json: bool) -> None:
    _warn_unmapped(report.counts)
    _warn_mentions(report.mentions)
    if as_json:
        print(json.dumps(report.as_json(), indent=1))
        return
    fixed = report.counts["fixed_ip_checksums"] + report.counts["fixed_l4_checksums"]
    print(
        f"{report.output}: {report.packets:,} packets, {report.bytes:,} bytes, "
        f"{report.addresses:,} addresses, iteration {report.iteration}"
        + (f"; {fixed:,} wrong checksums put right" if fixed else "")
        + (
            f"; five-tuples come back after {report.reuse.iterations:,} iterations"
            if report.reuse and report.reuse.by_protocol
            else ""
        )
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
    home_pool: HomePoolOption = None,
    external_pool: ExternalPoolOption = None,
    pools: PoolsOption = None,
    hosts: HostsOption = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="S", help="How long the sensor keeps a flow, for --hosts; 0: any."
        ),
    ] = None,
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
    space = _space(home, home_pool, external_pool, pools)
    options = ExpandOptions(
        key=key,
        iterations=iterations,
        home=space.home,
        home_pool=space.home_pool,
        external_pool=space.external_pool,
        hosts=_population(hosts),
        timeout=timeout,
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
