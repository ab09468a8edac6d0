"""Is the virtual lab whole? What `up` verifies before it repairs, and what `status` shows."""

from __future__ import annotations

import json

from lab import netns_tools as net
from lab.virtual_files import State, read_state
from lab.virtual_layout import TAP_PORTS, Layout, Options, layout

__all__ = ["broken_links", "broken_servers", "problems"]


def problems(name: str = "default") -> list[str]:
    """What is missing or broken in a lab, one line each; empty when it is whole."""
    lab = layout(name)
    state = read_state(lab)
    if state is None or not lab.inventory.exists():
        return [f"no such lab on this machine ({lab.state} is missing)"]
    return [*broken_links(lab), *broken_servers(lab, state)]


def broken_links(lab: Layout) -> list[str]:
    """Namespaces and interfaces that are missing or down, one line each."""
    spaces = lab.namespaces
    there = net.namespaces()
    state = read_state(lab)
    options = state.options if state else Options()
    wrong = [f"namespace {space} is missing" for space in spaces.of(options) if space not in there]
    if wrong:
        return wrong
    expected: list[tuple[str, str | None]] = [
        ("tx0", spaces.generator),
        ("rx0", spaces.sensor),
        ("cl0", spaces.client),
        ("sv0", spaces.server),
        ("mg0", spaces.generator),
        ("mg0", spaces.sensor),
        *((interface, None) for interface in lab.management),
    ]
    if options.tap:
        expected += [("tx1", spaces.generator), *((port, spaces.tap) for port in TAP_PORTS)]
    for interface, space in expected:
        where = [] if space is None else ["-n", space]
        done = net.run(["ip", *where, "-j", "link", "show", interface], check=False)
        if done.returncode != 0:
            wrong.append(f"{interface} is missing in {space or 'the root namespace'}")
        elif "LOWER_UP" not in json.loads(done.stdout)[0]["flags"]:
            wrong.append(f"{interface} is down in {space or 'the root namespace'}")
    return wrong


def broken_servers(lab: Layout, state: State) -> list[str]:
    """Servers that do not run or do not answer, one line each."""
    wrong = []
    for role, subnet in zip(("generator", "sensor"), state.subnets, strict=True):
        server = lab.server(role, subnet)
        if server.pid is None:
            wrong.append(f"sshd of the {role} does not run")
        elif not server.answers():
            wrong.append(f"sshd of the {role} does not answer on {server.address}")
    return wrong
