"""The virtual lab: four namespaces on one machine that are driven exactly as real hosts are.

::

    root namespace ──ssh── generator  tx0 ═══ rx0  sensor ──ssh── root namespace
                           client     cl0 ─── sv0  server             (recording path)

With a tap, the generator has a second port, and what copies frames between both and the sensor
stands for the optical tap of a real lab.

Generator and sensor run a real sshd on a management link of their own; `up` writes an inventory
(lab.toml) that names them like any other hosts. Everything is named after the lab, so that several
labs can live on a machine, and `down` finds every trace even of a half-built one.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab import netns_tools as net
from lab import subnets
from lab.errors import LabError, OptionError
from lab.sshd import Server, make_keys, release_privsep
from lab.status import status
from lab.virtual_checks import broken_links, broken_servers, problems
from lab.virtual_files import State, read_state, write_file, write_inventory, write_state
from lab.virtual_layout import RUN_DIR, Layout, Namespaces, Options, layout
from lab.virtual_links import management_link, recording_link, tapped_links, test_link

__all__ = [
    "Layout",
    "Namespaces",
    "Options",
    "current_options",
    "down",
    "down_all",
    "exists",
    "layout",
    "names",
    "problems",
    "status",
    "up",
]

_TOOLS = ("ip", "tc", "ethtool", "sshd", "ssh-keygen")


def up(
    name: str = "default", options: Options | None = None, directory: Path | None = None
) -> Path:
    """Build the lab, or verify and repair it; returns the path of its lab.toml.

    Without `options` a lab keeps those it has. A lab that is whole and has these is left alone; one
    that only lost an sshd gets it back; anything else broken is taken down and built anew. Raises
    LabError; a failed or interrupted build leaves nothing behind.
    """
    lab = layout(name)
    net.require_root("the virtual lab")
    net.require_tools("the virtual lab", _TOOLS)
    wanted = options or current_options(name) or Options()
    with _lock():
        if _reuse(lab, wanted, directory):
            return lab.inventory
        _remove(lab)
        try:
            _build(lab, wanted, directory)
        except BaseException:
            _remove(lab)
            raise
    return lab.inventory


def current_options(name: str = "default") -> Options | None:
    """Options of a lab that is there, or None."""
    state = read_state(layout(name))
    return state.options if state else None


def down(name: str = "default") -> bool:
    """Remove every trace of a lab, whole or half-built; False when there was none."""
    lab = layout(name)
    net.require_root("removing a virtual lab")
    net.require_tools("removing a virtual lab", ["ip"])
    with _lock():
        there = exists(name)
        _remove(lab)
        _forget_run_dir()
    return there


def down_all() -> list[str]:
    """Remove every lab of this machine; returns their names."""
    net.require_root("removing virtual labs")
    found = names()
    for name in found:
        down(name)
    return found


def names() -> list[str]:
    """Names of the labs of which this machine has any trace, sorted."""
    found = set()
    for namespace in net.namespaces():
        if match := re.fullmatch(r"pb-(.+)-(?:gen|sen|cli|srv|tap)", namespace):
            found.add(match[1])
    with suppress(FileNotFoundError):
        found |= {entry.name for entry in RUN_DIR.iterdir() if not entry.name.startswith(".")}
    return sorted(found)


def exists(name: str = "default") -> bool:
    """True when any trace of the lab is on this machine."""
    lab = layout(name)
    return (
        lab.link.is_symlink()
        or lab.link.exists()
        or bool(set(lab.namespaces.all()) & net.namespaces())
        or bool(set(lab.management) & net.links())
    )


def _reuse(lab: Layout, wanted: Options, directory: Path | None) -> bool:
    """True when the lab is whole, or could be made whole without building it anew."""
    state = read_state(lab)
    if state is None or not lab.inventory.exists() or broken_links(lab):
        return False
    if directory is not None and directory.resolve() != lab.directory:
        return False
    old = state.options
    if (old.mtu, old.txqueuelen, old.tap) != (wanted.mtu, wanted.txqueuelen, wanted.tap):
        return False
    if broken_servers(lab, state):
        _start_servers(lab, state)
    if state.options != wanted:  # only the sensor's size: lab.toml alone says it
        write_state(lab, State(wanted, state.subnets))
        write_inventory(lab, State(wanted, state.subnets))
    return True


def _build(lab: Layout, options: Options, directory: Path | None) -> None:
    _make_directory(lab, directory)
    generator, sensor = subnets.pick(2, subnets.taken())
    state = State(options, (generator, sensor))
    write_state(lab, state)
    spaces = lab.namespaces
    for space in spaces.of(options):
        net.run(["ip", "netns", "add", space])
        net.run(["ip", "-n", space, "link", "set", "lo", "up"])
    for space in (spaces.generator, spaces.sensor):
        for scope in ("all", "default"):  # IPv6 would announce itself on the test link
            net.kernel_setting(space, f"net/ipv6/conf/{scope}/disable_ipv6", "1")
    (tapped_links if options.tap else test_link)(spaces, options)
    recording_link(spaces, options)
    pairs = zip(lab.management, (spaces.generator, spaces.sensor), state.subnets, strict=True)
    for interface, space, subnet in pairs:
        management_link(interface, space, subnet)
    for role in ("generator", "sensor"):
        lab.workdir(role).mkdir(exist_ok=True)
    _start_servers(lab, state)
    write_inventory(lab, state)


def _start_servers(lab: Layout, state: State) -> None:
    authorized = make_keys(lab.directory / "client_ed25519", f"probebench {lab.name}")
    known = []
    for role, subnet in zip(("generator", "sensor"), state.subnets, strict=True):
        server = lab.server(role, subnet, authorized)
        if server.pid is None or not server.answers():
            server.stop()
            server.start()
            if not server.answers():
                raise LabError(
                    f"sshd of the {role} listens but does not answer on {server.address}; "
                    "does a firewall of this machine (`nft list ruleset`) drop the lab's traffic?"
                )
        known.append(f"{server.address} {server.host_key()}\n")
    write_file(lab.directory / "known_hosts", "".join(known))


def _remove(lab: Layout) -> None:
    """Take away whatever there is; every step stands alone, so that a half-built lab goes too."""
    for role in ("gen", "sen"):  # a daemon whose namespace lost its name is found by its pid file
        Server("", lab.directory / f"sshd-{role}", "", "").stop()
    for interface in lab.management:  # a namespace takes its links away only some time later
        net.delete_link(interface)
    for space in lab.namespaces.all():
        net.delete_namespace(space)
        shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)
    for leftover in Path("/dev/shm").glob(f"probebench-{lab.name}-*"):
        leftover.unlink(missing_ok=True)
    directory = lab.directory
    if lab.link.is_symlink():
        lab.link.unlink()
        if not (directory / "state.json").exists():
            with suppress(OSError):
                directory.rmdir()
            return  # whatever is in it is not ours
    if directory.exists():
        shutil.rmtree(directory)


def _make_directory(lab: Layout, directory: Path | None) -> None:
    if directory is not None and directory.resolve() != lab.link:
        if not re.fullmatch(r"[\w./+-]+", str(directory.resolve())):
            raise OptionError(
                f"--dir {directory}: sshd's configuration takes only letters, digits and ._+-/ in "
                "the absolute path; name another directory"
            )
        if directory.exists() and any(directory.iterdir()):
            raise OptionError(f"--dir {directory}: not empty; name a new or an empty directory")
        directory.mkdir(parents=True, exist_ok=True)
        lab.link.symlink_to(directory.resolve())
    lab.directory.mkdir(exist_ok=True)
    lab.directory.chmod(0o755)


@contextmanager
def _lock() -> Iterator[None]:
    """One `up` or `down` at a time on a machine: two would pick the same subnets."""
    path = RUN_DIR / ".lock"
    while True:
        RUN_DIR.mkdir(mode=0o755, exist_ok=True)
        with path.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not _same_file(path, handle.fileno()):
                continue  # the last `down` took the file away while we waited
            yield
            return


def _same_file(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _forget_run_dir() -> None:
    """Remove what the labs share once the last is gone; called under the lock."""
    if names():
        return
    release_privsep()
    (RUN_DIR / ".lock").unlink(missing_ok=True)
    with suppress(OSError):
        RUN_DIR.rmdir()
