"""Put flows together anew: many copies at many times, in time order, without holding the capture.

The flows that are wanted are first sorted into a scratch file, each flow's packets one after the
other; then the copies are merged by a heap of cursors into it. Memory is a few numbers a flow and a
copy, whatever the capture's size; the scratch file is mapped, and nameless from the start.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from pcap_tools.capture import Batch, Capture
from pcap_tools.damage import checksum_at
from pcap_tools.decode import Decoder
from pcap_tools.errors import CaptureError, OutputError
from pcap_tools.forecast import Progress
from pcap_tools.kernels import (
    I32,
    I64,
    U8,
    as_int,
    copy_bytes,
    inner,
    kernel,
    load16,
    load32,
    load64,
    store16,
    store32,
    store64,
    swap16,
)
from pcap_tools.packet import PacketRows
from pcap_tools.traits import RECORD, Traits
from pcap_tools.walk import MAX_PACKET, U32, Word

__all__ = ["assembled"]

_CHUNK = 1 << 22
_ROWS = 1 << 15
_RESIDENT = 1 << 25  # bytes between two releases of the scratch file's pages
_UDP = 17
_NONE = 0xFFFF


def assembled(
    capture: Capture,
    traits: Traits,
    replicas: npt.NDArray[np.void],
    beside: Path,
    progress: Progress | None = None,
) -> Iterator[Batch]:
    """The packets of the replicas (REPLICA rows in order of start) in time order, as batches.

    The scratch file is made in the directory of `beside`. Raises OutputError when there is no room
    for it, CaptureError when the capture is no longer what `traits` were read from.
    """
    wanted = np.zeros(len(traits), np.bool_)
    wanted[replicas["flow"]] = True
    size = np.where(wanted, traits.captured, 0)
    end = np.cumsum(size)
    begin = end - size
    with _scratch(beside, int(end[-1])) as stream:
        mapped = mmap.mmap(stream.fileno(), int(end[-1]))
        scratch: U8 = np.frombuffer(mapped, np.uint8)
        passed = 0
        for octets in _sorted(capture, traits, scratch, np.where(wanted, begin, -1), end):
            passed = _trimmed(mapped, passed + octets)
            if progress is not None:
                done = capture.bytes + 16 * capture.packets
                progress("sorting by flow", done, capture.size)
        for batch in _merged(scratch, begin, end, replicas, capture.link):
            yield batch
            passed = _trimmed(mapped, passed + _CHUNK)


def _trimmed(mapped: mmap.mmap, passed: int) -> int:
    """Every now and then let go of the scratch file's pages: they stay in the page cache, where
    the system may write them out, and count no more as this process's memory."""
    if passed < _RESIDENT:
        return passed
    mapped.madvise(mmap.MADV_DONTNEED)
    return 0


def _scratch(beside: Path, size: int) -> IO[bytes]:
    stream = tempfile.TemporaryFile(prefix=".mix-", dir=beside.parent)  # noqa: SIM115
    try:
        # All of it now: a mapped file that the disk has no room for would be a signal, later.
        os.posix_fallocate(stream.fileno(), 0, size)
    except OSError as error:
        stream.close()
        raise OutputError(
            f"{beside.parent}: no room for {size:,} bytes of scratch: {error.strerror}"
        ) from None
    return stream


def _sorted(capture: Capture, traits: Traits, scratch: U8, cursor: I64, end: I64) -> Iterator[int]:
    """Write every wanted packet to its flow's place; yields the bytes of each batch."""
    decode = Decoder()
    table = traits.table
    for batch in capture.batches():
        capture.require_one_link(batch)
        part = slice(batch.first, batch.first + len(batch))
        owner = table.owner[part]
        if len(owner) < len(batch) or not _store(
            batch.data,
            batch.offset,
            batch.caplen,
            batch.wirelen,
            batch.time_ns,
            decode(batch),
            owner,
            table.direction[part],
            scratch,
            cursor,
            end,
        ):
            raise CaptureError(
                f"{capture.paths[0]}: changed while it was being read; mix it when it is complete"
            )
        yield int(batch.caplen.sum(dtype=np.int64))


@kernel
def _store(
    data: U8,
    offset: I64,
    caplen: U32,
    wirelen: U32,
    time_ns: I64,
    rows: PacketRows,
    owner: I32,
    direction: U8,
    scratch: U8,
    cursor: I64,
    end: I64,
) -> bool:
    """Append packets to their flows (cursor −1: not wanted); False when one does not fit.

    A record is the time (8 bytes), both lengths (4 each), where the client's port and where the
    transport checksum stand in the frame (2 each, 0xffff: nowhere), whether the protocol is UDP
    (4), and the frame.
    """
    base = np.int64(data.ctypes.data)
    sink = np.int64(scratch.ctypes.data)
    for i in range(len(rows)):
        flow = as_int(owner[i])
        if flow < 0 or cursor[flow] < 0:
            continue
        size = as_int(caplen[i])
        if cursor[flow] + RECORD + size > end[flow]:
            return False
        row = rows[i]
        port = _NONE
        total = _NONE
        if as_int(row.flags) & 2 and not as_int(row.flags) & 8:  # ports, and no later fragment
            port = as_int(row.l4) + 2 * as_int(direction[i])
            total = checksum_at(base + offset[i], size, row)
            if total < 0:
                total = _NONE
        record = sink + cursor[flow]
        store64(record, np.uint64(time_ns[i]))
        store32(record + 8, np.uint64(size))
        store32(record + 12, np.uint64(wirelen[i]))
        store16(record + 16, np.uint64(port))
        store16(record + 18, np.uint64(total))
        store32(record + 20, np.uint64(1 if as_int(row.proto) == _UDP else 0))
        copy_bytes(record + RECORD, base + offset[i], size)
        cursor[flow] += RECORD + size
    return True


def _merged(
    scratch: U8, begin: I64, end: I64, replicas: npt.NDArray[np.void], link: int
) -> Iterator[Batch]:
    chunk = np.empty(_CHUNK + MAX_PACKET, np.uint8)
    offset, time_ns = np.empty(_ROWS, np.int64), np.empty(_ROWS, np.int64)
    caplen, wirelen = np.empty(_ROWS, np.uint32), np.empty(_ROWS, np.uint32)
    cursor = begin[replicas["flow"]]
    heap = np.empty((len(replicas), 2), np.int64)
    state = np.zeros(2, np.int64)
    packets = 0
    while True:
        count = _merge(
            scratch,
            end,
            replicas,
            cursor,
            heap,
            state,
            chunk,
            offset,
            caplen,
            wirelen,
            time_ns,
        )
        if not count:
            return
        part = slice(0, count)
        yield Batch(chunk, offset[part], caplen[part], wirelen[part], time_ns[part], link, packets)
        packets += count


@kernel
def _merge(
    scratch: U8,
    end: I64,
    replicas: npt.NDArray[np.void],
    cursor: I64,
    heap: I64,
    state: I64,
    chunk: U8,
    offset: I64,
    caplen: U32,
    wirelen: U32,
    time_ns: I64,
) -> int:
    """Fill the columns with the next packets; returns how many.

    `heap` holds (time, replica) of flows in progress; `state` is its size, and the next replica.
    """
    base = np.int64(scratch.ctypes.data)
    sink = np.int64(chunk.ctypes.data)
    size = state[0]
    coming = state[1]
    count = 0
    fill = 0
    while count < len(offset) and fill < _CHUNK:
        if coming < len(replicas) and (size == 0 or replicas[coming].start_ns < heap[0, 0]):
            first = as_int(load64(base + cursor[coming])) + replicas[coming].shift_ns
            _push(heap, size, first, coming)
            size += 1
            coming += 1
            continue
        if size == 0:
            break
        now = heap[0, 0]
        number = heap[0, 1]
        replica = replicas[number]
        record = base + cursor[number]
        length = as_int(load32(record + 8))
        copy_bytes(sink + fill, record + RECORD, length)
        if replica.port:
            _patch(
                sink + fill,
                as_int(load16(record + 16)),
                as_int(load16(record + 18)),
                load32(record + 20) != 0,
                as_int(replica.port),
            )
        offset[count] = fill
        caplen[count] = np.uint32(length)
        wirelen[count] = np.uint32(load32(record + 12))
        time_ns[count] = now
        fill += length
        count += 1
        cursor[number] += RECORD + length
        if cursor[number] < end[replica.flow]:
            heap[0, 0] = as_int(load64(base + cursor[number])) + replica.shift_ns
        else:
            size -= 1
            heap[0, 0] = heap[size, 0]
            heap[0, 1] = heap[size, 1]
        _sink(heap, size)
    state[0] = size
    state[1] = coming
    return count


@inner
def _patch(frame: Word, port_at: int, sum_at: int, udp: bool, port: int) -> None:
    """Give the frame its client port, and carry the checksum along (RFC 1624, equation 3)."""
    if port_at == _NONE:
        return
    old = as_int(swap16(load16(frame + port_at)))
    store16(frame + port_at, swap16(np.uint64(port)))
    if sum_at == _NONE:
        return
    total = (0xFFFF ^ as_int(swap16(load16(frame + sum_at)))) + (0xFFFF ^ old) + port
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    value = 0xFFFF ^ total
    if value == 0 and udp:
        value = 0xFFFF
    store16(frame + sum_at, swap16(np.uint64(value)))


@inner
def _before(heap: I64, one: int, other: int) -> bool:
    if heap[one, 0] != heap[other, 0]:
        return bool(heap[one, 0] < heap[other, 0])
    return bool(heap[one, 1] < heap[other, 1])


@inner
def _swap(heap: I64, one: int, other: int) -> None:
    for column in range(2):
        kept = heap[one, column]
        heap[one, column] = heap[other, column]
        heap[other, column] = kept


@inner
def _push(heap: I64, size: int, time: int, number: int) -> None:
    heap[size, 0] = time
    heap[size, 1] = number
    at = size
    while at > 0 and _before(heap, at, (at - 1) // 2):
        _swap(heap, at, (at - 1) // 2)
        at = (at - 1) // 2


@inner
def _sink(heap: I64, size: int) -> None:
    at = 0
    while True:
        least = 2 * at + 1
        if least >= size:
            return
        if least + 1 < size and _before(heap, least + 1, least):
            least += 1
        if not _before(heap, least, at):
            return
        _swap(heap, at, least)
        at = least
