"""The command line: one program, one module a command group, one place for errors.

Command modules import heavy libraries inside their functions, so that `--help` stays fast.
"""

from __future__ import annotations

import atexit
import copy
import functools
import gc
import os
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from harness.errors import HarnessError
from harness.signals import interruptible
from lab.errors import LabError
from pcap_tools.errors import PcapError

__all__ = ["app", "main", "run"]

_EXAMPLES = (
    "Examples: `probebench demo` (everything, on a virtual lab); "
    "`probebench corpus clean raw.pcap -o corpus.pcap`; "
    "`probebench sweep profiles/demo.toml --lab lab.toml --corpus corpus.pcap`"
)

app = typer.Typer(
    name="probebench",
    help="Benchmark harness for network detection probes (IDS sensors).",
    epilog=_EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich and its markdown took half the time of --help
    context_settings={"max_content_width": 100},
)

# Typer carries its own click since 0.20-odd and used the real one before: this is either's.
_UsageError: Any = typer.BadParameter.__base__


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"probebench {version('probebench')}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")
    ] = False,
) -> None:
    # main() acts on --debug, before anything is parsed; here it is only documented.
    pass


@functools.cache
def _register() -> None:
    from harness.cli import corpus, demo, lab, report, sweep

    app.add_typer(corpus.app, name="corpus")
    app.add_typer(lab.app, name="lab")
    app.add_typer(demo.app, name="demo")
    sweep.register(app)
    report.register(app)


def _narrowed(group: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """The group with nothing but the command that the words name; itself when they name none.

    typer reads the signature of every command before it looks for the one that is wanted, about a
    millisecond each.
    """
    if not words:
        return group
    narrow = copy.copy(group)
    for info in group.registered_groups:
        if info.name == words[0] and info.typer_instance is not None:
            wanted = copy.copy(info)
            wanted.typer_instance = _narrowed(info.typer_instance, words[1:])
            narrow.registered_groups, narrow.registered_commands = [wanted], []
            return narrow
    for command in group.registered_commands:
        if words[0] in (command.name, getattr(command.callback, "__name__", None)):
            narrow.registered_groups, narrow.registered_commands = [], [command]
            return narrow
    return group


def _start_lightly() -> None:
    """Settings that matter for the start only; where the environment says otherwise, it wins."""
    # numpy's linear algebra starts a thread a CPU, with buffers, and nothing here does any: 80 ms
    # of CPU time. pydantic would look through all installed packages for plug-ins.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Importing makes 10^5 objects that stay; collecting after every 700 costs more than 100 ms.
    gc.set_threshold(100_000, 20, 100)


def main() -> None:
    """Run the program; errors become one line on standard error and the right exit status."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    _start_lightly()
    try:
        _register()
        with interruptible():
            status = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output is gone; nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(141) from None
    except (Exception, KeyboardInterrupt) as error:
        if len(arguments) != len(sys.argv) - 1:
            raise
        line, status = _explain(error)
        print(f"probebench: {line}", file=sys.stderr)
    raise SystemExit(status)


def run() -> NoReturn:
    """`main` as a process of its own: what the program `probebench` calls.

    What was registered to be done at exit is done; the interpreter is not taken apart piece by
    piece, which after a short command takes a fifth of its time. Where threads still run, the
    ordinary way waits for them.
    """
    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, int) or threading.active_count() > 1:
            raise
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            raise end from None
        atexit._run_exitfuncs()
        os._exit(end.code)
    raise SystemExit(0)


def _run(arguments: list[str]) -> int:
    """Parse and run; usage errors are one line too, where typer would draw a box."""
    command = typer.main.get_command(_narrowed(app, arguments))
    try:
        with command.make_context("probebench", arguments) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except _UsageError as error:
        path = error.ctx.command_path if error.ctx else "probebench"
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.message, nl=False, err=True)  # empty when rich has printed the help
        else:
            message = " ".join(error.format_message().split()).rstrip(".")
            print(f"{path}: {message}; see `{path} --help`", file=sys.stderr)
        return 2
    return 0


def _explain(error: BaseException) -> tuple[str, int]:
    """One line for people, and the exit status."""
    if isinstance(error, HarnessError | LabError | PcapError):
        return str(error), error.exit_status
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", 2
    if isinstance(error, OSError):
        return f"this machine refused: {error.strerror or error}", 3
    if isinstance(error, UnicodeDecodeError):
        return f"an input is not UTF-8 text: {error.reason} at its byte {error.start}", 2
    if isinstance(error, MemoryError):
        return "not enough memory for this input; split it, or use a larger machine", 3
    return (
        f"a defect of probebench, please report it: {type(error).__name__}: {error} "
        "(the same command with --debug shows where)"
    ), 3
