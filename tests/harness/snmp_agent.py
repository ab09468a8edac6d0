"""net-snmp's snmpd on loopback, as an appliance's agent: an implementation that is not ours."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SNMPD = shutil.which("snmpd", path="/usr/sbin:/usr/bin:/sbin:/bin")
BASE = "1.3.6.1.4.1.8072.9999.9999.7"  # net-snmp's playground
TYPES = {"counter": "counter", "counter64": "counter64", "string": "string"}


@dataclass
class Agent:
    """A running agent; objects are files with one value that a `pass` script prints."""

    directory: Path
    port: int

    def set(self, values: dict[int, tuple[str, int]]) -> None:
        """Object number to (type, value)."""
        text = "".join(f"{n} {kind} {value}\n" for n, (kind, value) in sorted(values.items()))
        partial = self.directory / "values.new"
        partial.write_text(text)
        partial.replace(self.directory / "values")


# Called by snmpd as `script -g OID` and `script -n OID` (snmpd.conf(5), "pass").
PASS = """#!/bin/sh
case $1 in
  -g) n=${2##*.} ;;
  -n) case $2 in
        *.BASE|*BASE) last=-1 ;;
        *) last=${2##*.} ;;
      esac
      n=$(awk -v last="$last" '$1 > last {print $1; exit}' DIR/values) ;;
  *) exit 0 ;;
esac
awk -v n="$n" '$1 == n {print ".BASE." $1; print $2; print $3}' DIR/values
"""


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def snmpd(
    directory: Path,
    inside: tuple[str, ...] = (),
    address: str = "127.0.0.1",
    community: str = "lab",
) -> Iterator[Agent]:
    """An agent with a community, user "eva" (SHA, AES) and the objects below `BASE`.

    `inside` goes before the command (a namespace); it listens on `address`.
    """
    assert SNMPD is not None
    agent = Agent(directory, _free_port())
    agent.set({1: ("counter", 0)})
    script = directory / "pass.sh"
    script.write_text(PASS.replace("BASE", BASE).replace("DIR", str(directory)))
    script.chmod(0o755)
    conf = directory / "snmpd.conf"
    conf.write_text(
        f"rocommunity {community}\n"
        "createUser eva SHA authsecret AES privsecret\n"
        "rouser eva priv\n"
        "sysDescr Closed Probe 3000, release 4.2\n"
        f"pass .{BASE} /bin/sh {script}\n"
    )
    argv = [*inside, SNMPD, "-f", "-Lf", str(directory / "log"), "-C", "-c", str(conf)]
    argv += [f"udp:{address}:{agent.port}"]
    env = {"SNMP_PERSISTENT_DIR": str(directory / "state"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL)
    try:
        for _ in range(200):
            text = (directory / "log").read_text() if (directory / "log").exists() else ""
            if "NET-SNMP version" in text:
                break
            assert process.poll() is None, text
            time.sleep(0.05)
        yield agent
    finally:
        process.terminate()
        process.wait(10)
