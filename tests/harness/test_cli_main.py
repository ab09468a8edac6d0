"""The one place where errors become one line and an exit status."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from harness import cli
from harness.errors import ConfigError, GateFailed, Interrupted
from lab.errors import ConnectError, GuardError
from pcap_tools.errors import EmptyCapture


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the program in this process with a command `fail` that raises what it is told to."""

    def run(*arguments: str, error: BaseException | None = None) -> tuple[int, str, str]:
        if error is not None:

            def fail(_: list[str]) -> int:
                raise error

            monkeypatch.setattr(cli, "_run", fail)
        monkeypatch.setattr(sys, "argv", ["probebench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err  # type: ignore[return-value]

    return run


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("p.toml: load: wrong"), 2, "p.toml: load: wrong"),
        (GateFailed("one gate"), 1, "one gate"),
        (Interrupted("stopped"), 130, "stopped"),
        (ConnectError("gen: unreachable"), 3, "gen: unreachable"),
        (GuardError("gen: refused"), 2, "gen: refused"),
        (EmptyCapture("x.pcap: empty"), 2, "x.pcap: empty"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.pcap"),
            2,
            "a.pcap: No such file or directory",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "No space left on device"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 2, "byte 0"),
        (MemoryError(), 3, "not enough memory"),
        (KeyError("surprise"), 3, "KeyError: 'surprise' (the same command with --debug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_are_one_line(program, error: BaseException, status: int, line: str) -> None:
    code, out, err = program("corpus", error=error)
    assert code == status
    assert out == ""
    assert err.startswith("probebench: ") and line in err
    assert err.count("\n") == 1


def test_debug_shows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str]) -> int:
        assert arguments == ["corpus", "inspect", "x"]
        raise ConfigError("wrong")

    monkeypatch.setattr(cli, "_run", fail)
    monkeypatch.setattr(sys, "argv", ["probebench", "corpus", "--debug", "inspect", "x"])
    with pytest.raises(ConfigError, match="wrong"):
        cli.main()


@pytest.mark.parametrize(
    ("arguments", "path", "part"),
    [
        (["--nope"], "probebench", "No such option: --nope"),
        (["swep", "x"], "probebench", "No such command 'swep'"),
        (["corpus", "clean"], "probebench corpus clean", "Missing argument 'IN...'"),
        (["corpus", "clean", "x"], "probebench corpus clean", "Missing option"),
        (["sweep"], "probebench sweep", "Missing argument"),
        (
            ["corpus", "expand", "x", "-o", "y", "--iterations", "1"],
            "probebench corpus expand",
            "'--key'",
        ),
        (
            ["corpus", "expand", "x", "-o", "y", "--key", "k", "--iterations", "0"],
            "probebench corpus expand",
            "'--iterations'",
        ),
        (["lab", "up", "--workers", "many"], "probebench lab up", "'--workers'"),
    ],
)
def test_wrong_usage_is_one_line(program, arguments: list[str], path: str, part: str) -> None:
    code, out, err = program(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"{path}: ") and part in err
    assert err.endswith(f"; see `{path} --help`\n") and err.count("\n") == 1


def test_version(program) -> None:
    assert program("--version") == (0, f"probebench {version('probebench')}\n", "")


@pytest.mark.parametrize("arguments", [[], ["corpus"], ["lab"]])
def test_no_arguments_is_help_once(program, arguments: list[str]) -> None:
    code, out, err = program(*arguments)
    assert code == 2
    assert (out + err).count("Usage:") == 1


def test_a_reader_that_leaves_is_not_an_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "harness", "--version"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
