"""The flow table of a large capture, beside argus and nfpcapd, and beside cat of the file.

    python benchmarks/flows_mix.py [--megabytes N] [--runs N] [--directory DIR]

Must: 4 times as fast as argus, 5 times as nfpcapd. Aim: 6 times argus, 2.2 times the time of cat. A
TCP/UDP mix of mean 530 B with 430,000 flows in 4 GB; input and outputs in /dev/shm.
"""

from __future__ import annotations

from measure import Claim, compare, memory, missing, options, present, report, traffic, workplace
from peers import argus, cat, flows, nfpcapd


def main() -> int:
    """Measure; 0 when all that must hold does."""
    arguments = options(__doc__, megabytes=4000, runs=5).parse_args()
    with workplace(arguments.directory) as place:
        source = traffic(place / "in.pcap", "mix", arguments.megabytes)
        ours = flows(source, place / "flows.csv")
        table = flows(source, place / "flows.parquet")
        peers = [argus(source, place / "argus"), nfpcapd(source, place / "nfpcapd"), cat(source)]
        commands = [ours, table, *present(peers, missing(peers))]
        results = compare(commands, arguments.runs)
        results.show()
        print(f"  {ours.name}: {memory(ours)}")
    claims = [Claim("time of cat", results.ratio(ours.name, "cat"), None, 2.2, most=True)]
    for peer, must, aim in (("argus", 4, 6), ("nfpcapd", 5, None)):
        if peer in results:
            claims.append(Claim(f"against {peer}", results.ratio(peer, ours.name), must, aim))
    return report(claims)


if __name__ == "__main__":
    raise SystemExit(main())
