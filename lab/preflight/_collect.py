"""What runs on a host for the preflight: files, commands and volumes, read as they are asked for.

It is sent over standard input to the host's Python (3.7 or later, standard library only) and prints
one JSON object; nothing stays on the host. It judges nothing: what is there and cannot be read, and
what is not there at all, is left out.

One argument, JSON: {"files": [glob, …], "lists": [directory, …], "commands": [[word, …], …],
"volumes": [path, …], "interfaces": [name, …], "options": [kernel option, …]}.
"""

# ruff: noqa: PTH110, PTH112, PTH116, PTH119, PTH120, PTH123, PTH207, PTH208
from __future__ import annotations

import glob
import gzip
import json
import os
import subprocess
import sys
import time
from typing import Any

COMMAND_S = 5.0
LONGEST = 1 << 20


def text(path: str) -> str | None:
    try:
        with open(path, errors="replace") as file:
            return file.read(LONGEST)
    except (OSError, ValueError):
        return None


def names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def command(argv: list[str]) -> dict[str, Any] | None:
    """Status, output and errors; None where there is no such program or it does not end."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    out, err = (raw.decode("utf-8", "replace") for raw in (done.stdout, done.stderr))
    return {"status": done.returncode, "out": out, "err": err}


def volume(path: str) -> dict[str, Any] | None:
    """Size and free bytes of the volume a path is on, or will be on."""
    while path and not os.path.exists(path):
        path = os.path.dirname(path.rstrip("/"))
    try:
        found = os.statvfs(path or "/")
        device = os.stat(path or "/").st_dev
    except OSError:
        return None
    return {
        "total": found.f_blocks * found.f_frsize,
        "free": found.f_bavail * found.f_frsize,
        "device": "%d:%d" % (os.major(device), os.minor(device)),  # noqa: UP031
    }


def interrupts(interface: str) -> dict[str, dict[str, str]]:
    """Interrupt vectors of an interface's device: name, and the CPUs they may and do go to."""
    device = os.path.realpath("/sys/class/net/" + interface + "/device")
    if os.path.basename(device).startswith("virtio"):
        device = os.path.dirname(device)
    listed = {}
    for line in (text("/proc/interrupts") or "").splitlines():
        number, _, rest = line.partition(":")
        words = rest.split()
        if words:
            listed[number.strip()] = words[-1]
    found = {}
    for number in names(device + "/msi_irqs"):
        base = "/proc/irq/" + number
        allowed = text(base + "/smp_affinity_list")
        if number in listed and allowed is not None:
            effective = text(base + "/effective_affinity_list") or allowed
            found[number] = {
                "name": listed[number],
                "allowed": allowed.strip(),
                "effective": effective.strip(),
            }
    return found


def kernel_config(wanted: list[str]) -> dict[str, str]:
    """Options of the running kernel's configuration ("y", "m", "n"), where it is readable."""
    release = os.uname().release
    for path in ("/proc/config.gz", "/boot/config-" + release):
        try:
            opened = gzip.open(path, "rt") if path.endswith(".gz") else open(path)  # noqa: SIM115
            with opened as file:
                lines = file.read().splitlines()
        except (OSError, EOFError):
            continue
        values = dict(line.split("=", 1) for line in lines if line.startswith("CONFIG_"))
        return {name: values.get(name, "n") for name in wanted}
    return {}


def processes() -> list[str]:
    found = set()
    for name in names("/proc"):
        if name.isdigit():
            found.add((text("/proc/" + name + "/comm") or "").strip())
    return sorted(found - {""})


def main() -> None:
    asked = json.loads(sys.argv[1])
    # Debian leaves these out of the PATH of users other than root.
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    os.environ["LC_ALL"] = "C"
    files = {}
    for pattern in asked.get("files", ()):
        for path in sorted(glob.glob(pattern)):
            content = text(path)
            if content is not None:
                files[path] = content
    commands = {}
    for argv in asked.get("commands", ()):
        done = command(argv)
        if done is not None:
            commands[" ".join(argv)] = done
    volumes = {path: volume(path) for path in asked.get("volumes", ())}
    found = {
        "monotonic": time.monotonic(),
        "files": files,
        "lists": {path: names(path) for path in asked.get("lists", ()) if os.path.isdir(path)},
        "commands": commands,
        "volumes": {path: found for path, found in volumes.items() if found is not None},
        "interrupts": {name: interrupts(name) for name in asked.get("interfaces", ())},
        "config": kernel_config(asked.get("options", [])),
        "processes": processes(),
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
