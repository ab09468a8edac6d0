"""The package as a library: what it exports, at what cost, and that its example runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from synth import MS, T0, Talk, merged, write_pcap

import pcap_tools
from pcap_tools.errors import PcapError

DOCS = Path(__file__).parents[2] / "docs" / "library.md"


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the example works on: raw.pcap in the working directory."""
    talks = [Talk(sport=1, start=T0).whole(), Talk(sport=2, start=T0 + 40 * MS).whole()]
    talks.append(Talk(sport=3, start=T0 + 80 * MS).open().talk())
    monkeypatch.chdir(tmp_path)
    return write_pcap(tmp_path / "raw.pcap", merged(*talks))


def test_exported_members() -> None:
    assert pcap_tools.__all__ == sorted(pcap_tools.__all__)
    assert set(pcap_tools.__all__) == {*pcap_tools._HOMES, "errors"}
    assert set(pcap_tools.__all__) <= set(dir(pcap_tools))
    for name in pcap_tools.__all__:
        value = getattr(pcap_tools, name)
        assert inspect.getdoc(value), name
        if name != "errors":
            assert value is getattr(importlib.import_module(value.__module__), name)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(pcap_tools.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    names = {
        (alias.name, (node.module or "").removeprefix("pcap_tools."))
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert names == {*pcap_tools._HOMES.items(), ("errors", "pcap_tools")}


def test_parameters_and_results_are_typed() -> None:
    for name in pcap_tools.__all__:
        value = getattr(pcap_tools, name)
        if inspect.isfunction(value):
            signature = inspect.signature(value)
            assert signature.return_annotation is not inspect.Signature.empty
            for parameter in signature.parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty
            assert len(signature.parameters) <= 8, f"{name}: too many parameters"


def fresh(code: str) -> str:
    """What another interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_costs_nothing() -> None:
    code = "import sys, pcap_tools; print([m for m in sys.modules if m[:5] in ('numba', 'numpy')])"
    assert fresh(code) == "[]"


@pytest.mark.parametrize("name", ["clean", "remap", "expand", "inspect"])
def test_a_submodule_does_not_hide_its_function(name: str) -> None:
    code = (
        f"import pcap_tools.{name}, pcap_tools; from pcap_tools import {name} as one; "
        f"from pcap_tools.{name} import {name} as two; "
        f"print(callable(pcap_tools.{name}), one is two is pcap_tools.{name})"
    )
    assert fresh(code) == "True True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        pcap_tools.nonsense  # noqa: B018
    with pytest.raises(ImportError):
        exec("from pcap_tools import nonsense")


def test_every_error_has_one_base() -> None:
    for name in pcap_tools.errors.__all__:
        assert issubclass(getattr(pcap_tools.errors, name), PcapError)


def run_examples(text: str, name: str) -> doctest.TestResults:
    test = doctest.DocTestParser().get_doctest(text, {"Path": Path}, name, name, 0)
    assert test.examples
    return doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)


def test_the_example_of_the_docstring_runs(raw: Path) -> None:
    assert pcap_tools.__doc__
    assert run_examples(pcap_tools.__doc__, "pcap_tools").failed == 0


def test_the_examples_of_the_page_run(raw: Path) -> None:
    assert run_examples(DOCS.read_text(), DOCS.name).failed == 0


def test_the_page_names_everything() -> None:
    text = DOCS.read_text()
    assert [name for name in pcap_tools.__all__ if f"`{name}" not in text] == []
