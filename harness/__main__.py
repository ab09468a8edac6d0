"""`python -m harness` is `probebench`."""

from harness.cli import run

run()
