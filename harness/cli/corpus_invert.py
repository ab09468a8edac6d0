"""`probebench corpus invert`: from addresses and flows on the wire back to the corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pcap_tools.invert import FlowOrigin, WireFlow

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("invert")(invert_command)


def invert_command(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.json", help="An OUT.plan.json.")],
    addresses: Annotated[
        list[str],
        typer.Argument(
            metavar="ADDRESS...",
            help="Seen on the wire: addresses, ADDRESS:PORT, or tcp:ADDRESS:PORT-ADDRESS:PORT.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Map addresses or flows back: one line each, `address iteration original`.

    What the plan never hands out gives `address - -`, and exit status 1. Where --hosts bounds the
    population an address alone does not tell the iteration: give the client's ADDRESS:PORT (IPv6 in
    brackets) or the five-tuple.

    Example: `probebench corpus invert big.pcap.plan.json 10.203.141.74`
    """
    from harness.errors import ConfigError
    from pcap_tools.addresses import parse_address
    from pcap_tools.invert import invert_flows
    from pcap_tools.plan import AddressPlan, invert_many

    flows = {text: flow for text in addresses if (flow := _wire_flow(text))}
    for text in addresses:
        if text not in flows and not parse_address(text):
            raise ConfigError(
                f"{text!r} is not an IP address; write one as 10.203.141.74 or fd00::7, a client "
                "as 10.203.141.74:40000, a flow as tcp:10.203.141.74:40000-8.8.8.8:443"
            )
    known = AddressPlan.load(plan)
    alone = [text for text in addresses if text not in flows]
    found: dict[str, tuple[int, str] | None] = {}
    if alone:
        found.update(zip(alone, invert_many(known, alone), strict=True))
    for text, candidates in flows.items():
        origins = [origin for origin in invert_flows(known, candidates) if origin]
        moved = [o for o in origins if known.sockets is None or o.flow != candidates[0]]
        found[text] = _told((moved or origins)[0]) if origins else None
    results = [found[text] for text in addresses]
    if as_json:
        rows: list[dict[str, Any]] = [
            {
                "address": address,
                "iteration": origin[0] if origin else None,
                "original": origin[1] if origin else None,
            }
            for address, origin in zip(addresses, results, strict=True)
        ]
        print(json.dumps(rows, indent=1))
    else:
        for address, origin in zip(addresses, results, strict=True):
            print(f"{address} {origin[0]} {origin[1]}" if origin else f"{address} - -")
    if None in results:
        raise typer.Exit(1)


def _wire_flow(text: str) -> list[WireFlow]:
    """The five-tuples that a text can mean; [] when it is an address, or nothing."""
    import re

    from pcap_tools.addresses import parse_address
    from pcap_tools.invert import WireFlow

    end = r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]+)"
    match = re.fullmatch(rf"(?:(tcp|udp|icmp|icmpv6):)?{end}(?:-{end})?", text)
    if not match:
        return []
    name, *ends = match.groups()
    source, target = ends[0] or ends[1], ends[3] or ends[4] or ""
    if not parse_address(source) or (target and not parse_address(target)):
        return []
    numbers = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}
    protocols = [numbers[name]] if name else [6, 17]
    return [WireFlow(p, source, int(ends[2]), target, int(ends[5] or 0)) for p in protocols]


def _told(origin: FlowOrigin) -> tuple[int, str]:
    def end(address: str, port: int) -> str:
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    flow = origin.flow
    text = end(flow.source, flow.source_port)
    return origin.iteration, text + (
        f"-{end(flow.target, flow.target_port)}" if flow.target else ""
    )
