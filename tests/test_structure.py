"""The walls: imports go one way, modules stay small, error trees are drawn as they are."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "pcap_tools": {"pcap_tools"},
    "lab": {"lab"},
    "harness": {"harness", "lab", "pcap_tools"},
}
MODULES = sorted(p for package in ALLOWED for p in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert imported(path) & set(ALLOWED) <= ALLOWED[package]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 410


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_the_error_tree_in_the_docstring_is_the_real_one(package: str) -> None:
    module = importlib.import_module(f"{package}.errors")
    classes = [
        c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__
    ]
    for kind in classes:
        assert kind.__name__ in (module.__doc__ or "")
        assert kind.__name__ in module.__all__
        assert kind.exit_status in (1, 2, 3, 130)


def test_the_shipped_package_needs_only_numpy_and_numba() -> None:
    # The expander's source is sent to generator hosts that have nothing else.
    lazy = {"pandas", "pyarrow"}
    for path in (ROOT / "pcap_tools").glob("*.py"):
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not imported_by(node) & (lazy | {"typer", "rich", "pydantic", "scapy"}), path


def imported_by(node: ast.Import | ast.ImportFrom) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {(node.module or "").split(".")[0]}


def test_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for path in MODULES:
        package, *rest = path.relative_to(ROOT).with_suffix("").parts
        if rest[-1] in ("__init__", "__main__") or package == "harness":
            continue
        assert f"`{rest[-1]}`" in text, path
