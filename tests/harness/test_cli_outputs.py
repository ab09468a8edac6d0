"""Where outputs may go: standard output, devices, and what is left when a command is stopped."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import cli
from harness.cli.outputs import check_outputs
from harness.signals import interruptible
from pcap_tools.clean import clean
from pcap_tools.errors import OutputError
from pcap_tools.expand import ExpandOptions, expand
from pcap_tools.fresh import FreshAddresses
from pcap_tools.merge import merge
from pcap_tools.split import split

PROGRAM = [sys.executable, "-m", "harness", "corpus"]


def pcap(path: Path, link: int = 1, frames: int = 40) -> Path:
    """UDP queries and answers, each pair a flow of its own."""
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)]
    for i in range(frames):
        ends = (b"\x0a\0\0\1", b"\x01\1\1\1")
        ports = (2000 + i // 2, 53)
        source, target = (0, 1) if i % 2 == 0 else (1, 0)
        udp = struct.pack(">HHHH", ports[source], ports[target], 12, 0) + b"ping"
        head = struct.pack(">BBHHHBBH", 69, 0, 32, 0, 0, 64, 17, 0)
        ip = head + ends[source] + ends[target] + udp
        frame = (bytes(12) + b"\x08\0" if link == 1 else b"") + ip
        parts.append(struct.pack("<IIII", 1_700_000_000 + i, 0, len(frame), len(frame)) + frame)
    path.write_bytes(b"".join(parts))
    return path


def run(*words: str | Path, where: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PROGRAM, *map(str, words)], cwd=where, capture_output=True, timeout=120)


def test_clean_to_standard_output_is_the_capture_alone(tmp_path: Path) -> None:
    raw = pcap(tmp_path / "raw.pcap")
    clean(raw, tmp_path / "wanted.pcap")
    wanted = (tmp_path / "wanted.pcap").read_bytes()
    before = set(tmp_path.iterdir())
    for options in ([], ["--json"]):
        done = run("clean", raw, "-o", "-", *options, where=tmp_path)
        assert (done.returncode, done.stdout) == (0, wanted)
        assert b"kept" in done.stderr
    assert set(tmp_path.iterdir()) == before  # no -.clean.json
    done = run("clean", raw, "-o", "-", "--report", "r.json", where=tmp_path)
    assert done.stdout == wanted
    assert json.loads((tmp_path / "r.json").read_bytes())["kept"]["packets"] == 40


@pytest.mark.parametrize(
    "words",
    [
        "clean raw.pcap -o - --remap --key k",
        "remap raw.pcap -o - --key k",
        "impair raw.pcap -o - --seed 1 --loss 0.1",
        "mix raw.pcap -o - --flows 5",
        "merge pieces -o -",
        "sides raw.pcap --client - --server s.pcap",
    ],
)
def test_what_needs_a_file_refuses_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    split(pcap(tmp_path / "raw.pcap"), "pieces")
    monkeypatch.setattr(sys, "argv", ["probebench", "corpus", *words.split()])
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    assert (ended.value.code, out.getvalue(), err.getvalue().count("\n")) == (2, "", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pieces", "raw.pcap"]


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    raw, pipe = pcap(tmp_path / "raw.pcap"), tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="pipe: cannot be written: it is a device or a pipe"):
        check_outputs([pipe], [raw])
    with pytest.raises(OutputError, match="pipe: is not a regular file"):
        clean(raw, pipe)
    with pytest.raises(OutputError, match="pipe: is not a regular file"):
        expand([raw], str(pipe), ExpandOptions(key="k", iterations=2))
    assert pipe.is_fifo()
    for device in ("/dev/null", "/dev/stdout", "/dev/fd/1"):
        with pytest.raises(OutputError, match="it is a device"):
            check_outputs([Path(device)], [raw])


def test_a_plan_stays_with_the_output_that_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = pcap(tmp_path / "raw.pcap")
    out, plan = tmp_path / "out.pcap", tmp_path / "out.pcap.plan.json"
    expand([raw], str(out), ExpandOptions(key="first", iterations=2))
    before = out.read_bytes(), plan.read_bytes()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["pcap_tools.expand"], "_write_all", full)
    with pytest.raises(OutputError, match="No space"):
        expand([raw], str(out), ExpandOptions(key="second", iterations=2))
    monkeypatch.setattr("os.ftruncate", full)
    with pytest.raises(OutputError, match="No space"):
        clean(raw, out, fresh=FreshAddresses("second"))
    assert (out.read_bytes(), plan.read_bytes()) == before


def test_merge_does_not_write_over_its_own_pieces(tmp_path: Path) -> None:
    split(pcap(tmp_path / "raw.pcap"), tmp_path / "pieces")
    piece = next((tmp_path / "pieces").glob("*.pcap"))
    before = piece.read_bytes()
    with pytest.raises(OutputError, match="inside the split itself"):
        merge(tmp_path / "pieces", piece)
    assert piece.read_bytes() == before


@pytest.mark.parametrize("name", ["out.pcap.gz", "out.zst", "out.pcapng"])
def test_a_name_does_not_promise_another_format(tmp_path: Path, name: str) -> None:
    raw = pcap(tmp_path / "raw.pcap")
    split(raw, tmp_path / "pieces")
    with pytest.raises(OutputError, match="only pcap is written here"):
        expand([raw], str(tmp_path / name), ExpandOptions(key="k", iterations=2))
    with pytest.raises(OutputError, match="only pcap is written here"):
        merge(tmp_path / "pieces", tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pieces", "raw.pcap"]


def _written(directory: Path) -> int:
    """Bytes of the unfinished output: with some, the command is in the middle of it."""
    return sum(path.stat().st_size for path in directory.glob(".out.pcap.*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_stopped_by_a_signal_nothing_is_left(tmp_path: Path, number: signal.Signals) -> None:
    raw = pcap(tmp_path / "raw.pcap")
    words = ["expand", str(raw), "-o", "out.pcap", "--key", "k", "--iterations", "100000"]
    # The suite itself may run under nohup, which children inherit.
    heard = ["env", f"--default-signal={number.name.removeprefix('SIG')}"]
    process = subprocess.Popen([*heard, *PROGRAM, *words], cwd=tmp_path, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not _written(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"probebench: interrupted\n")
    assert list(tmp_path.iterdir()) == [raw]


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_kernel_that_is_loaded_is_not_left_half() -> None:
    """As if in llvmlite: whoever raises there makes it free its library twice."""
    done: list[str] = []
    namespace = {"__name__": "llvmlite.binding.executionengine", "signal": signal, "done": done}
    source = "def load():\n signal.raise_signal(signal.SIGTERM)\n done.append('whole')\n"
    exec(source, namespace)
    with pytest.raises(KeyboardInterrupt), interruptible():
        namespace["load"]()  # type: ignore[operator]
        time.sleep(5)
    assert done == ["whole"]
