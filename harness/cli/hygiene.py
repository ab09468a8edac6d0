"""The options that put a capture right while it is read, for every command that has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pcap_tools.hygiene import Hygiene

__all__ = ["Dedup", "DedupWindow", "Resegment", "Snapped", "Sort", "ZeroTime", "hygiene_of"]

Dedup = Annotated[
    str,
    typer.Option(
        "--dedup",
        metavar="exact|ip",
        help="Drop packets captured twice: equal in every byte, or equal IP packets but for TTL "
        "and checksum (before and after a router).",
    ),
]
DedupWindow = Annotated[
    str,
    typer.Option(
        "--dedup-window",
        metavar="N|TIME",
        help="How near copies are: among N packets (as editcap -D), or within e.g. 1ms (-w).",
    ),
]
Sort = Annotated[bool, typer.Option("--sort", help="Put packets in order of time.")]
Resegment = Annotated[
    int,
    typer.Option(
        "--resegment",
        metavar="MTU",
        help="Cut TCP segments larger than this (offloading hosts record them), mostly 1500.",
    ),
]
Snapped = Annotated[
    str,
    typer.Option("--snapped", metavar="keep|drop", help="Packets cut by the snapshot length."),
]
ZeroTime = Annotated[
    str, typer.Option("--zero-time", metavar="keep|drop", help="Packets with timestamp 0.")
]


def hygiene_of(
    dedup: str, window: str, sort: bool, resegment: int, snapped: str, zero_time: str
) -> Hygiene:
    """The policies that the options ask for. Raises PcapError."""
    from pcap_tools.dedup import parse_window
    from pcap_tools.hygiene import Hygiene

    return Hygiene(
        snapped=snapped,
        zero_time=zero_time,
        sort=sort,
        dedup=dedup,
        window=parse_window(window),
        resegment=resegment,
    )
