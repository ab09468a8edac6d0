"""The notebook reads a run into the curves, and is committed without outputs."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from synthetic_run import Options, make_run

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "load_sweep.ipynb"


def test_it_is_committed_without_outputs() -> None:
    cells = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


def test_it_runs_on_the_sample_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROBEBENCH_RUN", raising=False)
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOK.parents[1])]))
    book = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(book, timeout=120, kernel_name="python3").execute(cwd=str(NOTEBOOK.parent))
    outputs = [o for cell in book.cells if cell.cell_type == "code" for o in cell.outputs]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 2


def test_it_runs_on_a_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run", Options(axes=("pps", "flows")))
    monkeypatch.setenv("PROBEBENCH_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOK.parents[1])]))
    book = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(book, timeout=120, kernel_name="python3").execute(cwd=str(NOTEBOOK.parent))
    outputs = [o for cell in book.cells if cell.cell_type == "code" for o in cell.outputs]
    text = "".join(o.get("text", "") for o in outputs)
    assert "suricata 7.0.10" in text
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 3  # a curve for each axis, and the ledger
    assert any("pps-open" in str(o.get("data", {}).get("text/plain")) for o in outputs)
