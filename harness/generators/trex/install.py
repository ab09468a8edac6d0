"""A TRex on a host: where it is, which version, what it can do there, what a dead run left."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from harness.errors import GeneratorFailed
from harness.generators.trex.options import TrexOptions
from lab.host import Host

__all__ = ["TrexInstall", "end_ours", "find_trex", "require_trex"]

# One round trip. What is not there prints nothing.
_LOOK = r"""
cd "$1" 2>/dev/null || exit 9
say() { printf '%s=%s\n' "$1" "$2"; }
[ -x ./t-rex-64 ] && say wrapper yes
[ -x ./_t-rex-64 ] && say binary yes
say version "$(sed -n 1p version.txt 2>/dev/null || sed -n 1p VERSION 2>/dev/null)"
[ -d automation/trex_control_plane/interactive/trex/stl ] && say stl yes
[ -d automation/trex_control_plane/interactive/trex/astf ] && say astf yes
[ -d automation/trex_control_plane/stl/trex_stl_lib ] && say stl yes
say hugepages "$(sed -n 's/^HugePages_Total: *//p' /proc/meminfo)"
say hugepages_free "$(sed -n 's/^HugePages_Free: *//p' /proc/meminfo)"
say cores "$(getconf _NPROCESSORS_ONLN)"
say runtime "$(ls /var/run/dpdk/"$2" 2>/dev/null | wc -l)"
for port in "$3" "$4"; do
  ss -Hltn "sport = :$port" 2>/dev/null | grep -q . && say taken "$port"
done
for entry in /proc/[0-9]*; do
  command=$(tr '\0' ' ' <"$entry/cmdline" 2>/dev/null) || continue
  set -- $command
  case "$1 $2 " in *"_t-rex-64 "*) say process "${entry#/proc/} $command" ;; esac
done
"""


@dataclass(frozen=True, slots=True)
class TrexInstall:
    """What was found. `modes` are "stf", "stl", "astf"; `processes` TRex servers that run now.

    `client` is True when the tree has its own Python client, which always matches its server.
    `leftovers` are runtime files of a run with our prefix (they do not hinder the next). `missing`
    says what keeps it from running, a line each. `taken` are those of our ports that something
    listens on: TRex would refuse to start. A TRex with other ports and another prefix may run.
    """

    path: str
    version: str
    modes: tuple[str, ...]
    client: bool
    hugepages: int
    hugepages_free: int
    cores: int
    processes: tuple[tuple[int, str], ...]
    leftovers: int
    missing: tuple[str, ...]
    taken: tuple[int, ...] = ()


def find_trex(host: Host, options: TrexOptions) -> TrexInstall:
    """Look at the TRex at `options.path` on a host. Raises ConnectionLost, CommandTimeout."""
    asked = (options.path, options.prefix, str(options.publish_port), str(options.rpc_port))
    done = host.run(["sh", "-c", _LOOK, "sh", *asked], check=False)
    if done.returncode == 9:
        gone = f"{options.path} is not a directory there; correct generator.options.path"
        return TrexInstall(options.path, "", (), False, 0, 0, 0, (), 0, (gone,))
    pairs = [line.partition("=") for line in done.stdout.splitlines() if "=" in line]
    facts = {key: value for key, _, value in pairs}
    processes = [
        (int(number), command.strip())
        for key, _, value in pairs
        if key == "process"
        for number, _, command in [value.partition(" ")]
    ]
    stl, astf = "stl" in facts, "astf" in facts
    return TrexInstall(
        path=options.path,
        version=_version(facts.get("version", "")),
        modes=("stf", *(["stl"] if stl else []), *(["astf"] if astf else [])),
        client=stl or astf,
        hugepages=_number(facts.get("hugepages")),
        hugepages_free=_number(facts.get("hugepages_free")),
        cores=_number(facts.get("cores")),
        processes=tuple(processes),
        leftovers=_number(facts.get("runtime")),
        missing=tuple(_missing(facts, options)),
        taken=tuple(_number(value) for key, _, value in pairs if key == "taken"),
    )


def require_trex(host: Host, options: TrexOptions) -> TrexInstall:
    """`find_trex`, refusing what cannot run. Raises GeneratorFailed with all that is missing."""
    found = find_trex(host, options)
    if found.missing:
        raise GeneratorFailed(f"{host.name}: TRex cannot run: {'; '.join(found.missing)}")
    return found


def end_ours(host: Host, found: TrexInstall, cfg: str) -> None:
    """End servers of an earlier run of ours: those with our configuration file `cfg`."""
    ours = [pid for pid, command in found.processes if cfg in command.split()]
    for number in ("TERM", "KILL"):
        if not ours:
            return
        host.run(["kill", f"-{number}", *map(str, ours)], check=False, sudo=True)
        end = time.monotonic() + 5
        while ours and time.monotonic() < end:
            time.sleep(0.2)
            ours = [
                pid
                for pid in ours
                if host.run(["test", "-e", f"/proc/{pid}"], check=False).returncode == 0
            ]


def _missing(facts: dict[str, str], options: TrexOptions) -> list[str]:
    lines = []
    for key, name in (("wrapper", "t-rex-64"), ("binary", "_t-rex-64")):
        if key not in facts:
            lines.append(
                f"{options.path}/{name} is not there or not executable; unpack or build TRex there"
            )
    if not options.software and _number(facts.get("hugepages")) == 0:
        lines.append(
            "no hugepages are set up, which DPDK ports need: "
            "sysctl vm.nr_hugepages=1024 (or software = true for kernel interfaces)"
        )
    cores = _number(facts.get("cores"))
    if not options.low_end and cores < options.cores + 2:
        lines.append(
            f"{cores} CPUs are too few for {options.cores} traffic core(s) and the two that TRex "
            "keeps: set low_end = true, or fewer cores"
        )
    return lines


def _version(text: str) -> str:
    found = re.search(r"v?\d+\.\d+\S*", text)
    return found[0] if found else "unknown"


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0
