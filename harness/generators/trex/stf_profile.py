"""A corpus as TRex's stateful mode takes it: one file a flow, and the traffic profile (`-f`).

Source of the grammar: trex-core v3.08, src/bp_sim.cpp and src/tuple_gen.cpp (`operator >>` of
CFlowsYamlInfo, CFlowYamlInfo and CTupleGenYamlInfo). Every template has the same rate, so that the
mix is the corpus's own; TRex's multiplier is then the number of corpora a second.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import ConfigError
from harness.generators.trex.options import TrexOptions
from harness.generators.trex.pools import Allocator
from harness.model import Corpus
from harness.templates import Pool, Template

__all__ = ["Flows", "prepare_flows", "traffic_yaml"]


@dataclass(frozen=True, slots=True)
class Flows:
    """What of a corpus TRex plays: templates, each with a file of its name in the directory.

    `left_out` counts the corpus's flows that STF cannot play, by reason.
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


def prepare_flows(
    corpus: Corpus,
    options: TrexOptions,
    directory: Path,
    target: Literal["stf", "astf"] = "stf",
) -> Flows:
    """Split the corpus into `directory` (new) for a mode and give each flow its pools.

    Raises ConfigError when nothing is left to play, or too much; PcapError.
    """
    from pcap_tools.split import SplitOptions, split

    gap = options.reply_gap if target == "stf" else 0.0  # ASTF has its own timing
    report = split([corpus.path], directory, SplitOptions(target=target, reply_gap_s=gap))
    left_out = Counter(report.dropped)
    with (directory / "split.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"]]
    four = [row for row in rows if ":" not in row["client"]]
    if len(four) < len(rows):
        left_out["ipv6"] += len(rows) - len(four)
    if not four:
        reasons = ", ".join(f"{name} {count}" for name, count in left_out.items())
        raise ConfigError(
            f"{corpus.path}: TRex's {target.upper()} can play none of its flows ({reasons})"
        )
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


def traffic_yaml(templates: Sequence[Template], directory: str, duration: float) -> str:
    """The traffic profile: files under `directory` on TRex's host, a pool pair a template.

    The default pools are those of the first template; no template uses them by that name. Gaps are
    the files' own (`cap_ipg`); `rtt` and `ipg` are only used where that is off.
    """
    first = templates[0]
    (low, high), (bottom, top) = first.clients.texts(), first.servers.texts()
    lines = [
        f"- duration : {duration:g}",
        "  generator :",
        '          distribution : "random"',
        f"          clients_start : {_text(low)}",
        f"          clients_end : {_text(high)}",
        f"          servers_start : {_text(bottom)}",
        f"          servers_end : {_text(top)}",
        '          dual_port_mask : "1.0.0.0"',
        "          tcp_aging : 0",
        "          udp_aging : 0",
    ]
    for side, letter in (("generator_clients", "c"), ("generator_servers", "s")):
        lines.append(f"          {side} :")
        for number, template in enumerate(templates):
            pool = template.clients if letter == "c" else template.servers
            lines += _pool(f"{letter}{number}", pool)
    lines += ["  cap_ipg : true", "  cap_info :"]
    for number, template in enumerate(templates):
        lines += [
            f"    - name : {_text(f'{directory}/{template.name}.pcap')}",
            f'      client_pool : "c{number}"',
            f'      server_pool : "s{number}"',
            "      cps : 1.0",
            "      ipg : 10000",
            "      rtt : 10000",
            "      w : 1",
        ]
    return "\n".join(lines) + "\n"


def _pool(name: str, pool: Pool) -> list[str]:
    first, last = pool.texts()
    return [
        f"            - name : {_text(name)}",
        '              distribution : "random"',
        f"              ip_start : {_text(first)}",
        f"              ip_end : {_text(last)}",
    ]


def _text(value: str) -> str:
    return json.dumps(value)
