"""Compile the kernels ahead of a measurement: a trial must not wait for a compiler."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pcap_tools.capture import Batch
from pcap_tools.copying import ByFlow, Choice
from pcap_tools.edits import COLUMNS, COUNTS
from pcap_tools.expand import ExpandOptions, expand, file_header
from pcap_tools.flowrow import FLOW
from pcap_tools.flows import FlowTable, FlowTracker
from pcap_tools.fresh import FreshAddresses
from pcap_tools.packet import packet_rows
from pcap_tools.parts import HEADER, RECORD, Room, Way, divide
from pcap_tools.patch import patch_all
from pcap_tools.plain import mark_plain
from pcap_tools.policy import Policy, judge
from pcap_tools.readdress import Readdress
from pcap_tools.scan import analyse_batch
from pcap_tools.stand_ins import AddressBook
from pcap_tools.table import text_columns
from pcap_tools.text import FEW, format_rows

__all__ = ["warm"]


def warm(part: str = "expand") -> None:
    """Compile the kernels of a part into the cache, by running each on next to nothing.

    "expand" is all that the generator's host needs, the others are steps of commands: see
    pcap_tools.beside. Those that are done meanwhile start no thread, which would wait for this one.
    """
    _PARTS[part]()


def _track() -> None:
    """Flows of decoded packets."""
    batch = _two_packets()
    tracker = FlowTracker()
    tracker.update(batch, packet_rows(len(batch)))
    tracker.finish()


def _remap() -> None:
    """The plan of addresses, and the second pass of `remap`."""
    from pcap_tools.byaddress import ByAddress

    work, batch = ByAddress(FreshAddresses("warm")), _two_packets()
    book = work.book.book
    book.entries[:2] = [(4, 0, 0x0A000001), (4, 0, 0x08080808)]
    book.size[0] = 2
    work.settle()
    _carry(batch, work)


def _look() -> None:
    """Frames that are not plain, which most captures have."""
    analyse_batch(_two_packets(), AddressBook(), np.zeros(len(COUNTS), np.int64))
    _patch()


def _patch() -> None:
    """Giving such frames other addresses."""
    nothing, rows = np.zeros(0, np.int64), np.zeros((0, COLUMNS), np.int32)
    v4, v6 = np.zeros((1, 2), np.uint64), np.zeros((1, 2, 3), np.uint64)
    patch_all(0, nothing, rows, None, v4, v6)


def _clean() -> None:
    """Addresses by flows, and the second pass of `clean --remap`."""
    batch, table = _two_packets(), _one_flow()
    rows = packet_rows(len(batch))
    mark_plain(batch.data, batch.offset, batch.caplen, batch.link, rows)
    readdress = Readdress(FreshAddresses("warm"))
    readdress.collect(batch, rows, table.owner)
    readdress.settle(table, np.ones(5, np.bool_))
    _carry(batch, ByFlow(table, np.ones(5, np.bool_), readdress))


def _write() -> None:
    """The second pass of `clean`, and its report."""
    table = _one_flow()
    _carry(_two_packets(), ByFlow(table, np.ones(5, np.bool_)))
    many = np.zeros(FEW + 1, np.int64)
    # Not by `write_flows`: its threads would wait until this one has compiled.
    for _ in format_rows(text_columns(table, judge(table, Policy()), many), b"\n"):
        pass


def _carry(batch: Batch, choice: Choice) -> None:
    """The batch's records from one file to another."""
    sizes = batch.caplen.astype(np.uint16)
    parts = divide(sizes)
    choice.place(parts, sizes)
    room = Room(parts)
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as output:
        source.write(bytes(HEADER) + batch.data.tobytes())
        source.flush()
        way = Way(np.array([source.fileno(), output.fileno(), 0]), sizes, batch.link)
        choice.carry(way, parts, room)


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


_PARTS: dict[str, Callable[[], None]] = {
    "clean": _clean,
    "expand": _expand_both_ways,
    "look": _look,
    "patch": _patch,
    "remap": _remap,
    "track": _track,
    "write": _write,
}
