"""Reading ERF, the Extensible Record Format of Endace's capture cards.

Ethernet records (types ETH, COLOR_ETH, DSM_COLOR_ETH, COLOR_HASH_ETH) become Ethernet packets
without their frame check sequence, IPV4 and IPV6 records raw IP; extension headers are passed over.
ERF has no magic number: the first records decide.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from pcap_tools.errors import UnsupportedLink
from pcap_tools.kernels import U8
from pcap_tools.savefile import Columns, Reader, Table
from pcap_tools.walk_odd import BAD_TYPE, walk_erf

__all__ = ["ErfFile", "looks_like_erf"]

_TYPES = {
    1: "HDLC_POS", 3: "ATM", 4: "AAL5", 5: "MC_HDLC", 6: "MC_RAW", 7: "MC_ATM",
    8: "MC_RAW_CHANNEL", 9: "MC_AAL5", 10: "COLOR_HDLC_POS", 12: "MC_AAL2", 13: "IP_COUNTER",
    14: "TCP_FLOW_COUNTER", 15: "DSM_COLOR_HDLC_POS", 17: "COLOR_MC_HDLC_POS", 18: "AAL2",
    19: "COLOR_HASH_POS", 21: "INFINIBAND", 24: "RAW_LINK", 25: "INFINIBAND_LINK",
}  # fmt: skip
_READ = (2, 11, 16, 20, 22, 23, 27, 48)
_LOOK = 16  # records
_DAY = 86_400


def looks_like_erf(fd: int) -> bool:
    """Whether the first records of an open file make sense as ERF (cf. wiretap/erf.c)."""
    at, before = 0, -1
    for count in range(_LOOK):
        head = os.pread(fd, 16, at)
        if len(head) < 16:
            return count > 0
        kind, size = head[8] & 0x7F, int.from_bytes(head[10:12], "big")
        seconds = int.from_bytes(head[4:8], "little")
        if size < 16 or size % 4 or not (kind in _TYPES or kind in _READ):
            return False
        if kind != 48:
            # Any order is tolerated, but not times from anywhere.
            if before >= 0 and seconds and abs(seconds - before) > 366 * _DAY:
                return False
            before = seconds or before
        at += size
        if at > os.fstat(fd).st_size:
            return count > 0
    return True


class ErfFile(Reader):
    """An ERF file."""

    format = "erf"

    def __init__(self, stream: IO[bytes], name: str, buffer: int) -> None:
        super().__init__(stream, name, buffer)
        self.nanoseconds = True
        self._probe_first()

    def _table(self, size: int) -> Table:
        return Table(size, extra=True)

    def walk(self, table: Table, have: int, at: int) -> tuple[int, int, int]:
        return walk_erf(
            table.data,
            have,
            table.offset,
            table.caplen,
            table.wirelen,
            table.time_ns,
            table.extra,
        )

    def parts(self, table: Table, rows: int, at: int) -> Iterator[Columns]:
        return self._by_link(self._columns(table, rows, at, -1), table.extra[:rows])

    def fail(self, status: int, data: U8, used: int, have: int, offset: int) -> int:
        if status == BAD_TYPE:
            kind = int(data[used + 8]) & 0x7F
            raise UnsupportedLink(
                f"{self.name}: offset {offset}: an ERF record of type {kind} "
                f"({_TYPES.get(kind, 'unknown')}) has no reading here; wanted: Ethernet, IPv4, IPv6"
            )
        return super().fail(status, data, used, have, offset)

    def _problem(self, status: int, record: U8) -> str:
        return "a record length that is wrong"
