"""The corpus as TRex takes it: one file a flow, each a template with address pools of its own."""

from __future__ import annotations

import csv
import hashlib
import json
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.generators.trex.options import TrexOptions
from harness.generators.trex.pools import Allocator
from harness.model import Axis, Corpus, amount_of
from harness.templates import Template
from lab.host import Host

__all__ = ["Flows", "prepare_flows", "ship_flows"]


@dataclass(frozen=True, slots=True)
class Flows:
    """What of a corpus TRex plays: templates, each with a file of its name in the directory.

    `left_out` counts the corpus's flows that it cannot play, by reason.
    """

    templates: tuple[Template, ...]
    left_out: dict[str, int]

    @property
    def packets(self) -> int:
        """Packets of one flow of each template."""
        return sum(template.packets for template in self.templates)

    @property
    def bytes(self) -> int:
        """Bytes of frames of one flow of each template."""
        return sum(template.bytes for template in self.templates)

    @property
    def seconds(self) -> float:
        """Their durations, summed."""
        return sum(template.seconds for template in self.templates)

    @property
    def longest(self) -> float:
        """The longest of them, in seconds."""
        return max((template.seconds for template in self.templates), default=0.0)

    def amount(self, axis: Axis) -> float:
        """What one flow of each template is on a load axis (see `harness.model.amount_of`)."""
        return amount_of(axis, self.packets, len(self.templates), self.bytes, self.seconds)


def prepare_flows(corpus: Corpus, options: TrexOptions, directory: Path, target: str) -> Flows:
    """Split the corpus into `directory` (new) for "stf" or "astf", and give each flow its pools.

    Raises ConfigError when nothing is left to play, or too much; PcapError.
    """
    from pcap_tools.split import SplitOptions, split

    gap = options.reply_gap if target == "stf" else 0.0
    report = split([corpus.path], directory, SplitOptions(target=target, reply_gap_s=gap))
    left_out = Counter(report.dropped)
    with (directory / "split.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"]]
    four = [row for row in rows if ":" not in row["client"]]
    if len(four) < len(rows):
        left_out["ipv6"] += len(rows) - len(four)
    if not four:
        reasons = ", ".join(f"{name} {count}" for name, count in left_out.items())
        raise ConfigError(f"{corpus.path}: TRex ({target}) can play none of its flows ({reasons})")
    if len(four) > options.most_templates:
        raise ConfigError(
            f"{corpus.path}: {len(four):,} flows are more templates than "
            f"generator.options.most_templates = {options.most_templates:,}: take fewer flows "
            "(`corpus mix`), or raise it"
        )
    pools = Allocator(corpus.home)
    templates = tuple(_template(row, pools, options) for row in four)
    return Flows(templates, dict(left_out))


def _template(row: dict[str, str], pools: Allocator, options: TrexOptions) -> Template:
    return Template(
        name=Path(row["file"]).stem,
        proto=row["proto"].upper(),
        client=row["client"],
        client_port=int(row["client_port"]),
        server=row["server"],
        server_port=int(row["server_port"]),
        packets=int(row["packets_out"]) + int(row["packets_in"]),
        bytes=int(row["bytes_out"]) + int(row["bytes_in"]),
        seconds=int(row["duration_ns"]) / 1e9,
        clients=pools.take(pools.is_home(row["client"]), options.clients),
        servers=pools.take(pools.is_home(row["server"]), options.servers),
    )


def ship_flows(host: Host, flows: Flows, directory: Path, recipe: str) -> str:
    """Bring the flows' files to a host, unless they are there; their directory on it.

    `recipe` is all that the files depend on.
    """
    names = json.dumps([recipe, [template.name for template in flows.templates]])
    remote = f"{host.workdir}/flows-{hashlib.sha256(names.encode()).hexdigest()[:32]}"
    if host.run(["test", "-e", f"{remote}/whole"], check=False).returncode == 0:
        return remote
    packed = directory.parent / "flows.tar.gz"
    with tarfile.open(packed, "w:gz", compresslevel=1) as archive:
        for template in flows.templates:
            name = f"{template.name}.pcap"
            archive.add(directory / name, arcname=name)
    host.run(["mkdir", "-p", remote])
    host.put(packed, f"{remote}/flows.tar.gz")
    host.run(["tar", "-xzf", f"{remote}/flows.tar.gz", "-C", remote], timeout=600)
    host.run(["touch", f"{remote}/whole"])
    return remote
