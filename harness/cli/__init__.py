"""The command line: one program, one module a command group, one place for errors.

Command modules import heavy libraries inside their functions, so that `--help` stays fast.
"""

from __future__ import annotations

import sys

import typer

from harness.errors import HarnessError
from lab.errors import LabError
from pcap_tools.errors import PcapError

__all__ = ["app", "main"]

app = typer.Typer(
    name="probebench",
    help="Benchmark harness for network detection probes (IDS sensors).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _register() -> None:
    from harness.cli import corpus, demo, lab, report, sweep

    app.add_typer(corpus.app, name="corpus")
    app.add_typer(lab.app, name="lab")
    app.add_typer(demo.app, name="demo")
    sweep.register(app)
    report.register(app)


def main() -> None:
    """Run the program; errors become one line on standard error and the right exit status."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    _register()
    try:
        app(standalone_mode=True)
    except (HarnessError, LabError, PcapError) as error:
        if debug:
            raise
        print(f"probebench: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except KeyboardInterrupt:
        print("probebench: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(141) from None
