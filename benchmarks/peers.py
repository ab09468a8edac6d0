"""The programs that people use for this work today, as they are run for it."""

from __future__ import annotations

import shutil
from pathlib import Path

from measure import OURS, Command

__all__ = ["argus", "cat", "clean", "copy", "flows", "nfpcapd", "suricata", "tcprewrite", "tshark"]

# Complete connections (tshark's own bits: handshake, and FIN or RST), and what is not TCP.
_COMPLETE = (
    "tcp.completeness in {7, 15, 23, 31, 39, 47, 55, 63} and tcp.completeness > 15 or not tcp"
)


def clean(source: Path, output: Path, *more: str) -> Command:
    """`corpus clean`, with a fixed key where addresses are given anew."""
    beside = [Path(f"{output}.{what}.json") for what in ("clean", "plan")]
    arguments = [*OURS, "corpus", "clean", str(source), "-o", str(output), *more]
    return Command(
        "corpus clean" + (" --remap" * ("--remap" in more)), arguments, [output, *beside]
    )


def remap(source: Path, output: Path) -> Command:
    """`corpus remap`."""
    beside = Path(f"{output}.plan.json")
    arguments = [*OURS, "corpus", "remap", str(source), "-o", str(output), "--key", "benchmark"]
    return Command("corpus remap", arguments, [output, beside])


def flows(source: Path, output: Path) -> Command:
    """`corpus flows`, whatever the suffix asks for."""
    arguments = [*OURS, "corpus", "flows", str(source), "-o", str(output)]
    return Command(f"corpus flows to {output.suffix}", arguments, [output])


def copy(source: Path, output: Path) -> Command:
    """cp."""
    return Command("cp", ["cp", str(source), str(output)], [output])


def cat(source: Path) -> Command:
    """cat into nothing: what reading the file costs at least."""
    return Command("cat", ["cat", str(source)])


def tcprewrite(source: Path, output: Path) -> Command:
    """Random addresses, all checksums computed."""
    arguments = [
        "tcprewrite",
        "--seed=423",
        "--fixcsum",
        f"--infile={source}",
        f"--outfile={output}",
    ]
    return Command("tcprewrite", arguments, [output], "tcpreplay")


def tshark(source: Path, output: Path) -> Command:
    """Two passes, keeping complete connections."""
    arguments = ["tshark", "-n", "-2", "-r", str(source), "-Y", _COMPLETE, "-w", str(output)]
    return Command("tshark -2", arguments, [output], "tshark")


def argus(source: Path, output: Path) -> Command:
    """argus, without a configuration of the machine's."""
    arguments = ["argus", "-X", "-r", str(source), "-w", str(output)]
    return Command("argus", arguments, [output], "argus-server")


def nfpcapd(source: Path, directory: Path) -> Command:
    """nfpcapd into a directory of its own."""
    directory.mkdir(exist_ok=True)
    arguments = ["nfpcapd", "-r", str(source), "-w", str(directory)]
    return Command("nfpcapd", arguments, [directory], "nfdump")


def suricata(source: Path, directory: Path) -> Command:
    """Suricata without rules, flow records only."""
    directory.mkdir(exist_ok=True)
    configuration = directory.with_suffix(".yaml")
    configuration.write_text(
        "%YAML 1.1\n---\nflow:\n  memcap: 4gb\n  hash-size: 1048576\nstream:\n  memcap: 4gb\n"
        "  checksum-validation: no\n  reassembly:\n    memcap: 4gb\n"
        "outputs:\n- eve-log:\n    enabled: yes\n    filename: eve.json\n    types: [flow]\n"
    )
    arguments = ["suricata", "-c", str(configuration), "-r", str(source), "-l", str(directory)]
    arguments += ["-S", "/dev/null", "--runmode", "autofp"]
    return Command("suricata", arguments, [directory], "suricata")


def available(command: Command) -> bool:
    """True when the program is installed."""
    return shutil.which(command.arguments[0]) is not None
