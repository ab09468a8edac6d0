"""Mutated frames by the million through everything that reads or writes a frame.

    python fuzz/frames.py [--inputs N] [--seed N] [--corpora DIR] [--findings DIR]

Batches of 8,192 frames are formed by a kernel from seeds (`seeds`, captures below DIR). Every frame
ends at a forbidden page (every fourth batch: begins behind one), so a read or write outside of it
kills the process. Frames whose decoding is new (protocols, flags, depths) become seeds. The work is
done in a child process; when it dies, hangs or breaks a promise, the parent looks for the smallest
part of the batch that still does it, and writes it as a capture. Exit status 1: there was one.
"""

from __future__ import annotations

import argparse
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from guard import Slots  # noqa: E402
from mutate import Pool, fill  # noqa: E402
from seeds import LINKS, corpora, frames  # noqa: E402

from pcap_tools.capture import Batch  # noqa: E402
from pcap_tools.decode import Decoder  # noqa: E402
from pcap_tools.edits import COUNTS, MAX_EDITS  # noqa: E402
from pcap_tools.errors import PlanError  # noqa: E402
from pcap_tools.flows import FlowTracker  # noqa: E402
from pcap_tools.forecast import forecast  # noqa: E402
from pcap_tools.packet import IP, PORTS, VERIFIABLE, PacketRows  # noqa: E402
from pcap_tools.patch import Edits, patch_all  # noqa: E402
from pcap_tools.plain import mark_plain  # noqa: E402
from pcap_tools.policy import Policy  # noqa: E402
from pcap_tools.readdress import FreshAddresses, Readdress  # noqa: E402
from pcap_tools.scan import analyse_batch  # noqa: E402
from pcap_tools.space import Space  # noqa: E402
from pcap_tools.stand_ins import AddressBook, Scheme, fill_line, new_tables  # noqa: E402
from pcap_tools.table import flow_columns  # noqa: E402
from pcap_tools.write import PcapWriter  # noqa: E402

BATCH = 8192
HANG_S = 120  # of one batch, compilation included
_POOL = 20_000  # seeds at most

Features = set[tuple[int, ...]]


def _decoders() -> list[Decoder]:
    try:
        return [Decoder(), Decoder(inner=True)]  # type: ignore[call-arg,unused-ignore]
    except TypeError:
        return [Decoder()]


def check_decode(batch: Batch, work: Path) -> PacketRows:
    """Rows whose offsets lie inside their frames; the outer reading."""
    caplen = batch.caplen.astype(np.int64)
    first: PacketRows | None = None
    for decode in _decoders():
        rows = decode(batch)
        l3, l4 = rows["l3"].astype(np.int64), rows["l4"].astype(np.int64)
        ip = (rows["flags"] & IP) > 0
        header = np.where(rows["version"] == 4, 20, 40)
        assert (l3 >= -1).all() and (l4 >= -1).all()
        assert np.isin(rows["version"][ip], (4, 6)).all()
        assert (l3[ip] >= 0).all() and (l3 + header <= caplen)[ip].all()
        ports = (rows["flags"] & PORTS) > 0
        assert (l4 >= l3 + header)[ports].all() and (l4 + 4 <= caplen)[ports].all()
        whole = (rows["flags"] & VERIFIABLE) > 0
        assert (l3 + rows["ip_len"] <= caplen)[whole].all()
        first = rows.copy() if first is None else first
    assert first is not None
    return first


def check_flows(batch: Batch, work: Path) -> None:
    """A flow table that adds up, whatever was in the frames."""
    for decode in _decoders():
        tracker = FlowTracker(1.0)
        tracker.update(batch, decode(batch))
        table = tracker.finish()
        assert len(table.owner) == len(batch)
        assert (table.owner < len(table)).all() and (table.owner >= -4).all()
        assert table.direction.max(initial=0) <= 1
        assert table.packets == len(batch) and table.bytes == int(batch.wirelen.sum(dtype=np.int64))
        owned = table.owner[table.owner >= 0]
        counts = np.bincount(owned, minlength=len(table))
        assert (table.rows["packets"].sum(axis=1) == counts).all()
        result = forecast(table, Policy())
        dropped = sum(tally.packets for tally in result.dropped.values())
        assert result.kept.packets + dropped == len(batch)
        if len(table):
            flow_columns(table, Policy())


def check_rewrite(batch: Batch, work: Path) -> None:
    """Addresses given anew: nothing but addresses and checksums changes, of so many edits."""
    whole = batch.first // BATCH % 8 == 0 or len(batch) < BATCH
    original = _octets(batch) if whole else []
    book = AddressBook()
    rows, quotes = analyse_batch(batch, book, np.zeros(len(COUNTS), np.int64))
    if not whole:
        return
    repaired = _octets(batch)
    before = repaired[:256]
    plan = book.plan("fuzz", Space())
    try:
        plan.require(0, 1)
    except PlanError:
        return  # an address that stays would be a host's stand-in as well: every command refuses
    slots = book.slots(plan)
    scheme = Scheme.of(plan)
    v4, v6 = new_tables(scheme, 1)
    fill_line(scheme, 0, v4, v6, 0)
    book.relabel(rows, slots)
    book.relabel(quotes, slots)
    edits = Edits(quotes, np.zeros(1, np.uint64)) if len(quotes) else None
    patch_all(batch.data.ctypes.data, batch.offset, rows, edits, v4, v6)
    # Wrong checksums were put right before.
    general = _octets(batch)
    for old, new in zip(before, general, strict=False):
        assert np.count_nonzero(old != new) <= (1 + MAX_EDITS) * (32 + 2 + 2)
    _restore(batch, original)
    _readdress(batch)
    for number, (one, two) in enumerate(zip(_octets(batch), general, strict=True)):
        assert one.tobytes() == two.tobytes(), f"frame {number}: one command, two commands"


def _readdress(batch: Batch) -> None:
    """The way of `clean --remap`, everything kept: the same bytes as `remap` gives."""
    batch = replace(batch, first=0)
    tracker = FlowTracker()
    readdress = Readdress(FreshAddresses("fuzz"))
    rows = Decoder()(batch)
    owner = tracker.update(batch, rows)
    mark_plain(batch.data, batch.offset, batch.caplen, batch.link, rows)
    readdress.collect(batch, rows, owner)
    table = tracker.finish()
    readdress.settle(table, np.ones(len(table) + 4, np.bool_))
    readdress.apply(batch, table.owner, table.direction)


def _octets(batch: Batch) -> list[npt.NDArray[np.uint8]]:
    """Copies of the frames; the array as a whole cannot be read."""
    ends = zip(batch.offset.tolist(), batch.caplen.tolist(), strict=True)
    return [batch.data[begin : begin + size].copy() for begin, size in ends]


def _restore(batch: Batch, octets: Sequence[npt.NDArray[np.uint8]]) -> None:
    for begin, frame in zip(batch.offset.tolist(), octets, strict=True):
        batch.data[begin : begin + len(frame)] = frame


def check_write(batch: Batch, work: Path) -> None:
    """Written and nothing more."""
    with PcapWriter(work / "out.pcap", batch.link, nanoseconds=True) as writer:
        writer.write(batch)
    assert writer.packets == len(batch)
    assert (work / "out.pcap").stat().st_size == 24 + int((batch.caplen + np.uint32(16)).sum())


class Source:
    """Batch number n of a seed, the same whenever it is asked for with the same pool."""

    def __init__(self, seed: int, directory: Path | None) -> None:
        self.seed = seed
        self.slots = Slots(BATCH)
        more = corpora(directory) if directory else []
        self.pools = {
            link: Pool(frames(link) + (more if link == 1 else []), self.slots.room)
            for link in LINKS
        }
        self._seen: Features = set()

    def batch(self, number: int, link: int) -> Batch:
        """A batch of mutated frames."""
        slots = self.slots
        random = np.random.default_rng([self.seed, number])
        value = int(random.integers(1, 1 << 62))
        offset, caplen = fill(
            self.pools[link], slots.data, slots.starts, slots.room, number % 4 != 3, value
        )
        wirelen = caplen.copy()
        cut = random.random(BATCH) < 0.1
        wirelen[cut] = np.uint32(caplen[cut] + random.integers(0, 3000, int(cut.sum())))
        odd = random.random(BATCH) < 0.01
        wirelen[odd] = random.integers(0, 1 << 32, int(odd.sum()), dtype=np.uint32)
        steps = random.integers(-(10**8), 3 * 10**8, BATCH)
        time_ns = 1_700_000_000 * 10**9 + np.cumsum(steps)
        time_ns[random.random(BATCH) < 0.001] = random.integers(0, 1 << 62)
        return Batch(slots.data, offset, caplen, wirelen, time_ns, link, number * BATCH)

    def learn(self, batch: Batch, rows: PacketRows) -> None:
        """Make seeds of the frames that were decoded as none before."""
        pool = self.pools[batch.link]
        if len(pool) >= _POOL:
            return
        names = ("flags", "proto", "version", "l3", "l4")
        small = [rows[name].astype(np.int64) for name in names]
        small.append((rows["vlan"] > 0).astype(np.int64) + batch.link * 2)
        keys, where = np.unique(np.stack(small, axis=1), axis=0, return_index=True)
        fresh = []
        for key, index in zip(map(tuple, keys.tolist()), where.tolist(), strict=True):
            if key not in self._seen:
                self._seen.add(key)
                begin = int(batch.offset[index])
                fresh.append(batch.data[begin : begin + int(batch.caplen[index])].tobytes())
        if fresh:
            pool.extend(fresh)


def part(batch: Batch, chosen: npt.NDArray[np.int64]) -> Batch:
    """Some of the frames."""
    columns = (batch.offset, batch.caplen, batch.wirelen, batch.time_ns)
    return Batch(batch.data, *(c[chosen] for c in columns), batch.link, batch.first)  # type: ignore[arg-type]


def minimised(
    count: int, broken: Callable[[npt.NDArray[np.int64]], bool], patience: int
) -> npt.NDArray[np.int64]:
    """Leave out pieces, smaller and smaller, as long as it stays broken (delta debugging)."""
    chosen = np.arange(count)
    size = count // 2
    while size >= 1 and patience > 0:
        at = 0
        while at < len(chosen) and patience > 0:
            without = np.delete(chosen, slice(at, at + size))
            patience -= 1
            if len(without) and broken(without):
                chosen = without
            else:
                at += size
        size //= 2
    return chosen


def save(batch: Batch, path: Path) -> None:
    """The frames as a capture with nanoseconds."""
    parts = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, batch.link)]
    for i in range(len(batch)):
        begin, size = int(batch.offset[i]), int(batch.caplen[i])
        time_ns = min(int(batch.time_ns[i]), (1 << 32) * 10**9 - 1)
        seconds, rest = divmod(max(time_ns, 0), 10**9)
        parts.append(struct.pack("<IIII", seconds, rest, size, int(batch.wirelen[i])))
        parts.append(batch.data[begin : begin + size].tobytes())
    path.write_bytes(b"".join(parts))


def load(path: Path, slots: Slots, number: int) -> Batch:
    """A capture written by `save` back in slots."""
    data = path.read_bytes()
    link = struct.unpack_from("<I", data, 20)[0]
    rows, at = [], 24
    while at < len(data):
        seconds, rest, size, wire = struct.unpack_from("<IIII", data, at)
        slot = len(rows)
        begin = int(slots.starts[slot]) + (slots.room - size if number % 4 != 3 else 0)
        slots.data[begin : begin + size] = np.frombuffer(data, np.uint8, size, at + 16)
        rows.append((begin, size, wire, seconds * 10**9 + rest))
        at += 16 + size
    columns: npt.NDArray[np.int64] = np.array(rows, np.int64).reshape(-1, 4)
    return Batch(
        slots.data,
        columns[:, 0].copy(),
        columns[:, 1].astype(np.uint32),
        columns[:, 2].astype(np.uint32),
        columns[:, 3].copy(),
        link,
        number * BATCH,
    )


def _run(batch: Batch, work: Path) -> PacketRows:
    rows = check_decode(batch, work)
    for check in (check_flows, check_rewrite, check_write):
        check(batch, work)
    return rows


def child(arguments: argparse.Namespace) -> int:
    """Do the batches; what is being done is always in the work directory."""
    work: Path = arguments.work
    if arguments.only is not None:
        _run(load(arguments.only, Slots(BATCH), arguments.first), work)
        return 0
    source = Source(arguments.seed, arguments.corpora)
    number = 0
    while number * BATCH < arguments.inputs:
        batch = source.batch(number, LINKS[number % len(LINKS)] if number % 2 else 1)
        (work / "batch").write_text(str(number))
        save(batch, work / "batch.pcap")
        source.learn(batch, _run(batch, work))
        number += 1
        if number % 64 == 0 or number * BATCH >= arguments.inputs:
            seeds = sum(len(pool) for pool in source.pools.values())
            print(f"{number * BATCH:,} inputs, {seeds:,} seeds", flush=True)
    return 0


def _command(arguments: argparse.Namespace, work: Path) -> list[str]:
    command = [sys.executable, str(Path(__file__)), "--child", "--work", str(work)]
    command += ["--inputs", str(arguments.inputs), "--seed", str(arguments.seed)]
    return command + (["--corpora", str(arguments.corpora)] if arguments.corpora else [])


def start(arguments: argparse.Namespace, work: Path, *more: str) -> subprocess.Popen[str]:
    """A child with the same seed."""
    command = [*_command(arguments, work), *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def fails(process: subprocess.Popen[str], watched: Path | None = None) -> str:
    """Why a child ended badly, "" when it did not; it is killed when `watched` stands still."""
    began = time.monotonic()
    while True:
        try:
            _, said = process.communicate(timeout=1)
            break
        except subprocess.TimeoutExpired:
            last = began
            if watched is not None and watched.exists():
                last = max(began, time.monotonic() - (time.time() - watched.stat().st_mtime))
            if time.monotonic() - last > HANG_S:
                process.kill()
                process.communicate()
                return f"hangs for {HANG_S} s"
    if process.returncode == 0:
        return ""
    lines = said.strip().splitlines() or ["no message"]
    return f"signal {-process.returncode}" if process.returncode < 0 else lines[-1]


def smallest(arguments: argparse.Namespace, work: Path, kept: Path, number: int) -> None:
    """Write the frames that it takes to `best.pcap`.

    A broken promise is looked into by one child, which may meet worse on its way; a crash by many.
    """
    best = work / "best.pcap"
    best.write_bytes(kept.read_bytes())
    at = ["--first", str(number)]
    if not fails(start(arguments, work, "--only", str(kept), *at)).startswith("signal"):
        fails(start(arguments, work, "--shrink", str(kept), *at), best)
        return
    slots = Slots(BATCH)

    def dies(chosen: npt.NDArray[np.int64]) -> bool:
        some = work / "some.pcap"
        save(part(load(kept, slots, number), chosen), some)
        if not fails(start(arguments, work, "--only", str(some), *at)):
            return False
        some.replace(best)
        return True

    minimised(len(load(kept, slots, number)), dies, 100)


def shrink(kept: Path, work: Path, number: int) -> None:
    """`smallest` for exceptions. Rewriting changes frames, so that each attempt has fresh ones."""
    slots = Slots(BATCH)

    def breaks(chosen: npt.NDArray[np.int64]) -> bool:
        try:
            _run(part(load(kept, slots, number), chosen), work)
        except Exception:
            save(part(load(kept, slots, number), chosen), work / "best.pcap")
            return True
        return False

    minimised(len(load(kept, slots, number)), breaks, 2000)


def replay(paths: Sequence[Path]) -> int:
    """Run captures of former findings: none may fail."""
    broken = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        for path in paths:
            for number in (0, 3):  # at the end of its page, and at its beginning
                try:
                    _run(load(path, Slots(256), number), Path(name))
                except Exception as error:
                    broken += 1
                    print(f"{path}: {type(error).__name__}: {error}")
    return 1 if broken else 0


def main() -> int:
    """Fuzz; 1 when something was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpora", type=Path, help="captures below it become seeds too")
    parser.add_argument("--findings", type=Path, default=Path("findings"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shrink", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--replay", type=Path, nargs="+", help="run these captures only")
    arguments = parser.parse_args()
    if arguments.replay:
        return replay(arguments.replay)
    if arguments.shrink:
        shrink(arguments.shrink, arguments.work, arguments.first)
        return 0
    if arguments.child:
        return child(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        work = Path(name)
        why = fails(start(arguments, work), work / "batch")
        if not why:
            print(f"nothing found in {time.monotonic() - began:.0f} s")
            return 0
        print(f"FOUND: {why}", flush=True)
        if not (work / "batch").exists():
            return 1
        number = int((work / "batch").read_text())
        batch = work / "batch.pcap"
        kept = work / "kept.pcap"
        batch.replace(kept)
        smallest(arguments, work, kept, number)
        arguments.findings.mkdir(parents=True, exist_ok=True)
        target = arguments.findings / f"frames-{arguments.seed}-{number}.pcap"
        target.write_bytes((work / "best.pcap").read_bytes())
        print(f"batch {number}, the least of it that fails: {target}")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
