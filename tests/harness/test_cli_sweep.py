"""`probebench sweep`: what it refuses before it connects to anything, each in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import harness.cli
from harness.errors import HarnessError
from harness.sweep import Ledgered
from lab.errors import ConnectionLost

LAB = """
name = "l"
[hosts.gen]
connection = "ssh"
address = "192.0.2.1"
[hosts.gen.interfaces.tx0]
test = true
[hosts.sen]
connection = "ssh"
address = "192.0.2.2"
[hosts.sen.interfaces.rx0]
[generator]
host = "gen"
interface = "tx0"
[sensor]
host = "sen"
interface = "rx0"
"""
PROFILE = 'name = "p"\n[load]\nvalues = [1000]\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a profile, an inventory and a file that is taken for a corpus."""
    (tmp_path / "lab.toml").write_text(LAB)
    (tmp_path / "p.toml").write_text(PROFILE)
    (tmp_path / "corpus.pcap").write_bytes(b"not yet looked into")
    return tmp_path


def main(monkeypatch: pytest.MonkeyPatch, *argv: str | Path) -> int:
    """Run the program in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["probebench", *map(str, argv)])
    with pytest.raises(SystemExit) as ended:
        harness.cli.main()
    return int(ended.value.code or 0)


def options(place: Path, **changes: Path | str) -> list[str | Path]:
    given: dict[str, Path | str] = {
        "--lab": place / "lab.toml",
        "--corpus": place / "corpus.pcap",
        "-o": place / "run",
        **{f"--{name}": value for name, value in changes.items()},
    }
    return ["sweep", place / "p.toml", *(word for pair in given.items() for word in pair)]


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("probebench: "), lines
    return lines[0]


def refuse(*arguments: object) -> None:
    raise AssertionError("it connected")


@pytest.fixture(autouse=True)
def _nothing_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.session.connect_lab", refuse)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lab": "nowhere.toml"}, "nowhere.toml: no such inventory"),
        ({"corpus": "nowhere.pcap"}, "nowhere.pcap: no such capture"),
        ({"corpus": "/"}, "/corpus.pcap: no such capture"),
        ({"resume": "nowhere"}, "leave --out away"),
    ],
)
def test_wrong_options(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: Path,
    changes: dict[str, str],
    says: str,
) -> None:
    assert main(monkeypatch, *options(place, **changes)) == 2
    assert says in complaint(capsys)
    assert not (place / "run").exists()


def test_there_is_nothing_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    assert main(monkeypatch, "sweep", place / "p.toml", "--lab", place / "lab.toml",
                "--resume", place / "run") == 2  # fmt: skip
    assert "nothing to resume" in complaint(capsys)


def test_a_run_is_never_written_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    (place / "run").mkdir()
    (place / "run" / "run.json").write_text("{}")
    assert main(monkeypatch, *options(place)) == 2
    assert f"continue it with --resume {place / 'run'}" in complaint(capsys)


def test_a_place_that_cannot_be_written_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    assert main(monkeypatch, *options(place), "-o", place / "p.toml" / "run") == 2
    assert "is not a directory that can be written to" in complaint(capsys)


def test_a_damaged_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    (place / "run").mkdir()
    (place / "run" / "run.json").write_text('{"schema": 1')
    argv = ("sweep", place / "p.toml", "--lab", place / "lab.toml", "--corpus")
    assert main(monkeypatch, *argv, place / "corpus.pcap", "--resume", place / "run") == 2
    assert "run.json" in complaint(capsys)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "name"),
        ('name = "p"\n[load]\nvalues = []\n', "load"),
        ('name = "p"\n[load]\nvalues = [-1]\n', "positive"),
        ('name = "p"\n[load]\nrepeat = 2\n', "load.repeat"),
        ("name = ", "p.toml"),
    ],
)
def test_a_wrong_profile(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: Path,
    text: str,
    says: str,
) -> None:
    (place / "p.toml").write_text(text)
    assert main(monkeypatch, *options(place)) == 2
    assert says in complaint(capsys)


def test_a_dry_run_touches_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    assert main(monkeypatch, *options(place), "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "tcpreplay on gen, out of tx0" in printed and "pps: 1000" in printed
    assert sorted(p.name for p in place.iterdir()) == ["corpus.pcap", "lab.toml", "p.toml"]


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted; everything was stopped"),
        (ConnectionLost("gen: the connection was lost"), 3, "gen: the connection was lost"),
        (OSError(28, "No space left on device", "trials.jsonl"), 3, "trials.jsonl: No space left"),
        (HarnessError("sen: broken"), 3, "sen: broken"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_every_end_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: Path,
    error: BaseException,
    status: int,
    says: str,
    begun: bool,
) -> None:
    @contextmanager
    def session(*arguments: object) -> Iterator[None]:
        if begun:
            (place / "run").mkdir()
            (place / "run" / "run.json").write_text("{}")
        raise error
        yield

    monkeypatch.setattr("harness.session.open_session", session)
    assert main(monkeypatch, *options(place)) == status
    line = complaint(capsys)
    assert says in line
    if not isinstance(error, HarnessError):
        hint = f"--resume {place / 'run'}" if begun else "nothing was measured yet"
        assert hint in line


@pytest.mark.parametrize(
    ("outcome", "strict", "status"),
    [
        (Ledgered(2, 0, 0, 0), True, 0),
        (Ledgered(2, 0, 1, 0), False, 0),
        (Ledgered(2, 0, 1, 0), True, 1),
        (Ledgered(1, 1, 1, 1), True, 3),
    ],
)
def test_the_exit_status_tells_the_outcome(
    monkeypatch: pytest.MonkeyPatch, place: Path, outcome: Ledgered, strict: bool, status: int
) -> None:
    monkeypatch.setattr("harness.cli.sweep._sweep", lambda *arguments: outcome)
    more = ["--strict"] if strict else []
    assert main(monkeypatch, *options(place), *more, "--json") == status


def test_an_unknown_option_is_bad_usage() -> None:
    argv = [sys.executable, "-m", "harness", "sweep", "--nonsense"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--nonsense" in done.stderr and "Traceback" not in done.stderr
