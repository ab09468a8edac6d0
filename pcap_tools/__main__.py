"""`python -m pcap_tools expand …`: what the traffic generator's host runs.

Needs Python with numpy and numba, and nothing else of the product.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from pcap_tools.errors import PcapError

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pcap_tools",
        description="Captures in, captures out: the part that runs on the generator's host.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    expand = commands.add_parser(
        "expand",
        help="write iterations of a corpus with fresh addresses",
        epilog="example: python -m pcap_tools expand corpus.pcap -o - --key k --iterations 1000 "
        "--every 0.01 | tcpreplay --no-flow-stats -i IF -",
    )
    expand.add_argument(
        "input", nargs="+", metavar="IN", help="capture, pcap or pcapng; - is stdin"
    )
    expand.add_argument("-o", "--output", required=True, metavar="OUT", help="pcap; - is stdout")
    expand.add_argument("--key", required=True, help="text that selects the address permutations")
    expand.add_argument("--iterations", type=int, required=True, metavar="N")
    expand.add_argument("--home", metavar="CIDR,...", help="home networks, comma-separated")
    expand.add_argument("--home-pool", metavar="CIDR,...", help="pool of the home class")
    expand.add_argument("--external-pool", metavar="CIDR,...", help="pool of the external class")
    expand.add_argument("--hosts", metavar="N", help="bound the hosts: N, or home=N,external=M")
    expand.add_argument("--timeout", type=float, metavar="S", help="the sensor's, for --hosts")
    expand.add_argument("--first", type=int, default=0, metavar="I", help="first iteration")
    spacing = expand.add_mutually_exclusive_group()
    spacing.add_argument("--every", type=float, metavar="S", help="one iteration every S seconds")
    spacing.add_argument("--flow-rate", type=float, metavar="F", help="new flows per second")
    spacing.add_argument("--sequential", action="store_true", help="one copy after the other")
    expand.add_argument("--max-gap", type=float, metavar="S", help="cap silences at S seconds")
    expand.add_argument("--microseconds", action="store_true", help="write µs timestamps, not ns")
    expand.add_argument("--plan", type=Path, metavar="FILE", help="where the address plan goes")
    expand.add_argument("--json", action="store_true", help="end with a JSON report on stderr")
    expand.add_argument("--quiet", action="store_true", help="no report on stderr")
    warm = commands.add_parser(
        "warm", help="compile the kernels into the cache; takes seconds, once"
    )
    warm.add_argument("--part", choices=("expand", "track", "remap", "clean"), default="expand")
    commands.add_parser("version", help="print the versions")
    return parser


def _networks(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _expand(arguments: argparse.Namespace) -> None:
    from pcap_tools.expand import ExpandOptions, expand
    from pcap_tools.pools import DEFAULT_HOME
    from pcap_tools.population import parse_hosts

    options = ExpandOptions(
        key=arguments.key,
        iterations=arguments.iterations,
        home=_networks(arguments.home) or DEFAULT_HOME,
        home_pool=_networks(arguments.home_pool),
        external_pool=_networks(arguments.external_pool),
        hosts=parse_hosts(arguments.hosts) if arguments.hosts else None,
        timeout=arguments.timeout,
        first=arguments.first,
        every=arguments.every,
        flow_rate=arguments.flow_rate,
        max_gap=arguments.max_gap,
        sequential=arguments.sequential,
        nanoseconds=not arguments.microseconds,
    )
    report = expand(arguments.input, arguments.output, options, arguments.plan)
    if arguments.json:
        print(json.dumps(report.as_json()), file=sys.stderr)
    elif not arguments.quiet:
        print(report.summary(), file=sys.stderr)


def _version() -> None:
    import platform

    import numba
    import numpy

    from pcap_tools.permute import NAME

    print(
        f"pcap_tools, permutation {NAME}, Python {platform.python_version()}, "
        f"numpy {numpy.__version__}, numba {numba.__version__}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the exit status. Errors are one line on standard error."""
    parsed = _parser().parse_args(arguments)
    try:
        if parsed.command == "expand":
            _expand(parsed)
        elif parsed.command == "warm":
            from pcap_tools.warm import warm

            warm(parsed.part)
        else:
            _version()
    except PcapError as error:
        print(f"pcap_tools: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader is gone; nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
