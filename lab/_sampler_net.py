"""What the sampler reads of an interface: counters, the driver's own, capture sockets, interrupts.

Shipped to the host with `_sampler.py`: standard library only, Python 3.7 and later.
"""

# A path object for each read would cost more than the read.
# ruff: noqa: PTH119, PTH120
from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from typing import Any

from lab._sampler_files import Files, listed

SIOCETHTOOL = 0x8946  # linux/sockios.h
ETHTOOL_GSTRINGS, ETHTOOL_GSTATS, ETHTOOL_GSSET_INFO = 0x1B, 0x1D, 0x37  # linux/ethtool.h
ETH_SS_STATS = 1
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20  # linux/netlink.h, linux/sock_diag.h
PACKET_SHOW_INFO, PACKET_SHOW_RING_CFG = 1, 4  # linux/packet_diag.h


class Ethtool:
    """The driver's own counters, as `ethtool -S` reads them; none where it has none."""

    def __init__(self, interface: str) -> None:
        self.interface = interface.encode()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.names = []  # type: list[str]

    def _ask(self, data: Any) -> None:
        address = data.buffer_info()[0]
        fcntl.ioctl(self.sock, SIOCETHTOOL, struct.pack("16sP16x", self.interface, address))

    def _count(self) -> int:
        # struct ethtool_sset_info: cmd, reserved, sset_mask (u64), data[] (u32)
        data = array.array("B", struct.pack("=IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_STATS, 0))
        self._ask(data)
        _, _, mask, count = struct.unpack("=IIQI", data.tobytes())
        return int(count) if mask else 0

    def read(self) -> dict[str, int]:
        try:
            count = self._count()
            if not count:
                return {}
            if count != len(self.names):
                self.names = self._strings(count)
            # The kernel fills in as many as there are by then: leave room for queues added now.
            room = 2 * count + 1024
            data = array.array("B", struct.pack("=II", ETHTOOL_GSTATS, count) + bytes(8 * room))
            self._ask(data)
            head = data.tobytes()[: 8 + 8 * count]
            if struct.unpack_from("=II", head)[1] != count:
                return {}
            return dict(zip(self.names, struct.unpack_from(f"={count}Q", head, 8)))  # noqa: B905
        except OSError:
            return {}

    def _strings(self, count: int) -> list[str]:
        start = struct.pack("=III", ETHTOOL_GSTRINGS, ETH_SS_STATS, count)
        data = array.array("B", start + bytes(32 * (2 * count + 1024)))
        self._ask(data)
        raw = data.tobytes()[12 : 12 + 32 * count]
        cells = (raw[i : i + 32].partition(b"\0")[0] for i in range(0, len(raw), 32))
        return [cell.decode("utf-8", "replace").strip() for cell in cells]


def packet_rings(ifindex: int) -> tuple[int, int] | None:
    """(bytes, frames) of the receive rings of the AF_PACKET sockets bound to an interface.

    By sock_diag(7), family AF_PACKET (linux/packet_diag.h); None where the kernel has no such.
    """
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
    except OSError:
        return None
    with sock:
        show = PACKET_SHOW_INFO | PACKET_SHOW_RING_CFG
        body = struct.pack("=BBHIIII", socket.AF_PACKET, 0, 0, 0, show, 0, 0)
        flags = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
        head = struct.pack("=IHHII", 16 + len(body), SOCK_DIAG_BY_FAMILY, flags, 1, 0)
        size = frames = 0
        try:
            sock.settimeout(1.0)
            sock.send(head + body)
            while True:
                data = sock.recv(1 << 18)
                while len(data) >= 16:
                    length, kind = struct.unpack_from("=IH", data)
                    if kind == 2 or length < 16:  # NLMSG_ERROR
                        return None
                    if kind == 3:  # NLMSG_DONE
                        return size, frames
                    one = _ring(data[16:length], ifindex)
                    size, frames = size + one[0], frames + one[1]
                    data = data[(length + 3) & ~3 :]
        except (OSError, struct.error):
            return None


def _ring(message: bytes, ifindex: int) -> tuple[int, int]:
    bound, ring = -1, (0, 0)
    at = 16  # struct packet_diag_msg: family, type, num, ino, cookie[2]
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if length < 4:
            break
        if kind == 0:  # PACKET_DIAG_INFO: index, version, reserve, copy_thresh, tstamp, flags
            bound = struct.unpack_from("=I", message, at + 4)[0]
        elif kind == 2:  # PACKET_DIAG_RX_RING: block_size, block_nr, frame_size, frame_nr, ...
            block, blocks, _, number = struct.unpack_from("=IIII", message, at + 4)
            ring = (block * blocks, number)
        at += (length + 3) & ~3
    return ring if bound == ifindex else (0, 0)


class Interface:
    """Counters, capture sockets and interrupts of one interface."""

    def __init__(self, name: str, files: Files) -> None:
        self.base = "/sys/class/net/" + name
        self.files = files
        self.counters = listed(self.base + "/statistics")
        self.ethtool = Ethtool(name)
        self.vectors, self.names = self._vectors(name)

    def _vectors(self, name: str) -> tuple[list[str], dict[str, str]]:
        """Numbers of the interface's interrupts, and the names they have in /proc/interrupts."""
        names = {}
        for line in (self.files.read("/proc/interrupts") or "").splitlines():
            number, _, rest = line.partition(":")
            words = rest.split()
            if number.strip().isdigit() and words:
                names[number.strip()] = words[-1]
        self.files.forget("/proc/interrupts")
        device = os.path.realpath(self.base + "/device")
        if os.path.basename(device).startswith("virtio"):  # its vectors are those of the PCI device
            device = os.path.dirname(device)
        vectors = [number for number in listed(device + "/msi_irqs") if number in names]
        if not vectors:
            vectors = [n for n, text in names.items() if name in text.split("-")]
        return vectors, names

    def read(self, reading: dict[str, Any], whole: bool) -> None:
        found = {}
        for name in self.counters:
            value = self.files.number(self.base + "/statistics/" + name)
            if value is not None:
                found[name] = value
        for name, value in self.ethtool.read().items():
            found["ethtool." + name] = value
        reading["interface"] = found
        reading["sockets"] = self.sockets(whole)
        counts = {}
        for number in self.vectors:
            text = self.files.read("/sys/kernel/irq/" + number + "/per_cpu_count")
            if text:
                each = {str(i): int(n) for i, n in enumerate(text.split(",")) if int(n)}
                counts[self.names.get(number, number)] = each
        reading["interrupts"] = counts

    def sockets(self, whole: bool) -> dict[str, int]:
        """Capture sockets bound to the interface (/proc/net/packet, of our network namespace)."""
        ifindex = self.files.number(self.base + "/ifindex")
        text = self.files.read("/proc/net/packet")
        if ifindex is None or text is None:
            return {}
        found = {"number": 0, "running": 0, "rmem_bytes": 0}
        for line in text.splitlines()[1:]:
            cell = line.split()
            if len(cell) >= 9 and int(cell[4]) == ifindex:
                found["number"] += 1
                found["running"] += int(cell[5])
                found["rmem_bytes"] += int(cell[6])
        ring = packet_rings(ifindex) if whole else None
        if ring is not None:
            found["ring_bytes"], found["ring_frames"] = ring
        return found
