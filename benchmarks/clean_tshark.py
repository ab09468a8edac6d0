"""Cleaning, beside tshark's two passes with a filter on complete connections.

    python benchmarks/clean_tshark.py [--megabytes N] [--runs N] [--directory DIR]

Must: 17 times as fast; aim: 25 times. 1 GB of a TCP/UDP mix of mean 530 B with 107,500 flows;
input and outputs in /dev/shm.
"""

from __future__ import annotations

from measure import Claim, compare, memory, missing, options, present, report, traffic, workplace
from peers import clean, tshark


def main() -> int:
    """Measure; 0 when all that must hold does."""
    arguments = options(__doc__, megabytes=1000, runs=3).parse_args()
    with workplace(arguments.directory) as place:
        source = traffic(place / "in.pcap", "mix", arguments.megabytes)
        ours = clean(source, place / "out.pcap")
        peers = [tshark(source, place / "peer.pcap")]
        commands = [ours, *present(peers, missing(peers))]
        results = compare(commands, arguments.runs)
        results.show()
        for command in commands:
            print(f"  {command.name}: {memory(command)}")
    if "tshark -2" not in results:
        return 0
    return report([Claim("against tshark -2", results.ratio("tshark -2", ours.name), 17, 25)])


if __name__ == "__main__":
    raise SystemExit(main())
