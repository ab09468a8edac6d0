"""The flow table of small packets and many flows, beside argus and beside Suricata.

    python benchmarks/flows_small.py [--megabytes N] [--runs N] [--directory DIR]

Must: 8 times as fast as argus. Aim: 16 times argus, 35 times Suricata (no rules, flow records only,
a thread a CPU). 1 GB of packets of mean 110 B with 1.3 million flows; input and outputs in
/dev/shm.
"""

from __future__ import annotations

from measure import Claim, compare, memory, missing, options, present, report, traffic, workplace
from peers import argus, flows, suricata


def main() -> int:
    """Measure; 0 when all that must hold does."""
    arguments = options(__doc__, megabytes=1000, runs=3).parse_args()
    with workplace(arguments.directory) as place:
        source = traffic(place / "in.pcap", "small", arguments.megabytes)
        ours = flows(source, place / "flows.csv")
        peers = [argus(source, place / "argus"), suricata(source, place / "suricata")]
        commands = [ours, *present(peers, missing(peers))]
        results = compare(commands, arguments.runs)
        results.show()
        print(f"  {ours.name}: {memory(ours)}")
    claims = []
    for peer, must, aim in (("argus", 8, 16), ("suricata", None, 35)):
        if peer in results:
            claims.append(Claim(f"against {peer}", results.ratio(peer, ours.name), must, aim))
    return report(claims)


if __name__ == "__main__":
    raise SystemExit(main())
