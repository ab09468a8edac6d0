"""The traffic profile (`-f`) of TRex's stateful mode.

Source of the grammar: trex-core v3.08, src/bp_sim.cpp and src/tuple_gen.cpp (`operator >>` of
CFlowsYamlInfo, CFlowYamlInfo and CTupleGenYamlInfo). Every template has the same rate, so that the
mix is the corpus's own; TRex's multiplier is then the number of corpora a second.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from harness.templates import Pool, Template

__all__ = ["traffic_yaml"]


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
