"""`probebench corpus …`: captures in, captures and tables out."""

from __future__ import annotations

import typer

from harness.cli import (
    corpus_balance,
    corpus_clean,
    corpus_convert,
    corpus_flows,
    corpus_invert,
    corpus_label,
    corpus_rewrite,
    corpus_shape,
    corpus_split,
)

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Prepare replay corpora from captures.")
corpus_flows.register(app)
corpus_clean.register(app)
corpus_balance.register(app)
corpus_convert.register(app)
corpus_label.register(app)
corpus_rewrite.register(app)
corpus_shape.register(app)
corpus_split.register(app)
corpus_invert.register(app)
