"""A `t-rex-64` that plays stateful batch runs as the real one does, for hosts that have none.

It reads the same files (platform configuration, traffic profile, one flow a pcap), prints the same
console (formats: trex-core v3.08, src/main_dpdk.cpp; endings and failures: observed runs), and
sends the flows for real, through tcpreplay, between addresses out of the profile's pools. What it
cannot do is speed. `make_tree` lays it out like an installation; `behaviour` makes it fail.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

SOURCE = Path(__file__)
VERSION = "v3.08"
ENDED = "*** TRex is shutting down - cause: '{}'"


def make_tree(directory: Path, behaviour: str = "normal") -> Path:
    """Lay out an installation; `behaviour` is a word of `main` below."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "version.txt").write_text(f"{VERSION}\n")
    (directory / "behaviour").write_text(behaviour)
    for mode in ("stl", "astf"):
        (directory / "automation/trex_control_plane/interactive/trex" / mode).mkdir(
            parents=True, exist_ok=True
        )
    wrapper, binary = directory / "t-rex-64", directory / "_t-rex-64"
    # The real wrapper is a shell script too, and the binary its child.
    wrapper.write_text('#!/bin/sh\ncd "$(dirname "$0")" || exit 1\n./_t-rex-64 "$@"\nexit $?\n')
    path = [str(SOURCE.parent), str(SOURCE.parents[2])]
    binary.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:0] = {path!r}\nimport fake_trex\n"
        "fake_trex.main()\n"
    )
    for file in (wrapper, binary):
        file.chmod(0o755)
    return directory


@dataclass
class Play:
    """One template: its packets (seconds from the first, from the client?, frame) and pools."""

    packets: list[tuple[float, bool, bytes]]
    cps: float
    clients: tuple[int, int]
    servers: tuple[int, int]


def say(text: str) -> None:
    """As the C library does: into a pipe a block at a time, unless stdbuf asked for lines."""
    print(text, flush=os.environ.get("_STDBUF_O") == "L")


def give_up(text: str, status: int) -> None:
    say(text)
    raise SystemExit(status)


def refuse(text: str) -> None:
    """Of the scripts that look at the configuration before the server starts."""
    give_up(f"{text}\nERROR encountered while configuring TRex system", 255)


def traceback_of_lspci() -> None:
    """What the real one says, and survives, on hosts without lspci (recorded, shortened)."""
    print(
        "Traceback (most recent call last):\n"
        '  File "dpdk_nic_bind.py", line 265, in run_lspci\n'
        "    raise child_exception_type(errno_num, err_msg, err_filename)\n"
        "FileNotFoundError: [Errno 2] No such file or directory: 'lspci'\n\n"
        "During handling of the above exception, another exception occurred:\n\n"
        "Traceback (most recent call last):\n"
        '  File "dpdk_setup_ports.py", line 1748, in main\n'
        "AttributeError: module 'platform' has no attribute 'linux_distribution'",
        file=sys.stderr,
        flush=True,
    )


def number(address: str) -> int:
    return int.from_bytes(socket.inet_aton(address))


def read_flow(path: Path) -> list[tuple[float, bool, bytes]]:
    """The packets of a file with one flow; the first sender is the client (src/bp_sim.cpp)."""
    import dpkt

    packets: list[tuple[float, bool, bytes]] = []
    client: tuple[bytes, int] | None = None
    ends = set()
    with path.open("rb") as stream:
        for stamp, octets in dpkt.pcap.Reader(stream):
            ip = dpkt.ethernet.Ethernet(octets).data
            if not isinstance(ip, dpkt.ip.IP) or not isinstance(
                ip.data, dpkt.tcp.TCP | dpkt.udp.UDP
            ):
                give_up(f"ERROR packet of {path} is not IPv4 TCP or UDP", 255)
            sender = (ip.src, ip.data.sport)
            client = client or sender
            ends |= {sender, (ip.dst, ip.data.dport)}
            packets.append((stamp, sender == client, octets))
    if len(ends) != 2:
        give_up(f"ERROR in file {path}: should have one flow per cap file", 255)
    begin = packets[0][0]
    return [(stamp - begin, ours, octets) for stamp, ours, octets in packets]


def moved(octets: bytes, client: bytes, port: int, server: bytes, ours: bool) -> bytes:
    """A frame between other addresses, the client's port changed, with right checksums."""
    import dpkt

    frame = dpkt.ethernet.Ethernet(octets)
    ip = frame.data
    if ours:
        ip.src, ip.dst, ip.data.sport = client, server, port
    else:
        ip.src, ip.dst, ip.data.dport = server, client, port
    ip.sum = ip.data.sum = 0
    return bytes(frame)


def read_profile(path: Path) -> tuple[list[Play], dict[str, Any]]:
    import yaml

    try:
        (profile,) = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        why = str(error).partition("\n")[0]
        give_up(f"Error parsing file {path} as YAML:\nyaml-cpp: error at {why}", 255)
    generator = profile["generator"]
    pools = {}
    for key in ("generator_clients", "generator_servers"):
        for pool in generator[key]:
            first, last = number(pool["ip_start"]), number(pool["ip_end"])
            if first > last:
                give_up(f" ERROR In pool {pool['name']}, ip_start is bigger than ip_end ", 255)
            pools[pool["name"]] = (first, last)
    plays = []
    for cap in profile["cap_info"]:
        file = Path(cap["name"])
        say(f" -- loading cap file {file} ")
        if not file.exists():
            say(f"CAP file '{file}' not found")
            give_up(f" ERROR file {file} does not exist or not supported ", 255)
        for name in (cap["client_pool"], cap["server_pool"]):
            if name not in pools:
                give_up(f"ERROR invalid server pool name {name}, please review your YAML file", 255)
        _ = cap["ipg"], cap["rtt"], cap["w"]  # missing ones are errors in the real parser too
        plays.append(
            Play(read_flow(file), cap["cps"], pools[cap["client_pool"]], pools[cap["server_pool"]])
        )
    return plays, profile


def schedule(plays: list[Play], multiplier: float, seconds: float) -> tuple[list[Any], list[float]]:
    """(time, from the client?, frame) of a run, and when its flows begin."""
    chance = random.Random(7)
    packets: list[tuple[float, bool, bytes]] = []
    starts = []
    for order, play in enumerate(plays):
        gap = 1 / (play.cps * multiplier)
        begin = gap * (order + 0.5) / len(plays)
        count = 0
        while begin + count * gap < seconds:
            at = begin + count * gap
            client, server = (
                chance.randint(*pool).to_bytes(4) for pool in (play.clients, play.servers)
            )
            port = 1024 + (count * 7 + order) % 60_000
            starts.append(at)
            packets += [
                (at + after, ours, moved(octets, client, port, server, ours))
                for after, ours, octets in play.packets
            ]
            count += 1
    packets.sort(key=lambda packet: packet[0])
    return packets, sorted(starts)


def counters(interfaces: list[str]) -> list[dict[str, int]]:
    names = ("tx_packets", "tx_bytes", "rx_packets", "rx_bytes")
    base = Path("/sys/class/net")
    return [
        {name: int((base / port / "statistics" / name).read_text()) for name in names}
        for port in interfaces
    ]


def human(value: float, unit: str) -> str:
    """double_to_human_str of the real one: two decimals, thousands."""
    for scale in ("", "K", "M", "G"):
        if value < 1000:
            return f"{value:10.2f} {scale}{unit}"
        value /= 1000
    return f"{value:10.2f} T{unit}"


class Panels:
    """Counters since the start, and the panels made of them; bytes count 4 of FCS a packet."""

    def __init__(self, interfaces: list[str], starts: list[float], longest: float) -> None:
        self.interfaces, self.starts, self.longest = interfaces, starts, longest
        self.zero = counters(interfaces)
        self.begun = time.monotonic()

    def ports(self) -> list[dict[str, int]]:
        now = counters(self.interfaces)
        found = []
        for port, zero in zip(now, self.zero, strict=True):
            tx, rx = (port[n] - zero[n] for n in ("tx_packets", "rx_packets"))
            found.append(
                {
                    "opackets": tx,
                    "obytes": port["tx_bytes"] - zero["tx_bytes"] + 4 * tx,
                    "ipackets": rx,
                    "ibytes": port["rx_bytes"] - zero["rx_bytes"] + 4 * rx,
                    "ierrors": 0,
                    "oerrors": 0,
                }
            )
        return found

    def show(self) -> None:
        elapsed = time.monotonic() - self.begun
        opened = sum(start <= elapsed for start in self.starts)
        active = sum(start <= elapsed < start + self.longest for start in self.starts)
        ports = self.ports()
        pps = sum(port["opackets"] for port in ports) / max(elapsed, 0.1)
        lines = ["\x1b[2J-Per port stats table "]
        lines.append("      ports " + "".join(f"| {n:15d} " for n in range(len(ports))))
        lines.append(" " + "-" * 89)
        for name in ports[0]:
            lines.append(f" {name:>10s} " + "".join(f"| {port[name]:15d} " for port in ports))
        lines += [
            "",
            "-Global stats enabled ",
            " Cpu Utilization : 3.1  %  0.5 Gb/core ",
            " Platform_factor : 1.0  ",
            f" Total-PPS       : {human(pps, 'pps')}  ",
            f" Total-CPS       : {human(opened / max(elapsed, 0.1), 'cps')}  ",
            "",
            f" Active-flows    : {active:8d}  Clients : {255:8d}   Socket-util : 0.0001 %    ",
            f" Open-flows      : {opened:8d}  Servers : {255:8d}   Socket : {active:8d} "
            "Socket/Clients :  0.0 ",
            f" drop-rate       : {human(0, 'bps')}   ",
            f" current time    : {elapsed:.1f} sec  ",
            f" test duration   : {0.0:.1f} sec  ",
        ]
        say("\n".join(lines))

    def summary(self) -> None:
        ports = self.ports()
        for _ in range(2):
            say("==================\ninterface sum \n==================")
        for number_, port in enumerate(ports):
            say(f"port : {number_} \n------------")
            for name in ("opackets", "obytes", "ipackets", "ibytes"):
                say(f" {name:<40s} : {port[name]} ")
        tx, rx = (sum(port[n] for port in ports) for n in ("opackets", "ipackets"))
        out, back = (sum(port[n] for port in ports) for n in ("obytes", "ibytes"))
        say(" summary stats \n -------------- ")
        say(f" Total-pkt-drop       : {max(0, tx - rx)} pkts ")
        say(f" Total-tx-bytes       : {out} bytes ")
        say(f" Total-tx-sw-bytes    : 0 bytes \n Total-rx-bytes       : {back} byte ")
        say(" ")
        say(f" Total-tx-pkt         : {tx} pkts \n Total-rx-pkt         : {rx} pkts ")
        say(" Total-sw-tx-pkt      : 0 pkts \n Total-sw-err         : 0 pkts ")
        say(" Total ARP sent       : 0 pkts \n Total ARP received   : 0 pkts ")


def write_run(packets: list[Any], directory: Path) -> tuple[Path, Path]:
    """The run as a capture, and tcpprep's cache that says which side sends what."""
    import dpkt
    import numpy as np

    from pcap_tools.tcpprep import CLIENT, SERVER, write_cache

    capture, cache = directory / "run.pcap", directory / "run.cache"
    with capture.open("wb") as stream:
        writer = dpkt.pcap.Writer(stream)
        for at, _, octets in packets:
            writer.writepkt(octets, ts=1_000_000_000 + at)
    codes = np.array([CLIENT if ours else SERVER for _, ours, _ in packets], np.uint8)
    write_cache(cache, codes)
    return capture, cache


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="t-rex-64")
    parser.add_argument("-f", type=Path, required=True)
    parser.add_argument("-m", type=float, default=1.0)
    parser.add_argument("-d", type=float, default=0.0)
    parser.add_argument("-c", type=int, default=1)
    parser.add_argument("--cfg", type=Path, required=True)
    parser.add_argument("--iom", type=int, default=1)
    parser.add_argument("--active-flows", type=int, default=0)
    for flag in ("--no-key", "--software"):
        parser.add_argument(flag, action="store_true")
    return parser.parse_args()


def ports_of(cfg: Path) -> list[str]:
    import yaml

    (platform,) = yaml.safe_load(cfg.read_text())
    assert platform["version"] == 2 and platform["port_limit"] == len(platform["interfaces"])
    for port in platform["interfaces"]:
        if not Path(f"/sys/class/net/{port}").exists():
            refuse(f"ERROR: Could not find Linux interface {port}.")
    for info in platform["port_info"]:
        assert {"ip", "default_gw"} <= set(info) or "dest_mac" in info
    publish(platform["zmq_pub_port"])
    interfaces: list[str] = platform["interfaces"]
    return interfaces


PUBLISHER = socket.socket()


def publish(port: int) -> None:
    """Take the publisher's port; the real one names the process that has it."""
    PUBLISHER.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        PUBLISHER.bind(("", port))
        PUBLISHER.listen()
    except OSError:
        asked = ["ss", "-Hltnp", f"sport = :{port}"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        found = re.search(r"pid=(\d+)", told)
        pid = found[1] if found else "?"
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") if found else "?"
        refuse(f"ZMQ port is used by the following process:\npid: {pid}, cmd: {command}")


def main() -> None:
    """Run as the binary does."""
    behaviour = Path("behaviour").read_text().strip()
    options = arguments()
    interfaces = ports_of(options.cfg)
    traceback_of_lspci()
    say("Starting  TRex v3.08 please wait  ... ")
    if behaviour == "no-arp":
        give_up("Failed resolving dest MAC for default gateway:2.2.2.2 on port 0", 1)
    if behaviour == "silent":
        time.sleep(3600)
    plays, _ = read_profile(options.f)
    packets, starts = schedule(plays, options.m, options.d)
    longest = max(play.packets[-1][0] for play in plays)
    sender: subprocess.Popen[bytes] | None = None

    def ended(number_: int, frame: FrameType | None) -> None:
        if sender is not None:
            with contextlib.suppress(OSError):
                sender.kill()
        say(ENDED.format("CTRL + C detected"))
        raise SystemExit(255)

    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGINT, ended)
    with tempfile.TemporaryDirectory(prefix="fake-trex-") as scratch:
        capture, cache = write_run(packets, Path(scratch))
        panels = Panels(interfaces, starts, longest)
        argv = ["tcpreplay", "-q", "-i", interfaces[0], "-I", interfaces[1]]
        argv += [f"--cachefile={cache}", "--no-flow-stats", str(capture)]
        sender = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while sender.poll() is None:
            panels.show()
            time.sleep(0.5)
            if time.monotonic() - panels.begun > 1.2:
                if behaviour == "dies":
                    sender.kill()
                    os_kill()
                if behaviour == "hangs":
                    sender.kill()
                    time.sleep(3600)
        panels.show()
        say(ENDED.format("test has ended"))
        if behaviour != "no-summary":
            panels.summary()


def os_kill() -> None:
    """Die as by the kernel's out-of-memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)
