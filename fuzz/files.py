"""Mutated savefiles through every reader, and through whole commands.

    python fuzz/files.py [--seconds S] [--seed N] [--findings DIR]
    python fuzz/files.py --atheris [libFuzzer options, corpus directories]

Files of every format (`seeds.savefiles`) are damaged: bytes, 32-bit words at block and record
boundaries, pieces cut, doubled, swapped. Each is read to its end in buffers that end at forbidden
pages; every sixteenth goes through commands as a user gives them. Allowed is success, or an error
of the package, which is one line. Not allowed: another exception, a crash, ten seconds, three
gigabytes of address space more than at the start (a length field was believed), a file left under
the output's name after an error. --atheris: the readers under libFuzzer, guided by coverage of the
Python that steers the kernels (pip install atheris).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from guard import guarded_empty  # noqa: E402
from seeds import frames, savefiles  # noqa: E402

from harness import cli  # noqa: E402
from harness.errors import HarnessError  # noqa: E402
from pcap_tools import capture  # noqa: E402
from pcap_tools.errors import PcapError  # noqa: E402

LIMIT_S = 10
MORE_BYTES = 3 << 30  # tables reserve 0.3 GB each of address space, and use little
WORDS = (0, 1, 2, 3, 4, 7, 8, 12, 16, 20, 24, 28, 32, 36, 0x7F, 0xFF, 0x100, 0xFFFC, 0xFFFF)
LARGE = (0x10000, 0x40000, 0x40001, 0xFFFFFF, 0x1000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
READERS = ("capture", "savefile", "formats", "records", "pcapng", "erf", "patched", "compression")
COMMANDS = (
    "flows {0} -o {out}.csv",
    "clean {0} -o {out}.pcap",
    "inspect {0} --json",
    "remap {0} -o {out}.pcap --key k",
    "expand {0} -o {out}.pcap --key k --iterations 3 --every 1 --quiet",
    "flows {0} {0} -o {out}.jsonl",
    "split {0} -d {out}.d",
    "impair {0} -o {out}.pcap --seed 1 --loss 0.1 --duplicate 0.1 --reorder 0.1 --corrupt 0.1",
    "clean {0} -o {out}.pcapng",
    "balance {0} --workers 3 --strategy loop --iterations 2",
    "flows {0} -o {out}.csv --flows-by inner",
    "clean {0} -o {out}.pcap --flows-by inner --checksums fix --close fin --keep midstream",
    "clean {0} -o {out}.pcap --remap --key k --close rst --keep midstream --keep non-ip --sha256",
    "clean {0} -o {out}.pcapng.gz --dedup exact --sort --resegment 600 --snapped drop",
    "clean {0} -o {out}.pcap --checksums drop --zero-time drop --sort --keep unterminated",
    "convert {0} -o {out}.pcapng --dedup ip --sort --resegment 600",
    "convert {0} -o {out}.pcap.gz --comments drop",
    "sides {0} --client {out}.a.pcap --server {out}.b.pcap",
    "mix {0} -o {out}.pcap --flows 5 --seed 1",
)


class _Numpy:
    """numpy as a module of readers sees it, with byte buffers that end at a forbidden page."""

    def __init__(self) -> None:
        self.empty = guarded_empty()

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def guard_readers() -> None:
    """Small, guarded buffers in all readers, so that files end where buffers do."""
    if hasattr(capture, "_BUFFER"):
        capture._BUFFER = 1 << 12
    guarded = _Numpy()
    for name in READERS:
        with contextlib.suppress(ImportError):
            module = importlib.import_module(f"pcap_tools.{name}")
            if hasattr(module, "np"):
                module.np = guarded  # type: ignore[attr-defined]


def read(path: Path) -> None:
    """The whole capture, and that its columns stay inside their bytes."""
    try:
        with capture.open_capture(path) as opened:
            size = path.stat().st_size
            for batch in opened.batches():
                end = batch.offset + batch.caplen.astype(np.int64)
                assert (batch.offset >= 0).all() and (end <= len(batch.data)).all()
                assert batch.caplen.max(initial=0) <= capture.MAX_PACKET
                int(batch.data[int(end.max()) - 1])
            assert opened.bytes + 8 * opened.packets <= size * 1100  # what deflate can do
    except PcapError as error:
        assert "\n" not in str(error), error


def command(path: Path, text: str) -> None:
    """One command of the corpus group, in this process; commands that do not exist are skipped."""
    words = text.split()
    if words[0] not in _known():
        return
    for word in words:
        if word.startswith("{out}"):
            assert not Path(word.format(out=path.with_name("out"))).is_file()
    words = [word.format(path, out=path.with_name("out")) for word in words]
    failed = False
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            status = cli._run(["corpus", *words])
        # Errors of the input are raised; 2 is what a mistake in COMMANDS gives.
        assert status in (0, 1), f"exit status {status}"
    except (PcapError, HarnessError) as error:
        assert "\n" not in str(error), error
        failed = True
    for left in path.parent.glob("*"):
        if left.name.startswith((".out", "out")):
            assert not failed or left.is_dir(), f"{left.name} is left by a command that failed"
            assert not left.name.startswith("."), f"{left.name} is left"
            subprocess.run(["rm", "-r", str(left)], check=True)


def _known() -> set[str]:
    if not _KNOWN:
        cli._register()
        corpus = next(i for i in cli.app.registered_groups if i.name == "corpus").typer_instance
        assert corpus is not None
        for found in corpus.registered_commands:
            _KNOWN.add(found.name or getattr(found.callback, "__name__", ""))
    return _KNOWN


_KNOWN: set[str] = set()


def damaged(seeds: list[bytes], chance: random.Random) -> bytes:
    """A seed with up to eight wounds."""
    data = bytearray(chance.choice(seeds))
    order = "little" if data[:1] in (b"\xd4", b"\x4d") or chance.random() < 0.5 else "big"
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 8))):
        if not data:
            break
        at = chance.randrange(len(data))
        if chance.random() < 0.4:
            at = chance.randrange(min(len(data), 120))
        kind = chance.randrange(9)
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at] = chance.randrange(256)
        elif kind in (2, 3, 4):
            at &= ~3
            value = chance.choice(WORDS if kind < 4 else LARGE)
            if kind == 3:
                value = (len(data) - at + chance.randrange(-8, 9)) & 0xFFFFFFFF
            data[at : at + 4] = value.to_bytes(4, order)  # type: ignore[arg-type]
        elif kind == 5:
            del data[at:]
        elif kind == 6:
            del data[at : at + chance.choice((1, 2, 4, 8, 16, 60))]
        elif kind == 7:
            size = chance.choice((4, 12, 16, 28, 32, 64, 200, 4096))
            data[at:at] = data[at : at + size] * chance.choice((1, 1, 2, 40))
        else:
            other = chance.choice(seeds)
            begin = chance.randrange(len(other))
            data[at : at + 64] = other[begin : begin + 64]
    return bytes(data)


def all_seeds() -> list[bytes]:
    """Small files, and some longer than the readers' buffers."""
    few = [frames(1)[i] for i in (0, 3, 20, 40, -2)]
    found = savefiles(few)
    many = frames(1) * 4
    found += savefiles(many)[:12:3] + savefiles(many)[-1:]
    import gzip

    found += [gzip.compress(found[0]), gzip.compress(found[6])]
    return found


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """No input takes long, and none much memory."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"{LIMIT_S} s for one input")

    signal.signal(signal.SIGALRM, late)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_BYTES, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def try_one(data: bytes, path: Path, text: str | None) -> None:
    """One input; raises what is not allowed."""
    path.write_bytes(data)
    signal.alarm(LIMIT_S)
    if text is None:
        read(path)
    else:
        command(path, text)
    signal.alarm(0)


def child(arguments: argparse.Namespace) -> int:
    """Until the time is over; the input in work is always in the work directory."""
    work: Path = arguments.work
    path, note = work / "in.pcap", work / "command"
    seeds = all_seeds()
    for text in COMMANDS:  # compiles, before there are limits
        path.write_bytes(seeds[0])
        command(path, text)
    for seed in seeds:
        path.write_bytes(seed)
        read(path)
    guard_readers()
    chance = random.Random(arguments.seed)
    ends = time.monotonic() + arguments.seconds
    inputs = commands = 0
    with limits():
        while time.monotonic() < ends and (not arguments.inputs or inputs < arguments.inputs):
            data = damaged(seeds, chance)
            text = chance.choice(COMMANDS) if inputs % 16 == 15 else None
            note.write_text(text or "")
            try_one(data, path, text)
            inputs += 1
            commands += text is not None
    print(f"{inputs:,} files, {commands:,} of them through commands", flush=True)
    return 0


def replay(paths: list[Path]) -> int:
    """Former findings through the readers and all commands: none may fail."""
    broken = 0
    guard_readers()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name, limits():
        for path in paths:
            for text in (None, *COMMANDS):
                try:
                    try_one(path.read_bytes(), Path(name) / "in.pcap", text)
                except Exception as error:
                    broken += 1
                    print(f"{path} ({text or 'read'}): {type(error).__name__}: {error}")
    return 1 if broken else 0


def _under_atheris(more: list[str]) -> None:
    import atheris  # type: ignore[import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["pcap_tools"]):
        for name in [name for name in sys.modules if name.startswith("pcap_tools.")]:
            if name.rsplit(".", 1)[-1] in READERS:
                importlib.reload(sys.modules[name])
    path = Path(tempfile.mkdtemp(prefix="fuzz-")) / "in.pcap"

    def one(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    corpus = path.parent / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(all_seeds()):
        (corpus / str(number)).write_bytes(seed)
    limits_given = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=20000"]
    atheris.Setup([sys.argv[0], *limits_given, *more, str(corpus)], one)
    atheris.Fuzz()


def _watch(process: subprocess.Popen[str], seconds: float) -> str:
    try:
        _, said = process.communicate(timeout=seconds + 300)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "hangs"
    if process.returncode == 0:
        return ""
    lines = said.strip().splitlines() or ["no message"]
    return f"signal {-process.returncode}" if process.returncode < 0 else lines[-1]


def main() -> int:
    """Fuzz; 1 when something was found."""
    if "--atheris" in sys.argv:
        _under_atheris([word for word in sys.argv[1:] if word != "--atheris"])
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--inputs", type=int, default=0, help="end after so many; 0: no limit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("findings"))
    parser.add_argument("--replay", type=Path, nargs="+", help="run these files only")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.replay:
        return replay(arguments.replay)
    if arguments.child:
        return child(arguments)
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="fuzz-", dir=shared if shared.is_dir() else None
    ) as name:
        work = Path(name)
        words = [sys.executable, str(Path(__file__)), "--child", "--work", name]
        words += ["--seconds", str(arguments.seconds), "--seed", str(arguments.seed)]
        words += ["--inputs", str(arguments.inputs)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as process:
            why = _watch(process, arguments.seconds)
        if not why:
            return 0
        arguments.findings.mkdir(parents=True, exist_ok=True)
        target = arguments.findings / f"file-{arguments.seed}-{int(time.time())}.bin"
        if (work / "in.pcap").exists():
            target.write_bytes((work / "in.pcap").read_bytes())
        text = (work / "command").read_text() if (work / "command").exists() else "start"
        print(f"FOUND: {why} ({text or 'read'}): {target}")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
