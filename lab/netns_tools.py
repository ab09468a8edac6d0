"""Network namespaces and links through iproute2 and ethtool: small steps, one-line errors.

Everything here acts on the machine it runs on and needs root. A failed step raises LabError with
the tool's own words; a missing tool or right raises MissingTool.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.errors import LabError, MissingTool

__all__ = [
    "add_veth",
    "delete_link",
    "delete_namespace",
    "end_processes",
    "has_ipv6",
    "in_namespace",
    "ip_json",
    "kernel_setting",
    "links",
    "namespaces",
    "offloads_off",
    "process_command",
    "processes_in",
    "require_root",
    "require_tools",
    "run",
]

_CAP_NET_ADMIN = 12
_CAP_SYS_ADMIN = 21
_NETNS_DIR = Path("/run/netns")
# Short names as `ethtool -K` takes them, with the long ones that `ethtool -k` prints.
_OFFLOADS = {
    "rx": "rx-checksumming",
    "tx": "tx-checksumming",
    "sg": "scatter-gather",
    "tso": "tcp-segmentation-offload",
    "gso": "generic-segmentation-offload",
    "gro": "generic-receive-offload",
    "lro": "large-receive-offload",
    "rxvlan": "rx-vlan-offload",
    "txvlan": "tx-vlan-offload",
}
_PACKAGES = {
    "ip": "iproute2",
    "tc": "iproute2",
    "ethtool": "ethtool",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "tcpdump": "tcpdump",
    "nginx": "nginx-light",
    "dnsmasq": "dnsmasq-base",
    "dig": "bind9-dnsutils",
    "curl": "curl",
    "openssl": "openssl",
    "setpriv": "util-linux",
}


def require_root(what: str) -> None:
    """Raise MissingTool unless this is Linux and we may make namespaces and links."""
    if platform.system() != "Linux":
        raise MissingTool(f"{what} needs Linux (this is {platform.system()}); use a Linux machine")
    if os.geteuid() != 0:
        raise MissingTool(f"{what} needs root; run it with sudo")
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    for bit, name in ((_CAP_NET_ADMIN, "NET_ADMIN"), (_CAP_SYS_ADMIN, "SYS_ADMIN")):
        if not effective >> bit & 1:
            raise MissingTool(
                f"{what} needs the capability {name}; in a container, start it with "
                "--privileged or --cap-add NET_ADMIN --cap-add SYS_ADMIN"
            )


def require_tools(what: str, tools: Iterable[str]) -> dict[str, str]:
    """Absolute path of every tool; raises MissingTool naming all that are missing and a remedy."""
    search = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = {tool: shutil.which(tool, path=search) for tool in tools}
    missing = sorted(tool for tool, path in found.items() if path is None)
    if missing:
        packages = " ".join(sorted({_PACKAGES.get(tool, tool) for tool in missing}))
        raise MissingTool(f"{what} needs {', '.join(missing)}; run `apt install {packages}`")
    return {tool: path for tool, path in found.items() if path is not None}


def run(
    argv: Sequence[str],
    *,
    input: str | None = None,
    check: bool = True,
    timeout: float = 30.0,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; LabError with its own last words when it fails (and `check`)."""
    try:
        done = subprocess.run(
            list(argv),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=None if env is None else {**os.environ, **env},
            check=False,
        )
    except FileNotFoundError:
        package = _PACKAGES.get(Path(argv[0]).name, Path(argv[0]).name)
        raise MissingTool(f"{argv[0]} is not installed; run `apt install {package}`") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"`{' '.join(argv)}` did not end within {timeout:g} s") from None
    if check and done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise LabError(
            f"`{' '.join(argv)}` failed with status {done.returncode}: {'; '.join(words[-2:])}"
        )
    return done


def in_namespace(namespace: str | None, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` in a namespace (None: where we are)."""
    return list(argv) if namespace is None else ["ip", "netns", "exec", namespace, *argv]


def ip_json(*arguments: str, namespace: str | None = None) -> list[dict[str, Any]]:
    """`ip -j …` as a list of objects."""
    where = [] if namespace is None else ["-n", namespace]
    text = run(["ip", *where, "-j", *arguments]).stdout.strip()
    rows = json.loads(text) if text else []
    return [row for row in rows if row]  # iproute2 prints {} for what a filter left out


def namespaces() -> set[str]:
    """Names of the machine's named network namespaces."""
    try:
        return {entry.name for entry in _NETNS_DIR.iterdir()}
    except FileNotFoundError:
        return set()


def links(namespace: str | None = None) -> set[str]:
    """Names of the interfaces in a namespace; empty when it is not usable."""
    where = [] if namespace is None else ["-n", namespace]
    done = run(["ip", *where, "-j", "link", "show"], check=False)
    if done.returncode != 0:
        return set()
    return {str(row["ifname"]) for row in json.loads(done.stdout or "[]") if "ifname" in row}


def add_veth(end: tuple[str, str | None], peer: tuple[str, str | None]) -> None:
    """Make a veth pair; each end is (interface, namespace), None being the root namespace."""

    def words(name: str, namespace: str | None) -> list[str]:
        return ["name", name] + ([] if namespace is None else ["netns", namespace])

    done = run(
        ["ip", "link", "add", *words(*end), "type", "veth", "peer", *words(*peer)], check=False
    )
    if done.returncode == 0:
        return
    reason = (done.stderr.strip() or "no message").splitlines()[-1]
    if "Unknown device type" in reason or "not supported" in reason:
        raise MissingTool(
            "this kernel has no veth links (module veth); load it or use another host"
        )
    raise LabError(f"cannot make the veth pair {end[0]}–{peer[0]}: {reason}")


def delete_link(name: str, namespace: str | None = None) -> None:
    """Delete an interface; nothing happens when there is none."""
    where = [] if namespace is None else ["-n", namespace]
    run(["ip", *where, "link", "delete", name], check=False)


def delete_namespace(name: str) -> None:
    """Delete a namespace with everything in it; nothing happens when there is none."""
    if name not in namespaces():
        return
    end_processes(processes_in(name))
    done = run(["ip", "netns", "delete", name], check=False)
    if name in namespaces():
        raise LabError(f"cannot delete the namespace {name}: {done.stderr.strip() or 'no message'}")


def kernel_setting(namespace: str | None, key: str, value: str) -> None:
    """Write /proc/sys/<key> as seen in a namespace; keys that this kernel lacks are left out."""
    script = 'f=/proc/sys/$1; [ ! -e "$f" ] || printf %s "$2" > "$f"'
    done = run(in_namespace(namespace, ["sh", "-c", script, "sh", key, value]), check=False)
    if done.returncode != 0:
        raise LabError(
            f"cannot set {key.replace('/', '.')} in {namespace or 'the root namespace'} "
            f"({done.stderr.strip().rsplit(': ', 1)[-1]}); in a container, /proc/sys must be "
            "writable: start it with --privileged"
        )


def has_ipv6() -> bool:
    """True unless this kernel was built or booted without IPv6."""
    return Path("/proc/sys/net/ipv6").exists()


def offloads_off(namespace: str, interface: str) -> None:
    """Turn off every offload that merges, splits or half-finishes packets (checksums, VLAN tags).

    Raises LabError when one that matters stays on: what is captured would not be what is on a wire.
    """
    for feature in _OFFLOADS:  # one by one: ethtool gives up at the first that it cannot change
        run(in_namespace(namespace, ["ethtool", "-K", interface, feature, "off"]), check=False)
    shown = run(in_namespace(namespace, ["ethtool", "-k", interface])).stdout
    state = dict(line.strip().split(": ", 1) for line in shown.splitlines() if ": " in line)
    left = [short for short, long in _OFFLOADS.items() if state.get(long, "off").startswith("on")]
    if left:
        raise LabError(f"{interface} in {namespace}: offloads stay on: {', '.join(left)}")


def processes_in(namespace: str) -> list[int]:
    """Process ids of everything that runs in a namespace."""
    done = run(["ip", "netns", "pids", namespace], check=False)
    return [int(word) for word in done.stdout.split()] if done.returncode == 0 else []


def process_command(pid: int) -> str:
    """Command line of a process, words joined by blanks; empty when it is gone."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


def end_processes(pids: Iterable[int], grace: float = 2.0) -> None:
    """TERM, and KILL what is left after `grace` seconds; returns when all are gone."""
    left = [pid for pid in pids if pid != os.getpid()]
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        for pid in left:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        until = time.monotonic() + patience
        while (left := [pid for pid in left if _alive(pid)]) and time.monotonic() < until:
            time.sleep(0.02)
        if not left:
            return
    raise LabError(f"processes {', '.join(map(str, left))} cannot be ended")
