"""The two sides of a capture: what clients sent and what servers sent, to replay it over two ports.

Example:
    report = sides("corpus.pcap", SidesOutputs(client=Path("c.pcap"), server=Path("s.pcap")))
    print(report.client.packets, report.server.packets)

Both files keep the capture's times, so that two senders started together give its packets back.
Or one file and a tcpprep cache: `tcpreplay --cachefile=F --intf1=A --intf2=B corpus.pcap`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pcap_tools.capture import Capture, open_capture
from pcap_tools.errors import OutputError, PcapError
from pcap_tools.flows import IDLE_S, FlowTable
from pcap_tools.forecast import read_table
from pcap_tools.kernels import U8
from pcap_tools.output import open_output
from pcap_tools.tcpprep import CLIENT, NOT_SENT, SERVER, write_cache
from pcap_tools.write import refuse_inputs

__all__ = ["OUTSIDE", "Side", "SidesOutputs", "SidesReport", "sides"]

OUTSIDE = {"client": CLIENT, "server": SERVER, "drop": NOT_SENT}
"""Where packets outside flows (ARP, malformed, lone fragments …) go."""

Progress = Callable[[str, int, int], None]
"""Called with the step's name, and bytes done of bytes in all."""


@dataclass(frozen=True, slots=True)
class SidesOutputs:
    """What to write: pcap files of either side, a tcpprep cache of the input; None: not wanted."""

    client: Path | None = None
    server: Path | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        if not self.wanted:
            raise PcapError("no output was asked for; give a client or server file, or a cache")
        if len({path.absolute() for path in self.wanted}) < len(self.wanted):
            raise OutputError(f"{self.wanted[0]}: is asked for twice; give each output its name")

    @property
    def wanted(self) -> list[Path]:
        """The outputs asked for."""
        return [path for path in (self.client, self.server, self.cache) if path is not None]


@dataclass(frozen=True, slots=True)
class Side:
    """Packets, and bytes of frames as captured."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SidesReport:
    """What each side has: client + server + dropped = the capture.

    `outside` packets have no flow, and are counted where they went. Of `one_way_flows` only one
    end was captured. `ignored_bytes` are those of the input's truncated tail.
    """

    inputs: tuple[str, ...]
    flows: int
    one_way_flows: int
    outside: int
    client: Side
    server: Side
    dropped: Side
    ignored_bytes: int

    def as_json(self) -> dict[str, Any]:
        """The report's JSON form."""
        return asdict(self)


def sides(
    paths: Sequence[Path | str] | Path | str,
    outputs: SidesOutputs,
    outside: str = "client",
    idle_s: float = IDLE_S,
    progress: Progress | None = None,
) -> SidesReport:
    """Write the two sides of `paths`; packets outside flows go where `outside` (OUTSIDE) says.

    The flow table tells who is client: the handshake, else pcap_tools.track's heuristics. Two
    passes, constant memory but for the table and 6 bytes a packet. Raises CaptureError and
    OutputError.
    """
    if outside not in OUTSIDE:
        raise PcapError(
            f"unknown place {outside!r}; packets outside flows go to client, server or drop"
        )
    with open_capture(paths) as capture:
        if outputs.cache is not None and len(capture.paths) > 1:
            raise PcapError(
                f"{outputs.cache}: a tcpprep cache numbers the packets of one file, and there are "
                f"{len(capture.paths)}; merge them first (mergecap -w OUT IN...)"
            )
        for path in outputs.wanted:
            refuse_inputs(path, capture.paths)
        table = read_table(capture, idle_s, progress)
        codes = _codes(table, OUTSIDE[outside])
        counted = _write(capture, codes, outputs, progress)
        if outputs.cache is not None:
            write_cache(outputs.cache, codes, f"{capture.paths[0].name}: sides of its flows")
        packets = table.rows["packets"]
        return SidesReport(
            inputs=tuple(str(path) for path in capture.paths),
            flows=len(table),
            one_way_flows=int((packets == 0).any(axis=1).sum()),
            outside=int((table.owner < 0).sum()),
            client=counted[CLIENT],
            server=counted[SERVER],
            dropped=counted[NOT_SENT],
            ignored_bytes=capture.ignored_bytes,
        )


def _codes(table: FlowTable, outside: int) -> U8:
    """tcpprep's code of each packet."""
    codes = np.where(table.direction == 0, np.uint8(CLIENT), np.uint8(SERVER))
    codes[table.owner < 0] = outside
    return codes


def _write(
    capture: Capture, codes: U8, outputs: SidesOutputs, progress: Progress | None
) -> dict[int, Side]:
    counts = {code: np.zeros(2, np.int64) for code in (CLIENT, SERVER, NOT_SENT)}
    with contextlib.ExitStack() as stack:
        writers = {
            code: stack.enter_context(open_output(path, capture))
            for code, path in ((CLIENT, outputs.client), (SERVER, outputs.server))
            if path is not None
        }
        for batch in capture.batches():
            part = codes[batch.first : batch.first + len(batch)]
            for code, count in counts.items():
                keep = part == code
                count += keep.sum(), batch.caplen[keep].sum(dtype=np.int64)
                if code in writers:
                    writers[code].write(batch, keep)
            if progress is not None:
                progress("writing sides", capture.bytes + 16 * capture.packets, capture.size)
    return {code: Side(*count.tolist()) for code, count in counts.items()}
