"""Compile the kernels ahead of a measurement: a trial must not wait for a compiler."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np

from pcap_tools.capture import Batch
from pcap_tools.expand import ExpandOptions, expand, file_header
from pcap_tools.flowrow import FLOW
from pcap_tools.flows import FlowTable, FlowTracker
from pcap_tools.fresh import FreshAddresses
from pcap_tools.packet import PacketRows, packet_rows
from pcap_tools.parts import RECORD, close_up
from pcap_tools.plain import mark_plain
from pcap_tools.readdress import Readdress
from pcap_tools.table import write_flows
from pcap_tools.write import PcapWriter

__all__ = ["warm"]


def warm(part: str = "expand") -> None:
    """Compile the kernels of a part into the cache, by running each on next to nothing.

    "expand": all that the generator's host needs. "track": what makes flows of decoded packets.
    "remap": what gives packets other addresses. "clean": that by flows, and what
    turns flows into text. See pcap_tools.beside.
    """
    if part == "expand":
        _expand_both_ways()
        return
    batch = _two_packets()
    rows = packet_rows(2)
    if part == "track":
        tracker = FlowTracker()
        tracker.update(batch, rows)
        tracker.finish()
        return
    if part == "remap":
        _remap(batch)
        return
    table = _one_flow()
    with tempfile.TemporaryDirectory(prefix="warm-") as directory:
        _rewrite(batch, rows, table, Path(directory))
        write_flows(table, Path(directory) / "flows.csv")


def _remap(batch: Batch) -> None:
    """The second pass alone: whoever waits for it compiles the first."""
    from pcap_tools.byaddress import ByAddress

    work = ByAddress(FreshAddresses("warm"))
    work.enter(batch)
    work.settle()
    work.edit(batch, np.arange(len(batch)))


def _one_flow() -> FlowTable:
    rows = np.zeros(1, FLOW)
    rows["version"], rows["proto"], rows["packets"] = 4, 17, 1
    rows["lo"] = [[0x0A000001, 0x08080808]]
    nothing = np.zeros(1, np.uint8), np.zeros(1, np.int64)
    owner, direction = np.zeros(2, np.int32), np.zeros(2, np.uint8)
    return FlowTable(rows, *nothing, owner, direction, 0, 0, np.zeros((5, 2), np.int64))


def _two_packets() -> Batch:
    """As they lie in a savefile: a plain one, and one to everybody with no more addresses."""
    plain = _frame()
    record = struct.pack("=IIII", 0, 0, len(plain), len(plain))
    data = record + plain + record + b"\xff" * 6 + plain[6:]
    size = np.full(2, len(plain), np.uint32)
    offset = np.array([RECORD, 2 * RECORD + len(plain)])
    return Batch(
        np.frombuffer(bytearray(data), np.uint8), offset, size, size, np.zeros(2, np.int64), 1, 0
    )


def _rewrite(batch: Batch, rows: PacketRows, table: FlowTable, directory: Path) -> None:
    mark_plain(batch.data, batch.offset, batch.caplen, batch.link, rows)
    readdress = Readdress(FreshAddresses("warm"))
    readdress.collect(batch, rows, table.owner)
    readdress.settle(table, np.ones(5, np.bool_))
    readdress.apply(batch, table.owner, table.direction)
    keep, room = np.array([True, False]), np.empty(2, np.int64)
    close_up(batch.data, batch.caplen.astype(np.uint16), keep, room, room.copy())
    with PcapWriter(directory / "out.pcap") as writer:
        writer.write(batch)


def _frame() -> bytes:
    udp = struct.pack(">HHHH", 1, 2, 8, 0)
    head = struct.pack(
        ">BBHHHBBH4s4s", 69, 0, 28, 0, 0, 64, 17, 0, b"\n\0\0\1", b"\x08\x08\x08\x08"
    )
    return bytes(12) + b"\x08\0" + head + udp


def _expand_both_ways() -> None:
    frame = _frame()
    arp = bytes(12) + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + bytes(20)
    record, later, other = (
        struct.pack("<IIII", second, 0, len(octets), len(octets)) + octets
        for second, octets in ((1, frame), (2, frame), (3, arp))
    )
    with tempfile.TemporaryDirectory(prefix="warm-") as directory:
        source = Path(directory) / "in.pcap"
        for more in (b"", other):  # plain frames, and edits beyond the IP header
            header = file_header(1, 65535, nanoseconds=False)
            source.write_bytes(header + later + record + more)
            for every in (0.5, 0.001):  # cycles, heap
                options = ExpandOptions(key="warm", iterations=2, every=every, max_gap=5.0)
                expand([source], str(Path(directory) / "out.pcap"), options)
